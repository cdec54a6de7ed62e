package gateway.life_test

import data.gateway.grants

_ns(clock) := time.parse_rfc3339_ns($"2030-01-31T{clock}:00Z")

_holding := {"person": "alice", "grant": "G", "target": "shop"}

_grant := {
	"target": "shop",
	"starts_at": "2030-01-31T10:00:00Z",
	"ends_at": "2030-01-31T14:00:00Z",
	"reason": "stuck orders",
}

_shop := {"labels": {"env": "prod", "team": "shop"}, "approval": {"needed": 2, "by": {"groups": ["leads"], "people": ["frank"]}}}

_people := object.union(
	{name: {"groups": ["leads"]} | some name in ["alice", "erin", "gina"]},
	{"frank": {}, "harry": {"groups": ["leads"], "disabled": true}, "ivan": {"groups": ["oncall"]}},
)

_approval := {"at": "2030-01-31T09:00:00Z", "for": grants.essence(_grant)}

_two := {"erin": _approval, "frank": _approval}

_world(changes) := object.union(
	{"grant": _grant, "target": _shop, "approvals": {}, "roster": {}, "reviews": {}},
	changes,
)

_state(changes, clock) := answer if {
	world := _world(changes)
	answer := grants.state(_holding, _ns(clock)) with data.grants as {"alice": {"G": world.grant}}
		with data.targets as {"shop": world.target}
		with data.people as _people
		with data.approvals as {"alice": {"G": world.approvals}}
		with data.roster as world.roster
}

_until(changes, clock) := [time.format(ns), code] if {
	world := _world(changes)
	[ns, code] := grants.until(_holding, _ns(clock)) with data.grants as {"alice": {"G": world.grant}}
		with data.targets as {"shop": world.target}
		with data.people as _people
		with data.approvals as {"alice": {"G": world.approvals}}
		with data.roster as world.roster
}

_but(fields) := object.union(_approval, fields)

test_approvals_decide[note] if {
	some note, tc in {
		"none": [{}, "requested"],
		"one of two": [{"approvals": {"erin": _approval}}, "requested"],
		"two": [{"approvals": _two}, "active"],
		"oneself does not count": [{"approvals": {"erin": _approval, "alice": _approval}}, "requested"],
		"a disabled person does not count": [{"approvals": {"erin": _approval, "harry": _approval}}, "requested"],
		"nobody does not count": [{"approvals": {"erin": _approval, "zoe": _approval}}, "requested"],
		"who may not does not count": [{"approvals": {"erin": _approval, "ivan": _approval}}, "requested"],
		"an expired one does not count": [
			{"approvals": {"erin": _approval, "frank": _but({"expires_at": "2030-01-31T12:00:00Z"})}},
			"requested",
		],
		"one that expires later counts": [
			{"approvals": {"erin": _approval, "frank": _but({"expires_at": "2030-01-31T12:00:01Z"})}},
			"active",
		],
		"one whose expiry is no time does not": [
			{"approvals": {"erin": _approval, "frank": _but({"expires_at": false})}},
			"requested",
		],
		"one of the future does not": [
			{"approvals": {"erin": _approval, "frank": _but({"at": "2030-01-31T12:00:01Z"})}},
			"requested",
		],
		"one without a time does not": [{"approvals": {"erin": _approval, "frank": {"for": _approval.for}}}, "requested"],
		"one for nothing does not": [{"approvals": {"erin": _approval, "frank": {"at": _approval.at}}}, "requested"],
		"one for another reason does not": [
			{"approvals": {"erin": _approval, "frank": _but({"for": {"reason": "lunch"}})}},
			"requested",
		],
		"one for fewer sessions does not": [
			{"approvals": _two, "grant": object.union(_grant, {"max_sessions": 2})},
			"requested",
		],
		"malformed ones do not": [{"approvals": {"erin": 7, "frank": null}}, "requested"],
		"approved_by is not enough": [{"grant": object.union(_grant, {"approved_by": "erin"})}, "requested"],
		"an approval that says nothing is never had": [{"target": object.union(_shop, {"approval": 7}), "approvals": _two}, "requested"],
		"needed is no number": [
			{"target": {"labels": {}, "approval": {"needed": "0", "by": {"people": ["erin", "frank"]}}}, "approvals": _two},
			"requested",
		],
	}
	[changes, state] := tc
	_state(changes, "12:00") == state
}

_window := {"days": ["thu"], "from": "11:00", "to": "13:00", "zone": "UTC"}

_approved := {"approvals": _two}

_windowed := {"grant": object.union(_grant, {"windows": [_window]}), "target": {"approval": {"on_call": "orders"}}, "roster": _roster}

_roster := {"orders": {"shifts": [{"person": "alice", "from": "2030-01-31T09:00:00Z", "to": "2030-01-31T13:30:00Z"}]}}

