package gateway.config

import data.gateway.copies
import data.gateway.grants
import data.gateway.moments
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

_names_break_glass if _login.break_glass

# What is held counts for whoever asks for its kind: nobody is behind broken glass without having said so.
_is_of_the_kind(grant) if {
	_names_break_glass
	grants.is_break_glass(grant)
}

_is_of_the_kind(grant) if {
	not _names_break_glass
	not _is_glass(grant)
}

_is_glass(grant) if grants.is_break_glass(grant)

# The grant that would be written: who broke the glass already, at this target, stands on that.
_new := {"person": _person, "grant": grants.next_break_glass(_person), "target": _named} if {
	_names_break_glass
	not _held.active
	_may_break_glass
	count(grants.unreviewed(_person)) == 0
}

_may_break_glass if {
	not copies.is_copy
	people.is_active(_person)
	targets.exists(_named)
	grants.may_break_glass(_person, _named)
}

_new_ends_at := moments.text(input.now_ns + (targets.break_glass_seconds(_named) * moments.second))

# The grant, once there is a reason to put into it.
_new_grant := {
	"target": _named,
	"starts_at": moments.text(input.now_ns),
	"ends_at": _new_ends_at,
	"reason": substring(trim_space(input.request.reason), 0, 1000),
	"kind": "break_glass",
	"requested_at": moments.text(input.now_ns),
} if {
	_new
	trim_space(input.request.reason) != ""
}

# Given that they named it and have nothing to stand on: why they may not break the glass.
_no_glass := copies.overwritten if {
	_names_break_glass
	copies.is_copy
}

else := reasons.reason(
	"break_glass_refused",
	$"You may not break the glass at {_named}.",
	targets.whom_to_ask(_named),
) if {
	_names_break_glass
	not _may_break_glass
}

else := _review_owed if _names_break_glass

_review_owed := reasons.reason(
	"review_owed",
	$"Nobody else has reviewed yet what you did behind broken glass: {substring(concat(", ", sort(_owed)), 0, 300)}.",
	$"{_until_over}Ask for a review, by {_reviewers}: doorward grants review {_person} {min(_owed)} --by NAME. Then connect again.",
)

_owed := grants.unreviewed(_person)

# A review is of the whole.
_until_over := $"It is not over: wait for its end, or have it ended (doorward grants end {_person} {min(_owed)}). " if {
	grants.over_ns(data.grants[_person][min(_owed)]) > input.now_ns
} else := ""

_reviewers := substring(grants.reviewers(_person, min(_owed)), 0, 150)

# What whoever may is told when they have nothing else.
_emergency := $" In an emergency, on record, and to be reviewed: ssh {_person}+{_named}+break-glass@door" if {
	_may_break_glass
	not _names_break_glass
} else := ""
