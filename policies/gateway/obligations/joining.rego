package gateway.obligations

import data.gateway.people
import data.gateway.reasons

# METADATA
# title: Four eyes
# description: |
#   The obligation that somebody else joins, as [obligation], and [] where the target wants none or somebody has.
#   `answers` are those given to this session at the gateway: [{"by", "approve"}].  Those that stand in
#   `data.joins[session][approver]` count as well.
joining(target, person, session, answers) := [] if {
	_eyes(target)
	some answer in _answers(session, answers)
	answer.approve == true
	may_join(target, person, answer.by)
} else := [{
	"kind": "four_eyes",
	"approvers": _shown(_eyes(target)),
	"seconds": _eyes(target).seconds,
	"not_counted": [_not_counted(target, person, answer.by) |
		some answer in _answers(session, answers)
		not _may_join(target, person, answer.by)
	],
	"hook": object.get(_eyes(target), "hook", null),
}] if {
	_eyes(target)
} else := []

# METADATA
# title: A no
# description: The reason of the refusal by somebody who may answer; undefined where there is none.
turned_down(target, person, session, answers) := reasons.reason(
	"approval_refused",
	$"{concat(", ", sort(refusers))} refused this session.",
	"Ask them why; connect again when they agree.",
) if {
	refusers := {answer.by |
		some answer in _answers(session, answers)
		answer.approve == false
		may_join(target, person, answer.by)
	}
	count(refusers) > 0
}

# METADATA
# title: Who may join
# description: Somebody else, who is named or in a group that is, and not disabled.
may_join(target, person, by) if {
	people.is_name(by)
	by != person
	people.is_active(by)
	_is_listed(_eyes(target), by)
}

_may_join(target, person, by) if may_join(target, person, by)

_is_listed(eyes, by) if by in eyes.people

_is_listed(eyes, by) if {
	some group in eyes.groups
	group in people.groups(by)
}

_eyes(target) := _oblige(target).four_eyes

# Data that somebody wrote by hand may hold anything; only a yes and a no are answers.
_answers(session, given) := array.concat(
	[answer | some answer in given; is_string(answer.by); is_boolean(answer.approve)],
	[{"by": by, "approve": entry.approve} |
		some by, entry in data.joins[session]
		is_boolean(entry.approve)
	],
)

_not_counted(_, person, person) := reasons.reason(
	"approver_is_oneself",
	"Nobody approves their own session.",
	"Ask somebody else who may.",
)

_not_counted(_, person, by) := reasons.reason(
	"approver_disabled",
	$"{by} is unknown or disabled, so their answer does not count.",
	"Ask somebody else who may.",
) if {
	by != person
	not _is_active(by)
}

_not_counted(target, person, by) := reasons.reason(
	"approver_not_listed",
	$"{by} is none of those who may approve this.",
	$"Who may: {_shown(_eyes(target))}.",
) if {
	by != person
	_is_active(by)
}

_is_active(by) if people.is_active(by)

_shown(eyes) := concat(", or ", array.flatten([
	sort(object.get(eyes, "people", [])),
	[$"anyone of {group}" | some group in sort(object.get(eyes, "groups", []))],
]))
