package gateway.admission

import data.gateway.people
import data.gateway.reasons

# Where the documents of each root are: what stands after its name.
_shapes := {
	"grants": ["person", "id"],
	"approvals": ["person", "grant id", "approver"],
	"reviews": ["person", "id"],
	"roster": ["rota"],
}

_denials contains reasons.reason(
	"verb_refused",
	"The grants door takes GET, PUT, PATCH and DELETE.",
	"PUT the whole document, or PATCH it.",
) if not _is_verb

_denials contains reasons.field_reason("path_refused", "path", $"{_shown}, each 1 to 128 {_signs}.", _example) if {
	not _is_path_right
}

# A root is open once there are rules for what is in it.
_denials contains reasons.field_reason(
	"root_closed",
	"path",
	$"This policy has no rules for {_root} yet, so nobody writes there.",
	"Ask the security team for them.",
) if {
	_is_document
	input.verb in {"PUT", "PATCH", "DELETE"}
	not _is_open
}

_is_open if _root in _open

_is_verb if input.verb in {"GET", "PUT", "PATCH", "DELETE"}

_is_path_right if _is_document

# Reading may be wider: one person's grants, or all.
_is_path_right if {
	input.verb == "GET"
	count(_names) < count(_shapes[_root])
	_are_names
}

_is_document if {
	count(_names) == count(_shapes[_root])
	_are_names
}

_are_names if {
	every name in _names {
		people.is_name(name)
	}
}

_root := input.path[0] if {
	is_array(input.path)
	is_string(input.path[0])
}

_names := array.slice(input.path, 1, count(input.path)) if is_array(input.path)

default _shown := "A document is at grants/<person>/<id>, both names"

_shown := $"A document of {_root} is at {_root}/<{concat(">/<", _shapes[_root])}>" if _shapes[_root]

_signs := "letters, digits, dots, underscores or hyphens"

_example := "Use the login name as the person and, for example, the ticket's number as the id."
