package gateway.grants

import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: What stands on a grant
# description: |
#   Why a session or a request must not go on: the first thing that no longer holds of what it stands on,
#   `holding`: {"person", "grant" (its id), "target"}.  Undefined while everything holds.
ending(holding, now_ns) := reasons.reason(code, _message(code, holding), _remedy(code, holding)) if {
	code := _flaw(holding, now_ns)
}

_flaw(holding, now_ns) := "person_disabled" if not people.is_active(holding.person)

else := "grant_deleted" if not _exists(holding)

else := "target_removed" if not targets.exists(holding.target)

else := "grant_target_changed" if not _grant(holding).target == holding.target

else := "grant_malformed" if not is_well_formed(holding.grant, _grant(holding))

else := "grant_not_started" if is_pending(_grant(holding), now_ns)

else := "grant_ended" if not is_active(_grant(holding), now_ns)

_grant(holding) := data.grants[holding.person][holding.grant]

_exists(holding) if _ := _grant(holding)

_message("person_disabled", _) := "Your account was disabled or removed."

_message("grant_deleted", _) := "The grant that you stood on was withdrawn."

_message("target_removed", _) := "The target of your grant no longer exists."

_message("grant_target_changed", _) := "The grant that you stood on is now for another target."

_message("grant_malformed", _) := "The grant that you stood on was changed and can no longer be read."

_message("grant_not_started", holding) := $"Your grant now starts only at {_grant(holding).starts_at}."

_message("grant_ended", holding) := $"Your grant ended at {_grant(holding).ends_at}."

_remedy(code, holding) := object.get(
	{
		"person_disabled": "Ask the people who keep the accounts.",
		"target_removed": "Ask the platform team what took its place.",
		"grant_target_changed": "Connect again to use the grant as it is now.",
	},
	code,
	targets.whom_to_ask(holding.target),
)
