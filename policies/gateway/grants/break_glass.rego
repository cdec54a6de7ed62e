package gateway.grants

import data.gateway.moments
import data.gateway.people

# METADATA
# title: Breaking the glass
# description: |
#   Whether the target lets this person in without an approval, for a short time, on their own word, and on record.
may_break_glass(person, target) if _is_one_of(person, data.targets[target].break_glass)

# METADATA
# description: |
#   What the person owes: the ids of their grants of this kind that are over, or not yet, and that nobody else has
#   reviewed.  It is read from what is written, well-formed or not: a slip of the pen pays no debt.
unreviewed(person) := {id |
	some id, grant in data.grants[person]
	is_break_glass(grant)
	not is_reviewed(person, id)
}

# METADATA
# description: |
#   Whether somebody else who may has looked at what was done.  A review is of the whole, so it is given when the grant
#   is over; one of an earlier grant of the same id is none.
is_reviewed(person, id) if {
	grant := data.grants[person][id]
	review := data.reviews[person][id]
	may_review(review.by, _target(grant), person)
	moments.ns(review.at) >= over_ns(grant)
}

# METADATA
# description: |
#   Whether `reviewer` may review what `person` did at the target: somebody else, whom the target names or who approves
#   its grants; anybody else, where it names nobody.
may_review(reviewer, target, person) if {
	_may_review(reviewer, target)
	lower(reviewer) != lower(person)
	people.is_active(reviewer)
}

# METADATA
# description: The id of the next grant of this kind.  Two logins at once choose the same, and only one can write it.
next_break_glass(person) := $"break-glass-{1 + max({0} | _numbers(person))}"

_numbers(person) := {to_number(number) |
	some id, _ in data.grants[person]
	regex.match(`^break-glass-[1-9][0-9]{0,8}$`, id)
	number := trim_prefix(id, "break-glass-")
}

# METADATA
# description: Who may review what was done on this grant, for a sentence.
reviewers(person, id) := concat(", or ", _reviewers(_target(data.grants[person][id])))

_reviewers(target) := _listed(data.targets[target].break_glass.reviewers) if _names_reviewers(target)

else := _listed(data.targets[target].approval.by) if _names_approvers(target)

else := ["anybody else"]

_listed(said) := array.concat(
	sort([person | some person in said.people]),
	[$"anyone of {group}" | some group in sort([group | some group in said.groups])],
)

_may_review(reviewer, target) if _is_one_of(reviewer, data.targets[target].break_glass.reviewers)

_may_review(reviewer, target) if {
	not _names_reviewers(target)
	_is_one_of(reviewer, data.targets[target].approval.by)
}

_may_review(_, target) if {
	not _names_reviewers(target)
	not _names_approvers(target)
}

_names_reviewers(target) if _ := data.targets[target].break_glass.reviewers

_names_approvers(target) if _ := data.targets[target].approval.by

_target(grant) := grant.target if is_string(grant.target)

else := ""
