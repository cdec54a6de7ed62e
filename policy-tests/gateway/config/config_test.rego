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
		"recording": orders.recording,
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

test_several_targets_are_listed_as_commands if {
	reason := _refusal("alice", {
		"A": _on("reports", "10", "14"),
		"B": _on("orders-db", "10", "14"),
		"C": _on("orders-db", "11", "13"),
	})
	contains(reason.message, "2 targets")
	contains(reason.message, "ssh alice+orders-db@door, ssh alice+reports@door")
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
