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

_rfc3339 := concat("", ["^(?:", concat("|", _days), ")T", _time, _zone, "$"])

_days := [
	`(?:19|20|21)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])`,
	`(?:19|20|21)\d\d-(?:0[13-9]|1[0-2])-(?:29|30)`,
	`(?:19|20|21)\d\d-(?:0[13578]|1[02])-31`,
	`(?:2000|(?:19|20|21)(?:0[48]|[2468][048]|[13579][26]))-02-29`,
]

_time := `(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?`

_zone := `(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)`
