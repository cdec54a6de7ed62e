package gateway.authz

import data.gateway.contract
import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: Live sessions
# description: |
#   Live sessions, many in one question, judged again: keep, warn (the grant's end was moved and is near), restrict (the
#   target closes something for now; a warning is then told beside it) or end.  Every session that is asked about is
#   answered.
# entrypoint: true
# schemas:
#   - input: schema["input.live"]
live := {"sessions": object.union_n([{session.id: _verdict(session)} | some session in input.sessions])}

# What is not known to stand ends.
_verdict(session) := {"verdict": "restrict", "drop": sort(dropped), "reasons": array.concat(
	[targets.restriction(session.target)],
	_warning(session),
)} if {
	_session_stands(session)
	dropped := targets.dropped(session.target)
	count(dropped) > 0
}

else := {"verdict": "warn", "reasons": _warning(session)} if {
	_session_stands(session)
	_is_end_near(session)
}

else := {"verdict": "keep", "reasons": []} if _session_stands(session)

else := _end(grants.ending(session, input.now_ns)) if _knows_the_time

else := _end(contract.unanswerable)

_session_stands(session) if {
	_knows_the_time
	grants.stands(session, input.now_ns)
}

_knows_the_time if {
	contract.is_spoken
	is_number(input.now_ns)
}

_end(reason) := {"verdict": "end", "reasons": [reason]}

_warning(session) := [_ends_soon(session) | _is_end_near(session)]

# The session has a clock of its own for the end it began with; an earlier end is news.
_is_end_near(session) if {
	[ends_ns, _] := grants.until(session, input.now_ns)
	ends_ns - input.now_ns < targets.warn_ns(session.target)
	not _is_foreseen(session, ends_ns)
}

_is_foreseen(session, ends_ns) if moments.ns(session.expires_at) <= ends_ns

_ends_soon(session) := reasons.reason(
	"grant_ends_soon",
	$"Your grant was shortened and now ends at {moments.text(grants.until(session, input.now_ns)[0])}.",
	$"Save your work. To go on: {targets.whom_to_ask(session.target)}",
)
