package gateway.config_test

import data.gateway.config

_input := data.fixtures.inputs.config

_grant := data.fixtures.grants.alice["INC-1"]

# A grant of a target, from one hour of the day to another.
_on(target, from, to) := object.union(_grant, {
	"target": target,
	"starts_at": $"2030-01-31T{from}:00:00Z",
	"ends_at": $"2030-01-31T{to}:00:00Z",
})

_login(typed) := object.union(_input, {"login": {"user": typed}})

_decide(asked, held) := answer if {
	answer := config.decision with input as asked
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as {"alice": held}
}

_permit(typed, held) := answer.permit if {
	answer := _decide(_login(typed), held)
	answer.allow
	answer.reasons == []
}

_refusal(typed, held) := reason if {
	answer := _decide(_login(typed), held)
	answer.allow == false
	answer.permit == null
	[reason] := answer.reasons
}

test_permit_is_made_of_grant_and_target if {
	orders := data.fixtures.targets["orders-db"]
	_permit("alice", {"INC-1": _grant}) == {
		"grant": "INC-1",
		"target": "orders-db",
		"expires_at": "2030-01-31T14:00:00Z",
		"ending": null,
		"workspace": {
			"backend": "docker",
			"image": orders.image,
			"user": orders.user,
			"home": "/home/debug",
			"shell": "/bin/bash",
			"limits": orders.limits,
			"network": orders.network,
			"env": orders.env,
			"read_only": true,
		},
		"credentials": orders.credentials,
		"session": orders.session,
		"capture_credentials": false,
		"recording": orders.recording,
		"obligations": [],
		"max_sessions": {},
		"break_glass": false,
	}
}

test_what_a_target_does_not_say_is_empty_or_left_to_the_gateway if {
	permit := _permit("alice", {"R": _on("reports", "10", "14")})
	permit.credentials == []
	permit.recording == {}
	object.keys(permit.workspace) == {"backend", "image", "limits", "network", "env", "read_only"}
	permit.workspace.network == {}
	permit.workspace.env == {}
}

test_host_is_permitted_as_it_is_and_with_nothing_of_what_is_started if {
	host := {"address": "db1", "user": "deploy", "host_keys": ["ssh-ed25519 AAAA"], "key": "main"}
	started := ["image", "limits", "user", "home", "shell", "network", "credentials", "allow"]
	entry := object.union(object.remove(data.fixtures.targets.reports, started), {"backend": "sshproxy", "host": host, "allow": {}})
	answer := config.decision with input as _login("alice")
		with data.people as data.fixtures.people
		with data.targets as {"reports": entry}
		with data.grants as {"alice": {"R": _on("reports", "10", "14")}}
	answer.permit.workspace == {"backend": "sshproxy", "host": host, "env": {}}
	answer.permit.credentials == []
}

_service := {"namespace": "shop", "selector": {"app": "payments-api"}}

_beside := object.union(
	object.remove(data.fixtures.targets.reports, ["limits"]),
	{"backend": "kubernetes", "pod": {"beside": _service}},
)

test_beside_a_service_there_is_an_image_and_no_limit if {
	answer := config.decision with input as _login("alice")
		with data.people as data.fixtures.people
		with data.targets as {"reports": _beside}
		with data.grants as {"alice": {"R": _on("reports", "10", "14")}}
	workspace := answer.permit.workspace
	object.keys(workspace) == {"backend", "image", "env", "read_only", "pod"}
	workspace.pod == {"beside": _service}
	workspace.read_only
}

test_bad_service_is_a_target_misconfigured_and_no_permit if {
	entry := object.union(_beside, {"pod": {"beside": {"share_processes": true}}})
	answer := config.decision with input as _login("alice")
		with data.people as data.fixtures.people
		with data.targets as {"reports": entry}
		with data.grants as {"alice": {"R": _on("reports", "10", "14")}}
	not answer.allow
	answer.permit == null
	answer.reasons[0].code == "target_misconfigured"
}

