package gateway.choice_test

import data.gateway.basis
import data.gateway.config
import data.gateway.desk

_input := data.fixtures.inputs.config

_noon := 1896091200000000000

_targets := object.union(data.fixtures.targets, {"shop": object.union(data.fixtures.targets.reports, {
	"labels": {"env": "prod"},
	"approval": {"needed": 1, "by": {"people": ["erin"]}, "on_call": "orders"},
})})

_people := object.union(data.fixtures.people, {"erin": {}})

_shop := {
	"target": "shop",
	"starts_at": "2030-01-31T10:00:00Z",
	"ends_at": "2030-01-31T14:00:00Z",
	"reason": "stuck",
}

_reports := object.union(_shop, {"target": "reports", "approved_by": "erin"})

_hours(from, to) := [{"days": ["thu"], "from": from, "to": to, "zone": "UTC"}]

_decide(held, approvals) := answer if {
	answer := config.decision with input as _input
		with data.people as _people
		with data.targets as _targets
		with data.grants as {"alice": held}
		with data.approvals as {"alice": approvals}
		with data.roster as {"orders": {"shifts": []}}
}

_approval := {"at": "2030-01-31T09:00:00Z", "for": _shop, "expires_at": "2030-01-31T13:00:00Z"}

test_permit_ends_with_what_comes_first[note] if {
	some note, tc in {
		"the grant": [{"G": _reports}, {}, "2030-01-31T14:00:00Z", null],
		"the hours": [
			{"G": object.union(_reports, {"windows": _hours("11:00", "13:30")})}, {},
			"2030-01-31T13:30:00Z", "grant_window_closed",
		],
		"the approval": [{"G": _shop}, {"G": {"erin": _approval}}, "2030-01-31T13:00:00Z", "grant_approval_over"],
		"by labels": [
			{"G": object.union(object.remove(_shop, ["target"]), {"targets": {"labels": {"env": "prod"}}})},
			{"G": {"erin": object.union(
				object.remove(_approval, ["for"]),
				{"for": object.union(object.remove(_shop, ["target"]), {"targets": {"labels": {"env": "prod"}}})},
			)}},
			"2030-01-31T13:00:00Z", "grant_approval_over",
		],
	}
	[held, approvals, at, code] := tc
	permit := _decide(held, approvals).permit
	permit.expires_at == at
	_code(permit.ending) == code
}

_code(reason) := reason.code if is_object(reason)

else := null

test_refusal_says_what_is_waited_for[note] if {
	some note, tc in {
		"approval": [{"G": _shop}, "grant_not_approved"],
		"hours": [{"G": object.union(_reports, {"windows": _hours("13:00", "14:00")})}, "grant_window_closed"],
		"ended early": [{"G": object.union(_reports, {"ended_at": "2030-01-31T11:00:00Z"})}, "grant_ended_early"],
	}
	[held, code] := tc
	_decide(held, {}).reasons[0].code == code
}

test_access_tells_of_hours_and_approvals if {
	told := concat("\n", desk.access("alice", _noon)) with data.people as _people
		with data.targets as _targets
		with data.grants as {"alice": {
			"ASKED": _shop,
			"HOURS": object.union(_reports, {"windows": _hours("13:00", "14:00")}),
			"ENDED": object.union(_reports, {"ended_at": "2030-01-31T11:00:00Z"}),
		}}
	contains(told, "Not approved:\n  shop")
	contains(told, "lacks    approval: 1 more approvals are needed")
	contains(told, "from     2030-01-31 13:00 UTC (in 1 h 0 min)")
	contains(told, "ended    2030-01-31 11:00 UTC (1 h 0 min ago)")
}

_told_grants := {"alice": {
	"INC-1": _shop,
	"L": object.union(object.remove(_reports, ["target"]), {"targets": {"labels": {"env": "prod"}}}),
}}

_world_told(decision, asked) := {concat("/", entry.path) | some entry in _answer(decision, asked).basis}

_answer("config", asked) := answer if {
	answer := basis.config with input as asked
		with data.people as _people
		with data.targets as _targets
		with data.grants as _told_grants
		with data.approvals as {"alice": {"INC-1": {"erin": _approval}}}
		with data.reviews as {"alice": {"break-glass-1": {"by": "bob", "at": "2030-01-31T14:00:00Z"}}}
		with data.roster as {"orders": {"shifts": []}}
		with data.automations as data.fixtures.automations
}

_answer("authz", asked) := answer if {
	answer := basis.authz with input as asked
		with data.people as _people
		with data.targets as _targets
		with data.grants as _told_grants
		with data.approvals as {"alice": {"INC-1": {"erin": _approval}}}
		with data.reviews as {"alice": {"break-glass-1": {"by": "bob", "at": "2030-01-31T14:00:00Z"}}}
		with data.roster as {"orders": {"shifts": []}}
		with data.automations as data.fixtures.automations
}

_answer("admission", asked) := answer if {
	answer := basis.admission with input as asked
		with data.people as _people
		with data.targets as _targets
		with data.grants as _told_grants
		with data.approvals as {"alice": {"INC-1": {"erin": _approval}}}
		with data.reviews as {"alice": {"break-glass-1": {"by": "bob", "at": "2030-01-31T14:00:00Z"}}}
		with data.roster as {"orders": {"shifts": []}}
		with data.automations as data.fixtures.automations
}

test_basis_of_a_life[note] if {
	some note, tc in {
		"config": ["config", _input, {
			"approvals/alice", "reviews/alice", "people/erin", "people/bob", "roster/orders", "targets/shop",
		}],
		"authz": [
			"authz", object.union(data.fixtures.inputs.authz, {"permit": {"target": "shop"}}),
			{"approvals/alice/INC-1", "people/erin", "roster/orders"},
		],
		"a review": [
			"admission", object.union(data.fixtures.inputs.admission, {"path": ["reviews", "alice", "INC-1"], "new": {"by": "bob"}}),
			{"reviews/alice", "people/bob", "targets/shop"},
		],
		"breaking the glass": [
			"admission", object.union(data.fixtures.inputs.admission, {"new": {"kind": "break_glass"}}), {"grants/alice"},
		],
	}
	[decision, asked, roots] := tc
	roots - _world_told(decision, asked) == set()
}
