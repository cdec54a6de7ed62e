package gateway.desk

import data.gateway.grants
import data.gateway.moments

# METADATA
# title: ssh door access
# description: |
#   The person's own grants, line by line: what holds now, what is to come, what is asked for, what was over within the
#   last day, and how to ask for more.
access(person, now_ns) := array.flatten([
	$"Grants of {person} at {moments.shown(now_ns)}",
	array.flatten([_section(title, _entries(_holdings(person, now_ns), states, now_ns)) |
		some [title, states] in _sections
	]),
	_none(person, now_ns),
	_owed(person),
	"",
	"To ask for more, or for longer:",
	_whom_to_ask(person),
	$"  Name any other target to be told whom to ask: ssh {person}+target@door",
])

_sections := [
	["You may reach now:", {"active"}],
	["Not yet:", {"approved"}],
	["Not approved:", {"requested"}],
	["Ended within the last day:", {"ended", "expired"}],
]

_section(_, []) := []

_section(title, entries) := array.flatten([
	["", title],
	array.slice(entries, 0, 50),
	_more(count(entries) - 50),
]) if {
	count(entries) > 0
}

_more(number) := [$"  ... and {number} more"] if number > 0

_more(number) := [] if number <= 0

_none(person, now_ns) := ["", "You have no grant, and had none within the last day."] if {
	count(_holdings(person, now_ns)) == 0
} else := []

# What somebody else has to look at before they break the glass again.
_owed(person) := array.concat(
	["", "Behind broken glass, and to be reviewed by somebody else before you can do it again:"],
	[$"  {id}, by {substring(grants.reviewers(person, id), 0, 150)}" | some id in array.slice(sort(owed), 0, 50)],
) if {
	owed := grants.unreviewed(person)
	count(owed) > 0
} else := []

# What is shown, in the order in which it is shown: [moment that counts, holding, state].
_holdings(person, now_ns) := sort([[_moment(holding, state, now_ns), holding, state] |
	some id, grant in grants.held(person)
	some target in grants.targets_of(grant)
	holding := {"person": person, "grant": id, "target": target}
	state := grants.state(holding, now_ns)
	_is_shown(grant, state, now_ns)
])

_is_shown(_, state, _) if state in {"active", "approved", "requested"}

_is_shown(grant, state, now_ns) if {
	state in {"ended", "expired"}
	grants.is_just_over(grant, now_ns)
}

_moment(holding, "active", now_ns) := grants.until(holding, now_ns)[0]

_moment(holding, "approved", now_ns) := max([starts, now_ns]) if {
	starts := moments.ns(grants.of(holding).starts_at)
	starts > now_ns
} else := grants.opens_ns(holding, now_ns)

_moment(holding, "requested", _) := moments.ns(grants.of(holding).starts_at)

_moment(holding, state, _) := grants.over_ns(grants.of(holding)) if state in {"ended", "expired"}

_entries(holdings, states, now_ns) := [concat("\n", lines) |
	some [at, holding, state] in holdings
	state in states
	grant := grants.of(holding)
	lines := array.flatten([
		$"  {holding.target}  {_described(holding.target)}",
		_times(state, at, holding, now_ns),
		$"    grant    {holding.grant}{_ticket(grant)}{_approver(grant)}",
		$"    reason   {_line(grant.reason)}",
	])
]

_times("active", at, holding, now_ns) := [
	$"    connect  ssh {_login_of(holding)}@door",
	$"    from     {moments.shown(moments.ns(grants.of(holding).starts_at))}",
	$"    until    {moments.shown(at)} ({moments.span(at - now_ns)} left)",
]

_times("approved", at, holding, now_ns) := [
	$"    from     {moments.shown(at)} (in {moments.span(at - now_ns)})",
	$"    until    {moments.shown(grants.over_ns(grants.of(holding)))}",
]

_times("requested", at, holding, now_ns) := [
	$"    from     {moments.shown(at)}",
	$"    until    {moments.shown(grants.over_ns(grants.of(holding)))}",
	$"    lacks    approval{grants.lacking(holding, now_ns)}",
]

_times(state, at, _, now_ns) := [$"    ended    {moments.shown(at)} ({moments.span(now_ns - at)} ago)"] if {
	state in {"ended", "expired"}
}

_login_of(holding) := $"{holding.person}+{holding.target}{_word(grants.of(holding))}"

_word(grant) := "+break-glass" if grants.is_break_glass(grant)

else := ""

_approver(grant) := $", approved by {_line(grant.approved_by)}" if {
	is_string(grant.approved_by)
} else := ""

_ticket(grant) := $", ticket {_line(grant.ticket)}" if {
	is_string(grant.ticket)
} else := ""
