package gateway.authn_test

import data.gateway.authn

_key := _input.attempt

_password := _tried("password", {"proven": true, "verified": true, "verified_by": "argon2"})

_code := _tried("keyboard-interactive", {"proven": true, "verified": true, "verified_by": "totp"})

_answers := _tried("keyboard-interactive", {"proven": true, "verified": true, "verified_by": "questions"})

_oidc(subject) := _tried("keyboard-interactive", {
	"proven": true,
	"verified": true,
	"verified_by": "oidc",
	"claims": {"provider": "corp", "preferred_username": subject},
})

_tried(method, facts) := object.union(
	{
		"method": method,
		"proven": false,
		"key": null,
		"certificate": null,
		"verified_by": "",
		"verified": false,
		"claims": {},
	},
	facts,
)

_verify := {
	"password": {"kind": "argon2"},
	"totp": {"kind": "totp", "source": "vault"},
	"oidc": {"kind": "oidc", "provider": "corp"},
	"questions": {"kind": "questions", "questions": [{"name": "why", "prompt": "Why? "}]},
}

# Asked in a world where the door has these rules, alice these of her own, and orders-db these requirements.
_judge(attempt, proofs, rules) := answer if {
	people := json.patch(data.fixtures.people, [{"op": "add", "path": "/alice/authn", "value": rules.alice}])
	targets := json.patch(data.fixtures.targets, [{"op": "add", "path": "/orders-db/require", "value": rules.require}])
	answer := authn.decision with input as _but({
		"/login/user": object.get(rules, "login", "alice"),
		"/attempt": attempt,
		"/proofs": proofs,
	})
		with data.people as people
		with data.targets as targets
		with data.authorities as object.get(rules, "authorities", {})
		with data.door as rules.door
}

_any := ["publickey", "password", "keyboard-interactive"]

_rules(changes) := object.union({"door": {"methods": _any, "verify": _verify}, "alice": {}, "require": [["publickey"]]}, changes)

_chain(chains) := _rules({"alice": {"chain": chains}})

# What is said, in short: the outcome, and what comes next.
_short(answer) := [answer.outcome, answer.methods]

# The word may have been meant for one that asks for more.
test_a_word_that_nobody_knows_lets_nobody_in_by_the_usual_chain[note] if {
	some note, rules in {
		"the door's": _rules({"door": {"chian": [["publickey", "totp"]]}}),
		"a person's": _rules({"alice": {"chian": [["publickey", "totp"]]}}),
		"a person's, beside a chain": _rules({"alice": {"chain": [["publickey"]], "require_pni": true}}),
		"the door's, beside a person's chain": _rules({"door": {"require_pni": true}, "alice": {"chain": [["publickey"]]}}),
	}
	_judge(_key, [], rules).outcome == "reject"
}

test_chains[note] if {
	some note, tc in {
		"a key is enough": [_key, [], _rules({}), ["accept", []]],
		"a key of two": [_key, [], _chain([["publickey", "totp"]]), ["continue", ["keyboard-interactive"]]],
		"the second of two": [_code, [_key], _chain([["publickey", "totp"]]), ["accept", []]],
		"the second alone": [_code, [], _chain([["publickey", "totp"]]), ["reject", _any]],
		"the second twice": [_code, [_code], _chain([["publickey", "totp"]]), ["reject", []]],
		"the first again": [_key, [_key], _chain([["publickey", "totp"]]), ["reject", ["keyboard-interactive"]]],
		"three": [_code, [_key, _password], _chain([["publickey", "password", "totp"]]), ["accept", []]],
		"two of three": [_password, [_key], _chain([["publickey", "password", "totp"]]), ["continue", ["keyboard-interactive"]]],
		"either": [_key, [], _chain([["publickey", "totp"], ["publickey", "password"]]), [
			"continue",
			["keyboard-interactive", "password"],
		]],
		"password alone": [_password, [], _chain([["password"]]), ["accept", []]],
		"not a factor of this person": [_password, [], _chain([["publickey"]]), ["reject", _any]],
		"wrong after the first": [
			_tried("keyboard-interactive", {"verified_by": "totp"}), [_key],
			_chain([["publickey", "totp"]]), ["reject", ["keyboard-interactive"]],
		],
		"an unproven proof": [_code, [object.union(_key, {"proven": false})], _chain([["publickey", "totp"]]), [
			"reject",
			_any,
		]],
		"a proof of another's": [
			_code, [json.patch(_key, [{
				"op": "add",
				"path": "/key/public_key",
				"value": data.fixtures.people.bob.keys[0],
			}])],
			_chain([["publickey", "totp"]]), ["reject", _any],
		],
		"the door's chain": [_key, [], _rules({"door": {"chain": [["publickey", "totp"]], "verify": _verify}}), [
			"continue",
			["keyboard-interactive"],
		]],
		"answers": [_answers, [_key], _chain([["publickey", "questions"]]), ["accept", []]],
		"what the named target requires": [
			_key, [], _rules({"require": [["publickey", "totp"]], "login": "alice+orders-db"}),
			["continue", ["keyboard-interactive"]],
		],
		"what the named target requires was proven": [
			_code, [_key], _rules({"require": [["publickey", "totp"]], "login": "alice+orders-db"}),
			["accept", []],
		],
		"another target's requirements": [
			_key, [], _rules({"require": [["publickey", "totp"]], "login": "alice+reports"}),
			["accept", []],
		],
	}
	_short(_judge(tc[0], tc[1], tc[2])) == tc[3]
}

test_via_says_what_was_proven if {
	answer := _judge(_code, [_key], _chain([["publickey", "totp"]]))
	answer.identity.via == ["publickey", "totp"]
}

test_chains_that_are_none_admit_nobody[note] if {
	some note, chain in {
		"null": null, "false": false, "empty": [], "an empty one": [["publickey"], []], "text": "publickey",
		"flat": ["publickey"], "unknown": [["publickey"], ["magic"]], "twice": [["publickey", "publickey"]],
	}
	every rules in [
		_chain(chain), _rules({"door": {"chain": chain}}),
		_rules({"require": chain, "login": "alice+orders-db"}),
	] {
		_judge(_key, [], rules).outcome == "reject"
	}
}

test_rules_that_are_none_admit_nobody[note] if {
	some note, rules in {"alice's": _rules({"alice": "x"}), "the door's": _rules({"door": 5})}
	_judge(_key, [], rules).outcome == "reject"
}

test_everybody_begins_alike[note] if {
	some note, tc in {
		"usually": [{"methods": []}, ["publickey"]],
		"as the door says": [{"methods": ["publickey", "password"]}, ["publickey", "password"]],
		"unknown words": [{"methods": ["hostbased", "none"]}, ["publickey"]],
		"no list": [{"methods": 5}, ["publickey"]],
		"no rules": [5, ["publickey"]],
	}
	every login in ["alice", "bob", "carol", "zoe", "alice+orders-db", "a/b", null] {
		_short(_judge(_tried("none", {}), [], object.union(_rules({"login": login}), {"door": tc[0]}))) == ["continue", tc[1]]
	}
}
