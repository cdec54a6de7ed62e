package gateway.grants

import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: What stands on a grant
# description: |
#   Whether a session or a request may go on, given what it stands on,
#   `holding`: {"person", "grant" (its id), "target"}.
stands(holding, now_ns) if {
	people.is_active(holding.person)
	targets.exists(holding.target)
	grant := _grant(holding)
	grant.target == holding.target
	is_well_formed(holding.grant, grant)
	is_active(grant, now_ns)
}

# METADATA
# title: What no longer stands
# description: Why it may not, given that it does not stand.
ending(holding, now_ns) := reasons.reason(code, _message(code, holding), _remedy(code, holding)) if {
	code := _flaw(holding, now_ns)
}

# The first that is so.
_flaw(holding, now_ns) := "person_disabled" if not _is_by_active_person(holding)

else := "grant_deleted" if not _exists(holding)

else := "target_removed" if not _has_target(holding)

else := "grant_target_changed" if not _is_for_target(holding)

else := "grant_malformed" if not _is_readable(holding)

else := "grant_not_started" if is_pending(_grant(holding), now_ns)

else := "grant_ended"

_grant(holding) := data.grants[holding.person][holding.grant]

_is_by_active_person(holding) if people.is_active(holding.person)

_exists(holding) if _ := _grant(holding)

_has_target(holding) if targets.exists(holding.target)

_is_for_target(holding) if _grant(holding).target == holding.target

_is_readable(holding) if is_well_formed(holding.grant, _grant(holding))

_message("person_disabled", _) := "Your account was disabled or removed."

_message("grant_deleted", _) := "The grant that you stood on was withdrawn."

_message("target_removed", _) := "The target of your grant no longer exists."

_message("grant_target_changed", _) := "The grant that you stood on is now for another target."

_message("grant_malformed", _) := "The grant that you stood on was changed and can no longer be read."

_message("grant_not_started", holding) := $"Your grant now starts only at {_grant(holding).starts_at}."

_message("grant_ended", holding) := $"Your grant ended at {_grant(holding).ends_at}."

_remedy(code, holding) := _remedies[code] if _remedies[code]

else := targets.whom_to_ask(holding.target) if is_string(holding.target)

else := "Ask the platform team."

_remedies := {
	"person_disabled": "Ask the people who keep the accounts.",
	"target_removed": "Ask the platform team what took its place.",
	"grant_target_changed": "Connect again to use the grant as it is now.",
}
