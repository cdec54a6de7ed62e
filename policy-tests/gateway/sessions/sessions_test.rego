package gateway.sessions_test

import data.gateway.config
import data.gateway.sessions

_input := data.fixtures.inputs.config

_grant := object.union(data.fixtures.grants.alice["INC-1"], {"target": "reports"})

_session(id, grant, target) := {"id": id, "grant": grant, "target": target, "started_at": "2030-01-31T11:30:00.000000Z"}

_one := _session("s1", "INC-1", "reports")

_elsewhere := _session("s2", "INC-2", "orders-db")

# The answer where limits are set on `grant`, `person` and `target`, and these sessions are open.
_decide(limits, asked) := answer if {
	answer := config.decision with input as object.union(object.remove(_input, ["open", "open_at"]), asked)
		with data.people as object.union(data.fixtures.people, {"alice": _limited(limits, "person")})
		with data.targets as object.union(data.fixtures.targets, {"reports": _limited(limits, "target")})
		with data.grants as {"alice": {"INC-1": object.union(_grant, _limited(limits, "grant"))}}
}

_limited(limits, of) := {"max_sessions": limits[of]} if of in object.keys(limits)

else := {}

_open(sessions, at) := {"open": sessions, "open_at": at}

_code(answer) := answer.reasons[0].code if count(answer.reasons) == 1

else := "allowed" if answer.allow

test_room_is_what_is_left_of_every_limit[note] if {
	some note, tc in {
		"no limit": [{}, _open([_one, _one, _one], {"reports": 300}), "allowed"],
		"no limit, and nobody counted": [{}, {}, "allowed"],
		"first of one": [{"grant": 1}, _open([], {}), "allowed"],
		"second of one": [{"grant": 1}, _open([_one], {"reports": 1}), "too_many_sessions"],
		"second of two": [{"grant": 2}, _open([_one], {"reports": 1}), "allowed"],
		"on another grant": [{"grant": 1}, _open([_elsewhere], {"orders-db": 1}), "allowed"],
		"of a person, wherever": [{"person": 1}, _open([_elsewhere], {"orders-db": 1}), "too_many_sessions"],
		"of a person with room": [{"person": 2}, _open([_elsewhere], {"orders-db": 1}), "allowed"],
		"at a target, whosever": [{"target": 2}, _open([], {"reports": 2}), "too_many_sessions"],
		"at a target with room": [{"target": 2}, _open([_one], {"reports": 1, "orders-db": 9}), "allowed"],
		"one limit of many": [{"grant": 5, "person": 5, "target": 1}, _open([_one], {"reports": 1}), "too_many_sessions"],
	}
	[limits, asked, code] := tc
	_code(_decide(limits, asked)) == code
}

test_what_cannot_be_read_or_was_not_counted_gives_no_room[note] if {
	some note, tc in {
		"a person's that cannot be read": [{"person": "2"}, _open([], {}), "too_many_sessions"],
		"a person's that is none": [{"person": false}, _open([], {}), "too_many_sessions"],
		"a person's of half a session": [{"person": 1.5}, _open([], {}), "too_many_sessions"],
		"a grant's that cannot be read": [{"grant": 0}, _open([], {}), "no_grant"],
		"a target's that cannot be read": [{"target": "x"}, _open([], {}), "target_misconfigured"],
		"nobody counted": [{"grant": 1}, {}, "malformed_input"],
		"nobody counted the targets": [{"person": 1}, {"open": []}, "malformed_input"],
		"nobody counted the sessions": [{"target": 1}, {"open_at": {}}, "malformed_input"],
	}
	[limits, asked, code] := tc
	_code(_decide(limits, asked)) == code
}

test_refusal_says_which_are_open_and_what_to_do[note] if {
	three := [_session(id, "INC-1", "reports") | some id in ["s1", "s2", "s3", "s4"]]
	some note, tc in {
		"on the grant": [
			{"grant": 1}, _open([_one, _elsewhere], {}),
			"Your grant INC-1 is for 1 session at once, and 1 is open: session s1 (reports, since 2030-01-31 11:30 UTC).",
		],
		"of the person": [
			{"person": 2}, _open([_one, _elsewhere], {}),
			concat("", [
				"You may have 2 sessions at once, and 2 are open: session s1 (reports, since 2030-01-31 11:30 UTC), ",
				"session s2 (orders-db, since 2030-01-31 11:30 UTC).",
			]),
		],
		"at the target, none of one's own": [
			{"target": 2}, _open([_elsewhere], {"reports": 2}),
			"reports takes 2 sessions at once, and 2 are open, 0 of them yours.",
		],
		"at the target, one's own": [
			{"target": 2}, _open([_one], {"reports": 2}),
			"reports takes 2 sessions at once, and 2 are open, 1 of them yours: session s1 (reports, since 2030-01-31 11:30 UTC).",
		],
		"more than are told": [
			{"grant": 4}, _open(three, {}),
			concat("", [
				"Your grant INC-1 is for 4 sessions at once, and 4 are open: ",
				concat(", ", [$"session {id} (reports, since 2030-01-31 11:30 UTC)" | some id in ["s1", "s2", "s3"]]),
				" and 1 more.",
			]),
		],
	}
	[limits, asked, message] := tc
	[reason] := _decide(limits, asked).reasons
	reason.message == message
	reason.remedy == "Leave one of them and connect again. For more at once: Ask at https://grants.example/reports; who approves: the reports team."
}

test_refusal_is_never_too_long if {
	long := [_session("s", "INC-1", concat("", [format_int(n, 10) | some n in numbers.range(100, 141)])) | some _ in [1, 2, 3]]
	[reason] := _decide({"person": 3}, _open(long, {})).reasons
	count(reason.message) == 500
}

test_permit_holds_the_limits[note] if {
	some note, limits in {"none": {}, "one": {"person": 3}, "all": {"grant": 1, "person": 2, "target": 3}}
	_decide(limits, _open([], {})).permit.max_sessions == limits
}

test_another_grant_with_room_is_taken if {
	answer := config.decision with input as object.union(_input, _open([_one], {"reports": 1}))
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as {"alice": {
			"INC-1": object.union(_grant, {"max_sessions": 1}),
			"INC-2": object.union(_grant, {"ends_at": "2030-01-31T13:00:00Z"}),
		}}
	answer.permit.grant == "INC-2"
}

test_limits_of_nothing_are_none if sessions.limits({"person": "zoe", "grant": "G", "target": "x"}) == {}
