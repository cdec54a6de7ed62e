# METADATA
# title: Moments
# description: |
#   Points in time as they stand in grants: RFC 3339 text with a zone, from 1900 to 2199.
#   Everything is checked before it is parsed: a builtin that fails would turn a decision into an error.
package gateway.moments

# METADATA
# description: Whether the text names a day that exists and a time of that day.
is_moment(text) if {
	is_string(text)
	regex.match(_rfc3339, text)
}

# METADATA
# description: The moment in nanoseconds since 1970.  Undefined for what is no moment.
ns(text) := time.parse_rfc3339_ns(text) if is_moment(text)

# METADATA
# description: One second, in nanoseconds.
second := 1000000000

# METADATA
# description: The moment as a person reads it, in UTC, to the minute.
shown(at_ns) := time.format([at_ns, "UTC", "2006-01-02 15:04 UTC"])

# METADATA
# description: The moment as text, in UTC.
text(at_ns) := time.format([at_ns, "UTC", "2006-01-02T15:04:05.999999999Z07:00"])

# METADATA
# description: |
#   Whether the moment lies in one of the spans, [from, to] in nanoseconds.  A span begins with its first and is over at
#   its second.
is_within(spans, now_ns) if {
	some [from, to] in spans
	from <= now_ns
	now_ns < to
}

# METADATA
# description: |
#   When the spans, which the moment lies in, are first left: what touches or overlaps is one.
#   Undefined where none is ever left.
leaving(spans, now_ns) := min({to |
	is_within(spans, now_ns)
	some [_, to] in spans
	now_ns < to
	not is_within(spans, to)
})

# METADATA
# description: A length of time as a person reads it, in whole minutes.
span(length_ns) := _in_words(floor(length_ns / (60 * second)))

_in_words(minutes) := $"{minutes} min" if minutes < 60

_in_words(minutes) := $"{floor(minutes / 60)} h {minutes % 60} min" if minutes >= 60

_rfc3339 := concat("", ["^(?:", concat("|", _days), ")T", _time, _zone, "$"])

_days := [
	`(?:19|20|21)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])`,
	`(?:19|20|21)\d\d-(?:0[13-9]|1[0-2])-(?:29|30)`,
	`(?:19|20|21)\d\d-(?:0[13578]|1[02])-31`,
	`(?:2000|(?:19|20|21)(?:0[48]|[2468][048]|[13579][26]))-02-29`,
]

_time := `(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?`

_zone := `(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)`
