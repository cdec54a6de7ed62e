package gateway.grants

import data.gateway.moments
import data.gateway.windows

# METADATA
# title: The state of a grant
# description: |
#   What a grant is at a target, now:
#   `requested` it is not approved (any more), `approved` it waits for its start or for its next window, `active` it can
#   be stood on, `ended` it was ended early, `expired` its end has come, `malformed` it cannot be relied on.
#   Undefined for a grant that there is not, or that is not for the target.
state(holding, now_ns) := "malformed" if {
	_ := of(holding)
	not _is_readable(holding)
}

else := _state(holding, now_ns) if is_for(of(holding), holding.target)

# METADATA
# description: The grant of a holding, as it was written.
of(holding) := data.grants[holding.person][holding.grant]

# METADATA
# description: |
#   Until when a grant that is active can be stood on, in nanoseconds, and why no longer:
#   [when, `grant_ended`, `grant_window_closed` or `grant_approval_over`].  Undefined for one that is not active.
until(holding, now_ns) := min(_ends(holding, now_ns)) if state(holding, now_ns) == "active"

# Where two are at the same moment, the plainer reason is the first by its letters.
_ends(holding, now_ns) := union({
	{[over_ns(of(holding)), "grant_ended"]},
	_closing(holding, now_ns),
	_lapsing(holding, now_ns),
})

# METADATA
# description: When the next window of the grant opens, in nanoseconds.  Undefined for one without windows.
opens_ns(holding, now_ns) := windows.opens_ns(of(holding).windows, now_ns)

_state(holding, now_ns) := "ended" if moments.ns(of(holding).ended_at) <= now_ns

else := "expired" if moments.ns(of(holding).ends_at) <= now_ns

else := "requested" if not _is_approved(holding, now_ns)

else := "approved" if now_ns < moments.ns(of(holding).starts_at)

else := "approved" if not _is_open(of(holding), now_ns)

else := "active"

_is_readable(holding) if is_well_formed(holding.grant, of(holding))

_is_approved(holding, now_ns) if _ := approved_until(holding, now_ns)

_is_open(grant, _) if not _has_windows(grant)

_is_open(grant, now_ns) if windows.is_open(grant.windows, now_ns)

_has_windows(grant) if _ := grant.windows

_closing(holding, now_ns) := {[closes, "grant_window_closed"] |
	closes := windows.closes_ns(of(holding).windows, now_ns)
}

_lapsing(holding, now_ns) := {[approved, "grant_approval_over"] |
	approved := approved_until(holding, now_ns)
	approved < over_ns(of(holding))
}