test_forced_command_is_the_targets if {
	forced := object.union(data.fixtures.targets.reports, {"force_command": "report --daily"})
	answer := config.decision with input as _login("alice")
		with data.people as data.fixtures.people
		with data.targets as {"reports": forced}
		with data.grants as {"alice": {"R": _on("reports", "10", "14")}}
	answer.permit.workspace.force_command == "report --daily"
}

test_grant_is_chosen[note] if {
	some note, tc in {
		"the only one": {"login": "alice", "held": {"A": _on("orders-db", "10", "14")}, "grant": "A"},
		"the only one that is active": {
			"login": "alice",
			"held": {"A": _on("orders-db", "10", "14"), "B": _on("reports", "13", "14"), "C": _on("reports", "09", "11")},
			"grant": "A",
		},
		"the only one that is well-formed": {
			"login": "alice",
			"held": {"A": _on("orders-db", "10", "14"), "B": _on("nowhere", "10", "14"), "C": 7},
			"grant": "A",
		},
		"of the named target": {
			"login": "alice+reports",
			"held": {"A": _on("orders-db", "10", "14"), "B": _on("reports", "10", "14")},
			"grant": "B",
		},
		"the one that ends last": {
			"login": "alice",
			"held": {"A": _on("reports", "10", "13"), "B": _on("reports", "11", "15"), "C": _on("reports", "10", "14")},
			"grant": "B",
		},
		"one of two that end together": {
			"login": "alice",
			"held": {"A": _on("reports", "10", "14"), "B": _on("reports", "11", "14")},
			"grant": "B",
		},
	}
	_permit(tc.login, tc.held).grant == tc.grant
}

test_refusal_names_the_situation[note] if {
	some note, tc in {
		"none": {"login": "alice", "held": {}, "code": "no_grant"},
		"none for it": {"login": "alice+reports", "held": {"A": _on("orders-db", "10", "14")}, "code": "no_grant"},
		"too early": {"login": "alice", "held": {"A": _on("reports", "13", "14")}, "code": "grant_not_started"},
		"too early for it": {
			"login": "alice+reports",
			"held": {"A": _on("orders-db", "10", "14"), "B": _on("reports", "13", "14")},
			"code": "grant_not_started",
		},
		"over": {"login": "alice", "held": {"A": _on("reports", "10", "12")}, "code": "grant_ended"},
		"over, and one to come": {
			"login": "alice",
			"held": {"A": _on("reports", "10", "12"), "B": _on("reports", "13", "14")},
			"code": "grant_not_started",
		},
		"long over": {
			"login": "alice",
			"held": {"A": object.union(_grant, {
				"starts_at": "2030-01-30T10:00:00Z",
				"ends_at": "2030-01-30T12:00:00Z",
			})},
			"code": "no_grant",
		},
		"malformed": {"login": "alice", "held": {"A": object.remove(_grant, ["reason"])}, "code": "no_grant"},
		"several": {
			"login": "alice",
			"held": {"A": _on("orders-db", "10", "14"), "B": _on("reports", "10", "14")},
			"code": "target_needed",
		},
	}
	_refusal(tc.login, tc.held).code == tc.code
}

test_times_are_of_the_nearest_grant if {
	early := _refusal("alice", {"A": _on("reports", "15", "16"), "B": _on("reports", "13", "14")})
	early.message == "Your grant for reports starts at 2030-01-31T13:00:00Z, so it is too early."
	late := _refusal("alice", {"A": _on("reports", "10", "12"), "B": _on("reports", "10", "11")})
	late.message == "Your grant for reports ended at 2030-01-31T12:00:00Z."
	late.remedy == "For a new one: Ask at https://grants.example/reports; who approves: the reports team."
}

_several := {
	"A": _on("reports", "10", "14"),
	"B": _on("orders-db", "10", "14"),
	"C": _on("orders-db", "11", "13"),
}

test_several_targets_are_named_and_offered if {
	reason := _refusal("alice", _several)
	reason.message == "You have grants for 2 targets, so say which: orders-db, reports."
	reason.remedy == "Put the target after your name, with a plus sign, as in ssh alice+orders-db@door."
	[choice.target | some choice in _decide(_login("alice"), _several).desk.choices] == ["orders-db", "reports"]
}

