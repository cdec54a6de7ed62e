package gateway.admission

import data.gateway.grants
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

_open contains "reviews"

_filled := {"at": input.now, "recorded_by": input.client.name} if _root == "reviews"

_refusals contains _unknown_grant if {
	_is_review
	not is_object(_its_grant)
}

_refusals contains reasons.field_reason(
	"review_not_owed",
	"path",
	$"The grant {_names[1]} is not one of broken glass, so nobody owes a review of it.",
	"Look at `doorward grants list` for the kind of each.",
) if {
	_is_review
	is_object(_its_grant)
	not grants.is_break_glass(_its_grant)
}

_refusals contains reasons.field_reason(
	"not_over",
	"path",
	$"The grant {_names[1]} is not over yet, and a review is of the whole.",
	"Wait for its end, or end it: doorward grants end.",
) if {
	_is_review
	grants.over_ns(_its_grant) > input.now_ns
}

_refusals contains reasons.field_reason(
	"missing",
	"by",
	"by is missing, or no name.",
	"Say who reviewed it, by the name that they log in with.",
) if {
	_is_review
	not _names_reviewer
}

_refusals contains reasons.field_reason(
	"self_reviewed",
	"by",
	"Nobody reviews what they did themselves.",
	"Ask somebody else who may.",
) if {
	_is_review
	lower(input.new.by) == lower(_names[0])
}

_refusals contains _unknown_person("by", input.new.by) if {
	_is_review
	people.is_name(input.new.by)
	not people.is_active(input.new.by)
}

_refusals contains reasons.field_reason(
	"reviewer_not_listed",
	"by",
	$"{input.new.by} is none of those who may review this.",
	targets.whom_to_ask(_its_grant.target),
) if {
	_is_review
	people.is_active(input.new.by)
	lower(input.new.by) != lower(_names[0])
	grants.is_break_glass(_its_grant)
	not _may_review
}

_refusals contains _no_such_field(field, "A review", {"by", "note"}) if {
	_is_review
	is_object(input.new)
	some field in (object.keys(input.new) - {"by", "note", "at", "recorded_by"})
}

_names_reviewer if people.is_name(input.new.by)

_is_review if {
	_is_write
	_root == "reviews"
}

_may_review if grants.may_review(input.new.by, _its_grant.target, _names[0])
