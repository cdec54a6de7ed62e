package gateway.copies

# METADATA
# title: What a copy is made of
# description: |
#   The data of this OPA for another one, by root: all of it, or what is in `input.roots`, where the other has its own of
#   the rest.  It may be judged by for `input.seconds` from now, a minute where nothing is said, and never for more than
#   a day.  Undefined where this OPA is a copy itself, and where `data.door` has a member that is null.
#
#   Roots are written one by one in the order of their names.  So `copied` is there before anything that lets somebody
#   in, and `watermark` only after all of it.
# entrypoint: true
taken := object.union({root: _taken(root) | some root in _roots; _is_wanted(root)}, _age) if {
	not is_copy
	not _has_null_in_door
}

_age := {
	"copied": {"at_ns": _now_ns},
	"watermark": {"taken_at_ns": _now_ns, "usable_until_ns": _now_ns + (min([_seconds, 86400]) * 1000000000)},
}

_has_null_in_door if _has_null(_stored.door)

# METADATA
# description: What is written at a copy.
roots := {root | some root in array.concat(_roots, ["copied", "watermark"])}

_roots := [
	"approvals", "authorities", "automations", "door", "grants", "joins", "people", "reviews", "roster", "targets",
]

_is_wanted(root) if root in input.roots

_is_wanted(_) if not input.roots

# Each by its name: a copy has no rule of the policies among its data.
_stored["approvals"] := data.approvals

_stored["authorities"] := data.authorities

_stored["automations"] := data.automations

_stored["door"] := data.door

_stored["grants"] := data.grants

_stored["joins"] := data.joins

_stored["people"] := data.people

_stored["reviews"] := data.reviews

_stored["roster"] := data.roster

_stored["targets"] := data.targets

# A root that was removed at the source is empty at the copy.
_taken(root) := object.get(_stored, root, {}) if not _has_null_somewhere(root)

# What carries them may drop members that are null, and what is malformed with one may be well-formed without it: so
# whatever has one is not there at all.
else := {name: document | some name, document in _stored[root]; not _has_null(document)}

_has_null_somewhere(root) if _has_null(_stored[root])

_has_null(document) if contains(json.marshal(document), `":null`)

_now_ns := time.now_ns()

_seconds := input.seconds if {
	is_number(input.seconds)
	input.seconds > 0
} else := 60
