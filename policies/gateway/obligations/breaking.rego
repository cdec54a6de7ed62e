package gateway.obligations

# METADATA
# title: Behind broken glass
# description: |
#   What a session behind broken glass is obliged to: to what every session at the target is, but that nobody has to join;
#   that its webhooks are told, before anything starts where the target does not say otherwise; and that all of it is
#   recorded.  Where the glass is yet to be broken (`is_new`), to a reason, and then to the grant being written:
#   `grants` is [the grant], and [] as long as there is no reason.
of_break_glass(target, is_new, grants) := array.flatten([
	[obligation | some obligation in of_session(target, []); not obligation.kind in _in_other_words(is_new)],
	[_reason_for(target) | is_new == true],
	[object.union({"kind": "notify", "required": true}, one) | some one in data.targets[target].break_glass.notify],
	_record_of_all(target),
	[{"kind": "break_glass", "grant": grant} | some grant in grants],
])

_in_other_words(true) := {"reason", "record"}

_in_other_words(false) := {"record"}

_reason_for(target) := object.union_n([
	{"kind": "reason", "prompt": "Why do you break the glass? Others will be told, and review it.", "min_length": 10},
	object.get(_oblige(target), "reason", {}),
	object.get(data.targets[target], ["break_glass", "reason"], {}),
])

_record_of_all(target) := {
	"kind": "record",
	"what": sort({what | some said in _records(target); some what in said.what}),
	"required": count([said | some said in _records(target); said.required == true]) > 0,
}

_records(target) := [
	object.get(data.targets[target], ["break_glass", "record"], {"what": ["commands", "files", "forwards", "terminal"]}),
	object.get(_oblige(target), "record", {}),
]
