package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.roster
import data.gateway.targets

# METADATA
# title: Approvals
# description: |
#   Until when a grant is approved at a target, in nanoseconds.  Undefined where it is not approved now.
#   A target that says nothing of approval takes the grant's own `approved_by`.  One that does takes `needed` approvals of
#   the people it names, or that the person is on call by the rota it names, whichever lasts longer.
#   An approval is for the grant as it was when it was given, up to the end that it then had, and lasts until its
#   own `expires_at`: a session that stands on it ends then.
approved_until(holding, now_ns) := max(_approvals_end(holding, now_ns))

# METADATA
# description: How many approvals the grant still lacks at the target; none where approvals do not decide.
missing(holding, now_ns) := max([0, needed - count(_counting(holding, now_ns))]) if {
	needed := _needed(holding.target)
}

else := 0

# METADATA
# description: What a grant that is requested waits for, as the end of a sentence.
lacking(holding, now_ns) := concat("", [said |
	some said in array.concat(
		[$": {number} more approvals are needed" | number := missing(holding, now_ns); number > 0],
		[$"; it is while you are on call by the rota {rota}{_next_shift(rota, holding, now_ns)}" |
			rota := data.targets[holding.target].approval.on_call
		],
	)
])

_next_shift(rota, holding, now_ns) := $", next from {moments.shown(next)}" if {
	next := roster.next_shift(rota, holding.person, now_ns)
} else := ""

# METADATA
# description: |
#   What to do so that a grant that is requested is approved: what to run, where people approve grants of the target, and
#   whom to ask.
how_to_approve(holding) := concat(" ", array.concat(
	[$"Whoever may approve it runs: doorward grants approve {holding.person} {holding.grant} --by NAME." |
		_ := _needed(holding.target)
	],
	[targets.whom_to_ask(holding.target)],
))

# METADATA
# description: Whether this person may approve grants of the target for somebody else.
may_approve(approver, target, person) if {
	lower(approver) != lower(person)
	people.is_active(approver)
	_is_one_of(approver, data.targets[target].approval.by)
}

# METADATA
# description: |
#   What an approval is bound to: the grant's fields that say what is permitted, and why.  The end bounds it besides: an
#   approval does not reach beyond the end that was approved, and a grant that is extended lacks approvals for the rest.
essence(grant) := object.filter(grant, [
	"target", "targets", "starts_at", "ends_at", "reason", "windows", "kind", "max_sessions",
])

_approvals_end(holding, _) := [over_ns(grant)] if {
	grant := of(holding)
	not is_break_glass(grant)
	not _has_approval(holding.target)
	_is_approved_by_another(grant, holding.person)
}

_approvals_end(holding, now_ns) := array.concat(_by_people(holding, now_ns), _by_roster(holding, now_ns)) if {
	not is_break_glass(of(holding))
	_has_approval(holding.target)
}

# Nobody approves breaking the glass: the target says who may, and for how long.
_approvals_end(holding, _) := [over_ns(grant)] if {
	grant := of(holding)
	is_break_glass(grant)
	may_break_glass(holding.person, holding.target)
	_length_ns(grant) <= targets.break_glass_seconds(holding.target) * moments.second
}

_length_ns(grant) := moments.ns(grant.ends_at) - moments.ns(grant.starts_at)

_has_approval(target) if _ := data.targets[target].approval

_is_approved_by_another(grant, person) if {
	_is_text(grant.approved_by)
	lower(trim_space(grant.approved_by)) != lower(person)
}

# The needed number of people stand by it up to the end of the one of them who leaves first.
_by_people(holding, now_ns) := [ends[needed - 1]] if {
	needed := _needed(holding.target)
	ends := _descending([end | some end in _counting(holding, now_ns)])
	count(ends) >= needed
} else := []

_by_roster(holding, now_ns) := [end |
	rota := data.targets[holding.target].approval.on_call
	end := roster.on_call_until(rota, holding.person, now_ns)
]

_needed(target) := data.targets[target].approval.needed if {
	is_number(data.targets[target].approval.needed)
	data.targets[target].approval.needed >= 1
}

# The approvals that count, by approver - until when.
_counting(holding, now_ns) := {approver: end |
	some approver, approval in data.approvals[holding.person][holding.grant]
	may_approve(approver, holding.target, holding.person)
	moments.ns(approval.at) <= now_ns
	_is_of(approval, of(holding))
	end := min({moments.ns(approval.for.ends_at)} | _expiry(approval))
	now_ns < end
}

_is_of(approval, grant) if object.remove(approval.for, ["ends_at"]) == object.remove(essence(grant), ["ends_at"])

# What cannot be read is over.
_expiry(approval) := {end | end := moments.ns(approval.expires_at)} if moments.is_moment(approval.expires_at)

else := {0} if _ := approval.expires_at

else := set()

_descending(numbers) := [sorted[(count(sorted) - 1) - at] | some at, _ in sorted] if sorted := sort(numbers)

_is_one_of(person, listed) if person in listed.people

_is_one_of(person, listed) if {
	some group in people.groups(person)
	group in listed.groups
}
