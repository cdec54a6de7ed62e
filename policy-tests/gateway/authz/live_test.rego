package gateway.live_test

import data.gateway.authz

_input := data.fixtures.inputs.live

_session := _input.sessions[0]

_grant := data.fixtures.grants.alice["INC-1"]

_judge(asked, grant) := _judge_at(data.fixtures.targets, asked, grant)

_judge_at(targets, asked, grant) := answer if {
	answer := authz.live.sessions with input as asked
		with data.people as data.fixtures.people
		with data.targets as targets
		with data.grants as {"alice": {"INC-1": grant}}
}

_ending_at(time) := object.union(_grant, {"ends_at": time})

test_session_is_kept_while_its_grant_stands[note] if {
	some note, grant in {
		"as it was": _grant,
		"made longer": _ending_at("2030-01-31T16:00:00Z"),
		"shortened, but not near its end": _ending_at("2030-01-31T12:05:00Z"),
	}
	_judge(_input, grant) == {"s-1": {"verdict": "keep", "reasons": []}}
}

test_end_that_was_always_so_is_no_news if {
	asked := object.union(_input, {"sessions": [object.union(_session, {"expires_at": "2030-01-31T12:01:00Z"})]})
	_judge(asked, _ending_at("2030-01-31T12:01:00Z"))["s-1"].verdict == "keep"
}

test_session_is_warned_of_an_end_that_came_nearer[note] if {
	some note, expires_at in {"moved": "2030-01-31T14:00:00Z", "from an end that cannot be read": "?"}
	asked := object.union(_input, {"sessions": [object.union(_session, {"expires_at": expires_at})]})
	answer := _judge(asked, _ending_at("2030-01-31T12:04:59Z"))["s-1"]
	answer.verdict == "warn"
	[reason] := answer.reasons
	reason.code == "grant_ends_soon"
	reason.message == "Your grant was shortened and now ends at 2030-01-31T12:04:59Z."
}

test_session_ends_when_its_grant_no_longer_stands[note] if {
	some note, tc in {
		"ended": {"grant": _ending_at("2030-01-31T12:00:00Z"), "code": "grant_ended"},
		"malformed": {"grant": _ending_at("soon"), "code": "grant_malformed"},
		"another target": {"grant": object.union(_grant, {"target": "reports"}), "code": "grant_target_changed"},
	}
	answer := _judge(_input, tc.grant)["s-1"]
	answer.verdict == "end"
	[reason] := answer.reasons
	reason.code == tc.code
}

test_each_session_is_judged_by_itself if {
	asked := object.union(_input, {"sessions": [
		_session,
		object.union(_session, {"id": "s-2", "grant": "INC-9"}),
		object.union(_session, {"id": "s-3", "person": "carol"}),
		{"id": "s-4"},
	]})
	{id: answer.verdict | some id, answer in _judge(asked, _grant)} == {
		"s-1": "keep",
		"s-2": "end",
		"s-3": "end",
		"s-4": "end",
	}
}

test_session_asked_about_twice_is_answered_once if {
	asked := object.union(_input, {"sessions": [object.union(_session, {"grant": "INC-9"}), _session]})
	count(_judge(asked, _grant)) == 1
}

test_without_a_time_every_session_ends[note] if {
	some note, asked in {
		"no time": object.remove(_input, ["now_ns"]),
		"time in text": object.union(_input, {"now_ns": "now"}),
	}
	answer := _judge(asked, _grant)["s-1"]
	answer.verdict == "end"
	[reason] := answer.reasons
	reason.code == "malformed_input"
}

test_nobody_asked_about_is_nobody_answered[note] if {
	some note, asked in {"nothing": {}, "null": null, "text": {"sessions": "x"}, "no session": {"sessions": [7]}}
	_judge(asked, _grant) == {}
}

_restricted(restrict) := json.patch(data.fixtures.targets, [{
	"op": "add",
	"path": "orders-db/restrict",
	"value": restrict,
}])

_judge_restricted(restrict, grant) := _judge_at(_restricted(restrict), _input, grant)["s-1"]

test_target_that_closes_something_restricts[note] if {
	some note, tc in {
		"files": {"drop": ["sftp"], "kinds": ["sftp"]},
		"one kind": {"drop": ["direct-tcpip", "sftp"], "kinds": ["direct-tcpip", "sftp"]},
		"all forwards": {"drop": ["forwards"], "kinds": [
			"auth-agent-req@openssh.com", "direct-streamlocal@openssh.com", "direct-tcpip",
			"streamlocal-forward@openssh.com", "tcpip-forward", "x11-req",
		]},
	}
	answer := _judge_restricted({"drop": tc.drop, "reason": "INC-77 is looked into."}, _grant)
	answer.verdict == "restrict"
	answer.drop == tc.kinds
	answer.reasons == [{
		"code": "restricted",
		"message": $"Closed here for now: {concat(", ", sort(tc.drop))}. INC-77 is looked into.",
		"remedy": "Ask at #orders-oncall; who approves: the orders team lead.",
	}]
}

test_what_cannot_be_read_closes_all_that_can_be[note] if {
	some note, restrict in {
		"a word that nobody knows": {"drop": ["forwards", "sftpp"], "reason": "x"},
		"no word": {"drop": [], "reason": "x"},
		"no reason": {"drop": ["sftp"]},
		"one field more": {"drop": ["sftp"], "reason": "x", "until": "noon"},
		"no": false,
		"nothing": null,
		"a number": 7,
		"a text": "sftp",
	}
	answer := _judge_restricted(restrict, _grant)
	answer.verdict == "restrict"
	count(answer.drop) == 7
	[reason] := answer.reasons
	reason.code == "restricted"
}

test_warning_is_told_beside_a_restriction if {
	answer := _judge_restricted({"drop": ["sftp"], "reason": "x"}, _ending_at("2030-01-31T12:04:59Z"))
	answer.verdict == "restrict"
	[reason.code | some reason in answer.reasons] == ["restricted", "grant_ends_soon"]
}

test_restricted_session_ends_like_any_other if {
	_judge_restricted({"drop": ["sftp"], "reason": "x"}, _ending_at("2030-01-31T12:00:00Z")).verdict == "end"
}
