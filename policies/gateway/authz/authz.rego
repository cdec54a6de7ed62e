# METADATA
# title: Authorization
# description: |
#   Every request on every channel, one by one.  Nothing is allowed that the target does not allow, and nothing at all
#   when the grant no longer stands.
# schemas:
#   - input: schema["input.authz"]
package gateway.authz

import data.gateway.grants
import data.gateway.reasons
import data.gateway.requests
import data.gateway.targets

# METADATA
# description: Allow, or refuse with a reason.
# entrypoint: true
decision := {"allow": true, "obligations": [], "reasons": []} if {
	_is_complete
	_stands
	requests.is_allowed(input.request, _allow)
}

else := _refuse(reasons.malformed_input) if not _is_complete

else := _refuse(requests.refusal(input.request, _allow, input.permit.target)) if _stands

else := _refuse(grants.ending(_holding, input.now_ns))

_refuse(reason) := {"allow": false, "obligations": [], "reasons": [reason]}

_is_complete if {
	is_number(input.now_ns)
	is_string(input.request.kind)
	is_string(input.permit.target)
	_holding
}

_stands if grants.stands(_holding, input.now_ns)

_holding := {"person": input.identity.person, "grant": input.permit.grant, "target": input.permit.target}

_allow := targets.allow(input.permit.target)
