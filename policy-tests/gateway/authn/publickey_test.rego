package gateway.authn_test

import data.gateway.authn

_sk := "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIHRlc3Q="

_hardware(facts) := json.patch(_key, [{"op": "add", "path": "/key", "value": object.union(
	{
		"type": "sk-ssh-ed25519@openssh.com",
		"fingerprint": "SHA256:sk",
		"public_key": _sk,
		"bits": null,
		"touched": true,
		"pin_verified": false,
	},
	facts,
)}])

_with_hardware(attempt, door, own) := answer if {
	people := {"alice": {"keys": [_sk], "authn": own}}
	answer := authn.decision with input as _but({"/attempt": attempt})
		with data.people as people
		with data.door as door
}

test_hardware_keys_are_used_as_they_have_to_be[note] if {
	some note, tc in {
		"touched": [{}, {}, {}, "accept"],
		"not touched": [{"touched": false}, {}, {}, "reject"],
		"not known to be touched": [{"touched": null}, {}, {}, "reject"],
		"touch is not asked for": [{"touched": false}, {"require_touch": false}, {}, "accept"],
		"touch is asked of this person": [{"touched": false}, {"require_touch": false}, {"require_touch": true}, "reject"],
		"touch is not asked of this person": [{"touched": false}, {"require_touch": true}, {"require_touch": false}, "accept"],
		"a slip of the pen": [{"touched": false}, {"require_touch": "no"}, {}, "reject"],
		"without PIN": [{}, {"require_pin": true}, {}, "reject"],
		"with PIN": [{"pin_verified": true}, {"require_pin": true}, {}, "accept"],
		"hardware is needed": [{}, {"require_hardware_key": true}, {}, "accept"],
	}
	_with_hardware(_hardware(tc[0]), tc[1], tc[2]).outcome == tc[3]
}

test_an_offered_hardware_key_was_not_used_yet if {
	offered := object.union(_hardware({"touched": null, "pin_verified": null}), {"proven": false})
	_with_hardware(offered, {"require_pin": true}, {}).outcome == "accept"
}

test_only_the_owner_is_told_how_to_use_it if {
	[own] := _with_hardware(_hardware({"touched": false}), {}, {}).reasons
	own.code == "hardware_key_needed"
	[other] := _judge(_hardware({"touched": false}), [], _rules({})).reasons
	other.code == "not_recognised"
}

test_a_soft_key_is_not_enough_where_hardware_is_needed if {
	answer := _judge(_key, [], _rules({"door": {"require_hardware_key": true}}))
	answer.outcome == "reject"
	[reason] := answer.reasons
	reason.code == "hardware_key_needed"
}

_listed := {"publickey": {"kind": "key_list", "url": "https://keys.example/{person}.keys", "stale_seconds": 60}}

_foreign := json.patch(_key, [{"op": "add", "path": "/key/public_key", "value": data.fixtures.people.bob.keys[0]}])

test_keys_are_looked_up_for_everybody_alike[note] if {
	some note, tc in {
		"alice": ["alice", "alice"], "alice and her target": ["alice+orders-db", "alice"], "nobody we know": ["zoe", "zoe"],
		"disabled": ["carol", "carol"], "no name": ["a/b", "unknown"], "not even text": [null, "unknown"],
	}
	answer := _judge(_foreign, [], _rules({"door": {"verify": _listed}, "login": tc[0]}))
	answer.outcome == "continue"
	answer.verify == {"kind": "key_list", "url": $"https://keys.example/{tc[1]}.keys", "stale_seconds": 60}
}

test_listed_keys[note] if {
	found := {"verified": true, "verified_by": "key_list"}
	some note, tc in {
		"on the list and signed": [found, "alice", "accept"],
		"on the list and offered": [object.union(found, {"proven": false}), "alice", "accept"],
		"not on the list": [{"verified": false, "verified_by": "key_list", "proven": false}, "alice", "reject"],
		"on another kind of list": [{"verified": true, "verified_by": "webhook"}, "alice", "reject"],
		"of nobody we know": [found, "zoe", "reject"],
		"of a disabled person": [found, "carol", "reject"],
	}
	_judge(object.union(_foreign, tc[0]), [], _rules({"door": {"verify": _listed}, "login": tc[1]})).outcome == tc[2]
}

test_a_registered_key_is_not_looked_up if {
	_judge(_key, [], _rules({"door": {"verify": _listed}})).outcome == "accept"
}

test_after_the_key_no_key_is_looked_up if {
	rules := _rules({"door": {"verify": _listed}, "alice": {"chain": [["publickey", "totp"]]}})
	_judge(_foreign, [_key], rules).outcome == "reject"
}
