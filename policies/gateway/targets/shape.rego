package gateway.targets

# METADATA
# title: Targets that cannot be used
# description: |
#   Every malformed target: [{"target", "problems"}].  For reports; a decision looks at its own target alone.
# entrypoint: true
malformed contains {"target": name, "problems": problems} if {
	some name, _ in data.targets
	problems := faults(name)
	count(problems) > 0
}

# METADATA
# description: What is wrong with the target, in words, by field; empty for a well-formed one.
faults(name) := ["the entry is no object, or its name is no name"] if not exists(name)

faults(name) := [fault.error | some fault in json.match_schema(data.targets[name], shape)[1]] if exists(name)

# METADATA
# title: Shape of a target
# description: |
#   A target, as a JSON Schema.  What becomes part of a permit has the types and bounds of the gateway's own model.
#   A key that nobody knows is a fault: a misspelt limit must not pass for no limit.
shape := _object(
	["description", "backend", "image", "limits", "session", "max_grant_seconds", "ask", "approvers", "allow"],
	{
		"description": _text,
		"ask": _text,
		"approvers": _text,
		"max_grant_seconds": _whole(1),
		"allow": _allow,
		"backend": _name,
		"image": _text,
		"user": _object([], {"name": _name, "uid": _whole(1), "gid": _whole(1)}),
		"home": {"type": "string", "pattern": "^/"},
		"shell": {"type": "string"},
		"limits": _limits,
		"network": _object([], {"egress": _list(_egress)}),
		"env": {"type": "object", "additionalProperties": {"type": "string"}},
		"credentials": _list(_credential),
		"session": _session,
		"recording": _object([], {"what": _list({"type": "string"}), "required": {"type": "boolean"}}),
	},
)

_allow := _object([], {
	"shell": {"type": "boolean"},
	"exec": {"type": "boolean"},
	"sftp": {"type": "boolean"},
	"forwards": _list(_address),
	"env": _list({"type": "string", "pattern": "^[A-Za-z0-9_*?]+$"}),
})

_limits := _object(["memory_bytes", "cpus", "pids", "tmpfs_bytes"], {
	"memory_bytes": _whole(16777216),
	"cpus": {"type": "number", "exclusiveMinimum": 0, "maximum": 1024},
	"pids": _whole(8),
	"tmpfs_bytes": _whole(1048576),
})

_egress := _object(["host", "port"], {
	"host": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": 253},
	"port": _port,
	"address": {"anyOf": [_address, {"type": "null"}]},
})

_credential := _object(["name", "issuer", "role", "ttl_seconds", "deliver"], {
	"name": _name,
	"issuer": _name,
	"role": _name,
	"ttl_seconds": {"type": "integer", "minimum": 5, "maximum": 86400},
	"deliver": _object(["host", "port", "dbname"], {
		"kind": {"const": "postgres"},
		"host": {"type": "string"},
		"port": _port,
		"dbname": {"type": "string"},
	}),
})

_session := _object(["idle_seconds", "max_seconds", "warn_seconds", "max_channels", "policy_grace_seconds"], {
	"idle_seconds": {"type": "number", "exclusiveMinimum": 0},
	"max_seconds": {"type": "number", "exclusiveMinimum": 0},
	"warn_seconds": {"type": "number", "minimum": 0},
	"max_channels": {"type": "integer", "minimum": 1, "maximum": 1000},
	"policy_grace_seconds": {"type": "number", "minimum": 0},
})

_address := _object(["host", "port"], {
	"host": {"type": "string", "minLength": 1, "maxLength": 253},
	"port": _port,
})

_port := {"type": "integer", "minimum": 1, "maximum": 65535}

_name := {"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": 253}

_text := {"type": "string", "minLength": 1}

_whole(least) := {"type": "integer", "minimum": least}

_list(items) := {"type": "array", "items": items}

_object(required, properties) := {
	"type": "object",
	"additionalProperties": false,
	"required": required,
	"properties": properties,
}
