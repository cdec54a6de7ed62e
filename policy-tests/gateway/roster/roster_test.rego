package gateway.roster_test

import data.gateway.roster

_ns(text) := time.parse_rfc3339_ns(text)

_shift(person, from, to) := {"person": person, "from": $"2030-01-31T{from}:00Z", "to": $"2030-01-31T{to}:00Z"}

_weekly := {"person": "bob", "days": ["thu"], "from": "09:00", "to": "17:00", "zone": "UTC"}

_rotas := {
	"orders": {
		"shifts": [
			_shift("alice", "08:00", "14:00"), _shift("alice", "14:00", "16:00"), _shift("alice", "20:00", "22:00"),
			_shift("carol", "00:00", "23:00"), {"person": "alice", "from": "x", "to": 7}, 7,
		],
		"weekly": [_weekly, object.union(_weekly, {"zone": "Nowhere"}), {"person": "bob"}],
	},
	"broken": 7,
}

_until(rota, person, at) := until if {
	until := roster.on_call_until(rota, person, _ns(at)) with data.roster as _rotas
}

test_on_call_until[note] if {
	some note, tc in {
		"shifts that touch are one": ["alice", "2030-01-31T09:00:00Z", "2030-01-31T16:00:00Z"],
		"the later of them": ["alice", "2030-01-31T14:00:00Z", "2030-01-31T16:00:00Z"],
		"week by week": ["bob", "2030-01-31T09:00:00Z", "2030-01-31T17:00:00Z"],
	}
	[person, at, until] := tc
	_until("orders", person, at) == _ns(until)
}

test_not_on_call[note] if {
	some note, tc in {
		"between shifts": ["orders", "alice", "2030-01-31T16:00:00Z"],
		"not listed": ["orders", "zoe", "2030-01-31T09:00:00Z"],
		"another day": ["orders", "bob", "2030-02-01T10:00:00Z"],
		"no such rota": ["none", "alice", "2030-01-31T09:00:00Z"],
		"a rota that is none": ["broken", "alice", "2030-01-31T09:00:00Z"],
	}
	[rota, person, at] := tc
	not _until(rota, person, at)
}

test_next_shift if {
	next := roster.next_shift("orders", "alice", _ns("2030-01-31T17:00:00Z")) with data.roster as _rotas
	next == _ns("2030-01-31T20:00:00Z")
}

test_fault_is_found[note] if {
	good := _shift("alice", "08:00", "14:00")
	some note, tc in {
		"no object": [7, {["", "not_an_object"]}],
		"neither": [{}, {["shifts", "missing"]}],
		"a field nobody knows": [{"shifts": [], "shift": 1}, {["shift", "unknown_field"]}],
		"no list": [{"shifts": 7}, {["shifts", "wrong_type"]}],
		"too many": [{"weekly": [_weekly | some _ in numbers.range(0, 500)]}, {["weekly", "too_many"]}],
		"description no text": [{"shifts": [], "description": 7}, {["description", "wrong_type"]}],
		"shift no object": [{"shifts": [7]}, {["shifts[0]", "wrong_type"]}],
		"person missing": [{"shifts": [object.remove(good, ["person"])]}, {["shifts[0].person", "missing"]}],
		"person unknown": [{"shifts": [_shift("zoe", "08:00", "14:00")]}, {["shifts[0].person", "unknown_person"]}],
		"field of shift unknown": [{"shifts": [object.union(good, {"x": 1})]}, {["shifts[0].x", "unknown_field"]}],
		"no time": [{"shifts": [object.union(good, {"to": "x"})]}, {["shifts[0].to", "not_a_time"]}],
		"ends first": [{"shifts": [_shift("alice", "14:00", "08:00")]}, {["shifts[0].to", "ends_before_start"]}],
		"window": [{"weekly": [object.union(_weekly, {"zone": "x"})]}, {["weekly[0].zone", "unknown_zone"]}],
		"window of nobody": [{"weekly": [object.union(_weekly, {"person": 7})]}, {["weekly[0].person", "unknown_person"]}],
		"none": [{"description": "x", "shifts": [good], "weekly": [_weekly]}, set()],
	}
	[rota, faults] := tc
	found := roster.faults(rota) with data.people as data.fixtures.people
	{[fault.field, fault.code] | some fault in found} == faults
}
