# METADATA
# title: Admission
# description: |
#   What automation may write at the grants door.  `rights.rego` says what this client may do at all, `paths.rego` where
#   documents are, and a file for each root what one may say (`grants.rego`).  Every fault is named by its field, all of
#   them at once, so that a ticketing system can show its user what to mend.
#
#   A file for another root adds to `_open`, `_filled`, `_stamps` and `_refusals`, each under `_root == "<root>"`.
# schemas:
#   - input: schema["input.admission"]
package gateway.admission

import data.gateway.contract
import data.gateway.copies
import data.gateway.moments
import data.gateway.reasons

# METADATA
# description: |
#   Allow, with the value to store for a PUT or a PATCH, or refuse with reasons.  What may not be done at all is told
#   first, and alone.
# entrypoint: true
decision := {"allow": count(_reasons) == 0, "reasons": [reason | some reason in _reasons], "value": _value}

_reasons := _denials if count(_denials) > 0

_reasons := _refusals if count(_denials) == 0

default _value := null

_value := _stored if {
	_is_write
	count(_reasons) == 0
}

# What was sent with what the door knows.  Said again, word by word and by the same client, it is the first one's: a
# request that had to be repeated changes nothing.
_stored := _said if not _is_repeated

_stored := input.old if _is_repeated

_said := object.union(input.new, _filled) if is_object(input.new)

_is_repeated if {
	is_object(input.old)
	object.remove(_said, _stamps) == object.remove(input.old, _stamps)
}

_denials contains contract.unanswerable if not _is_complete

_denials contains copies.overwritten if {
	copies.is_copy
	input.verb != "GET"
}

_refusals contains reasons.field_reason("not_an_object", "", "A document is a JSON object.", "See its schema.") if {
	_is_write
	not _is_object
}

_is_object if is_object(input.new)

_is_complete if {
	contract.is_spoken
	is_number(input.now_ns)
	moments.is_moment(input.now)
	is_string(input.client.name)
}

_is_write if {
	input.verb in {"PUT", "PATCH"}
	_is_document
}
