package gateway.authn

# METADATA
# title: Chains
# description: |
#   What somebody has to prove, in which order.  A chain is a list of factors, such as ["publickey", "totp"]; whoever
#   completes one of theirs is in.  A target may `require` factors of its own, which come after.
#   A factor is a word of `factors`; each proof so far, and the attempt, is one factor or none.
factors := {
	"publickey": "publickey",
	"certificate": "publickey",
	"password": "password",
	"totp": "keyboard-interactive",
	"oidc": "keyboard-interactive",
	"questions": "keyboard-interactive",
}

# METADATA
# description: |
#   Whether these are chains: a list of at least one, each of at least one factor, none twice.  Chains that are not
#   well-formed admit nobody.
are_chains(chains) if {
	is_array(chains)
	count(chains) > 0
	every chain in chains {
		is_array(chain)
		count(chain) > 0
		count({factor | some factor in chain; factors[factor]}) == count(chain)
	}
}

# What was proven before.  Undefined when one of it is not good for this person, at this moment.
_done := [factor | some proof in input.proofs; factor := _proven_factor(proof)] if {
	is_array(input.proofs)
	every proof in input.proofs {
		_proven_factor(proof)
	}
}

_proven_factor(proof) := _factor(proof) if proof.proven == true

# The same with the attempt.  Undefined when that is not good.
_here := array.concat(_done, [_factor(input.attempt)])

_is_complete if {
	some chain in _chains
	chain == _here
}

# What may come after the attempt, and what might have come in its place.
_after := _next(_here)

_next(done) := [chain[count(done)] |
	some chain in _chains
	count(chain) > count(done)
	array.slice(chain, 0, count(done)) == done
]

# The chains of this person for this target.
_chains := [array.concat(chain, more) |
	_person
	not _is_misspelt
	some chain in _own_chains
	some wanted in _required_chains
	more := [factor | some factor in wanted; not factor in chain]
]

# A word that nobody knows may have been meant for one that asks for more.
_is_misspelt if {
	some word, _ in _door
	not word in _door_words
}

_is_misspelt if {
	some word, _ in data.people[_person].authn
	not word in _person_words
}

_own_chains := chains if {
	chains := data.people[_person].authn.chain
	are_chains(chains)
}

_own_chains := _default_chains if not _has_own_chains

_has_own_chains if _is_there(data.people[_person].authn.chain)

_has_own_chains if _is_misshapen(data.people[_person].authn)

_default_chains := chains if {
	chains := object.get(_door, "chain", [["publickey"], ["certificate"]])
	are_chains(chains)
}

_required_chains := data.targets[_login.target].require if are_chains(data.targets[_login.target].require)

_required_chains := [[]] if not _has_requirements

_has_requirements if _is_there(data.targets[_login.target].require)

# What SSH calls it.  Before anything is proven it is the same for everybody, known or not.
_methods_now := _methods_for(_next(_done)) if count(_done) > 0

else := _first_methods

_methods_for(wanted) := sort({factors[factor] | some factor in wanted})

_first_methods := methods if {
	methods := [method | some method in _door.methods; method in {known | some known in factors}]
	count(methods) > 0
} else := ["publickey"]

# What holds for everybody.  Undefined when there is something of that name which says nothing.
_door := data.door if is_object(data.door)

else := {} if not _has_door

_has_door if _is_there(data.door)

_is_there(_)

_is_misshapen(entry) if not is_object(entry)
