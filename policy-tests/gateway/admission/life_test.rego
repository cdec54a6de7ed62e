package gateway.admission_life_test

import data.gateway.admission
import data.gateway.grants

_input := data.fixtures.inputs.admission

_people := object.union(data.fixtures.people, {"erin": {"groups": ["leads"]}, "frank": {}, "alice": {"groups": ["oncall"]}})

_targets := object.union(data.fixtures.targets, {
	"shop": {
		"labels": {"env": "prod"}, "max_grant_seconds": 28800, "approval": {"needed": 1, "by": {"groups": ["leads"]}},
		"break_glass": {"groups": ["oncall"], "max_seconds": 3600}, "ask": "#shop", "approvers": "leads",
	},
	"till": {"labels": {"env": "test"}, "max_grant_seconds": 3600},
})

_grant := {
	"target": "shop",
	"starts_at": "2030-01-31T11:00:00Z",
	"ends_at": "2030-01-31T14:00:00Z",
	"reason": "stuck orders",
}

_glass := object.union(_grant, {"kind": "break_glass", "ends_at": "2030-01-31T11:30:00Z"})

_held := {
	"G": _grant,
	"OLD": object.union(_grant, {"ends_at": "2030-01-31T12:00:00Z"}),
	"break-glass-1": _glass,
	"NOW": object.union(_glass, {"ends_at": "2030-01-31T12:30:00Z"}),
	"BY-NAME": object.union(_grant, {"target": "reports", "approved_by": "erin"}),
	"ENDED": object.union(_grant, {"ended_at": "2030-01-31T11:30:00Z", "ended_by": "erin"}),
}

_decide(verb, path, old, new) := answer if {
	answer := admission.decision with input as object.union(object.remove(_input, ["old", "new"]), {"verb": verb, "path": path, "old": old, "new": new})
		with data.people as _people
		with data.targets as _targets
		with data.automations as data.fixtures.automations
		with data.grants as {"alice": _held}
		with data.reviews as {}
}

_put(path, new) := _decide("PUT", path, null, new)

_faults(answer) := {[reason.code, object.get(reason, "field", "")] | some reason in answer.reasons}

test_grant_of_a_life[note] if {
	fresh := object.union(_grant, {"starts_at": "2030-01-31T12:00:00Z"})
	some note, tc in {
		"approved by others later": [fresh, set()],
		"with hours": [object.union(fresh, {"windows": [{"days": ["mon"], "from": "09:00", "to": "17:00", "zone": "UTC"}]}), set()],
		"with hours that are none": [
			object.union(fresh, {"windows": [{"days": ["mon"], "from": "09:00", "to": "17:00", "zone": "x"}]}),
			{["unknown_zone", "windows[0].zone"]},
		],
		"for one session": [object.union(fresh, {"max_sessions": 1}), set()],
		"for no session": [object.union(fresh, {"max_sessions": 0}), {["not_a_limit", "max_sessions"]}],
		"by labels": [object.union(object.remove(fresh, ["target"]), {"targets": {"labels": {"env": "prod"}}}), set()],
		"by labels, too long for one of them": [
			object.union(object.remove(fresh, ["target"]), {"targets": {"labels": {"env": ["prod", "test"]}}}),
			{["too_long", "ends_at"]},
		],
		"by labels that none has": [
			object.union(object.remove(fresh, ["target"]), {"targets": {"labels": {"env": "x"}}}),
			{["unknown_target", "targets.labels"]},
		],
		"behind broken glass, with a debt": [
			object.union(fresh, {"kind": "break_glass", "ends_at": "2030-01-31T13:00:00Z"}),
			{["review_owed", "person"]},
		],
		"behind broken glass, too long": [
			object.union(fresh, {"kind": "break_glass", "ends_at": "2030-01-31T13:00:01Z"}),
			{["review_owed", "person"], ["too_long", "ends_at"]},
		],
	}
	[new, faults] := tc
	_faults(_put(["grants", "alice", "NEW"], new)) == faults
}

test_glass_is_for_who_may if {
	new := object.union(_grant, {"kind": "break_glass", "starts_at": "2030-01-31T12:00:00Z", "ends_at": "2030-01-31T13:00:00Z"})
	_faults(_put(["grants", "bob", "NEW"], new)) == {["break_glass_refused", "kind"]}
}

test_what_becomes_of_a_grant_is_what_the_door_knows if {
	answer := _decide("PUT", ["grants", "alice", "G"], _grant, object.union(_grant, {"ends_at": "2030-01-31T15:00:00Z", "extended": [7]}))
	answer.value.extended == [{
		"at": _input.now, "by": "ticketing", "from": "2030-01-31T14:00:00Z", "to": "2030-01-31T15:00:00Z",
	}]
	again := _decide("PUT", ["grants", "alice", "G"], answer.value, object.union(_grant, {"ends_at": "2030-01-31T15:00:00Z"}))
	again.value == answer.value
	more := _decide("PUT", ["grants", "alice", "G"], answer.value, object.union(_grant, {"ends_at": "2030-01-31T16:00:00Z"}))
	[entry.to | some entry in more.value.extended] == ["2030-01-31T15:00:00Z", "2030-01-31T16:00:00Z"]
	other := _decide("PUT", ["grants", "alice", "G"], answer.value, object.union(_grant, {"starts_at": "2030-01-31T13:00:00Z"}))
	not other.value.extended
}