test_nothing_is_offered_where_there_is_nothing_to_choose[note] if {
	some note, tc in {
		"one target": {"login": "alice", "held": {"INC-1": _grant}},
		"none": {"login": "alice", "held": {}},
		"named": {"login": "alice+reports", "held": _several},
		"named, without a grant": {"login": "alice+nowhere", "held": _several},
	}
	_decide(_login(tc.login), tc.held).desk.choices == []
}

# What was chosen at the desk counts as a target that was named; one in the login stands.
_choosing(typed, target) := object.union(_login(typed), {"request": {"kind": "shell", "target": target}})

test_chosen_target_is_judged_like_a_named_one if {
	_decide(_choosing("alice", "reports"), _several).permit.grant == "A"
	_decide(_choosing("alice", "orders-db"), _several).permit.target == "orders-db"
	_decide(_choosing("alice+orders-db", "reports"), _several).permit.target == "orders-db"
	[unknown] := _decide(_choosing("alice", "nowhere"), _several).reasons
	unknown.message == "You have no grant for nowhere at this time."
	[nothing] := _decide(_choosing("alice", {"no": "name"}), _several).reasons
	nothing.code == "target_needed"
}

_saying(kind, command) := object.union(_input, {"request": {"kind": kind, "command": command}})

test_word_of_the_desk_is_answered_when_it_is_asked_for[note] if {
	some note, tc in {
		"help": {"asked": _saying("exec", "help"), "says": "Connect:"},
		"access": {"asked": _saying("exec", "access"), "says": "INC-1"},
	}
	every held in [{}, _several] {
		desk := _decide(tc.asked, object.union(held, {"INC-1": _grant})).desk
		contains(desk.text, tc.says)
		desk.words == ["access", "help"]
	}
}

test_nothing_else_is_answered[note] if {
	some note, asked in {
		"a channel": _input,
		"another command": _saying("exec", "help me"),
		"a subsystem": _saying("subsystem", "help"),
		"no text": _saying("exec", ["help"]),
	}
	_decide(asked, {"INC-1": _grant}).desk.text == ""
}

_saying_as(command, facts) := object.union(
	_saying("exec", command),
	{"identity": object.union(_input.identity, facts)},
)

test_no_word_is_answered_to_a_forced_command_or_in_a_honeypot[note] if {
	some note, facts in {"a certificate's command": {"force_command": "backup"}, "a honeypot": {"honeypot": true}}
	every word in ["help", "access"] {
		desk := _decide(_saying_as(word, facts), {"INC-1": _grant}).desk
		desk.words == []
		desk.text == ""
	}
}

test_desk_knows_nobody_who_is_disabled_or_unknown if {
	answer := config.decision with input as _saying("exec", "access")
		with data.people as {"alice": {"disabled": true}}
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
	answer.desk == {}
	_decide(object.remove(_input, ["now_ns"]), {"INC-1": _grant}).desk == {}
}

test_without_grant_for_a_target_one_is_told_whom_to_ask if {
	reason := _refusal("alice+reports", {})
	reason.message == "You have no grant for reports at this time."
	reason.remedy == "Ask at https://grants.example/reports; who approves: the reports team."
}

test_unknown_target_has_the_words_of_a_forbidden_one if {
	unknown := _refusal("alice+nowhere", {})
	unknown.code == "no_grant"
	unknown.message == "You have no grant for nowhere at this time."
}

test_without_target_one_is_told_to_name_it if {
	_refusal("alice", {}).remedy == "Name the target to be told whom to ask: ssh alice+target@door"
}

test_target_with_a_fault_starts_nothing if {
	answer := config.decision with input as _input
		with data.people as data.fixtures.people
		with data.targets as {"orders-db": object.remove(data.fixtures.targets["orders-db"], ["limits"])}
		with data.grants as data.fixtures.grants
	[reason] := answer.reasons
	reason.code == "target_misconfigured"
}

