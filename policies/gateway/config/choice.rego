package gateway.config

import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.sessions
import data.gateway.targets

# What the person holds at the target that was named, or at each where none was, by its state.
_held[grants.state(holding, input.now_ns)] contains holding if {
	some id, grant in grants.held(_person)
	_is_of_the_kind(grant)
	some target in _meant(grant)
	holding := {"person": _person, "grant": id, "target": target}
}

# Whoever names a target costs no look at the others.
_meant(grant) := {_named | grants.is_for(grant, _named)} if _named != ""

else := grants.targets_of(grant)

_reachable := {holding.target | some holding in _held.active} | {target | target := _new.target}

# Of several grants for the same target, the one that can be stood on longest; of those that have room for a session.
_chosen := max([_longest(holding) | some holding in _held.active; _has_room(holding)])[2]

_chosen := _new if _has_room(_new)

_longest(holding) := [grants.until(holding, input.now_ns)[0], holding.grant, holding]

_has_room(holding) if sessions.has_room(holding, _counted)

_counted := object.filter(input, ["open", "open_at"])

# Given that none has room.
_full := sessions.refusal(_fullest, _counted) if not _has_room(_fullest)

_fullest := max([_longest(holding) | some holding in _held.active])[2]

_fullest := _new

# When and why the session that stands on it is over, if nothing changes.
_ends := {"at": _text(ends_ns), "reason": _ending(code)} if [ends_ns, code] := grants.until(_chosen, input.now_ns)

_ends := {"at": _new_ends_at, "reason": null} if _new

# As it was written, where it is the grant's own.
_text(ns) := grants.of(_chosen).ends_at if moments.ns(grants.of(_chosen).ends_at) == ns

else := moments.text(ns)

_ending("grant_ended") := null

_ending("grant_window_closed") := reasons.reason(
	"grant_window_closed",
	"the hours of your grant are over",
	$"Connect again in the next window. For other hours: {targets.whom_to_ask(_target)}",
)

_ending("grant_approval_over") := reasons.reason(
	"grant_approval_over",
	"the approval of your grant is over",
	targets.whom_to_ask(_target),
)

# What the person is told who can reach nothing: of what is to come the first, of what is over the last.
_waiting := min([[_begins_ns(holding), _waits_for(holding), holding] | some holding in _held.approved])

_begins_ns(holding) := moments.ns(grants.of(holding).starts_at) if _waits_for(holding) == "grant_not_started"

else := grants.opens_ns(holding, input.now_ns)

_waits_for(holding) := "grant_not_started" if input.now_ns < moments.ns(grants.of(holding).starts_at)

else := "grant_window_closed"

_asked := min([holding | some holding in _held.requested])

_last := max([[grants.over_ns(grants.of(holding)), holding] |
	some holding in (object.get(_held, "expired", set()) | object.get(_held, "ended", set()))
	grants.is_just_over(grants.of(holding), input.now_ns)
])[1]

_not_yet := reasons.reason(
	"grant_not_started", concat(" ", [
		$"Your grant for {target} starts at {grants.of(_waiting[2]).starts_at},",
		"so it is too early.",
	]),
	$"Connect again then. For an earlier one: {targets.whom_to_ask(target)}",
) if {
	_waiting[1] == "grant_not_started"
	target := _waiting[2].target
}

else := reasons.reason(
	"grant_window_closed",
	$"It is outside the hours of your grant for {target}, which opens next at {moments.shown(_waiting[0])}.",
	$"Connect again then. For other hours: {targets.whom_to_ask(target)}",
) if {
	target := _waiting[2].target
}

_requested := reasons.reason(
	"grant_not_approved",
	$"Your grant {_asked.grant} for {_asked.target} is requested, and is not approved{grants.lacking(_asked, input.now_ns)}.",
	grants.how_to_approve(_asked),
)

_over := reasons.reason(
	code,
	_over_words[code],
	$"For a new one: {targets.whom_to_ask(_last.target)}",
) if {
	code := {"expired": "grant_ended", "ended": "grant_ended_early"}[grants.state(_last, input.now_ns)]
}

_over_words := {
	"grant_ended": $"Your grant for {_last.target} ended at {grants.of(_last).ends_at}.",
	"grant_ended_early": concat("", [
		$"Your grant for {_last.target} was ended early,",
		$" at {grants.of(_last).ended_at}{grants.ended_how(grants.of(_last))}.",
	]),
}
