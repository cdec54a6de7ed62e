package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.targets
import data.gateway.windows

# METADATA
# description: What a grant must have, as text.
required := {"starts_at", "ends_at", "reason"}

# METADATA
# description: |
#   What a grant may have besides, as text.  One of `target` and `targets` it must have, and `approved_by` where nothing
#   else approves it.  The grants door fills in who asked, and when.
optional := {"target", "approved_by", "ticket", "requested_by", "requested_at", "ended_at", "ended_by", "ended_reason"}

# METADATA
# description: What a grant may have that is more than text.
structured := {"targets", "windows", "kind", "extended", "max_sessions"}

# METADATA
# description: |
#   What is wrong with a grant in itself, as a set of {"field", "code"}; empty for a well-formed one.
#   Codes: not_an_object, missing, wrong_type, not_a_time, ends_before_start, unknown_target, target_twice,
#   unknown_kind, no_break_glass, not_a_limit, and those of windows.
faults(grant) := {{"field": "", "code": "not_an_object"}} if not is_object(grant)

faults(grant) := union({
	_missing(grant),
	_mistyped(grant),
	_untimely(grant),
	_astray(grant),
	_misaimed(grant),
	_misruled(grant),
	_misworn(grant),
}) if {
	is_object(grant)
}

# METADATA
# title: Grants without effect
# description: |
#   Every malformed grant: [{"person", "id", "problems"}].  It walks all grants, so it is for reports, and no decision
#   uses it.
# entrypoint: true
malformed contains {"person": person, "id": id, "problems": problems(id, grant)} if {
	some person, by_id in data.grants
	some id, grant in by_id
	not is_well_formed(id, grant)
}

malformed contains {"person": person, "id": "", "problems": [": not_an_object"]} if {
	some person, by_id in data.grants
	not is_object(by_id)
}

# METADATA
# description: What is wrong with a grant of this id, as text.
problems(id, grant) := [$"{fault.field}: {fault.code}" | some fault in (faults(grant) | _id_faults(id))]

_missing(grant) := {{"field": field, "code": "missing"} |
	some field in (_needed_fields(grant) - object.keys(grant))
}

_needed_fields(grant) := required if "targets" in object.keys(grant)

else := required | {"target"} if is_approved_elsewhere(grant)

else := required | {"target", "approved_by"}

# METADATA
# description: Whether the grant needs no `approved_by`, since its target says what approves it, or breaking the glass does.
is_approved_elsewhere(grant) if _ := data.targets[grant.target].approval

is_approved_elsewhere(grant) if is_break_glass(grant)

_mistyped(grant) := {{"field": field, "code": "wrong_type"} |
	some field in (required | optional)
	value := grant[field]
	not _is_text(value)
}

_untimely(grant) := {{"field": field, "code": "not_a_time"} |
	some field in {"starts_at", "ends_at", "ended_at"}
	_is_text(grant[field])
	not moments.is_moment(grant[field])
}

_astray(grant) := {{"field": "ends_at", "code": "ends_before_start"} |
	moments.ns(grant.ends_at) <= moments.ns(grant.starts_at)
} | {{"field": "target", "code": "unknown_target"} |
	_is_text(grant.target)
	not targets.exists(grant.target)
}

_misaimed(grant) := {{"field": "targets", "code": "target_twice"} |
	_ := grant.target
	_ := grant.targets
} | {{"field": "targets.labels", "code": "wrong_type"} |
	value := grant.targets
	not _is_selection(value)
}

_is_selection(value) if {
	object.keys(value) == {"labels"}
	is_object(value.labels)
	count(value.labels) > 0
	every wanted in value.labels {
		_is_label(wanted)
	}
}

_is_label(wanted) if _is_text(wanted)

_is_label(wanted) if {
	is_array(wanted)
	count(wanted) > 0
	every value in wanted {
		_is_text(value)
	}
}

_misruled(grant) := windows.faults(grant.windows) if _has_windows(grant)

else := set()

# METADATA
# description: Whether it is a number of sessions that may be open at once.
is_limit(said) if {
	is_number(said)
	said >= 1
	floor(said) == said
}

_misworn(grant) := union({
	{{"field": "max_sessions", "code": "not_a_limit"} | said := grant.max_sessions; not is_limit(said)},
	{{"field": "kind", "code": "unknown_kind"} | value := grant.kind; value != "break_glass"},
	{{"field": "kind", "code": "no_break_glass"} |
		is_break_glass(grant)
		not _is_breakable(grant)
	},
	{{"field": "extended", "code": "wrong_type"} | value := grant.extended; not _is_history(value)},
})

_is_breakable(grant) if _ := data.targets[grant.target].break_glass

# It is looked at by people alone, so it need not be more than readable.
_is_history(value) if {
	is_array(value)
	every entry in value {
		is_object(entry)
	}
}

_id_faults(id) := {{"field": "id", "code": "not_a_name"} | not people.is_name(id)}

_is_text(value) if {
	is_string(value)
	trim_space(value) != ""
}
