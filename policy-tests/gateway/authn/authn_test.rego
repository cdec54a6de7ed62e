package gateway.authn_test

import data.gateway.authn

_input := data.fixtures.inputs.authn

# The input, with some values changed: {path: value}.
_but(changes) := json.patch(_input, [{"op": "add", "path": path, "value": value} | some path, value in changes])

_decide(asked) := answer if {
	answer := authn.decision with input as asked with data.people as data.fixtures.people
}

test_registered_key_is_accepted[note] if {
	some note, changes in {
		"proven": {},
		"offered": {"/attempt/proven": false},
		"with a target": {"/login/user": "alice+orders-db"},
		"with another comment": {"/attempt/key/public_key": concat(" ", [_input.attempt.key.public_key, "elsewhere"])},
		"the second key": {"/attempt/key": {"public_key": data.fixtures.people.alice.keys[1], "bits": 3072}},
	}
	_decide(_but(changes)) == {
		"outcome": "accept",
		"identity": {
			"person": "alice",
			"groups": ["oncall", "orders"],
			"via": ["publickey"],
			"key_id": "",
			"restrictions": [],
			"force_command": "",
		},
		"methods": [],
		"reasons": [],
	}
}

test_whoever_has_no_grant_still_logs_in if {
	_decide(_but({
		"/login/user": "bob",
		"/attempt/key/public_key": data.fixtures.people.bob.keys[0],
	})).identity.person == "bob"
}

test_all_the_unrecognised_get_one_answer[note] if {
	some note, changes in {
		"unknown person": {"/login/user": "zoe"},
		"disabled person": {"/login/user": "carol"},
		"wrong key": {"/attempt/key/public_key": data.fixtures.people.bob.keys[0]},
		"same base64, other type": {"/attempt/key/public_key": replace(
			_input.attempt.key.public_key,
			"ssh-ed25519",
			"ecdsa-sha2-nistp256",
		)},
		"key of unknown kind": {"/attempt/key/public_key": "ssh-new AAAA"},
		"login of another form": {"/login/user": "alice+"},
		"login that is no text": {"/login": null},
		"another method": {"/attempt/method": "password"},
		"no method": {"/attempt": {}},
		"no key": {"/attempt/key": null},
	}
	answer := _decide(_but(changes))
	answer == _decide({"schema": 1})
	answer.outcome == "reject"
	answer.identity == null
	answer.methods == ["publickey"]
	[reason] := answer.reasons
	reason.code == "not_recognised"
}

test_weak_key_is_named_whoever_holds_it[note] if {
	some note, changes in {
		"registered": {},
		"unknown person": {"/login/user": "zoe"},
		"DSA": {"/attempt/key/public_key": "ssh-dss AAAA"},
	}
	answer := _decide(_but(object.union(
		{"/attempt/key": {"public_key": data.fixtures.people.alice.keys[1], "bits": 2048}},
		changes,
	)))
	answer.outcome == "reject"
	[reason] := answer.reasons
	reason.code == "weak_key"
}

test_anything_is_decided[note] if {
	some note, asked in {"nothing": {}, "null": null, "text": "x", "list": [1]}
	_decide(asked).outcome == "reject"
}

test_everybody_reads_the_banner_whatever_becomes_of_them[note] if {
	some note, changes in {
		"asks what to do": {"/attempt": {"method": "none"}},
		"is accepted": {},
		"unknown person": {"/login/user": "zoe"},
		"disabled person": {"/login/user": "carol"},
		"wrong key": {"/attempt/key/public_key": data.fixtures.people.bob.keys[0]},
		"trapped": {"/login/user": "root"},
	}
	door := {"banner": "Authorised use only", "honeypots": {"trap": {"person": "bob", "logins": ["root"]}}}
	answer := authn.decision with input as _but(changes)
		with data.people as data.fixtures.people
		with data.door as door
	answer.banner == "Authorised use only"
}

test_a_banner_that_cannot_be_shown_keeps_nobody_out[note] if {
	some note, banner in {
		"none": null,
		"no text": 7,
		"too long": concat("", ["x" | some _ in numbers.range(1, 4097)]),
	}
	answer := authn.decision with input as _input
		with data.people as data.fixtures.people
		with data.door as {"banner": banner}
	answer.outcome == "accept"
	object.get(answer, "banner", "") == ""
}
