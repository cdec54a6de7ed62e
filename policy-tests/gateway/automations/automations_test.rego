package gateway.automations_test

import data.gateway.automations

test_faults_are_those_of_the_entry[note] if {
	some note, tc in {
		"fine": [{"actions": []}, {"name": "ticketing", "proof": "token"}, set()],
		"nobody": [{}, {"name": "x", "proof": "token"}, {"client_unknown"}],
		"none": [[], {"name": "ticketing", "proof": "token"}, {"client_unknown"}],
		"misspelt": [{"action": []}, {"name": "ticketing", "proof": "token"}, {"client_misconfigured"}],
		"its proof": [{"proofs": ["jwt"]}, {"name": "ticketing", "proof": "jwt"}, set()],
		"another proof": [{"proofs": ["jwt"]}, {"name": "ticketing", "proof": "token"}, {"proof_refused"}],
		"no list of proofs": [{"proofs": "jwt"}, {"name": "ticketing", "proof": "jwt"}, {"proof_refused"}],
		"no proof": [{"proofs": ["jwt"]}, {"name": "ticketing"}, {"proof_refused"}],
		"both": [{"proofs": [], "x": 1}, {"name": "ticketing"}, {"proof_refused", "client_misconfigured"}],
	}
	[entry, client, codes] := tc
	found := {fault.code | some fault in automations.faults(client)} with data.automations as {"ticketing": entry}
	found == codes
}
