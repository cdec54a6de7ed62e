package gateway.overview_test

import data.gateway.grants

_ns(clock) := time.parse_rfc3339_ns($"2030-01-31T{clock}:00Z")

_plain := {
	"target": "shop",
	"starts_at": "2030-01-31T10:00:00Z",
	"ends_at": "2030-01-31T14:00:00Z",
	"reason": "stuck orders",
	"approved_by": "erin",
}

_asked := object.union(object.remove(_plain, ["approved_by"]), {"target": "vault"})

_targets := {
	"shop": {"labels": {"env": "prod"}, "break_glass": {"people": ["alice"], "max_seconds": 14400}},
	"vault": {"approval": {"needed": 2, "by": {"people": ["erin", "frank"]}}, "ask": "#vault", "approvers": "the leads"},
	"rota": {"approval": {"on_call": "vault"}},
}

_labelled := object.union(object.remove(_plain, ["target"]), {"targets": {"labels": {"env": "dev"}}})

_window := {"days": ["thu"], "from": "11:00", "to": "12:00", "zone": "UTC"}

_approval := {"at": "2030-01-31T09:00:00Z", "for": grants.essence(_asked)}

_asked_for := {"now_ns": _ns("12:00"), "persons": ["alice", "mallory"]}

# The rows of a grant of alice's, or of somebody's whose account is disabled.
_rows(grant, changes) := {row |
	some row in grants.overview with input as object.union(_asked_for, object.get(changes, "input", {}))
		with data.grants as {object.get(changes, "person", "alice"): {"G": grant}}
		with data.targets as _targets
		with data.people as {"alice": {}, "erin": {}, "frank": {}, "mallory": {"disabled": true}}
		with data.approvals as {"alice": {"G": object.get(changes, "approvals", {})}}
		with data.reviews as {"alice": {"G": object.get(changes, "review", null)}}
}

_with(fields) := object.union(_plain, fields)

test_state_and_what_is_in_the_way[note] if {
	some note, tc in {
		"active": [_plain, {}, "active", null, null],
		"ended": [
			_with({"ended_at": "2030-01-31T11:00:00Z", "ended_by": "erin"}), {},
			"ended", "grant_ended_early", "It was ended early, at 2030-01-31T11:00:00Z by erin.",
		],
		"expired": [
			_with({"ends_at": "2030-01-31T12:00:00Z"}), {},
			"expired", "grant_ended", "It ended at 2030-01-31T12:00:00Z.",
		],
		"nobody's": [_plain, {"person": "mallory"}, "active", "person_disabled", "mallory is unknown or disabled."],
		"no target of its labels": [_labelled, {}, "active", "unknown_target", "No target has its labels."],
		"early": [
			_with({"starts_at": "2030-01-31T13:00:00Z"}), {},
			"approved", "grant_not_started", "It starts at 2030-01-31T13:00:00Z.",
		],
		"outside its hours": [
			_with({"windows": [_window]}), {},
			"approved", "grant_window_closed", "It is outside its hours. It opens next at 2030-02-07 11:00 UTC.",
		],
		"not approved": [
			_asked, {"approvals": {"erin": _approval}},
			"requested", "grant_not_approved", "It is requested, and is not approved: 1 more approvals are needed.",
		],
		"approved by themselves": [
			_with({"approved_by": "alice"}), {},
			"requested", "grant_not_approved", "It is requested, and is not approved.",
		],
		"malformed": [
			_with({"reason": ""}), {},
			"malformed", "grant_malformed", "It is malformed, and has no effect: reason: wrong_type.",
		],
		"no grant at all": [7, {}, "malformed", "grant_malformed", "It is malformed, and has no effect: : not_an_object."],
	}
	[grant, changes, state, code, message] := tc
	some row in _rows(grant, changes)
	row.state == state
	[object.get(row, ["why", "code"], null), object.get(row, ["why", "message"], null)] == [code, message]
}

test_what_to_do_about_a_request[note] if {
	some note, tc in {
		"people": [_asked, "Whoever may approve it runs: doorward grants approve alice G --by NAME. Ask at #vault; who approves: the leads."],
		"a rota alone": [object.union(_asked, {"target": "rota"}), "Ask the platform team who gives grants for it."],
	}
	[grant, remedy] := tc
	some row in _rows(grant, {})
	row.why.remedy == remedy
}

test_whose_approvals_count[note] if {
	some note, tc in {
		"none": [{}, [], 2],
		"one": [{"erin": _approval, "alice": _approval}, ["erin"], 1],
		"all": [{"erin": _approval, "frank": _approval}, ["erin", "frank"], 0],
	}
	[approvals, names, missing] := tc
	some row in _rows(_asked, {"approvals": approvals})
	[row.approvals, row.missing] == [names, missing]
}

test_until_when[note] if {
	some note, tc in {
		"active": [_plain, "2030-01-31T14:00:00Z"],
		"its window": [_with({"windows": [object.union(_window, {"to": "13:00"})]}), "2030-01-31T13:00:00Z"],
		"not active": [_asked, "2030-01-31T14:00:00Z"],
		"malformed": [{}, ""],
		"no text": [_with({"ends_at": 7}), ""],
		"no object": [7, ""],
	}
	[grant, until] := tc
	some row in _rows(grant, {})
	row.until == until
}

test_debt_is_listed[note] if {
	glass := object.union(object.remove(_plain, ["approved_by"]), {"kind": "break_glass", "ends_at": "2030-01-31T11:00:00Z"})
	some note, tc in {
		"a plain one": [_plain, {}, false],
		"broken glass": [glass, {}, true],
		"reviewed": [glass, {"review": {"by": "erin", "at": "2030-01-31T11:30:00Z"}}, false],
		"reviewed by themselves": [glass, {"review": {"by": "alice", "at": "2030-01-31T11:30:00Z"}}, true],
		"no object": [7, {}, false],
	}
	[grant, changes, owed] := tc
	some row in _rows(grant, changes)
	row.review_owed == owed
}

test_only_what_is_asked_for[note] if {
	some note, tc in {
		"some persons": [{"persons": ["alice", "bob"]}, 1],
		"another person": [{"persons": ["bob"]}, 0],
		"nobody": [{"persons": []}, 0],
		"the grant": [{"persons": ["alice"], "grant": "G"}, 1],
		"another grant": [{"persons": ["alice"], "grant": "H"}, 0],
	}
	[asked, rows] := tc
	count(_rows(_plain, {"input": asked})) == rows
}

test_a_grant_by_labels_is_listed_at_each_of_its_targets if {
	grant := object.union(_labelled, {"targets": {"labels": {"env": "prod"}}})
	{[row.target, row.state] | some row in _rows(grant, {})} == {["shop", "active"]}
}
