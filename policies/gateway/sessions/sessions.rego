# METADATA
# title: Sessions at once
# description: |
#   How many sessions may be open at once: on one grant, of one person, and at one target by everybody.
#   Those that are open are in the question, as {"open", "open_at"}; the gateway that asks counts its own alone.
#   A limit that cannot be read allows none, and where nobody counted, no limit is kept to.
# schemas:
#   - data.people: schema["data.people"]
#   - data.targets: schema["data.targets"]
package gateway.sessions

import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.targets

# METADATA
# description: |
#   The limits of a session that stands on this grant, by what they are of: `grant`, `person` and `target`.
limits(holding) := {of: _readable(said) | some [of, said] in _said(holding)}

# METADATA
# description: Whether one more session may be opened.
has_room(holding, counted) if count(_full(holding, counted)) == 0

# METADATA
# description: Why no more may be opened, which are open, and what to do, given that there is no room.
refusal(holding, counted) := reasons.reason(
	"too_many_sessions",
	substring(concat("", [_words[of], $" {_number(limit)} at once, and {_open_now(of, holding, counted)}."]), 0, 500),
	$"Leave one of them and connect again. For more at once: {targets.whom_to_ask(holding.target)}",
) if {
	_is_counted(counted)
	of := min(_full(holding, counted))
	limit := limits(holding)[of]
	_words := {
		"grant": $"Your grant {holding.grant} is for",
		"person": "You may have",
		"target": $"{holding.target} takes",
	}
}

_said(holding) := union({
	{["grant", said] | said := grants.of(holding).max_sessions},
	{["person", said] | said := data.people[holding.person].max_sessions},
	{["target", said] | said := data.targets[holding.target].max_sessions},
})

_readable(said) := said if _is_limit(said)

else := 0

_is_limit(said) if grants.is_limit(said)

_full(holding, counted) := {of |
	some of, limit in limits(holding)
	not _is_below(of, limit, holding, counted)
}

_is_below(of, limit, holding, counted) if {
	_is_counted(counted)
	_count(of, holding, counted) < limit
}

_is_counted(counted) if {
	is_array(counted.open)
	is_object(counted.open_at)
}

_count("grant", holding, counted) := count(_those("grant", holding, counted))

_count("person", holding, counted) := count(_those("person", holding, counted))

_count("target", holding, counted) := object.get(counted.open_at, holding.target, 0)

# Those of the person's own that count.
_those("grant", holding, counted) := [session | some session in counted.open; session.grant == holding.grant]

_those("person", _, counted) := counted.open

_those("target", holding, counted) := [session | some session in counted.open; session.target == holding.target]

_open_now(of, holding, counted) := $"{_count(of, holding, counted)} {_is_or_are(of, holding, counted)} open{_whose}" if {
	own := _those(of, holding, counted)
	_whose := concat("", [said |
		some said in array.concat(
			[$", {count(own)} of them yours" | of == "target"],
			[$": {_list(own)}" | count(own) > 0],
		)
	])
}

_list(own) := $"{concat(", ", [_shown(session) | some session in array.slice(own, 0, 3)])}{_more(count(own) - 3)}"

_is_or_are(of, holding, counted) := "is" if _count(of, holding, counted) == 1

else := "are"

_shown(session) := $"session {session.id} ({session.target}, since {moments.shown(moments.ns(session.started_at))})"

_more(number) := $" and {number} more" if number > 0

else := ""

_number(1) := "1 session"

_number(limit) := $"{limit} sessions" if limit != 1
