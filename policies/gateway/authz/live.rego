package gateway.authz

import data.gateway.grants
import data.gateway.moments
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: Live sessions
# description: |
#   All live sessions in one question, judged again: keep, warn (the grant's end was moved and is near) or end.
#   Every session that is asked about is answered.
# entrypoint: true
# schemas:
#   - input: schema["input.live"]
live := {"sessions": object.union_n([{session.id: _verdict(session)} | some session in input.sessions])}

# What is not known to stand ends.
_verdict(session) := {"verdict": "warn", "reasons": [_ends_soon(session)]} if {
	_session_stands(session)
	_is_end_near(session)
}

else := {"verdict": "keep", "reasons": []} if _session_stands(session)

else := _end(grants.ending(session, input.now_ns)) if _knows_the_time

else := _end(reasons.malformed_input)

_session_stands(session) if {
	_knows_the_time
	grants.stands(session, input.now_ns)
}

_knows_the_time if is_number(input.now_ns)

_end(reason) := {"verdict": "end", "reasons": [reason]}

# The session has a clock of its own for the end it began with; an earlier end is news.
_is_end_near(session) if {
	ends_ns := _grant_ends_ns(session)
	ends_ns - input.now_ns < targets.warn_ns(session.target)
	not _is_foreseen(session, ends_ns)
}

_is_foreseen(session, ends_ns) if moments.ns(session.expires_at) <= ends_ns

_grant_ends_ns(session) := moments.ns(data.grants[session.person][session.grant].ends_at)

_ends_soon(session) := reasons.reason(
	"grant_ends_soon",
	$"Your grant was shortened and now ends at {data.grants[session.person][session.grant].ends_at}.",
	$"Save your work. To go on: {targets.whom_to_ask(session.target)}",
)
