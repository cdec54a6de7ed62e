package gateway.authn

import data.gateway.people

# METADATA
# title: What nobody can log in by
# description: |
#   What is wrong with the data that authentication reads: [{"entry", "problem"}].  For reports: it walks all people.
#   `input.verifiers` are the kinds of verification that the gateway has, where it says so.
# entrypoint: true
malformed contains _entry("door", "it is no object") if not _door

malformed contains _entry("door", $"{word} is no word of it") if {
	some word, _ in _door
	not word in _door_words
}

malformed contains _entry("door", "oidc_claim is no text") if {
	_is_there(_door.oidc_claim)
	not is_string(_door.oidc_claim)
}

malformed contains _entry("door", "its chain is none") if {
	_is_there(_door.chain)
	not are_chains(_door.chain)
}

malformed contains _entry("door", $"honeypot {name}: {honeypot.person} is not in people, or disabled") if {
	some name, honeypot in _door.honeypots
	not people.is_active(honeypot.person)
}

malformed contains _entry("door", problem) if {
	some problem in _unverifiable with input as object.union(_having, {"login": {"user": "-"}})
}

malformed contains _entry($"people/{person}", "authn is no object") if {
	some person, entry in data.people
	_is_misshapen(entry.authn)
}

malformed contains _entry($"people/{person}", $"{word} is no word of authn") if {
	some person, entry in data.people
	is_object(entry.authn)
	some word, _ in entry.authn
	not word in _person_words
}

malformed contains _entry($"people/{person}", "verify is no object") if {
	some person, entry in data.people
	_is_misshapen(entry.authn.verify)
}

malformed contains _entry($"people/{person}", "its chain is none") if {
	some person, entry in data.people
	_is_there(entry.authn.chain)
	not are_chains(entry.authn.chain)
}

malformed contains _entry($"people/{person}", problem) if {
	some person, entry in data.people
	is_object(entry.authn)
	some problem in _unverifiable with input as object.union(_having, {"login": {"user": person}})
}

malformed contains _entry($"authorities/{name}", problem) if {
	some name, authority in data.authorities
	is_object(authority)
	some found in json.match_schema(authority, authority_shape)[1]
	problem := found.error
}

malformed contains _entry($"authorities/{name}", "it is no object") if {
	some name, authority in data.authorities
	not is_object(authority)
}

_entry(entry, problem) := {"entry": entry, "problem": problem}

_having := {"verifiers": input.verifiers} if is_array(input.verifiers)

else := {}

# For the person who is in the question, or nobody.
_unverifiable contains $"{factor} is in a chain, and nothing says how it is verified, or it does not fit" if {
	some factor in _factors_in_use
	not factor in {"publickey", "certificate"}
	not _verification_for(factor)
}

_unverifiable contains $"{factor} is verified by {kind}, which this gateway has not set up" if {
	some factor in _factors_in_use
	kind := _verification_for(factor).kind
	is_array(input.verifiers)
	not kind in input.verifiers
}

_unverifiable contains $"nobody can begin with {chain[0]}: {factors[chain[0]]} is not among the door's methods" if {
	some chain in _chains_in_use
	not factors[chain[0]] in _first_methods
}

_factors_in_use := {factor | some chain in _chains_in_use; some factor in chain}

_chains_in_use := _own_chains if _person

else := _default_chains

_door_words := {
	"banner", "methods", "chain", "verify", "require_touch", "require_pin", "require_hardware_key", "oidc_claim",
	"oidc_groups", "honeypots",
}

_person_words := {
	"chain", "verify", "require_touch", "require_pin", "require_hardware_key", "principals", "oidc_subject",
}
