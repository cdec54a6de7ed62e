# METADATA
# title: Configuration
# description: |
#   What one session may be: which grant it stands on, and the whole permit that follows from the grant's target.
#   Whoever gets none is told why in their own situation, and whom to ask.
# schemas:
#   - input: schema["input.config"]
#   - data.targets: schema["data.targets"]
package gateway.config

import data.gateway.grants
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# description: A permit, or the reason why there is none.
# entrypoint: true
decision := {"allow": true, "permit": permit, "reasons": []} if permit

else := {"allow": false, "permit": null, "reasons": [_refusal]}

# Given that there is no permit: the first of these that applies.
_refusal := reasons.malformed_input if not _is_complete

else := _disabled if not _is_active

else := _target_needed if count(_reachable) > 1

else := _target_misconfigured if count(_reachable) == 1

else := _not_started if _next

else := _ended if _last

else := _no_grant_for_it if _login.target != ""

else := _no_grant

_disabled := reasons.reason(
	"person_disabled",
	"Your account was disabled or removed.",
	"Ask the people who keep the accounts.",
)

_target_needed := reasons.reason(
	"target_needed",
	$"You have grants for {count(_reachable)} targets, so say which: {concat(", ", _commands)}.",
	"Put the target after your name, with a plus sign.",
)

_target_misconfigured := reasons.reason(
	"target_misconfigured",
	$"Your grant for {_target} holds, but the target's own entry has a fault, so nothing can be started.",
	"Nothing is wrong with your grant. Tell the platform team the session id.",
)

_not_started := reasons.reason(
	"grant_not_started",
	$"Your grant for {_next.target} starts at {_next.starts_at}, so it is too early.",
	$"Connect again then. For an earlier one: {targets.whom_to_ask(_next.target)}",
)

_ended := reasons.reason(
	"grant_ended",
	$"Your grant for {_last.target} ended at {_last.ends_at}.",
	$"For a new one: {targets.whom_to_ask(_last.target)}",
)

# The same words whether or not there is such a target.
_no_grant_for_it := reasons.reason(
	"no_grant",
	$"You have no grant for {_login.target} at this time.",
	targets.whom_to_ask(_login.target),
)

_no_grant := reasons.reason(
	"no_grant",
	"You have no grant at this time.",
	$"Name the target to be told whom to ask: ssh {_person}+target@door",
)

_is_complete if {
	is_number(input.now_ns)
	_login.person == input.identity.person
}

_is_active if people.is_active(_person)

_login := people.login(input.login.user)

_person := _login.person

# The person's grants for the target that was named, or all of them where none was.
_wanted := {id: grant |
	some id, grant in grants.held(_person)
	_login.target in {"", grant.target}
}

_reachable := {grant.target | some grant in _wanted; grants.is_active(grant, input.now_ns)}

_commands := [$"ssh {_person}+{target}@door" | some target in _reachable]

_target := target if {
	count(_reachable) == 1
	some target in _reachable
}
