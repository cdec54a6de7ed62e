# METADATA
# title: Windows
# description: |
#   Hours of the week at some place: [{"days": ["mon"], "from": "09:00", "to": "17:00", "zone": "Europe/Berlin"}].
#   A window belongs to the day it opens on; one that is over at or before its beginning is over on the next day.
#   Hours are those of the wall clock there.  An hour that a clock shows twice is meant the first time; one that it leaves
#   out is reckoned as if the clock had not been moved (as in RFC 5545, section 3.3.5).
package gateway.windows

import data.gateway.moments

# METADATA
# description: Whether one of the windows is open.
is_open(windows, now_ns) if moments.is_within(_spans(windows, now_ns, [-1, 0]), now_ns)

# METADATA
# description: |
#   When the windows, one of which is open, close: windows that touch are one.
#   Undefined where that is more than a week away.
closes_ns(windows, now_ns) := closes if {
	closes := moments.leaving(spans(windows, now_ns), now_ns)
	closes < now_ns + (7 * _day)
}

# METADATA
# description: When the next window opens.
opens_ns(windows, now_ns) := min([from | some [from, _] in spans(windows, now_ns); now_ns < from])

# METADATA
# description: From when to when the windows are open, [from, to], from yesterday to this day next week.
spans(windows, now_ns) := _spans(windows, now_ns, numbers.range(-1, 8))

# METADATA
# description: |
#   What is wrong with windows: a set of {"field", "code"}.  A key that nobody knows is a fault, since it may have been
#   meant to narrow.  Codes: wrong_type, missing, unknown_field, unknown_day, not_a_clock, unknown_zone.
faults(windows) := {{"field": "windows", "code": "wrong_type"}} if not _is_list(windows)

faults(windows) := {{"field": $"windows[{at}]{place}", "code": code} |
	some at, window in windows
	some [place, code] in window_faults(window, set())
} if {
	_is_list(windows)
}

# METADATA
# description: |
#   What is wrong with one window, a set of [place in it, code].  `more` are names of other keys that it must have.
window_faults(window, _) := {["", "wrong_type"]} if not is_object(window)

window_faults(window, more) := union({
	{[$".{key}", "missing"] | some key in ((_keys | more) - object.keys(window))},
	{[$".{key}", "unknown_field"] | some key in (object.keys(window) - (_keys | more))},
	{[".days", "wrong_type"] | _has(window, "days"); not _is_list(window.days)},
	{[".days", "unknown_day"] | _is_list(window.days); some day in window.days; not _is_day(day)},
	{[".from", "not_a_clock"] | _has(window, "from"); not _is_clock(window.from)},
	{[".to", "not_a_clock"] | _has(window, "to"); not _is_end(window.to)},
	{[".zone", "unknown_zone"] | _has(window, "zone"); not _is_zone(window.zone)},
}) if {
	is_object(window)
}

_keys := {"days", "from", "to", "zone"}

_has(window, key) if key in object.keys(window)

# No more than a person would write: they are looked through by each decision.
_is_list(values) if {
	is_array(values)
	count(values) > 0
	count(values) <= 20
}

_is_day(day) if _weekdays[_] == day

_is_clock(text) if {
	is_string(text)
	regex.match(`^(?:[01]\d|2[0-3]):[0-5]\d$`, text)
}

# The end of the day has a name of its own.
_is_end(text) if text == "24:00"

_is_end(text) if _is_clock(text)

_is_zone(zone) if zone in zones

# 1970 began on a Thursday.
_weekdays := ["thu", "fri", "sat", "sun", "mon", "tue", "wed"]

# The windows that open on `days`, counted from today at the place.
_spans(windows, now_ns, days) := {[from, to] |
	some window in windows
	today := _midnight(now_ns + _offset(now_ns, window.zone))
	some day in days
	midnight := today + (day * _day)
	_weekdays[(midnight / _day) % 7] in window.days
	from := _instant(midnight + _clock(window.from), window.zone)
	to := _instant(midnight + _over(_clock(window.from), _clock(window.to)), window.zone)
}

_over(from, to) := to if from < to

else := to + _day

_midnight(local_ns) := local_ns - (local_ns % _day)

_clock("24:00") := _day

_clock(text) := time.parse_rfc3339_ns($"1970-01-01T{text}:00Z") if text != "24:00"

_day := (24 * 3600) * moments.second

# How far the wall clock there is ahead of UTC.
_offset(at_ns, zone) := time.parse_rfc3339_ns(time.format([at_ns, zone, "2006-01-02T15:04:05Z"])) - _whole(at_ns)

_whole(at_ns) := at_ns - (at_ns % moments.second)

# The moment at which the wall clock there shows what UTC's would at `local_ns`; see above for the days of a switch.
_instant(local_ns, zone) := local_ns - before if {
	before := _offset(local_ns - _day, zone)
	before == _offset(local_ns + _day, zone)
} else := min(shown) if {
	shown := {at_ns |
		some near in [local_ns - _day, local_ns + _day]
		at_ns := local_ns - _offset(near, zone)
		at_ns + _offset(at_ns, zone) == local_ns
	}
	count(shown) > 0
} else := local_ns - _offset(local_ns - _day, zone)
