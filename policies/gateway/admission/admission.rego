# METADATA
# title: Admission
# description: |
#   What automation may write at the grants door.  Every fault is named by its field, all of them at once, so that a
#   ticketing system can show its user what to mend.
# schemas:
#   - input: schema["input.admission"]
package gateway.admission

import data.gateway.grants
import data.gateway.moments
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# description: Allow, with the value to store for a PUT, or refuse with reasons.
# entrypoint: true
decision := {"allow": count(_refusals) == 0, "reasons": [reason | some reason in _refusals], "value": _value}

default _value := null

_value := _stored if {
	input.verb == "PUT"
	count(_refusals) == 0
}

# Who asked, and when, is what the door knows and not what the client says.
_stored := object.union(input.new, _request) if is_object(input.new)

_request := {"requested_by": input.client.name, "requested_at": input.now}

_refusals contains reasons.malformed_input if not _is_complete

_refusals contains reasons.reason(
	"verb_refused",
	"The grants door takes PUT, DELETE and GET.",
	"PUT the whole grant; there is no patching.",
) if not _is_verb

_refusals contains reasons.field_reason(
	"path_refused",
	"path",
	"A grant is at grants/<person>/<id>, and both are 1 to 128 letters, digits, dots, underscores or hyphens.",
	"Use the login name as the person and, for example, the ticket's number as the id.",
) if not _is_path_right

_refusals contains reasons.field_reason("not_an_object", "", "A grant is a JSON object.", _see_schema) if {
	_is_put
	not _is_object
}

_refusals contains reasons.field_reason(
	fault.code,
	fault.field,
	$"{fault.field} {_fault_words[fault.code]}.",
	_see_schema,
) if {
	_is_put
	some fault in grants.faults(_stored)
}

_refusals contains reasons.field_reason(
	"unknown_field",
	field,
	"A grant has no such field.",
	$"Its fields are {concat(", ", grants.required)} and, if you like, ticket.",
) if {
	_is_put
	_is_object
	some field in (object.keys(input.new) - (grants.required | grants.optional))
}

_refusals contains reasons.field_reason(
	"unknown_person",
	"person",
	"There is no person of this name.",
	"Use the name that the person logs in with.",
) if {
	_is_put
	not _is_person
}

_refusals contains reasons.field_reason(
	"already_ended",
	"ends_at",
	"ends_at is in the past, so the grant would never hold.",
	"Choose a later end.",
) if {
	_is_put
	moments.ns(input.new.ends_at) <= input.now_ns
}

_refusals contains reasons.field_reason(
	"too_long",
	"ends_at",
	$"A grant for {input.new.target} may last {targets.max_grant_seconds(input.new.target)} seconds; this one is longer.",
	"Choose an earlier end; a new grant can follow when it is over.",
) if {
	_is_put
	targets.exists(input.new.target)
	_length_ns > targets.max_grant_seconds(input.new.target) * moments.second
}

_refusals contains reasons.field_reason(
	"self_approved",
	"approved_by",
	"Nobody approves a grant of their own.",
	targets.whom_to_ask(input.new.target),
) if {
	_is_put
	is_string(input.new.approved_by)
	lower(trim_space(input.new.approved_by)) == lower(input.path[1])
}

_is_complete if {
	is_number(input.now_ns)
	moments.is_moment(input.now)
	is_string(input.client.name)
}

_is_verb if input.verb in {"PUT", "DELETE", "GET"}

_is_object if is_object(input.new)

_is_person if is_object(data.people[input.path[1]])

_is_put if {
	input.verb == "PUT"
	_is_grant_path
}

_is_path_right if _is_grant_path

# Reading may be wider: one person's grants, or all.
_is_path_right if {
	input.verb == "GET"
	input.path[0] == "grants"
	is_array(input.path)
	count(input.path) < 3
	every name in input.path {
		people.is_name(name)
	}
}

_is_grant_path if {
	[root, person, id] := input.path
	root == "grants"
	people.is_name(person)
	people.is_name(id)
}

_length_ns := moments.ns(input.new.ends_at) - moments.ns(input.new.starts_at)

_fault_words := {
	"missing": "is missing",
	"wrong_type": "must be text, and not empty",
	"not_a_time": "is no time: write it as 2030-01-31T18:00:00Z",
	"ends_before_start": "is not after starts_at",
	"unknown_target": "names no target that exists",
}

_see_schema := "See the schema of a grant, data.grants.json."
