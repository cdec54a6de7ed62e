package gateway.admission

import data.gateway.automations
import data.gateway.reasons

_denials contains fault if {
	_is_complete
	some fault in automations.faults(input.client)
}

_denials contains reasons.reason(
	"root_refused",
	$"{input.client.name} may not use {_root}.",
	"Ask the security team: the `roots` of its entry in data.automations.",
) if {
	_is_known
	_is_path_right
	not _has_root
}

_denials contains reasons.reason(
	"verb_not_yours",
	$"{input.client.name} may not {input.verb}.",
	"Ask the security team: the `verbs` of its entry in data.automations.",
) if {
	_is_known
	_is_verb
	not _has_verb
}

# Whoever comes as a person gives that person's word and nobody else's.
_denials contains reasons.reason(
	"person_not_yours",
	$"{input.client.name} may not speak for {name}.",
	"Give your own name (--by), or ask the security team: the `person` of its entry in data.automations.",
) if {
	_is_known
	input.verb != "GET"
	"person" in object.keys(_client)
	some name in _speakers
	not _is_client_person(name)
}

# Both what is there and what shall be there: nobody moves another target's grant to their own.
_denials contains reasons.reason(
	"target_not_yours",
	$"{input.client.name} may not write for {target}.",
	"Ask the security team: the `targets` of its entry in data.automations.",
) if {
	_is_limited_to_targets
	some target in _targets
	not _has_target(target)
}

_denials contains reasons.reason(
	"not_yours",
	$"Another client wrote this, and {input.client.name} may change only its own.",
	"Ask whoever wrote it, or the security team: `own_only` of its entry in data.automations.",
) if {
	_is_limited_to_its_own
	is_object(input.old)
	not _is_own
}

_client := automations.entry(input.client.name)

_is_known if _client

_is_client_person(name) if name == _client.person

# Whose word a document is, as it is and as it shall be.
_speakers contains _names[2] if _root == "approvals"

_speakers contains object.get(review, "by", "nobody") if {
	_root == "reviews"
	some review in [object.get(input, "old", null), object.get(input, "new", null)]
	is_object(review)
}

_has_root if _root in _client.roots

_has_verb if input.verb in _client.verbs

# Whatever stands there limits, also a slip of the pen: what is no list has no member.
_is_limited_to_targets if {
	input.verb != "GET"
	"targets" in object.keys(_client)
}

_has_target(target) if target in _client.targets

_targets contains _target_of(value) if {
	_root == "grants"
	some value in [object.get(input, "old", null), object.get(input, "new", null)]
	is_object(value)
}

# An approval or a review is for what its grant is for.
_targets contains _target_of(_its_grant) if _root in {"approvals", "reviews"}

default _its_grant := null

_its_grant := data.grants[_names[0]][_names[1]]

# Nobody's target is another one's, so a rota is for who is not limited.
_targets contains "a rota" if _root == "roster"

_target_of(value) := value.target if is_string(value.target)

_target_of(value) := "no target" if not _has_target_text(value)

_has_target_text(value) if is_string(value.target)

_is_limited_to_its_own if {
	input.verb != "GET"
	object.get(_client, "own_only", false) != false
}

_is_own if input.old.requested_by == input.client.name
