package gateway.glass_test

import data.gateway.config
import data.gateway.desk

_input := object.union(data.fixtures.inputs.config, {"login": {"user": "alice+shop+break-glass"}})

_noon := 1896091200000000000

_break_glass := {"groups": ["oncall"], "max_seconds": 1800, "notify": [{"hook": "security"}]}

_shop := object.union(data.fixtures.targets.reports, {"break_glass": _break_glass})

_people := object.union(data.fixtures.people, {"erin": {"groups": ["leads"]}})

_glass := {
	"target": "shop",
	"starts_at": "2030-01-31T11:50:00Z",
	"ends_at": "2030-01-31T12:20:00Z",
	"reason": "orders are stuck",
	"kind": "break_glass",
}

_over := object.union(_glass, {"starts_at": "2030-01-31T10:00:00Z", "ends_at": "2030-01-31T10:30:00Z"})

_reviewed := {"by": "erin", "at": "2030-01-31T11:00:00Z"}

_ordinary := object.union(object.remove(_glass, ["kind"]), {"approved_by": "erin", "ends_at": "2030-01-31T14:00:00Z"})

# The answer in a small world with `changes`: `asked` of the question, `shop`, `held` of Alice's, `reviews`, `approvals`.
_decide(changes) := answer if {
	world := object.union({"asked": {}, "shop": {}, "held": {}, "reviews": {}, "alice": {}}, changes)
	answer := config.decision with input as object.union(_input, world.asked)
		with data.people as object.union(_people, {"alice": world.alice})
		with data.targets as object.union(data.fixtures.targets, {"shop": object.union(_shop, world.shop)})
		with data.grants as {"alice": world.held}
		with data.reviews as {"alice": world.reviews}
		with data.joins as {}
}

_reason(typed) := {"asked": {"request": {"kind": "session", "reason": typed}}}

_kinds(answer) := [obligation.kind | some obligation in answer.permit.obligations]

_code(answer) := answer.reasons[0].code if count(answer.reasons) == 1

else := "allowed" if answer.allow

test_a_reason_is_asked_for_first_and_then_the_grant_is_written[note] if {
	some note, tc in {
		"nothing said": [{}, ["reason", "notify", "record"]],
		"nothing in it": [_reason("  "), ["reason", "notify", "record"]],
		"a reason": [_reason(" orders are stuck "), ["reason", "notify", "record", "break_glass"]],
	}
	[changes, kinds] := tc
	answer := _decide(changes)
	answer.allow
	_kinds(answer) == kinds
	answer.permit.grant == "break-glass-1"
	answer.permit.expires_at == "2030-01-31T12:30:00Z"
	answer.permit.break_glass == true
}

test_grant_that_is_written_holds_when_it_is_there if {
	first := _decide(_reason(" orders are stuck "))
	[grant] := [obligation.grant | some obligation in first.permit.obligations; obligation.kind == "break_glass"]
	grant == {
		"target": "shop",
		"starts_at": "2030-01-31T12:00:00Z",
		"ends_at": "2030-01-31T12:30:00Z",
		"reason": "orders are stuck",
		"kind": "break_glass",
		"requested_at": "2030-01-31T12:00:00Z",
	}
	then := _decide(object.union(_reason("orders are stuck"), {"held": {"break-glass-1": grant}}))
	_kinds(then) == ["notify", "record"]
	then.permit == object.union(first.permit, {"obligations": then.permit.obligations})
}

