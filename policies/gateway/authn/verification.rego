package gateway.authn

# METADATA
# title: Verification
# description: |
#   How a factor is verified, as the gateway reads it: what the person's entry says, else what the door's says, made
#   complete with the person's name.  Undefined where nobody says, or where what they say does not fit.
verification_shapes := {
	"vault_password": _shape(["username"], {
		"backend": {"enum": ["userpass", "ldap"]},
		"mount": _mount,
		"username": _username,
	}),
	"argon2": _shape(["username"], {"username": _username}),
	"webhook": _shape(["name", "username"], {
		"name": _word,
		"username": _username,
		"authz": {"type": "boolean"},
		"config": {"type": "boolean"},
	}),
	"key_list": _shape(["url"], {
		"url": {"type": "string", "maxLength": 2000, "pattern": "^https?://"},
		"fresh_seconds": _seconds,
		"stale_seconds": _seconds,
	}),
	"totp": _shape(["source", "account"], {
		"source": {"enum": ["vault", "local"]},
		"mount": _mount,
		"account": _username,
		"prompt": _prompt,
	}),
	"oidc": _shape(["provider"], {
		"provider": _word,
		"prompt": {"type": "string", "maxLength": 200},
		"within_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": 900},
	}),
	"questions": _shape(["questions"], {
		"instruction": {"type": "string", "maxLength": 1000},
		"questions": {
			"type": "array",
			"minItems": 1,
			"maxItems": 10,
			"items": {
				"type": "object",
				"additionalProperties": false,
				"required": ["name", "prompt"],
				"properties": {"name": _word, "prompt": _prompt},
			},
		},
	}),
}

_verification := _verification_for(_factor_to_verify) if {
	_is_whole
	input.attempt.verified_by == ""
	input.attempt.method in _methods_now
}

_verification_for(factor) := whole if {
	said := _said(factor)
	said.kind in _kinds[factor]
	whole := object.union(_filled(said), said)
	json.match_schema(whole, verification_shapes[said.kind])[0]
}

_said(factor) := _with_name(data.people[_person].authn.verify[factor]) if _has_own_way(factor)

_said(factor) := _with_name(_door.verify[factor]) if not _has_own_way(factor)

# Also one that does not fit: it is nobody's wish to be verified as everybody is.
_has_own_way(factor) if _is_there(data.people[_person].authn.verify[factor])

_has_own_way(_) if _is_misshapen(data.people[_person].authn.verify)

# `{person}` in an address stands for the name.
_with_name(said) := object.union(said, {"url": replace(said.url, "{person}", _name)}) if is_string(said.url)

else := said if is_object(said)

_filled(said) := {"username": _name} if said.kind in {"vault_password", "argon2", "webhook"}

else := {"account": _name} if said.kind == "totp"

else := {}

_kinds := {
	"publickey": {"key_list", "webhook"},
	"password": password_kinds,
	"totp": {"totp"},
	"oidc": {"oidc"},
	"questions": {"questions"},
}

_shape(required, properties) := {
	"type": "object",
	"additionalProperties": false,
	"required": array.concat(["kind"], required),
	"properties": object.union({"kind": {"type": "string"}}, properties),
}

_word := {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[A-Za-z0-9._-]+$"}

_username := {"type": "string", "minLength": 1, "maxLength": 253, "pattern": `^[^\x00-\x1f\x7f/\\]+$`}

_mount := {"type": "string", "maxLength": 128, "pattern": "^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"}

_prompt := {"type": "string", "minLength": 1, "maxLength": 200}

_seconds := {"type": "number", "minimum": 0, "maximum": 2592000}
