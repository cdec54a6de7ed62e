package gateway.authn

import data.gateway.keys
import data.gateway.moments
import data.gateway.reasons

# METADATA
# title: Certificates
# description: |
#   What a trusted authority's entry in `data.authorities` is, as a JSON Schema.  One that does not fit trusts nothing.
authority_shape := {
	"type": "object",
	"additionalProperties": false,
	"required": ["public_key"],
	"properties": {
		"public_key": {"type": "string"},
		"description": {"type": "string"},
		"disabled": {"type": "boolean"},
		"revoked": {
			"type": "object",
			"additionalProperties": false,
			"properties": {
				"serials": {"type": "array", "items": {"type": "integer"}},
				"key_ids": {"type": "array", "items": {"type": "string"}},
				"keys": {"type": "array", "items": {"type": "string", "pattern": "^SHA256:[A-Za-z0-9+/]{43}$"}},
			},
		},
	},
}

# That the CA signed it, the gateway has verified; all the rest is said here.
_factor(attempt) := "certificate" if {
	attempt.method == "publickey"
	_is_trusted(attempt)
	not _fault(attempt)
	_is_used_well(attempt)
}

_is_trusted(attempt) if {
	keys.is_strong(attempt.key)
	keys.is_strong(attempt.certificate.ca)
	count(_authorities(attempt.certificate)) > 0
	every authority in _authorities(attempt.certificate) {
		json.match_schema(authority, authority_shape)[0]
		object.get(authority, "disabled", false) == false
	}
}

_authorities(certificate) := [authority |
	some authority in data.authorities
	keys.material(authority.public_key) == keys.material(certificate.ca.public_key)
]

# The first fault of a certificate by a trusted authority.  Each is the absence of something good.
_fault(attempt) := _not_for_you if not _is_for_them(attempt.certificate)

else := _not_yet if not _has_begun(attempt.certificate)

else := _expired if not _is_not_over(attempt.certificate)

else := _revoked if not _is_kept(attempt)

else := _elsewhere if not _is_from_here(attempt.certificate)

else := _unknown_option if not _is_understood(attempt.certificate)

_is_for_them(certificate) if {
	some principal in certificate.principals
	principal in _principals
}

# As in sshd, a certificate that names nobody is nobody's.
_principals := {name | some name in data.people[_person].authn.principals; is_string(name)} if {
	_is_there(data.people[_person].authn.principals)
}

else := {_person}

_has_begun(certificate) if {
	is_number(input.now_ns)
	is_number(certificate.valid_after)
	certificate.valid_after * moments.second <= input.now_ns
}

_is_not_over(certificate) if certificate.valid_before == -1

_is_not_over(certificate) if {
	is_number(input.now_ns)
	is_number(certificate.valid_before)
	input.now_ns < certificate.valid_before * moments.second
}

_is_kept(attempt) if {
	is_number(attempt.certificate.serial)
	is_string(attempt.certificate.key_id)
	is_string(attempt.key.fingerprint)
	every authority in _authorities(attempt.certificate) {
		not attempt.certificate.serial in _revoked_of(authority, "serials")
		not attempt.certificate.key_id in _revoked_of(authority, "key_ids")
		not attempt.key.fingerprint in _revoked_of(authority, "keys")
	}
}

_revoked_of(authority, what) := {one | some one in authority.revoked[what]}

_is_from_here(certificate) if not _is_bound_to_addresses(certificate)

_is_from_here(certificate) if {
	is_string(certificate.critical_options["source-address"])
	ranges := split(certificate.critical_options["source-address"], ",")
	every range in ranges {
		_cidr(range)
	}
	some range in ranges
	_cidr(input.connection.client_address)
	net.cidr_contains(_cidr(range), input.connection.client_address)
}

_is_bound_to_addresses(certificate) if _is_there(certificate.critical_options["source-address"])

# An address range; an address alone is one too.  Undefined for anything else.
_cidr(text) := text if {
	is_string(text)
	contains(text, "/")
	net.cidr_is_valid(text)
}

_cidr(text) := range if {
	is_string(text)
	not contains(text, "/")
	some bits in ["32", "128"]
	bits == "128" == contains(text, ":")
	range := concat("/", [text, bits])
	net.cidr_is_valid(range)
}

_is_understood(certificate) if {
	is_object(certificate.critical_options)
	is_object(certificate.extensions)
	every option, value in certificate.critical_options {
		option in {"force-command", "source-address", "verify-required"}
		is_string(value)
	}
	_has_one_command(certificate)
}

_has_one_command(certificate) if not _is_forced(certificate)

# What the gateway can run in place of what is asked for.
_has_one_command(certificate) if {
	is_string(certificate.critical_options["force-command"])
	regex.match(`\S`, certificate.critical_options["force-command"])
	count(certificate.critical_options["force-command"]) <= 4096
}

_is_forced(certificate) if _is_there(certificate.critical_options["force-command"])

# What the certificates that are in use narrow.
_certificates := [certificate |
	some attempt in array.concat(input.proofs, [input.attempt])
	certificate := attempt.certificate
	is_object(certificate)
]

_extensions := ["pty", "port-forwarding", "agent-forwarding", "X11-forwarding"]

_forbids(certificate, word) if not _permits(certificate, word)

_permits(certificate, word) if is_string(certificate.extensions[$"permit-{word}"])

_forced_command := concat("", {certificate.critical_options["force-command"] | some certificate in _certificates})

_is_worth_explaining if {
	input.attempt.proven == false
	_is_trusted(input.attempt)
	count(_done) == 0
}

_why_not(attempt) := _fault(attempt) if _is_trusted(attempt)

_not_for_you := reasons.reason(
	"certificate_not_yours",
	"This certificate does not name you among its principals.",
	"Look at the name before the @, and at `ssh-keygen -L -f` of the certificate.",
)

_not_yet := reasons.reason(
	"certificate_not_yet_valid",
	"This certificate is not valid yet.",
	"Wait, or have another one signed; `ssh-keygen -L -f` shows from when it is.",
)

_expired := reasons.reason(
	"certificate_expired",
	"This certificate has expired.",
	"Have a new one signed.",
)

_revoked := reasons.reason(
	"certificate_revoked",
	"This certificate was revoked.",
	"Ask the people who run the certificate authority.",
)

_elsewhere := reasons.reason(
	"certificate_elsewhere",
	"This certificate is not for the address that you connect from.",
	"Connect from a network that its source-address names.",
)

_unknown_option := reasons.reason(
	"certificate_option_unknown",
	"This certificate has a critical option that is not understood here.",
	"Have one signed without it; `ssh-keygen -L -f` shows them.",
)