test_who_may_and_when[note] if {
	some note, tc in {
		"who is in the group": [{}, "allowed"],
		"who is named": [{"shop": {"break_glass": {"groups": ["x"], "people": ["alice"]}}}, "allowed"],
		"who is neither": [{"shop": {"break_glass": {"groups": ["x"]}}}, "break_glass_refused"],
		"nobody at this target": [{"asked": {"login": {"user": "alice+reports+break-glass"}}}, "break_glass_refused"],
		"there is no such target": [{"asked": {"login": {"user": "alice+nowhere+break-glass"}}}, "break_glass_refused"],
		"who is disabled": [{"alice": {"disabled": true}}, "person_disabled"],
		"with a grant besides": [{"held": {"G": _ordinary}}, "allowed"],
		"already behind it": [{"held": {"break-glass-1": _glass}}, "allowed"],
		"behind it elsewhere": [{"held": {"break-glass-1": object.union(_glass, {"target": "reports"})}}, "review_owed"],
		"with a debt": [{"held": {"break-glass-1": _over}}, "review_owed"],
		"reviewed": [{"held": {"break-glass-1": _over}, "reviews": {"break-glass-1": _reviewed}}, "allowed"],
		"reviewed by themselves": [
			{"held": {"break-glass-1": _over}, "reviews": {"break-glass-1": {"by": "alice", "at": _reviewed.at}}},
			"review_owed",
		],
		"a debt that is malformed": [{"held": {"break-glass-1": {"kind": "break_glass"}}}, "review_owed"],
		"one debt of two is paid": [
			{"held": {"break-glass-1": _over, "break-glass-2": _over}, "reviews": {"break-glass-1": _reviewed}},
			"review_owed",
		],
		"ended early, and not reviewed": [
			{"held": {"break-glass-1": object.union(_glass, {"ended_at": "2030-01-31T11:55:00Z"})}},
			"review_owed",
		],
	}
	[changes, code] := tc
	_code(_decide(changes)) == code
}

test_what_else_has_to_hold[note] if {
	some note, tc in {
		"too many sessions": [{"alice": {"max_sessions": 1}, "asked": _one_open}, "too_many_sessions"],
		"nobody counted": [{"alice": {"max_sessions": 1}, "asked": {"open": 7}}, "malformed_input"],
		"too many on the grant": [
			{"held": {"break-glass-1": object.union(_glass, {"max_sessions": 1})}, "asked": _one_open},
			"too_many_sessions",
		],
		"a login that is too weak": [{"shop": {"require": [["totp"]]}}, "stronger_login_needed"],
		"a target with a fault": [{"shop": {"backend": 7}}, "target_misconfigured"],
		"for longer than four hours": [{"shop": {"break_glass": {"max_seconds": 14401}}}, "target_misconfigured"],
		"nobody to tell": [{"shop": {"break_glass": {"notify": []}}}, "target_misconfigured"],
		"a pattern that cannot be used": [{"shop": {"break_glass": {"reason": {"pattern": "x*"}}}}, "target_misconfigured"],
	}
	[changes, code] := tc
	_code(_decide(changes)) == code
}

_one_open := {
	"open": [{"id": "s1", "grant": "break-glass-1", "target": "shop", "started_at": "2030-01-31T11:55:00Z"}],
	"open_at": {"shop": 1},
}

test_a_stronger_login_is_shown_with_the_word if {
	[reason] := _decide({"shop": {"require": [["totp"]]}}).reasons
	endswith(reason.remedy, "ssh alice+shop+break-glass@door")
}

# Whoever does not say it is never behind broken glass, and whoever does never on a grant of another kind.
test_a_kind_counts_for_who_names_it[note] if {
	some note, tc in {
		"the word": ["alice+shop+break-glass", "break-glass-1"],
		"no word": ["alice+shop", "G"],
		"no target": ["alice", "G"],
	}
	[login, grant] := tc
	longer := object.union(_glass, {"ends_at": "2030-01-31T12:20:00Z"})
	_decide({"asked": {"login": {"user": login}}, "held": {"G": _ordinary, "break-glass-1": longer}}).permit.grant == grant
}

test_without_the_word_nothing_is_there_but_the_remedy if {
	answer := _decide({"asked": {"login": {"user": "alice+shop"}}, "held": {"break-glass-1": _glass}})
	[reason] := answer.reasons
	reason.code == "no_grant"
	endswith(reason.remedy, " In an emergency, on record, and to be reviewed: ssh alice+shop+break-glass@door")
}

test_remedy_of_a_debt[note] if {
	some note, tc in {
		"over": [
			{"held": {"break-glass-1": _over}},
			"Ask for a review, by anybody else: doorward grants review alice break-glass-1 --by NAME. Then connect again.",
		],
		"not over": [
			{"held": {"break-glass-1": object.union(_glass, {"target": "reports"})}},
			concat("", [
				"It is not over: wait for its end, or have it ended (doorward grants end alice break-glass-1). ",
				"Ask for a review, by anybody else: doorward grants review alice break-glass-1 --by NAME. Then connect again.",
			]),
		],
		"by who is named": [
			{"held": {"break-glass-1": _over}, "shop": {"break_glass": {"reviewers": {"people": ["zed", "erin"], "groups": ["leads"]}}}},
			concat("", [
				"Ask for a review, by erin, or zed, or anyone of leads: ",
				"doorward grants review alice break-glass-1 --by NAME. Then connect again.",
			]),
		],
		"by who approves": [
			{"held": {"break-glass-1": _over}, "shop": {"approval": {"needed": 1, "by": {"groups": ["leads"]}}}},
			"Ask for a review, by anyone of leads: doorward grants review alice break-glass-1 --by NAME. Then connect again.",
		],
	}
	[changes, remedy] := tc
	[reason] := _decide(changes).reasons
	reason.remedy == remedy
	reason.message == "Nobody else has reviewed yet what you did behind broken glass: break-glass-1."
}

