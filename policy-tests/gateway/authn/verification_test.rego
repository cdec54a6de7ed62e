package gateway.authn_test

_asking(method) := _tried(method, {})

_wanted(attempt, door, own, login) := object.get(
	_judge(attempt, [], _rules({"door": {"verify": door}, "alice": {"verify": own}, "login": login})),
	"verify", null,
)

test_passwords_are_verified_for_everybody_alike[note] if {
	some note, tc in {
		"hash": [{"kind": "argon2"}, {"kind": "argon2"}],
		"vault": [{"kind": "vault_password"}, {"kind": "vault_password"}],
		"ldap": [
			{"kind": "vault_password", "backend": "ldap", "mount": "corp/ldap"},
			{"kind": "vault_password", "backend": "ldap", "mount": "corp/ldap"},
		],
		"webhook": [{"kind": "webhook", "name": "old", "authz": true}, {"kind": "webhook", "name": "old", "authz": true}],
	}
	every login, name in {"alice": "alice", "zoe": "zoe", "carol": "carol", "a b": "unknown"} {
		_wanted(_asking("password"), {"password": tc[0]}, {}, login) == object.union(tc[1], {"username": name})
	}
}

test_a_person_can_have_a_way_of_their_own if {
	own := {"password": {"kind": "argon2", "username": "al"}}
	_wanted(_asking("password"), _verify, own, "alice") == {"kind": "argon2", "username": "al"}
}

test_a_way_that_does_not_fit_is_none[note] if {
	some note, way in {
		"empty kind": {"kind": ""},
		"unknown kind": {"kind": "magic"}, "kind of another factor": {"kind": "totp", "source": "local"},
		"an unknown word": {"kind": "argon2", "hash": "x"}, "wrong type": {"kind": "argon2", "username": 5}, "text": "argon2",
		"null": null, "slash in the name": {"kind": "argon2", "username": "a/b"}, "odd mount": {"kind": "vault_password", "mount": "/x"},
	}
	_wanted(_asking("password"), {"password": way}, {}, "alice") == null
	_wanted(_asking("password"), _verify, {"password": way}, "alice") == null
}

test_a_person_s_ways_that_are_none_are_not_the_door_s[note] if {
	some note, ways in {"text": "argon2", "list": [{"kind": "argon2"}], "null": null, "no": false}
	_wanted(_asking("password"), _verify, ways, "alice") == null
}

test_dialogues[note] if {
	totp := {"kind": "totp", "source": "vault", "account": "alice"}
	some note, tc in {
		"the first of the person's chains": [[["publickey"], ["totp"], ["oidc"]], "alice", totp],
		"provider": [[["oidc"]], "alice", _verify.oidc],
		"questions": [[["questions"]], "alice", _verify.questions],
		"a password": [[["password"]], "alice", {"kind": "argon2", "username": "alice"}],
		"none in the chain": [[["publickey"]], "alice", {"kind": "totp", "source": "vault", "account": "alice"}],
		"nobody we know": [[["oidc"]], "zoe", {"kind": "totp", "source": "vault", "account": "zoe"}],
	}
	rules := {"alice": {"chain": tc[0]}, "login": tc[1]}
	_judge(_asking("keyboard-interactive"), [], _rules(rules)).verify == tc[2]
}

test_the_unknown_are_led_as_the_door_begins if {
	rules := _rules({"door": {"chain": [["publickey"], ["oidc"]], "verify": _verify}, "login": "zoe"})
	_judge(_asking("keyboard-interactive"), [], rules).verify == _verify.oidc
}

test_what_comes_after_is_the_person_s_own if {
	_judge(_asking("keyboard-interactive"), [_key], _chain([["publickey", "oidc"]])).verify == _verify.oidc
	_judge(_asking("password"), [_key], _chain([["publickey", "password"]])).verify.kind == "argon2"
	_judge(_asking("password"), [_key], _chain([["publickey", "totp"]])).outcome == "reject"
	_judge(_asking("keyboard-interactive"), [_key], _chain([["publickey", "password", "oidc"]])).outcome == "reject"
	_judge(_asking("keyboard-interactive"), [_key], _chain([["publickey"]])).outcome == "reject"
}