test_history_is_not_the_clients_to_say if {
	new := object.union(_grant, {"starts_at": "2030-01-31T12:00:00Z", "extended": [{"by": "erin"}]})
	_put(["grants", "alice", "NEW"], new).value.extended == []
}

test_end_is_now_and_stays if {
	ended := _decide("PUT", ["grants", "alice", "G"], _grant, object.union(_grant, {"ended_at": "x"})).value
	[ended.ended_at, ended.ended_by] == [_input.now, "ticketing"]
	again := _decide("PUT", ["grants", "alice", "ENDED"], _held.ENDED, object.union(_grant, {"ended_at": "y"})).value
	[again.ended_at, again.ended_by] == ["2030-01-31T11:30:00Z", "erin"]
	reasoned := _decide("PUT", ["grants", "alice", "G"], _grant, object.union(_grant, {"ended_at": "x", "ended_reason": "fixed"})).value
	reasoned.ended_reason == "fixed"
	_decide("PUT", ["grants", "alice", "G"], reasoned, object.union(reasoned, {"ended_reason": "never"})).value.ended_reason == "fixed"
	_faults(_decide("PUT", ["grants", "alice", "ENDED"], _held.ENDED, _grant)) == {["grant_over", "ended_at"]}
}

test_over_is_over[note] if {
	some note, tc in {
		"extended afterwards": [_held.OLD, _grant, {["grant_over", "ends_at"]}],
		"another kind": [_held.G, object.union(_grant, {"kind": "break_glass", "ends_at": "2030-01-31T12:30:00Z"}), {
			["kind_changed", "kind"], ["review_owed", "person"], ["too_long", "ends_at"],
		}],
	}
	[old, new, faults] := tc
	_faults(_decide("PUT", ["grants", "alice", "G"], old, new)) == faults
}

test_debt_is_not_deleted if {
	_faults(_decide("DELETE", ["grants", "alice", "break-glass-1"], _glass, null)) == {["review_owed", "id"]}
	_decide("DELETE", ["grants", "alice", "G"], _grant, null).allow
}

test_approval[note] if {
	some note, tc in {
		"good": ["G", "erin", {}, set()],
		"with all": ["G", "erin", {"expires_at": "2030-01-31T13:00:00Z", "note": "fine", "for": grants.essence(_grant)}, set()],
		"oneself": ["G", "alice", {}, {["self_approved", "approver"]}],
		"by who may not": ["G", "frank", {}, {["approver_not_listed", "approver"]}],
		"by nobody": ["G", "zoe", {}, {["unknown_person", "approver"]}],
		"of no grant": ["NONE", "erin", {}, {["unknown_grant", "path"]}],
		"of what is over": ["OLD", "erin", {}, {["grant_over", "path"]}],
		"of what needs none": ["BY-NAME", "erin", {}, {["approval_not_needed", "path"]}],
		"of another version": ["G", "erin", {"for": {"target": "shop"}}, {["grant_changed", "for"]}],
		"no time": ["G", "erin", {"expires_at": 7}, {["not_a_time", "expires_at"]}],
		"over before it began": ["G", "erin", {"expires_at": "2030-01-31T12:00:00Z"}, {["already_ended", "expires_at"]}],
		"field": ["G", "erin", {"until": "x"}, {["unknown_field", "until"]}],
		"note": ["G", "erin", {"note": " "}, {["wrong_type", "note"]}],
	}
	[id, approver, new, faults] := tc
	_faults(_put(["approvals", "alice", id, approver], new)) == faults
}

test_approval_is_bound_to_the_grant_as_it_is if {
	_put(["approvals", "alice", "G", "erin"], {}).value == {
		"at": _input.now, "recorded_by": "ticketing", "for": grants.essence(_grant),
	}
}

test_review[note] if {
	some note, tc in {
		"good": ["break-glass-1", {"by": "erin", "note": "fine"}, set()],
		"oneself": ["break-glass-1", {"by": "Alice"}, {["self_reviewed", "by"], ["unknown_person", "by"]}],
		"by who may not": ["break-glass-1", {"by": "frank"}, {["reviewer_not_listed", "by"]}],
		"by nobody": ["break-glass-1", {}, {["missing", "by"]}],
		"by no person": ["break-glass-1", {"by": "zoe"}, {["unknown_person", "by"]}],
		"of no grant": ["NONE", {"by": "erin"}, {["unknown_grant", "path"]}],
		"not over": ["NOW", {"by": "erin"}, {["not_over", "path"]}],
		"of an ordinary grant": ["OLD", {"by": "erin"}, {["review_not_owed", "path"]}],
		"field": ["break-glass-1", {"by": "erin", "verdict": 1}, {["unknown_field", "verdict"]}],
		"note": ["break-glass-1", {"by": "erin", "note": 7}, {["wrong_type", "note"]}],
	}
	[id, new, faults] := tc
	_faults(_put(["reviews", "alice", id], new)) == faults
}

test_review_says_when if _put(["reviews", "alice", "break-glass-1"], {"by": "erin"}).value.at == _input.now

test_rota[note] if {
	some note, tc in {
		"good": [{"shifts": []}, set()],
		"no shifts": [{"description": "x"}, {["missing", "shifts"]}],
		"nobody": [{"shifts": [{"person": "zoe"}]}, {
			["missing", "shifts[0].from"], ["missing", "shifts[0].to"], ["unknown_person", "shifts[0].person"],
		}],
	}
	[new, faults] := tc
	_faults(_put(["roster", "orders"], new)) == faults
}
