package gateway.people_test

import data.gateway.people

test_login_is_read[typed] if {
	some typed, login in {
		"alice": {"person": "alice", "target": "", "break_glass": false},
		"alice+orders-db": {"person": "alice", "target": "orders-db", "break_glass": false},
		"a.b_c-1+x.y": {"person": "a.b_c-1", "target": "x.y", "break_glass": false},
		"alice+break-glass": {"person": "alice", "target": "break-glass", "break_glass": false},
		"alice+orders-db+break-glass": {"person": "alice", "target": "orders-db", "break_glass": true},
	}
	people.login(typed) == login
}

test_login_of_another_form_is_undefined[note] if {
	some note, typed in {
		"empty": "",
		"no person": "+orders-db",
		"no target": "alice+",
		"two targets": "alice+orders-db+reports",
		"two targets, of which one is a word": "alice+break-glass+reports",
		"a word misspelt": "alice+orders-db+break-Glass",
		"a word too many": "alice+orders-db+break-glass+break-glass",
		"a word and nothing": "alice+orders-db+",
		"a word and no target": "alice++break-glass",
		"slash": "alice/orders-db",
		"blank": "alice orders-db",
		"dots": "..",
		"target of dots": "alice+..",
		"line end": "alice\n",
		"too long": concat("", [format_int(number, 10) | some number in numbers.range(100, 142)]),
		"number": 7,
		"null": null,
	}
	not people.login(typed)
}

test_active_is_who_is_known_and_not_disabled[note] if {
	some note, tc in {
		"known": {"entry": {"keys": []}, "active": true},
		"not disabled": {"entry": {"keys": [], "disabled": false}, "active": true},
		"disabled": {"entry": {"keys": [], "disabled": true}, "active": false},
		"disabled by a slip of the pen": {"entry": {"keys": [], "disabled": "false"}, "active": false},
		"no entry": {"entry": "alice", "active": false},
	}
	active := {person | some person in {"alice", "zoe"}; people.is_active(person)} with data.people as {"alice": tc.entry}
	active == {person | some person in {"alice"}; tc.active}
}

test_only_names_are_groups if {
	people.groups("alice") == ["oncall", "orders"] with data.people.alice as {"groups": ["oncall", 7, "a b", "orders"]}
	people.groups("alice") == [] with data.people.alice as {"groups": "oncall"}
	people.groups("alice") == [] with data.people.alice as {}
}

test_only_text_is_a_key if {
	people.keys("alice") == {"ssh-ed25519 AAAA"} with data.people.alice as {"keys": ["ssh-ed25519 AAAA", null, 7]}
}