test_nothing_is_verified_twice[note] if {
	some note, attempt in {
		"wrong": _tried("password", {"verified_by": "argon2"}),
		"right, of nobody": object.union(_password, {"verified_by": "webhook"}),
	}
	_judge(attempt, [], _chain([["password"]])).outcome == "reject"
}

test_passwords[note] if {
	some note, tc in {
		"right": [_password, "alice", "accept"],
		"over a dialogue": [object.union(_password, {"method": "keyboard-interactive"}), "alice", "accept"],
		"wrong": [_tried("password", {"verified_by": "argon2"}), "alice", "reject"],
		"verified but not proven": [object.union(_password, {"proven": false}), "alice", "reject"],
		"proven but not verified": [object.union(_password, {"verified": false}), "alice", "reject"],
		"of nobody we know": [_password, "zoe", "reject"],
		"of a disabled person": [_password, "carol", "reject"],
	}
	rules := {"door": {"chain": [["password"]], "verify": _verify}, "login": tc[1]}
	_judge(tc[0], [], _rules(rules)).outcome == tc[2]
}

test_the_no_of_a_webhook_s_authz_is_a_no[note] if {
	some note, tc in {
		"yes": [{"authz": true}, {"authz": true}, "accept"],
		"no": [{"authz": true}, {"authz": false}, "reject"],
		"nothing said": [{"authz": true}, {}, "reject"],
		"something else said": [{"authz": true}, {"authz": "yes"}, "reject"],
		"not asked": [{}, {}, "accept"],
		"not asked, and no": [{"authz": false}, {"authz": false}, "accept"],
	}
	asking := object.union({"kind": "webhook", "name": "old"}, tc[0])
	claims := object.union({"authenticated_username": "alice"}, tc[1])
	said := {"verified_by": "webhook", "verified": true, "proven": true, "claims": claims}
	rules := _rules({"door": {"chain": [["password"], ["publickey"]], "verify": {"password": asking, "publickey": asking}}})
	_judge(object.union(_password, said), [], rules).outcome == tc[2]
	_judge(object.union(_foreign, said), [], rules).outcome == tc[2]
}

test_whom_a_webhook_authenticated_has_to_be_whom_it_was_asked_for[note] if {
	some note, tc in {
		"her": [{}, {"authenticated_username": "alice"}, "accept"],
		"somebody else": [{}, {"authenticated_username": "bob"}, "reject"],
		"nobody": [{}, {}, "reject"],
		"her other name": [{"username": "alice@corp"}, {"authenticated_username": "alice@corp"}, "accept"],
		"not her other name": [{"username": "alice@corp"}, {"authenticated_username": "alice"}, "reject"],
	}
	asking := object.union({"kind": "webhook", "name": "old"}, tc[0])
	said := {"verified_by": "webhook", "verified": true, "proven": true, "claims": tc[1]}
	rules := _rules({"door": {"chain": [["password"], ["publickey"]], "verify": {"password": asking, "publickey": asking}}})
	_judge(object.union(_password, said), [], rules).outcome == tc[2]
	_judge(object.union(_foreign, said), [], rules).outcome == tc[2]
}

test_codes_and_answers_are_of_somebody[note] if {
	some note, attempt in {"code": _code, "answers": _answers, "login": _oidc("zoe")}
	chain := [["totp"], ["questions"], ["oidc"]]
	_judge(attempt, [], _rules({"door": {"chain": chain, "verify": _verify}, "login": "zoe"})).outcome == "reject"
}

