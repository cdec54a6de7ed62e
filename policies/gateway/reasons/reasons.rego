# METADATA
# title: Reasons
# description: |
#   How a refusal is worded: a stable code for machines, one sentence for the engineer, and what to do next.
#   Texts are cut to the lengths that the gateway accepts, since a reason that it cannot read helps nobody.
package gateway.reasons

# METADATA
# description: A refusal of the whole.
reason(code, message, remedy) := {"code": code, "message": _cut(message, 500), "remedy": _cut(remedy, 500)}

# METADATA
# description: A refusal that one field is to blame for.
field_reason(code, field, message, remedy) := object.union(
	reason(code, message, remedy),
	{"field": _cut(field, 200)},
)

_cut(text, most) := text if count(text) <= most

_cut(text, most) := concat("", [substring(text, 0, most - 3), "..."]) if count(text) > most
