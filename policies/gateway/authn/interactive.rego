package gateway.authn

import data.gateway.people

# METADATA
# title: Keyboard-interactive
# description: |
#   The factors that are a dialogue.  Which one is asked for follows from the chain; of two chains that differ only
#   there, the first.  Whoever is not known is led through the dialogue that everybody begins with.
dialogues := ["totp", "oidc", "questions", "password"]

_factor(attempt) := attempt.verified_by if {
	_person
	attempt.method == "keyboard-interactive"
	attempt.proven == true
	attempt.verified == true
	attempt.verified_by in {"totp", "questions"}
}

_factor(attempt) := "oidc" if {
	attempt.method == "keyboard-interactive"
	attempt.proven == true
	attempt.verified == true
	attempt.verified_by == "oidc"
	attempt.claims.provider == _verification_for("oidc").provider
	_is_claimed(attempt.claims)
}

# Somebody logged in at the provider: it has to be this person.
_is_claimed(claims) if {
	is_string(claims[_oidc_claim])
	claims[_oidc_claim] == _oidc_subject
	_is_vouched_for(claims)
}

# An address that nobody has checked is only what somebody says of themselves.
_is_vouched_for(_) if _oidc_claim != "email"

_is_vouched_for(claims) if claims.email_verified == true

_oidc_subject := data.people[_person].authn.oidc_subject if _is_there(data.people[_person].authn.oidc_subject)

else := _person

# Only where nothing is said the usual one: people may choose that name themselves at some providers.
_oidc_claim := _door.oidc_claim if _is_there(_door.oidc_claim)

else := "preferred_username"

# The groups that the door gives to those who are in a group at the provider.  They are of what was proven alone.
_claimed_groups := {group |
	some proof in array.concat(input.proofs, [input.attempt])
	_factor(proof) == "oidc"
	some claimed in proof.claims.groups
	some group in _door.oidc_groups[proof.claims.provider][claimed]
	people.is_name(group)
}

_factor_to_verify := _dialogue if input.attempt.method == "keyboard-interactive"

_dialogue := _next_dialogues[0] if count(_next_dialogues) > 0

else := _first_dialogues[0] if count(_done) == 0

_next_dialogues := [factor | some factor in _next(_done); factor in dialogues]

_first_dialogues := [factor |
	some factor in array.concat([chain[0] | some chain in _default_chains], dialogues)
	factor in dialogues
	_verification_for(factor)
]

_may_come_now(factor) if factor in _next(_done)

_may_come_now(_) if count(_done) == 0
