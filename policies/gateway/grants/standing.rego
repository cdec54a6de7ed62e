package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: What stands on a grant
# description: Whether a session or a request may go on, given what it stands on.
stands(holding, now_ns) if {
	people.is_active(holding.person)
	state(holding, now_ns) == "active"
}

# METADATA
# title: What no longer stands
# description: Why it may not, given that it does not stand.
ending(holding, now_ns) := reasons.reason(code, message(code, holding, now_ns), remedy(code, holding)) if {
	code := _flaw(holding, now_ns)
}

# The first that is so.
_flaw(holding, now_ns) := "person_disabled" if not _is_by_active_person(holding)

else := "grant_deleted" if not _exists(holding)

else := "target_removed" if not _has_target(holding)

else := "grant_target_changed" if not _is_for_target(holding)

else := _flaws[state(holding, now_ns)] if _flaws[state(holding, now_ns)]

else := "grant_not_started" if now_ns < moments.ns(of(holding).starts_at)

else := "grant_window_closed"

_flaws := {
	"malformed": "grant_malformed",
	"ended": "grant_ended_early",
	"expired": "grant_ended",
	"requested": "grant_approval_over",
}

_is_by_active_person(holding) if people.is_active(holding.person)

_exists(holding) if _ := of(holding)

_has_target(holding) if targets.exists(holding.target)

_is_for_target(holding) if is_for(of(holding), holding.target)

# METADATA
# description: What the engineer is told, by code.
message("person_disabled", _, _) := "Your account was disabled or removed."

message("grant_deleted", _, _) := "The grant that you stood on was withdrawn."

message("target_removed", _, _) := "The target of your grant no longer exists."

message("grant_target_changed", _, _) := "The grant that you stood on is now for another target."

message("grant_malformed", _, _) := "The grant that you stood on was changed and can no longer be read."

message("grant_not_started", holding, _) := $"Your grant now starts only at {of(holding).starts_at}."

message("grant_ended", holding, _) := $"Your grant ended at {of(holding).ends_at}."

message("grant_ended_early", holding, _) := $"Your grant was ended early, at {of(holding).ended_at}{ended_how(of(holding))}."

message("grant_approval_over", _, _) := "Your grant is no longer approved."

message("grant_window_closed", holding, now_ns) := concat(" ", array.concat(
	["Outside the hours of your grant."],
	[$"It opens next at {moments.shown(opens)}." | opens := opens_ns(holding, now_ns)],
))

# METADATA
# description: By whom a grant was ended early, and why, as the end of a sentence.
ended_how(grant) := concat("", array.concat(
	[$" by {name}" | name := grant.ended_by; _is_text(name)],
	[$": {why}" | why := grant.ended_reason],
))

# METADATA
# description: What to do next, by code.
remedy(code, holding) := _remedies[code] if _remedies[code]

else := targets.whom_to_ask(holding.target) if is_string(holding.target)

else := "Ask the platform team."

_remedies := {
	"person_disabled": "Ask the people who keep the accounts.",
	"target_removed": "Ask the platform team what took its place.",
	"grant_target_changed": "Connect again to use the grant as it is now.",
}
