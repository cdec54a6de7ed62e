# METADATA
# title: Authorization
# description: |
#   Every request on every channel, one by one.  Nothing is allowed that the target does not allow, and nothing at all
#   when the grant no longer stands.
# schemas:
#   - input: schema["input.authz"]
package gateway.authz

import data.gateway.contract
import data.gateway.grants
import data.gateway.obligations
import data.gateway.requests
import data.gateway.targets

# METADATA
# description: Allow, or refuse with a reason.
# entrypoint: true
decision := {"allow": true, "obligations": _obligations, "reasons": []} if {
	_is_complete
	_stands
	requests.is_allowed(input.request, _allow)
	not _is_restricted
	not _is_dropped
}

else := _refuse(contract.unanswerable) if not _is_complete

else := _refuse(requests.restriction) if _is_restricted

else := _refuse(targets.restriction(input.permit.target)) if {
	_stands
	_is_dropped
}

else := _refuse(requests.refusal(input.request, _allow, input.permit.target)) if _stands

else := _refuse(grants.ending(_holding, input.now_ns))

_obligations := array.concat(
	requests.obligations(input.request, _allow),
	obligations.of_request(input.permit.target, input.request.kind),
)

_refuse(reason) := {"allow": false, "obligations": [], "reasons": [reason]}

_is_complete if {
	contract.is_spoken
	is_number(input.now_ns)
	is_string(input.request.kind)
	is_string(input.permit.target)
	is_array(input.identity.restrictions)
	_holding
}

_stands if grants.stands(_holding, input.now_ns)

_is_restricted if requests.is_restricted(input.request, input.identity)

_is_dropped if requests.is_dropped(input.request, targets.dropped(input.permit.target))

_holding := {"person": input.identity.person, "grant": input.permit.grant, "target": input.permit.target}

_allow := targets.allow(input.permit.target)
