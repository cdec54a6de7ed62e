# METADATA
# title: Admin
# description: |
#   What automation may do at the admin API: the `actions` of its entry in `data.automations`, and to which targets'
#   sessions.  The operator on the gateway's own machine comes by a socket that is theirs alone, and is not asked about.
# schemas:
#   - input: schema["input.admin"]
package gateway.admin

import data.gateway.automations
import data.gateway.contract
import data.gateway.reasons

# METADATA
# description: Allow, or refuse with reasons.
# entrypoint: true
decision := {"allow": true, "reasons": []} if _is_allowed

else := {"allow": false, "reasons": [reason | some reason in _denials]}

_is_allowed if {
	_is_complete
	_has_action
	count(_denials) == 0
}

_denials contains contract.unanswerable if not _is_complete

_denials contains fault if {
	_is_complete
	some fault in automations.faults(input.client)
}

_denials contains reasons.reason(
	"action_not_yours",
	$"{input.client.name} may not use {input.action}.",
	"Ask the security team: the `actions` of its entry in data.automations.",
) if {
	_is_complete
	_is_known
	not _has_action
}

# Reading is not limited by targets, and neither is judging again: both change nothing.
_denials contains reasons.reason(
	"target_not_yours",
	$"{input.client.name} may not do this to sessions for {_target}.",
	"Ask the security team: the `targets` of its entry in data.automations.",
) if {
	_is_complete
	_is_limited_to_targets
	not _has_target
}

_is_known if automations.entry(input.client.name)

_has_action if input.action in automations.entry(input.client.name).actions

_is_limited_to_targets if {
	input.action in {"sessions:end", "approvals:answer"}
	"targets" in object.keys(automations.entry(input.client.name))
}

# What is no list has no member; and who is limited is not told which sessions there are not.
_has_target if input.session.target in automations.entry(input.client.name).targets

_target := input.session.target if is_string(input.session.target)

else := "no target"

_is_complete if {
	contract.is_spoken
	is_string(input.client.name)
	is_string(input.action)
}
