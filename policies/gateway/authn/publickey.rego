package gateway.authn

import data.gateway.keys
import data.gateway.people
import data.gateway.reasons

# METADATA
# title: Public keys
# description: |
#   Which keys are hardware keys, whose signature says whether they were touched and whether a PIN was given.
is_hardware(key) if startswith(keys.material(key.public_key).type, "sk-")

# A key counts when it is strong, belongs to the person, and was used as they have to use it.
_factor(attempt) := "publickey" if {
	attempt.method == "publickey"
	is_null(attempt.certificate)
	keys.is_strong(attempt.key)
	_is_theirs(attempt)
	_is_used_well(attempt)
}

_is_theirs(attempt) if _is_registered(attempt.key)

# Where the person's keys are listed elsewhere, the gateway looked there.
_is_theirs(attempt) if {
	_person
	attempt.verified == true
	attempt.verified_by == _verification_for("publickey").kind
	_is_of_whom_was_asked_for(attempt, "publickey")
	_is_authorized(attempt, "publickey")
}

_is_registered(key) if {
	some registered in people.keys(_person)
	keys.material(registered) == keys.material(key.public_key)
}

# Looked up only where it could help, and for everybody alike.
_factor_to_verify := "publickey" if {
	input.attempt.method == "publickey"
	is_null(input.attempt.certificate)
	keys.is_strong(input.attempt.key)
	not _is_registered(input.attempt.key)
	_may_come_now("publickey")
}

# A key that is only offered was not used yet.
_is_used_well(attempt) if attempt.proven == false

_is_used_well(attempt) if {
	_is_hard_enough(attempt.key)
	_is_touched_enough(attempt)
	_is_pin_enough(attempt)
}

_is_hard_enough(key) if is_hardware(key)

_is_hard_enough(_) if not _demands("require_hardware_key")

_is_touched_enough(attempt) if not is_hardware(attempt.key)

_is_touched_enough(attempt) if attempt.key.touched == true

_is_touched_enough(_) if not _demands("require_touch")

# As in sshd, the CA can lift it.
_is_touched_enough(attempt) if is_string(attempt.certificate.extensions["no-touch-required"])

_is_pin_enough(attempt) if attempt.key.pin_verified == true

_is_pin_enough(attempt) if {
	not _demands("require_pin")
	not _is_pin_in_certificate(attempt)
}

_is_pin_in_certificate(attempt) if _is_there(attempt.certificate.critical_options["verify-required"])

# The person's own rule, else everybody's, else the usual one.  Only `false` lifts a rule, not a slip of the pen.
_demands(rule) if _rule(rule) != false

_rule(rule) := data.people[_person].authn[rule] if _is_there(data.people[_person].authn[rule])

else := _door[rule] if _is_there(_door[rule])

else := {"require_touch": true, "require_pin": false, "require_hardware_key": false}[rule]

_why_not(attempt) := _used_badly if {
	is_null(attempt.certificate)
	_is_theirs(attempt)
	not _is_used_well(attempt)
}

_used_badly := reasons.reason(
	"hardware_key_needed",
	"This is your key, but it was not used as you have to: on hardware, touched, or with its PIN.",
	"Use a security key (ssh-keygen -t ed25519-sk), touch it, and give its PIN where it is asked for.",
)
