package gateway.obligations_test

import data.gateway.config
import data.gateway.obligations

_eyes := {"people": ["bob"], "groups": ["dba"], "seconds": 600}

_people := {
	"alice": {"groups": ["dba"]},
	"bob": {},
	"erin": {"groups": ["dba"]},
	"carol": {"groups": ["dba"], "disabled": true},
	"mallory": {"groups": ["oncall"]},
}

_joining(answers, joins) := told if {
	told := obligations.joining("x", "alice", "s-1", answers) with data.targets as _world({"four_eyes": _eyes})
		with data.people as _people
		with data.joins as joins
}

_no(answers, joins) := reason if {
	reason := obligations.turned_down("x", "alice", "s-1", answers) with data.targets as _world({"four_eyes": _eyes})
		with data.people as _people
		with data.joins as joins
}

test_session_waits_for_whom_the_target_names if {
	[obligation] := _joining([], {})
	obligation == {
		"kind": "four_eyes",
		"approvers": "bob, or anyone of dba",
		"seconds": 600,
		"hook": null,
		"not_counted": [],
	}
}

test_nobody_has_to_join_where_the_target_does_not_say_so if {
	obligations.joining("x", "alice", "s-1", []) == [] with data.targets as _world({})
}

test_who_may_joins[note] if {
	some note, tc in {
		"by name": {"answers": [{"by": "bob", "approve": true}], "joins": {}},
		"by group": {"answers": [{"by": "erin", "approve": true}], "joins": {}},
		"in data": {"answers": [], "joins": {"s-1": {"erin": {"approve": true}}}},
		"beside one who may not": {
			"answers": [{"by": "mallory", "approve": true}, {"by": "erin", "approve": true}],
			"joins": {},
		},
	}
	_joining(tc.answers, tc.joins) == []
}

test_who_may_not_does_not_count_and_is_told_why[note] if {
	some note, tc in {
		"oneself": {"by": "alice", "code": "approver_is_oneself"},
		"disabled": {"by": "carol", "code": "approver_disabled"},
		"unknown": {"by": "nobody", "code": "approver_disabled"},
		"no name": {"by": "../x", "code": "approver_disabled"},
		"not listed": {"by": "mallory", "code": "approver_not_listed"},
	}
	some answer in [true, false]
	[obligation] := _joining([{"by": tc.by, "approve": answer}], {})
	[reason] := obligation.not_counted
	reason.code == tc.code
	[in_data] := _joining([], {"s-1": {tc.by: {"approve": answer}}})
	in_data.not_counted == [reason]
	not _no([{"by": tc.by, "approve": answer}], {})
}

test_what_is_no_answer_is_none[note] if {
	some note, joins in {
		"another session": {"s-2": {"erin": {"approve": true}}},
		"no word": {"s-1": {"erin": {"approve": "yes"}}},
		"no object": {"s-1": {"erin": true}},
		"nothing": {"s-1": {"erin": {}}},
		"no people": {"s-1": null},
		"no sessions": {},
	}
	[obligation] := _joining([{"by": "erin"}, {"approve": true}, {"by": 7, "approve": true}], joins)
	obligation.not_counted == []
}

test_no_of_who_may_refuses[note] if {
	some note, tc in {
		"alone": {"answers": [{"by": "erin", "approve": false}], "joins": {}},
		"beside a yes": {"answers": [{"by": "bob", "approve": true}], "joins": {"s-1": {"erin": {"approve": false}}}},
	}
	reason := _no(tc.answers, tc.joins)
	reason.code == "approval_refused"
	startswith(reason.message, "erin ")
}

test_yes_refuses_nothing if not _no([{"by": "erin", "approve": true}], {})

_oblige_orders(oblige) := object.union(data.fixtures.targets, {"orders-db": {"oblige": oblige}})

_decision(request) := answer if {
	asked := object.union(data.fixtures.inputs.config, {"request": object.union({"kind": "session"}, request)})
	answer := config.decision with input as asked
		with data.people as object.union(data.fixtures.people, {"erin": {"groups": ["dba"]}})
		with data.targets as _oblige_orders({"four_eyes": _eyes, "reason": {}})
		with data.grants as data.fixtures.grants
}

test_permit_says_who_has_to_join_until_they_have if {
	waiting := _decision({})
	[obligation.kind | some obligation in waiting.permit.obligations] == ["reason", "four_eyes"]
	joined := _decision({"approvals": [{"by": "erin", "approve": true}], "reason": "orders are stuck"})
	[obligation.kind | some obligation in joined.permit.obligations] == ["reason"]
}

test_config_refuses_by_a_no if {
	answer := _decision({"approvals": [{"by": "erin", "approve": false}]})
	answer.allow == false
	[reason] := answer.reasons
	reason.code == "approval_refused"
}

test_no_of_who_may_is_no_fault_of_theirs if {
	[obligation] := _joining([{"by": "erin", "approve": false}], {})
	obligation.not_counted == []
}
