package gateway.windows_test

import data.gateway.windows

_ns(text) := time.parse_rfc3339_ns(text)

_office := {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:00", "zone": "Europe/Berlin"}

_but(fields) := object.union(_office, fields)

_sundays(from, to) := _but({"days": ["sun"], "from": from, "to": to})

# In Berlin the clock goes from 02:00 to 03:00 on 2030-03-31, and from 03:00 to 02:00 on 2030-10-27, both at 01:00 UTC.
test_open_or_not[note] if {
	some note, tc in {
		"before it opens, in winter": [_office, "2030-01-31T07:59:59.999999999Z", false],
		"as it opens, in winter": [_office, "2030-01-31T08:00:00Z", true],
		"as it closes, in winter": [_office, "2030-01-31T16:00:00Z", false],
		"as it opens, in summer": [_office, "2030-07-31T07:00:00Z", true],
		"an hour later than that in summer is too late": [_office, "2030-07-31T15:30:00Z", false],
		"on a Saturday": [_office, "2030-02-02T10:00:00Z", false],
		"over midnight, the evening": [_but({"days": ["fri"], "from": "22:00", "to": "06:00"}), "2030-02-01T22:30:00Z", true],
		"over midnight, the morning after": [_but({"days": ["fri"], "from": "22:00", "to": "06:00"}), "2030-02-02T04:59:00Z", true],
		"over midnight, the morning before": [_but({"days": ["fri"], "from": "22:00", "to": "06:00"}), "2030-02-01T04:59:00Z", false],
		"to the end of the day": [_but({"from": "00:00", "to": "24:00"}), "2030-01-31T22:59:59Z", true],
		"from a time to itself is a day": [_but({"days": ["thu"], "to": "09:00"}), "2030-02-01T07:59:00Z", true],
		"where it is already tomorrow": [_but({"days": ["fri"], "zone": "Pacific/Kiritimati"}), "2030-01-31T20:00:00Z", true],
		"where it is still yesterday": [_but({"days": ["wed"], "zone": "Pacific/Niue"}), "2030-01-31T03:00:00Z", true],
		"spring, before the hour that is left out": [_sundays("01:30", "02:30"), "2030-03-31T00:45:00Z", true],
		"spring, in the hour that is left out": [_sundays("01:30", "02:30"), "2030-03-31T01:29:59Z", true],
		"spring, after it": [_sundays("01:30", "02:30"), "2030-03-31T01:30:00Z", false],
		"spring, opening in what is left out": [_sundays("02:30", "05:00"), "2030-03-31T01:29:00Z", false],
		"spring, opened": [_sundays("02:30", "05:00"), "2030-03-31T01:30:00Z", true],
		"spring, the afternoon": [_sundays("13:00", "14:00"), "2030-03-31T11:00:00Z", true],
		"autumn, the first time": [_sundays("01:30", "02:30"), "2030-10-27T00:29:59Z", true],
		"autumn, not the second time": [_sundays("01:30", "02:30"), "2030-10-27T01:15:00Z", false],
		"autumn, opening at what is shown twice": [_sundays("02:30", "03:30"), "2030-10-27T00:30:00Z", true],
		"autumn, going on through the second": [_sundays("02:30", "03:30"), "2030-10-27T01:15:00Z", true],
		"autumn, the afternoon": [_sundays("13:00", "14:00"), "2030-10-27T12:00:00Z", true],
	}
	[window, at, open] := tc
	_open([window], _ns(at)) == open
}

_open(list, now_ns) if windows.is_open(list, now_ns)

else := false

test_closing_and_opening[note] if {
	some note, tc in {
		"one": [[_office], "2030-01-31T10:00:00Z", "2030-01-31T16:00:00Z", "2030-02-01T08:00:00Z"],
		"two that touch are one": [
			[_but({"to": "12:00"}), _but({"from": "12:00"})],
			"2030-01-31T10:00:00Z", "2030-01-31T16:00:00Z", "2030-01-31T11:00:00Z",
		],
		"days that touch are one": [
			[_but({"days": ["thu", "fri"], "from": "00:00", "to": "24:00"})],
			"2030-01-31T10:00:00Z", "2030-02-01T23:00:00Z", "2030-01-31T23:00:00Z",
		],
	}
	[list, at, closes, opens] := tc
	windows.closes_ns(list, _ns(at)) == _ns(closes)
	windows.opens_ns(list, _ns(at)) == _ns(opens)
}

test_what_is_always_open_does_not_close if {
	always := [_but({"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "00:00", "to": "24:00"})]
	windows.is_open(always, _ns("2030-03-31T01:30:00Z"))
	not windows.closes_ns(always, _ns("2030-01-31T10:00:00Z"))
}

test_what_is_closed_does_not_close if not windows.closes_ns([_office], _ns("2030-02-02T10:00:00Z"))

test_fault_is_found[note] if {
	some note, tc in {
		"no list": ["mon", {["windows", "wrong_type"]}],
		"empty": [[], {["windows", "wrong_type"]}],
		"too many": [[_office | some _ in numbers.range(1, 21)], {["windows", "wrong_type"]}],
		"no object": [[7], {["windows[0]", "wrong_type"]}],
		"a key is missing": [[object.remove(_office, ["zone"])], {["windows[0].zone", "missing"]}],
		"a key nobody knows": [[_office, _but({"until": "x"})], {["windows[1].until", "unknown_field"]}],
		"days are no list": [[_but({"days": "mon"})], {["windows[0].days", "wrong_type"]}],
		"a day that is none": [[_but({"days": ["mon", "Monday"]})], {["windows[0].days", "unknown_day"]}],
		"from no clock": [[_but({"from": "9:00"})], {["windows[0].from", "not_a_clock"]}],
		"from the end of the day": [[_but({"from": "24:00"})], {["windows[0].from", "not_a_clock"]}],
		"to no clock": [[_but({"to": 17})], {["windows[0].to", "not_a_clock"]}],
		"a zone that is none": [[_but({"zone": "Berlin"})], {["windows[0].zone", "unknown_zone"]}],
		"a zone that is no text": [[_but({"zone": ["UTC"]})], {["windows[0].zone", "unknown_zone"]}],
		"none": [[_office, _but({"to": "24:00"})], set()],
	}
	[list, faults] := tc
	{[fault.field, fault.code] | some fault in windows.faults(list)} == faults
}

test_every_zone_is_known_to_opa if {
	every zone in windows.zones {
		time.clock([0, zone])
	}
	count(windows.zones) > 400
}
