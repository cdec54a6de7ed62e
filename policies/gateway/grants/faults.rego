package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.targets

# METADATA
# description: What a grant must have, as text.
required := {"target", "starts_at", "ends_at", "reason", "approved_by"}

# METADATA
# description: What a grant may have besides, as text.  The grants door fills in who asked, and when.
optional := {"ticket", "requested_by", "requested_at"}

# METADATA
# description: |
#   What is wrong with a grant in itself, as a set of {"field", "code"}; empty for a well-formed one.
#   Codes: not_an_object, missing, wrong_type, not_a_time, ends_before_start, unknown_target.
faults(grant) := {{"field": "", "code": "not_an_object"}} if not is_object(grant)

faults(grant) := _missing(grant) | ((_mistyped(grant) | _untimely(grant)) | _astray(grant)) if is_object(grant)

# METADATA
# title: Grants without effect
# description: |
#   Every malformed grant: [{"person", "id", "problems"}].  It walks all grants, so it is for reports, and no decision
#   uses it.
# entrypoint: true
malformed contains {"person": person, "id": id, "problems": problems} if {
	some person, by_id in data.grants
	some id, grant in by_id
	not is_well_formed(id, grant)
	problems := [$"{fault.field}: {fault.code}" | some fault in (faults(grant) | _id_faults(id))]
}

malformed contains {"person": person, "id": "", "problems": [": not_an_object"]} if {
	some person, by_id in data.grants
	not is_object(by_id)
}

_missing(grant) := {{"field": field, "code": "missing"} |
	some field in (required - object.keys(grant))
}

_mistyped(grant) := {{"field": field, "code": "wrong_type"} |
	some field in (required | optional)
	value := grant[field]
	not _is_text(value)
}

_untimely(grant) := {{"field": field, "code": "not_a_time"} |
	some field in {"starts_at", "ends_at"}
	_is_text(grant[field])
	not moments.is_moment(grant[field])
}

_astray(grant) := {{"field": "ends_at", "code": "ends_before_start"} |
	moments.ns(grant.ends_at) <= moments.ns(grant.starts_at)
} | {{"field": "target", "code": "unknown_target"} |
	_is_text(grant.target)
	not targets.exists(grant.target)
}

_id_faults(id) := {{"field": "id", "code": "not_a_name"} | not people.is_name(id)}

_is_text(value) if {
	is_string(value)
	trim_space(value) != ""
}
