package gateway.authn_test

import data.gateway.authn

_found(door, alice, authorities, asked) := {fault |
	some fault in authn.malformed with input as asked
		with data.people as {"alice": {"keys": [], "authn": alice}, "bob": {"keys": []}, "carol": {"disabled": true}}
		with data.door as door
		with data.authorities as authorities
}

test_data_that_fits_is_not_reported if {
	_found(data.fixtures.door, {}, data.fixtures.authorities, {}) == {{
		"entry": "door",
		"problem": "honeypot trap: bait is not in people, or disabled",
	}}
	_found({}, {}, {}, {}) == set()
	everybody := authn.malformed with input as {"verifiers": ["vault_password", "totp", "oidc", "key_list", "questions"]}
		with data.people as data.fixtures.people
		with data.door as data.fixtures.door
		with data.authorities as data.fixtures.authorities
	everybody == set()
}

test_what_cannot_work_is_reported[note] if {
	some note, tc in {
		"no rules": [5, {}, {}, "door", "it is no object"],
		"a word nobody knows": [{"chains": []}, {}, {}, "door", "chains is no word of it"],
		"no chain": [{"chain": []}, {}, {}, "door", "its chain is none"],
		"a bait nobody knows": [
			{"honeypots": {"a": {"person": "carol"}}}, {}, {},
			"door", "honeypot a: carol is not in people, or disabled",
		],
		"nothing verifies": [
			{"chain": [["publickey", "totp"]]}, {}, {},
			"door", "totp is in a chain, and nothing says how it is verified, or it does not fit",
		],
		"nobody can begin": [
			{"chain": [["password"]], "verify": {"password": {"kind": "argon2"}}}, {}, {},
			"door", "nobody can begin with password: password is not among the door's methods",
		],
		"a kind that is not set up": [
			{"chain": [["publickey", "password"]], "verify": {"password": {"kind": "webhook", "name": "x"}}}, {}, {},
			"door", "password is verified by webhook, which this gateway has not set up",
		],
		"a claim": [{"oidc_claim": ["sub"]}, {}, {}, "door", "oidc_claim is no text"],
		"a person's ways": [{}, {"verify": "argon2"}, {}, "people/alice", "verify is no object"],
		"a person's way": [
			{"chain": [["password"]], "methods": ["password"], "verify": {"password": {"kind": "argon2"}}},
			{"verify": {"password": "argon2"}}, {},
			"people/alice", "password is in a chain, and nothing says how it is verified, or it does not fit",
		],
		"a person's rules": [{}, "x", {}, "people/alice", "authn is no object"],
		"a person's word": [{}, {"chains": []}, {}, "people/alice", "chains is no word of authn"],
		"a person's chain": [{}, {"chain": ["totp"]}, {}, "people/alice", "its chain is none"],
		"a person's factor": [
			{}, {"chain": [["publickey", "oidc"]]}, {},
			"people/alice", "oidc is in a chain, and nothing says how it is verified, or it does not fit",
		],
		"an authority that is none": [{}, {}, {"corp": "x"}, "authorities/corp", "it is no object"],
		"an authority": [{}, {}, {"corp": {"public_key": 5}}, "authorities/corp", "public_key: Invalid type. Expected: string, given: integer"],
	}
	{"entry": tc[3], "problem": tc[4]} in _found(tc[0], tc[1], tc[2], {"verifiers": ["argon2"]})
}
