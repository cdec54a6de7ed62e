# METADATA
# title: Authentication
# description: |
#   What a public key is worth.  The gateway has done the cryptography; here it is judged whose key it is.
#   An unknown person, a disabled one and a wrong key get the same answer, so there is nothing to probe.
#   Grants play no part: whoever has none logs in and is told so by `gateway.config`.
# schemas:
#   - input: schema["input.authn"]
package gateway.authn

import data.gateway.keys
import data.gateway.people
import data.gateway.reasons

# METADATA
# description: |
#   Accept, or reject with a reason.  A key that is only offered is accepted when it would be accepted proven: the
#   gateway goes on to have it proven, and admits nobody before.  `continue` (a second factor) is never answered yet.
# entrypoint: true
decision := _reject(_weak_key) if _is_weak

else := {"outcome": "accept", "identity": _identity, "methods": [], "reasons": []} if _is_registered

else := _reject(_not_recognised)

_reject(reason) := {"outcome": "reject", "identity": null, "methods": ["publickey"], "reasons": [reason]}

_person := people.login(input.login.user).person

_identity := {"person": _person, "groups": people.groups(_person)}

_is_weak if {
	input.attempt.method == "publickey"
	keys.is_weak(input.attempt.key)
}

_is_registered if {
	input.attempt.method == "publickey"
	people.is_active(_person)
	keys.is_strong(input.attempt.key)
	some registered in people.keys(_person)
	keys.material(registered) == keys.material(input.attempt.key.public_key)
}

_weak_key := reasons.reason(
	"weak_key",
	"The key you offered is too weak: RSA needs at least 3072 bits, and DSA is not taken at all.",
	"Make a new one with `ssh-keygen -t ed25519` and have it registered.",
)

_not_recognised := reasons.reason(
	"not_recognised",
	"This name and this key do not open the door together.",
	"Look at the name before the @, and with `ssh -v` at which key is offered; a key must be registered for you first.",
)