test_person_disabled_since_login_gets_nothing if {
	answer := config.decision with input as _input
		with data.people as {"alice": {"disabled": true}}
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
	[reason] := answer.reasons
	reason.code == "person_disabled"
}

test_incomplete_question_is_refused[note] if {
	some note, asked in {
		"nothing": {},
		"null": null,
		"text": "x",
		"login of someone else": object.union(_input, {"login": {"user": "bob"}}),
		"login of another form": object.union(_input, {"login": {"user": "alice+"}}),
		"no identity": object.remove(_input, ["identity"]),
		"no time": object.remove(_input, ["now_ns"]),
		"time in text": object.union(_input, {"now_ns": "1896091200000000000"}),
	}
	answer := _decide(asked, {"INC-1": _grant})
	answer.allow == false
	answer.permit == null
	[reason] := answer.reasons
	reason.code == "malformed_input"
}

# Asked by somebody with this identity, of orders-db with these changes.
_of(identity, changes) := answer if {
	answer := config.decision with input as object.union(_input, {"identity": identity})
		with data.people as data.fixtures.people
		with data.targets as {"orders-db": object.union(data.fixtures.targets["orders-db"], changes)}
		with data.grants as {"alice": {"INC-1": _grant}}
}

test_a_target_can_require_more_proof[note] if {
	some note, tc in {
		"proven": [["publickey", "totp"], "allow"],
		"in another order": [["totp", "publickey"], "allow"],
		"the other way": [["oidc"], "allow"],
		"not enough": [["publickey"], "stronger_login_needed"],
		"nothing": [[], "stronger_login_needed"],
		"not said": [null, "stronger_login_needed"],
	}
	answer := _of({"via": tc[0]}, {"require": [["publickey", "totp"], ["oidc"]]})
	_said(answer) == tc[1]
}

_said(answer) := "allow" if answer.allow

_said(answer) := answer.reasons[0].code if not answer.allow

test_one_is_told_what_is_required_and_how if {
	[reason] := _of({"via": ["publickey"]}, {"require": [["publickey", "totp"], ["oidc"]]}).reasons
	reason.message == "orders-db needs more proof of who you are than you gave: publickey and totp, or oidc."
	reason.remedy == "Say where you are going when you log in: ssh alice+orders-db@door"
}

test_requirements_that_are_none_are_a_fault_of_the_target if {
	_said(_of({}, {"require": "totp"})) == "target_misconfigured"
	_said(_of({}, {"require": [[]]})) == "target_misconfigured"
}

test_a_certificate_s_command_is_forced[note] if {
	some note, tc in {
		"the certificate's": ["uptime", {}, "uptime"],
		"both, the same": ["uptime", {"force_command": "uptime"}, "uptime"],
		"the target's": ["", {"force_command": "id"}, "id"],
		"both, and they differ": ["uptime", {"force_command": "id"}, "forced_command_conflict"],
	}
	answer := _of({"force_command": tc[0]}, tc[1])
	_forced(answer) == tc[2]
}

_forced(answer) := answer.permit.workspace.force_command if answer.allow

_forced(answer) := answer.reasons[0].code if not answer.allow

test_what_was_typed_is_captured_in_a_honeypot_only[note] if {
	some note, tc in {
		"a honeypot": [{"honeypot": true}, {"capture_credentials": true}, true],
		"a honeypot that does not say so": [{"honeypot": true}, {}, false],
		"a person": [{"honeypot": false}, {"capture_credentials": true}, false],
	}
	_of(tc[0], tc[1]).permit.capture_credentials == tc[2]
}

test_in_a_honeypot_the_name_that_was_typed_means_nothing[note] if {
	some note, typed in {"no name": "root:x", "another's": "bob", "not even text": null}
	answer := config.decision with input as object.union(_input, {
		"login": {"user": typed},
		"identity": {"person": "alice", "honeypot": true},
	})
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as {"alice": {"INC-1": _grant}}
	answer.permit.grant == "INC-1"
}