# `_shop` without its approval, which `object.union` cannot take away.
_simple(fields, clock) := answer if {
	answer := grants.state(_holding, _ns(clock)) with data.grants as {"alice": {"G": object.union(_grant, fields)}}
		with data.targets as {"shop": {"labels": _shop.labels, "break_glass": {"groups": ["leads"], "max_seconds": 14400}}}
		with data.people as _people
}

test_state[note] if {
	some note, tc in {
		"approved by another": [{"approved_by": "erin"}, "12:00", "active"],
		"approved by themselves": [{"approved_by": " Alice"}, "12:00", "requested"],
		"before": [{"approved_by": "erin"}, "09:59", "approved"],
		"after": [{"approved_by": "erin"}, "14:00", "expired"],
		"ended": [{"approved_by": "erin", "ended_at": "2030-01-31T11:00:00Z"}, "12:00", "ended"],
		"to be ended": [{"approved_by": "erin", "ended_at": "2030-01-31T13:00:00Z"}, "12:00", "active"],
		"in its window": [{"approved_by": "erin", "windows": [_window]}, "12:00", "active"],
		"outside its window": [{"approved_by": "erin", "windows": [_window]}, "13:00", "approved"],
		"nobody approved": [{}, "12:00", "malformed"],
		"malformed": [{"approved_by": "erin", "windows": []}, "12:00", "malformed"],
		"broken glass": [{"kind": "break_glass"}, "12:00", "active"],
		"broken glass for too long": [{"kind": "break_glass", "ends_at": "2030-01-31T14:00:01Z"}, "12:00", "requested"],
	}
	[fields, clock, state] := tc
	_simple(fields, clock) == state
}

test_by_labels[note] if {
	some note, tc in {
		"all of them": [{"env": "prod", "team": "shop"}, "active"],
		"one of a list": [{"env": ["test", "prod"]}, "active"],
		"another value": [{"env": "test"}, "none"],
		"a label that it has not": [{"env": "prod", "zone": "eu"}, "none"],
		"none": [{}, "malformed"],
		"a list of none": [{"env": []}, "malformed"],
		"no text": [{"env": 7}, "malformed"],
	}
	[labels, state] := tc
	grant := object.union(object.remove(_grant, ["target"]), {"targets": {"labels": labels}, "approved_by": "erin"})
	_labelled(grant) == state
}

_labelled(grant) := state if {
	state := grants.state(_holding, _ns("12:00")) with data.grants as {"alice": {"G": grant}}
		with data.targets as {"shop": {"labels": _shop.labels}}
		with data.people as _people
} else := "none"

test_until_the_first_that_comes[note] if {
	some note, tc in {
		"its end": [_approved, "2030-01-31T14:00:00Z", "grant_ended"],
		"an approval that expires": [
			{"approvals": {"erin": _approval, "frank": _but({"expires_at": "2030-01-31T12:30:00Z"})}},
			"2030-01-31T12:30:00Z",
			"grant_approval_over",
		],
		"not the one that is not needed": [
			{"approvals": {"erin": _approval, "gina": _approval, "frank": _but({"expires_at": "2030-01-31T12:30:00Z"})}},
			"2030-01-31T14:00:00Z",
			"grant_ended",
		],
		"the end that was approved": [
			{"approvals": _two, "grant": object.union(_grant, {"ends_at": "2030-01-31T16:00:00Z"})},
			"2030-01-31T14:00:00Z",
			"grant_approval_over",
		],
		"an end that was moved to earlier": [
			{"approvals": _two, "grant": object.union(_grant, {"ends_at": "2030-01-31T13:00:00Z"})},
			"2030-01-31T13:00:00Z",
			"grant_ended",
		],
		"its window": [_windowed, "2030-01-31T13:00:00Z", "grant_window_closed"],
		"the shift": [
			{"target": {"approval": {"on_call": "orders"}}, "roster": _roster},
			"2030-01-31T13:30:00Z",
			"grant_approval_over",
		],
	}
	[changes, at, code] := tc
	_until(changes, "12:00") == [at, code]
}

test_lacking[note] if {
	some note, tc in {
		"two": [{}, "14:30", ": 2 more approvals are needed"],
		"one, or a shift": [
			{"approvals": {"erin": _approval}, "target": {"approval": {"on_call": "orders"}}, "roster": _roster},
			"08:30",
			": 2 more approvals are needed; it is while you are on call by the rota orders, next from 2030-01-31 09:00 UTC",
		],
		"a shift that is not known": [
			{"target": {"approval": {"on_call": "orders"}}},
			"12:00",
			": 2 more approvals are needed; it is while you are on call by the rota orders",
		],
	}
	[changes, clock, said] := tc
	world := _world(changes)
	lacking := grants.lacking(_holding, _ns(clock)) with data.grants as {"alice": {"G": world.grant}}
		with data.targets as {"shop": world.target}
		with data.people as _people
		with data.approvals as {"alice": {"G": world.approvals}}
		with data.roster as world.roster
	lacking == said
}

_glass := object.union(_grant, {"kind": "break_glass"})

_review := {"by": "erin", "at": "2030-01-31T14:00:00Z"}

