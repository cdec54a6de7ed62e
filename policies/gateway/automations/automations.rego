# METADATA
# title: Automations
# description: |
#   What the data say of a client of the grants door and the admin API.  Who is not there may do nothing, and neither may
#   one whose entry holds what nobody knows: a limit that is misspelt is not held by anybody.
package gateway.automations

import data.gateway.reasons

# METADATA
# description: The members that an entry can have.
members := {"roots", "verbs", "actions", "targets", "own_only", "person", "proofs", "description"}

# METADATA
# description: What the data say of the client of this name.
entry(name) := found if {
	found := data.automations[name]
	is_object(found)
}

# METADATA
# description: Why this client may do nothing at all, however it asks.
faults(client) := {reason |
	some reason in [_unknown(client), _misconfigured(client), _unproven(client)]
	reason.code != ""
}

_fine := {"code": ""}

_unknown(client) := _fine if entry(client.name)

else := reasons.reason(
	"client_unknown",
	$"data.automations says nothing of {client.name}, so it may do nothing.",
	"Ask the security team for an entry of this name there: its roots and verbs, or its actions.",
)

_misconfigured(client) := reasons.reason(
	"client_misconfigured",
	$"The entry of {client.name} in data.automations has what nobody knows: {concat(", ", odd)}.",
	$"Ask the security team; its members are {concat(", ", members)}.",
) if {
	odd := object.keys(entry(client.name)) - members
	count(odd) > 0
} else := _fine

_unproven(client) := reasons.reason(
	"proof_refused",
	$"{client.name} may not come with a {_proof(client)}.",
	"Ask the security team: the `proofs` of its entry in data.automations.",
) if {
	proofs := entry(client.name).proofs
	not _is_among(_proof(client), proofs)
} else := _fine

_proof(client) := client.proof if is_string(client.proof)

else := "nothing"

# What is no list has no member.
_is_among(proof, proofs) if proof in proofs
