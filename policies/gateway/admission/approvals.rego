package gateway.admission

import data.gateway.grants
import data.gateway.moments
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

_open contains "approvals"

# An approval is for the grant as it is now, unless it says of itself what it is for.
_filled := object.union_n([
	{"for": grants.essence(_its_grant)},
	object.filter(input.new, ["for"]),
	{"at": input.now, "recorded_by": input.client.name},
]) if {
	_root == "approvals"
	is_object(_its_grant)
}

_stamps contains "at"

_refusals contains _unknown_grant if {
	_is_approval
	not _is_grant_readable
}

_refusals contains _grant_is_over if {
	_is_approval
	_is_grant_over
}

_refusals contains reasons.field_reason(
	"self_approved",
	"approver",
	"Nobody approves a grant of their own.",
	"Ask somebody else who may.",
) if {
	_is_approval
	lower(_names[2]) == lower(_names[0])
}

_refusals contains _unknown_person("approver", _names[2]) if {
	_is_approval
	not people.is_active(_names[2])
}

_refusals contains reasons.field_reason(
	"approval_not_needed",
	"path",
	"No target of this grant asks for approvals.",
	"Say who approved it in the grant itself, as approved_by.",
) if {
	_is_approval
	_is_grant_readable
	not _asks_for_approvals
}

_refusals contains reasons.field_reason(
	"approver_not_listed",
	"approver",
	$"{_names[2]} is none of those who may approve this grant.",
	targets.whom_to_ask(min(_its_targets)),
) if {
	_is_approval
	_asks_for_approvals
	lower(_names[2]) != lower(_names[0])
	people.is_active(_names[2])
	not _may_approve
}

_refusals contains reasons.field_reason(
	"grant_changed",
	"for",
	"The grant is no longer what this approval is for.",
	"Look at the grant as it is now, and approve that, or nothing.",
) if {
	_is_approval
	_is_grant_readable
	_ := input.new.for
	input.new.for != grants.essence(_its_grant)
}

_refusals contains reasons.field_reason(
	"not_a_time",
	"expires_at",
	"expires_at is no time: write it as 2030-01-31T18:00:00Z.",
	"Leave it out, and the approval lasts as long as the grant.",
) if {
	_is_approval
	value := input.new.expires_at
	not moments.is_moment(value)
}

_refusals contains reasons.field_reason(
	"already_ended",
	"expires_at",
	"expires_at is in the past, so the approval would never hold.",
	"Choose a later one.",
) if {
	_is_approval
	moments.ns(input.new.expires_at) <= input.now_ns
}

_refusals contains _no_such_field(field, "An approval", {"expires_at", "note", "for"}) if {
	_is_approval
	is_object(input.new)
	some field in (object.keys(input.new) - {"expires_at", "note", "for", "at", "recorded_by"})
}

_refusals contains _wrong_note if {
	_root in {"approvals", "reviews"}
	_is_write
	value := input.new.note
	not _is_text(value)
}

_is_approval if {
	_is_write
	_root == "approvals"
}

_asks_for_approvals if {
	some target in _its_targets
	_ := data.targets[target].approval.by
}

_may_approve if {
	some target in _its_targets
	grants.may_approve(_names[2], target, _names[0])
}

_its_targets := grants.targets_of(_its_grant) if is_object(_its_grant)

else := set()

_is_grant_readable if grants.is_well_formed(_names[1], _its_grant)

_is_grant_over if grants.over_ns(_its_grant) <= input.now_ns

_unknown_grant := reasons.field_reason(
	"unknown_grant",
	"path",
	$"{_names[0]} has no grant {_names[1]} that can be read.",
	"Write the grant first; doorward grants list shows which there are.",
)

_grant_is_over := reasons.field_reason(
	"grant_over",
	"path",
	$"The grant {_names[1]} is over.",
	"Write a new one, under another id.",
)

_unknown_person(field, name) := reasons.field_reason(
	"unknown_person",
	field,
	$"{name} is unknown or disabled.",
	"Use the name that they log in with.",
)

_no_such_field(field, what, known) := reasons.field_reason(
	"unknown_field",
	field,
	$"{what} has no such field.",
	$"Its fields are {concat(", ", known)}.",
)

_wrong_note := reasons.field_reason("wrong_type", "note", "note must be text, and not empty.", "Leave it out, or write a sentence.")

_is_text(value) if {
	is_string(value)
	trim_space(value) != ""
}
