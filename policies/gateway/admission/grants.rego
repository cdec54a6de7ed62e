package gateway.admission

import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.targets

_open contains "grants"

# Who asked, and when, is what the door knows and not what the client says; so is what became of the grant since.
_filled := object.union_n([
	{"requested_by": input.client.name, "requested_at": input.now},
	_history,
	_end,
]) if {
	_root == "grants"
}

_stamps contains "requested_at"

_refusals contains reasons.field_reason(
	fault.code,
	fault.field,
	$"{fault.field} {_fault_words[fault.code]}.",
	object.get(_fault_remedies, [fault.code, fault.field], _see_schema),
) if {
	_is_grant
	some fault in grants.faults(_stored)
}

_refusals contains reasons.field_reason(
	"unknown_field",
	field,
	"A grant has no such field.",
	$"Its fields are {concat(", ", _grant_fields)}.",
) if {
	_is_grant
	is_object(input.new)
	some field in (object.keys(input.new) - _grant_fields)
}

_refusals contains reasons.field_reason(
	"unknown_person",
	"person",
	"There is no person of this name.",
	"Use the name that the person logs in with.",
) if {
	_is_grant
	not _is_person
}

_refusals contains reasons.field_reason(
	"already_ended",
	"ends_at",
	"ends_at is in the past, so the grant would never hold.",
	"Choose a later end.",
) if {
	_is_grant
	moments.ns(input.new.ends_at) <= input.now_ns
}

_refusals contains reasons.field_reason(
	"too_long",
	"ends_at",
	$"A grant for {target} may last {_longest(target)} seconds; this one is longer.",
	"Choose an earlier end; a new grant can follow when it is over.",
) if {
	_is_grant
	target := min([target | some target in grants.targets_of(input.new); _length_ns > _longest(target) * moments.second])
	targets.exists(target)
}

_longest(target) := targets.break_glass_seconds(target) if grants.is_break_glass(input.new)

else := targets.max_grant_seconds(target)

_refusals contains reasons.field_reason(
	"unknown_target",
	"targets.labels",
	"No target has these labels.",
	"Ask the platform team which labels there are.",
) if {
	_is_grant
	is_object(input.new.targets.labels)
	count(grants.targets_of(input.new)) == 0
}

_refusals contains reasons.field_reason(
	"self_approved",
	"approved_by",
	"Nobody approves a grant of their own.",
	targets.whom_to_ask(input.new.target),
) if {
	_is_grant
	is_string(input.new.approved_by)
	lower(trim_space(input.new.approved_by)) == lower(input.path[1])
}

_is_person if is_object(data.people[input.path[1]])

_is_grant if {
	_is_write
	_root == "grants"
}

_length_ns := moments.ns(input.new.ends_at) - moments.ns(input.new.starts_at)

_grant_fields := (grants.required | grants.optional) | grants.structured

_fault_words := {
	"missing": "is missing",
	"wrong_type": "is of the wrong type, or empty",
	"not_a_time": "is no time: write it as 2030-01-31T18:00:00Z",
	"ends_before_start": "is not after starts_at",
	"unknown_target": "names no target that exists",
	"target_twice": "and target exclude each other",
	"unknown_field": "is no field of it",
	"not_a_limit": "must be a whole number, 1 or more",
	"unknown_kind": "must be break_glass, or not be there",
	"no_break_glass": "is break_glass, and the target has no glass to break",
	"unknown_day": "must be of mon, tue, wed, thu, fri, sat, sun",
	"not_a_clock": "is no time of the day: write it as 09:00",
	"unknown_zone": "is no zone of the IANA database: write it as Europe/Berlin",
	"unknown_person": "names nobody",
	"too_many": "has too many entries",
}

_fault_remedies := {"missing": {"approved_by": concat(" ", [
	"This target names nobody who approves its grants, so the grant has to:",
	"doorward grants add --approved-by NAME.",
])}}

_see_schema := "See the schema of a grant, data.grants.json."