test_who_logged_in_elsewhere_has_to_be_this_person[note] if {
	some note, tc in {
		"by name": [_oidc("alice"), {}, {}, "accept"],
		"somebody else": [_oidc("bob"), {}, {}, "reject"],
		"by another value": [_oidc("a.lice"), {}, {"oidc_subject": "a.lice"}, "accept"],
		"by name where another value is said": [_oidc("alice"), {}, {"oidc_subject": "a.lice"}, "reject"],
		"by another claim": [
			object.union(_oidc("x"), {"claims": {"sub": "f00d"}}),
			{"oidc_claim": "sub"}, {"oidc_subject": "f00d"}, "accept",
		],
		"by an address that was checked": [
			object.union(_oidc("x"), {"claims": {"email": "a@x.example", "email_verified": true}}),
			{"oidc_claim": "email"}, {"oidc_subject": "a@x.example"}, "accept",
		],
		"not by an address that was not checked": [
			object.union(_oidc("x"), {"claims": {"email": "a@x.example", "email_verified": false}}),
			{"oidc_claim": "email"}, {"oidc_subject": "a@x.example"}, "reject",
		],
		"not by an address of which nothing is said": [
			object.union(_oidc("x"), {"claims": {"email": "a@x.example"}}),
			{"oidc_claim": "email"}, {"oidc_subject": "a@x.example"}, "reject",
		],
		"not by the usual claim where a claim is said that is none": [_oidc("alice"), {"oidc_claim": ["sub"]}, {}, "reject"],
		"not by the usual claim where none is said": [_oidc("alice"), {"oidc_claim": null}, {}, "reject"],
		"not by a list": [object.union(_oidc("x"), {"claims": {"provider": "corp", "preferred_username": ["alice"]}}), {}, {}, "reject"],
		"at another provider": [object.union(_oidc("alice"), {"claims": {"provider": "hub"}}), {}, {}, "reject"],
		"nothing claimed": [object.union(_oidc("x"), {"claims": {}}), {}, {}, "reject"],
	}
	rules := {
		"door": object.union({"chain": [["oidc"]], "verify": _verify}, tc[1]),
		"alice": tc[2],
	}
	_judge(tc[0], [], _rules(rules)).outcome == tc[3]
}

test_groups_at_the_provider_become_groups_here[note] if {
	given := {"corp": {"sre": ["dba", "oncall"], "staff": ["readers"]}, "hub": {"sre": ["admin"]}}
	some note, tc in {
		"one": [["sre"], given, ["oncall", "orders", "dba"]],
		"two": [["staff", "sre"], given, ["oncall", "orders", "dba", "readers"]],
		"one that is nothing here": [["other"], given, ["oncall", "orders"]],
		"none": [[], given, ["oncall", "orders"]],
		"no list": ["sre", given, ["oncall", "orders"]],
		"nothing is given": [["sre"], {}, ["oncall", "orders"]],
		"what is given is no list": [["sre"], {"corp": {"sre": "dba"}}, ["oncall", "orders"]],
		"what is given is no name": [["sre"], {"corp": {"sre": ["a b", 5, "dba"]}}, ["oncall", "orders", "dba"]],
		"what is given is nonsense": [["sre"], "dba", ["oncall", "orders"]],
	}
	login := object.union(_oidc("alice"), {"claims": {"groups": tc[0]}})
	rules := _rules({"door": {"chain": [["oidc"]], "verify": _verify, "oidc_groups": tc[1]}})
	_judge(login, [], rules).identity.groups == tc[2]
}

test_groups_count_also_when_a_code_came_after if {
	login := object.union(_oidc("alice"), {"claims": {"groups": ["sre"]}})
	rules := _rules({"door": {
		"chain": [["oidc", "totp"], ["totp"]], "verify": _verify,
		"oidc_groups": {"corp": {"sre": ["dba"]}},
	}})
	"dba" in _judge(_code, [login], rules).identity.groups
	not "dba" in _judge(_code, [], rules).identity.groups
}

test_a_method_that_is_not_open_is_not_verified[note] if {
	some note, attempt in {"password": _asking("password"), "dialogue": _asking("keyboard-interactive")}
	rules := {"door": {"methods": ["publickey"]}, "alice": {"chain": [["password"], ["totp"]]}}
	_judge(attempt, [], _rules(rules)).outcome == "reject"
}
