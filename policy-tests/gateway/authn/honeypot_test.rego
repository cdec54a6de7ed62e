package gateway.authn_test

_trap(changes) := _rules({"door": {"honeypots": {"trap": object.union({"person": "bob"}, changes)}}, "login": "root"})

_accepted := {
	"outcome": "accept",
	"identity": {"person": "bob", "groups": [], "honeypot": true},
	"methods": [],
	"reasons": [],
}

test_a_honeypot_takes_anyone_by_any_method[note] if {
	some note, attempt in {
		"none": _tried("none", {}),
		"a password": _tried("password", {}),
		"a key": _foreign,
		"an answer": _tried("keyboard-interactive", {"verified_by": "anything"}),
	}
	every changes in [{"logins": ["root"]}, {"instances": ["doorward"]}] {
		_judge(attempt, [], _trap(changes)) == _accepted
	}
}

test_a_honeypot_listens_first if {
	answer := _judge(_tried("keyboard-interactive", {}), [], _trap({"logins": ["root"]}))
	answer.outcome == "continue"
	answer.verify == {"kind": "anything", "prompt": "Password: "}
}

test_a_honeypot_can_be_choosy if {
	rules := _trap({"logins": ["root"], "methods": ["password"]})
	_short(_judge(_tried("none", {}), [], rules)) == ["continue", ["password"]]
	_judge(_tried("password", {}), [], rules) == _accepted
}

test_not_everything_is_a_honeypot[note] if {
	some note, rules in {
		"other names": _trap({"logins": ["admin"]}),
		"other gateways": _trap({"instances": ["other"]}),
		"nowhere": _trap({}),
		"a real person's name": object.union(_trap({"logins": ["carol"]}), {"login": "carol"}),
		"a real person's name with a target": object.union(_trap({"logins": ["carol+x"]}), {"login": "carol+x"}),
		"nobody to be": _trap({"logins": ["root"], "person": "nobody"}),
		"somebody disabled to be": _trap({"logins": ["root"], "person": "carol"}),
		"methods that are none": _trap({"logins": ["root"], "methods": "password"}),
	}
	_judge(_tried("password", {}), [], rules).outcome != "accept"
}

test_of_several_honeypots_the_first_by_name if {
	rules := _rules({"login": "root", "door": {"honeypots": {
		"b": {"person": "alice", "logins": ["root"]},
		"a": {"person": "bob", "logins": ["root"]},
	}}})
	_judge(_tried("none", {}), [], rules).identity.person == "bob"
}