_unreviewed(grant, review, target) := owed if {
	owed := grants.unreviewed("alice") with data.grants as {"alice": {"break-glass-1": grant, "G": _grant}}
		with data.reviews as {"alice": {"break-glass-1": review}}
		with data.targets as {"shop": target}
		with data.people as _people
}

test_debt[note] if {
	named := {"break_glass": {"reviewers": {"people": ["frank"]}}}
	some note, tc in {
		"reviewed by anybody else": [_glass, _review, {}, set()],
		"by who approves": [_glass, _review, _shop, set()],
		"by who does not": [_glass, {"by": "ivan", "at": _review.at}, _shop, {"break-glass-1"}],
		"by who is named": [_glass, {"by": "frank", "at": _review.at}, named, set()],
		"by who is not": [_glass, _review, named, {"break-glass-1"}],
		"by oneself": [_glass, {"by": "alice", "at": _review.at}, {}, {"break-glass-1"}],
		"by who is disabled": [_glass, {"by": "harry", "at": _review.at}, {}, {"break-glass-1"}],
		"before it was over": [_glass, {"by": "erin", "at": "2030-01-31T13:59:59Z"}, {}, {"break-glass-1"}],
		"after it was ended": [
			object.union(_glass, {"ended_at": "2030-01-31T11:00:00Z"}),
			{"by": "erin", "at": "2030-01-31T11:00:00Z"}, {}, set(),
		],
		"not": [_glass, null, {}, {"break-glass-1"}],
		"malformed": [{"kind": "break_glass", "target": 7}, _review, {}, {"break-glass-1"}],
	}
	[grant, review, target, owed] := tc
	_unreviewed(grant, review, target) == owed
}

test_next_id[note] if {
	some note, tc in {
		"first": [{}, "break-glass-1"],
		"after the last": [{"break-glass-1": 1, "break-glass-12": 1, "break-glass-x": 1, "INC-99": 1}, "break-glass-13"],
	}
	[held, id] := tc
	grants.next_break_glass("alice") == id with data.grants as {"alice": held}
}

test_fault_is_found[note] if {
	some note, tc in {
		"two kinds of target": [{"targets": {"labels": {"env": "prod"}}}, {["targets", "target_twice"]}],
		"selection": [{"targets": {"label": 1}}, {["targets", "target_twice"], ["targets.labels", "wrong_type"]}],
		"a limit": [{"max_sessions": 2}, set()],
		"a limit of none": [{"max_sessions": 0}, {["max_sessions", "not_a_limit"]}],
		"a limit of a half": [{"max_sessions": 1.5}, {["max_sessions", "not_a_limit"]}],
		"a limit that is no number": [{"max_sessions": "1"}, {["max_sessions", "not_a_limit"]}],
		"kind": [{"kind": "x"}, {["kind", "unknown_kind"]}],
		"no glass": [{"kind": "break_glass"}, {["kind", "no_break_glass"]}],
		"history": [{"extended": [7]}, {["extended", "wrong_type"]}],
		"history that is one": [{"extended": [{}]}, set()],
		"end no time": [{"ended_at": "x"}, {["ended_at", "not_a_time"]}],
	}
	[fields, faults] := tc
	found := grants.faults(object.union(_grant, fields)) with data.targets as {"shop": _shop}
	{[fault.field, fault.code] | some fault in found} == faults
}

test_ending_of_a_life[note] if {
	some note, tc in {
		"ended early": [
			{"approvals": _two, "grant": object.union(_grant, {"ended_at": "2030-01-31T11:00:00Z", "ended_by": "erin"})},
			"grant_ended_early", "Your grant was ended early, at 2030-01-31T11:00:00Z by erin.",
		],
		"ended for a reason": [
			{"approvals": _two, "grant": object.union(_grant, {"ended_at": "2030-01-31T11:00:00Z", "ended_by": "erin", "ended_reason": "fixed"})},
			"grant_ended_early", "Your grant was ended early, at 2030-01-31T11:00:00Z by erin: fixed.",
		],
		"ended by whoever": [
			{"approvals": _two, "grant": object.union(_grant, {"ended_at": "2030-01-31T11:00:00Z"})},
			"grant_ended_early", "Your grant was ended early, at 2030-01-31T11:00:00Z.",
		],
		"no longer approved": [{}, "grant_approval_over", "Your grant is no longer approved."],
		"window closed": [
			{"approvals": {}, "target": {"approval": {"on_call": "orders"}}, "roster": _roster, "grant": {"windows": [object.union(_window, {"to": "12:00"})]}},
			"grant_window_closed", "Outside the hours of your grant. It opens next at 2030-02-07 11:00 UTC.",
		],
	}
	[changes, code, message] := tc
	world := _world(changes)
	reason := grants.ending(_holding, _ns("12:00")) with data.grants as {"alice": {"G": world.grant}}
		with data.targets as {"shop": world.target}
		with data.people as _people
		with data.approvals as {"alice": {"G": world.approvals}}
		with data.roster as world.roster
	[reason.code, reason.message] == [code, message]
}
