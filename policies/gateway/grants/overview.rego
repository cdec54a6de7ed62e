package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.reasons

# METADATA
# title: Grants and their state
# description: |
#   For lists and reports: every grant of `input.persons`, or the one `input.grant` of theirs, at each of its targets:
#   {"person", "grant", "target", "state", "why", "until", "missing" (how many approvals), "approvals" (whose count now),
#   "review_owed", "value"}.  `why` is the reason why nothing can stand on it now, or null.
#   It walks what it lists, and no decision uses it.  While OPA walks nobody writes: ask about some persons at a time.
# entrypoint: true
overview contains _row(holding, input.now_ns) if {
	some person in input.persons
	some id, grant in data.grants[person]
	object.get(input, "grant", id) == id
	some target in _listed_targets(grant)
	holding := {"person": person, "grant": id, "target": target}
}

_listed_targets(grant) := targets_of(grant) if {
	is_object(grant)
	count(targets_of(grant)) > 0
} else := {""}

_row(holding, now_ns) := object.union(holding, {
	"state": state,
	"why": _why(_obstacle(holding, state, now_ns), holding, now_ns),
	"missing": missing(holding, now_ns),
	"approvals": _approvals_listed(holding, now_ns),
	"review_owed": _owes_review(holding),
	"until": _until_listed(holding, now_ns),
	"value": of(holding),
}) if {
	state := _state_listed(holding, now_ns)
}

_state_listed(holding, now_ns) := "malformed" if not _is_readable(holding)

else := _state(holding, now_ns)

_until_listed(holding, now_ns) := moments.text(until(holding, now_ns)[0]) if _ := until(holding, now_ns)

else := of(holding).ends_at if is_string(of(holding).ends_at)

else := ""

_approvals_listed(holding, now_ns) := [name | some name, _ in _counting(holding, now_ns)] if _is_readable(holding)

else := []

_owes_review(holding) := false if not is_break_glass(of(holding))

else := false if is_reviewed(holding.person, holding.grant)

else := true

# The first that is so; the empty one where nothing is in the way.
_obstacle(_, "malformed", _) := "grant_malformed"

_obstacle(_, "ended", _) := "grant_ended_early"

_obstacle(_, "expired", _) := "grant_ended"

_obstacle(holding, state, now_ns) := _obstacle_to_come(holding, state, now_ns) if {
	state in {"requested", "approved", "active"}
}

_obstacle_to_come(holding, state, now_ns) := "person_disabled" if not people.is_active(holding.person)

else := "unknown_target" if _is_nowhere(holding)

else := _obstacles[state] if _obstacles[state]

else := "grant_not_started" if now_ns < moments.ns(of(holding).starts_at)

else := "grant_window_closed"

_obstacles := {"requested": "grant_not_approved", "active": ""}

_is_nowhere(holding) if holding.target == ""

_why("", _, _) := null

_why(code, holding, now_ns) := reasons.reason(code, _why_words(code, holding, now_ns), _why_remedy(code, holding)) if {
	code != ""
}

_why_words("grant_malformed", holding, _) := $"It is malformed, and has no effect: {concat("; ", found)}." if {
	found := problems(holding.grant, of(holding))
}

_why_words("grant_ended_early", holding, _) := $"It was ended early, at {of(holding).ended_at}{ended_how(of(holding))}."

_why_words("grant_ended", holding, _) := $"It ended at {of(holding).ends_at}."

_why_words("person_disabled", holding, _) := $"{holding.person} is unknown or disabled."

_why_words("unknown_target", _, _) := "No target has its labels."

_why_words("grant_not_approved", holding, now_ns) := $"It is requested, and is not approved{lacking(holding, now_ns)}."

_why_words("grant_not_started", holding, _) := $"It starts at {of(holding).starts_at}."

_why_words("grant_window_closed", holding, now_ns) := concat("", array.concat(
	["It is outside its hours."],
	[$" It opens next at {moments.shown(opens)}." | opens := opens_ns(holding, now_ns)],
))

_why_remedy("grant_not_approved", holding) := how_to_approve(holding)

_why_remedy(code, _) := _why_remedies[code] if code != "grant_not_approved"

_why_remedies := {
	"grant_malformed": "Write it anew at the grants door, which says what is wrong before anything is stored.",
	"grant_ended_early": "Write a new one, under another id: doorward grants request.",
	"grant_ended": "Write a new one, under another id: doorward grants request.",
	"person_disabled": "Ask the people who keep the accounts.",
	"unknown_target": "Ask the platform team which labels there are.",
	"grant_not_started": "Wait until then, or write another one that starts earlier.",
	"grant_window_closed": "Wait until then, or write another one with other hours.",
}
