package gateway.targets

import data.gateway.reasons

# METADATA
# title: Restrictions
# description: |
#   What is closed at the target for now, as kinds of request: what it says under `restrict`.  Where that cannot be read
#   it is everything that can be closed, since a misspelt word must not leave open what it was to close.
dropped(name) := {kind | some word in _restrict(name).drop; some kind in _droppable[word]} if _is_restrict_readable(name)

else := {kind | some kinds in _droppable; some kind in kinds} if _ := _restrict(name)

else := set()

# METADATA
# description: Why it is closed, given that something is.
restriction(name) := reasons.reason(
	"restricted",
	$"Closed here for now: {concat(", ", sort({word | some word in restrict.drop}))}. {restrict.reason}",
	whom_to_ask(name),
) if {
	restrict := _restrict(name)
	_is_restrict_readable(name)
}

else := reasons.reason(
	"restricted",
	"Forwards and sftp are closed here for now.",
	whom_to_ask(name),
)

_restrict(name) := data.targets[name].restrict

_is_restrict_readable(name) if {
	is_object(_restrict(name))
	json.match_schema(_restrict(name), _restriction)[0]
}

_restriction := _object(["drop", "reason"], {
	"drop": {"type": "array", "minItems": 1, "maxItems": 20, "items": {"enum": [word | some word, _ in _droppable]}},
	"reason": {"type": "string", "pattern": `\S`, "maxLength": 300},
})

# The words for it, each with the kinds of request that it closes.
_droppable := object.union(
	{kind: {kind} | some kind in _forwards},
	{"forwards": _forwards, "sftp": {"sftp"}},
)

_forwards := {
	"direct-tcpip", "direct-streamlocal@openssh.com", "tcpip-forward", "streamlocal-forward@openssh.com", "x11-req",
	"auth-agent-req@openssh.com",
}
