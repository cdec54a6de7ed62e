package gateway.admission

import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.targets

# Each time that the end is moved to later is on record in the grant, by the door: who, when, from and to when.
_history := {"extended": array.concat(_extensions, [object.union(
	{"at": input.now, "by": input.client.name, "from": input.old.ends_at, "to": input.new.ends_at},
	object.filter(input.new, ["approved_by"]),
)])} if {
	_is_extension
}

else := {"extended": _extensions} if _has_history

else := {}

_extensions := input.old.extended if is_array(input.old.extended)

else := []

_is_extension if {
	_is_same_grant
	moments.ns(input.old.ends_at) < moments.ns(input.new.ends_at)
}

# A grant of the same id that begins at another time is another one.
_is_same_grant if {
	is_object(input.new)
	moments.ns(input.old.starts_at) == moments.ns(input.new.starts_at)
}

_has_history if {
	_is_same_grant
	_ := input.old.extended
}

_has_history if "extended" in object.keys(input.new)

# Whoever ends a grant early ends it now.
_end := object.union(
	{"ended_at": input.old.ended_at, "ended_by": object.get(input.old, "ended_by", "")},
	object.filter(input.old, ["ended_reason"]),
) if {
	_ := input.new.ended_at
	_ := input.old.ended_at
}

else := {"ended_at": input.now, "ended_by": input.client.name} if _ := input.new.ended_at

else := {}

_refusals contains reasons.field_reason(
	"grant_over",
	"ended_at",
	$"This grant was ended early, at {input.old.ended_at}, and stays so.",
	"Write a new one, under another id.",
) if {
	_is_grant
	_ := input.old.ended_at
	not _says_ended
}

_says_ended if _ := input.new.ended_at

_refusals contains reasons.field_reason(
	"grant_over",
	"ends_at",
	$"This grant ended at {moments.text(over)}, and what is over is not extended.",
	"Write a new one, under another id.",
) if {
	_is_grant
	_is_extension
	over := grants.over_ns(input.old)
	over <= input.now_ns
}

_refusals contains reasons.field_reason(
	"kind_changed",
	"kind",
	"A grant does not become, or cease to be, one of broken glass.",
	"Write a new one, under another id.",
) if {
	_is_grant
	is_object(input.old)
	is_object(input.new)
	object.get(input.old, "kind", "") != object.get(input.new, "kind", "")
}

_refusals contains reasons.field_reason(
	"break_glass_refused",
	"kind",
	$"{_names[0]} may not break the glass at {input.new.target}.",
	targets.whom_to_ask(input.new.target),
) if {
	_is_break_glass
	targets.exists(input.new.target)
	not _may_break_glass
}

# Their debt is not this grant itself, which is written anew to end it.
_refusals contains reasons.field_reason(
	"review_owed",
	"person",
	$"What {_names[0]} did behind broken glass has not been reviewed: {concat(", ", sort(_owed))}.",
	"Somebody else has to: doorward grants review.",
) if {
	_is_break_glass
	count(_owed) > 0
}

_refusals contains reasons.field_reason(
	"review_owed",
	"id",
	"This grant is the only trace of a review that is owed, so it is not deleted.",
	"End it (`doorward grants end`); once somebody else has reviewed it, it can be deleted.",
) if {
	input.verb == "DELETE"
	_root == "grants"
	_names[1] in grants.unreviewed(_names[0])
}

_owed := grants.unreviewed(_names[0]) - {_names[1]}

_may_break_glass if grants.may_break_glass(_names[0], input.new.target)

_is_break_glass if {
	_is_grant
	grants.is_break_glass(input.new)
}
