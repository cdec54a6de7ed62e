package gateway.grants_test

import data.gateway.grants

_grant := data.fixtures.grants.alice["INC-1"]

_without(field) := object.remove(_grant, [field])

_but(fields) := object.union(_grant, fields)

# In the fixtures' world.
_faults(grant) := answer if {
	answer := {fault.code | some fault in grants.faults(grant)} with data.targets as data.fixtures.targets
}

_bad := {
	"text": {"grant": "orders-db", "codes": {"not_an_object"}},
	"null": {"grant": null, "codes": {"not_an_object"}},
	"empty": {"grant": {}, "codes": {"missing"}},
	"no target": {"grant": _without("target"), "codes": {"missing"}},
	"no start": {"grant": _without("starts_at"), "codes": {"missing"}},
	"no end": {"grant": _without("ends_at"), "codes": {"missing"}},
	"no reason": {"grant": _without("reason"), "codes": {"missing"}},
	"no approver": {"grant": _without("approved_by"), "codes": {"missing"}},
	"target is a number": {"grant": _but({"target": 7}), "codes": {"wrong_type"}},
	"target is false": {"grant": _but({"target": false}), "codes": {"wrong_type"}},
	"reason is blank": {"grant": _but({"reason": " "}), "codes": {"wrong_type"}},
	"ticket is a number": {"grant": _but({"ticket": 1}), "codes": {"wrong_type"}},
	"ticket is null": {"grant": _but({"ticket": null}), "codes": {"wrong_type"}},
	"start is a number": {"grant": _but({"starts_at": 1896091200}), "codes": {"wrong_type"}},
	"end is no time": {"grant": _but({"ends_at": "tonight"}), "codes": {"not_a_time"}},
	"end before start": {"grant": _but({"ends_at": "2030-01-31T09:59:59Z"}), "codes": {"ends_before_start"}},
	"end at start": {"grant": _but({"ends_at": "2030-01-31T11:00:00+01:00"}), "codes": {"ends_before_start"}},
	"unknown target": {"grant": _but({"target": "nowhere"}), "codes": {"unknown_target"}},
	"two faults": {"grant": _but({"target": "x y", "reason": 1}), "codes": {"unknown_target", "wrong_type"}},
}

test_fault_is_found[note] if {
	some note, tc in _bad
	_faults(tc.grant) == tc.codes
}

test_sound_grant_has_no_fault[note] if {
	some note, grant in {
		"full": _grant,
		"bare": object.filter(_grant, ["target", "starts_at", "ends_at", "reason", "approved_by"]),
		"with a field nobody knows": _but({"colour": 7}),
	}
	_faults(grant) == set()
}

test_malformed_grant_has_no_effect_and_is_reported[note] if {
	some note, tc in _bad
	held := grants.held("alice") with data.grants as {"alice": {"BAD": tc.grant, "INC-1": _grant}}
		with data.targets as data.fixtures.targets
	held == {"INC-1": _grant}
	reported := grants.malformed with data.grants as {"alice": {"BAD": tc.grant, "INC-1": _grant}}
		with data.targets as data.fixtures.targets
	{[entry.person, entry.id] | some entry in reported} == {["alice", "BAD"]}
}

test_report_says_what_is_wrong if {
	reported := grants.malformed with data.grants as {"alice": {"no name": _but({"ends_at": "tonight"})}, "bob": 7}
		with data.targets as data.fixtures.targets
	reported == {
		{"person": "alice", "id": "no name", "problems": ["id: not_a_name", "ends_at: not_a_time"]},
		{"person": "bob", "id": "", "problems": [": not_an_object"]},
	}
}

test_nothing_is_reported_without_grants if grants.malformed == set() with data.grants as {}

test_whoever_has_no_grants_holds_none[note] if {
	some note, by_id in {"text": "x", "null": null, "empty": {}}
	grants.held("alice") == {} with data.grants as {"alice": by_id}
	grants.held("zoe") == {} with data.grants as {"alice": by_id}
}

test_clock_of_a_grant[note] if {
	some note, tc in {
		"a nanosecond before it starts": {"now_ns": 1896083999999999999, "is": {"approved"}},
		"as it starts": {"now_ns": 1896084000000000000, "is": {"active"}},
		"a nanosecond before it ends": {"now_ns": 1896098399999999999, "is": {"active"}},
		"as it ends": {"now_ns": 1896098400000000000, "is": {"expired", "just over"}},
		"almost a day later": {"now_ns": 1896184799999999999, "is": {"expired", "just over"}},
		"a day later": {"now_ns": 1896184800000000000, "is": {"expired"}},
	}
	_states(tc.now_ns) == tc.is
}

_state(now_ns) := state if {
	state := grants.state({"person": "alice", "grant": "INC-1", "target": "orders-db"}, now_ns) with data.grants as {"alice": {"INC-1": _grant}}
		with data.targets as data.fixtures.targets
}

_states(now_ns) := union({
	{state | state := _state(now_ns)},
	{"just over" | grants.is_just_over(_grant, now_ns)},
})