test_other_things_can_be_had_behind_broken_glass if {
	own := {
		"backend": "docker",
		"image": "registry.example/rescue@sha256:1",
		"network": {"egress": [{"host": "orders-db", "port": 5432}]},
		"credentials": data.fixtures.targets["orders-db"].credentials,
	}
	permit := _decide({"shop": {"break_glass": own}}).permit
	object.filter(permit.workspace, ["backend", "image", "network"]) == object.remove(own, ["credentials"])
	permit.credentials == own.credentials
	plain := _decide({"asked": {"login": {"user": "alice+shop"}}, "shop": {"break_glass": own}, "held": {"G": _ordinary}}).permit
	[plain.workspace.backend, plain.credentials, plain.break_glass] == ["sandbox", [], false]
}

test_what_a_target_obliges_to_holds_but_nobody_has_to_join[note] if {
	oblige := {
		"read_only_sftp": true,
		"four_eyes": {"people": ["erin"], "seconds": 60},
		"reason": {"pattern": "INC-[0-9]+"},
		"record": {"what": ["sql"], "required": true},
		"notify": [{"hook": "chat"}],
	}
	some note, tc in {
		"to be broken": [{}, [
			{"kind": "notify", "hook": "chat"},
			{"kind": "read_only_sftp"},
			{
				"kind": "reason", "pattern": "INC-[0-9]+", "min_length": 10,
				"prompt": "Why do you break the glass? Others will be told, and review it.",
			},
			{"kind": "notify", "hook": "security", "required": true},
			{"kind": "record", "what": ["commands", "files", "forwards", "sql", "terminal"], "required": true},
		]],
		"broken": [{"held": {"break-glass-1": _glass}}, [
			{"kind": "reason", "pattern": "INC-[0-9]+"},
			{"kind": "notify", "hook": "chat"},
			{"kind": "read_only_sftp"},
			{"kind": "notify", "hook": "security", "required": true},
			{"kind": "record", "what": ["commands", "files", "forwards", "sql", "terminal"], "required": true},
		]],
	}
	[changes, obligations] := tc
	_decide(object.union(changes, {"shop": {"oblige": oblige}})).permit.obligations == obligations
}

test_what_the_glass_says_is_said_last if {
	answer := _decide({"shop": {"break_glass": {
		"notify": [{"hook": "security", "required": false}],
		"reason": {"prompt": "Why?", "min_length": 3},
		"record": {"what": ["terminal"], "required": false},
	}}})
	answer.permit.obligations == [
		{"kind": "reason", "prompt": "Why?", "min_length": 3},
		{"kind": "notify", "hook": "security", "required": false},
		{"kind": "record", "what": ["terminal"], "required": false},
	]
}

test_access_tells_of_glass_and_of_what_is_owed if {
	told := concat("\n", desk.access("alice", _noon)) with data.people as _people
		with data.targets as object.union(data.fixtures.targets, {"shop": _shop})
		with data.grants as {"alice": {"break-glass-1": _glass}}
		with data.reviews as {}
	contains(told, "connect  ssh alice+shop+break-glass@door")
	contains(told, concat("\n", [
		"Behind broken glass, and to be reviewed by somebody else before you can do it again:",
		"  break-glass-1, by anybody else",
	]))
}

test_nothing_is_broken_at_a_copy if {
	answer := config.decision with input as _input
		with data.people as _people
		with data.targets as object.union(data.fixtures.targets, {"shop": _shop})
		with data.grants as {}
		with data.copied as true
		with data.watermark as {"usable_until_ns": _noon + 1000000000, "taken_at_ns": _noon}
	[reason.code | some reason in answer.reasons] == ["copy_only"]
}
