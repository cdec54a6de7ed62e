# METADATA
# title: Authentication
# description: |
#   What an attempt is worth.  The gateway does the cryptography and the verifying; here it is judged.
#   An unknown person, a disabled one and a wrong proof get the same answers after the same questions, so there is
#   nothing to probe.  Grants play no part: whoever has none logs in and is told so by `gateway.config`.
#
#   `chains.rego` says what is needed; one file for each method says when it is good, and how it is verified.
# schemas:
#   - input: schema["input.authn"]
#   - data.people: schema["data.people"]
#   - data.door: schema["data.door"]
#   - data.authorities: schema["data.authorities"]
#   - data.targets: schema["data.targets"]
package gateway.authn

import data.gateway.contract
import data.gateway.keys
import data.gateway.people
import data.gateway.reasons

# METADATA
# description: |
#   Accept; or continue, with how the attempt is to be verified or with what may come next; or reject with a reason.
#   A key that is only offered is accepted, or may continue, when it would be so proven: the gateway goes on to have it
#   proven, and admits nobody before.
# entrypoint: true
decision := _answer({"outcome": "reject", "reasons": [contract.unanswerable]}) if not contract.is_spoken

else := _answer(trapped) if trapped

else := _answer({"outcome": "continue", "methods": _methods_now}) if _asks_what_to_do

else := _answer({"outcome": "continue", "methods": _methods_now, "verify": _verification}) if _verification

else := _answer({"outcome": "accept", "identity": _identity}) if _is_complete

else := _answer({"outcome": "continue", "methods": _methods_for(_after)}) if count(_after) > 0

# Whoever proves that a certificate is theirs is told what is wrong with it.
else := _answer({"outcome": "continue", "methods": _methods_now}) if _is_worth_explaining

else := _answer({"outcome": "reject", "methods": _methods_now, "reasons": [_why_not(input.attempt)], "tell": true}) if {
	input.attempt.proven == true
	_why_not(input.attempt)
}

else := _answer({"outcome": "reject", "methods": _methods_now, "reasons": [_refusal]})

_answer(words) := object.union_n([{"identity": null, "methods": [], "reasons": []}, _banner, words])

# What everybody reads before they are anybody, the same for all; the gateway shows it once for each connection.
# One that does not fit is not shown: it is no reason to keep everybody out.
_banner := {"banner": _door.banner} if {
	is_string(_door.banner)
	count(_door.banner) <= 4096
}

else := {}

# A client begins with `none` to hear what it may do (RFC 4252 section 5.2).
_asks_what_to_do if {
	input.attempt.method == "none"
	_is_whole
}

_is_whole if is_array(input.proofs)

_login := people.login(input.login.user)

_person := _login.person if people.is_active(_login.person)

# A name to verify with, for everybody alike; whether it is known shows afterwards.
_name := _login.person

_name := "unknown" if not _login

_identity := {
	"person": _person,
	"groups": array.concat(people.groups(_person), sort(_claimed_groups - {group | some group in people.groups(_person)})),
	"via": _here,
	"key_id": concat(",", [certificate.key_id | some certificate in _certificates]),
	"restrictions": [word | some word in _extensions; some certificate in _certificates; _forbids(certificate, word)],
	"force_command": _forced_command,
}

_refusal := _weak_key if _is_weak

else := reason if reason := _why_not(input.attempt)

else := _not_recognised

_is_weak if {
	input.attempt.method == "publickey"
	keys.is_weak(input.attempt.key)
}

_weak_key := reasons.reason(
	"weak_key",
	"The key you offered is too weak: RSA needs at least 3072 bits, and DSA is not taken at all.",
	"Make a new one with `ssh-keygen -t ed25519` and have it registered.",
)

_not_recognised := reasons.reason(
	"not_recognised",
	"This name and this proof do not open the door together.",
	"Look at the name before the @, and with `ssh -v` at what is offered; a key must be registered for you first.",
)
