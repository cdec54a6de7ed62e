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

faults(name) := array.flatten([
	[fault.error | some fault in json.match_schema(data.targets[name], shape)[1]],
	_pattern_faults(name),
	_host_faults(name),
	_beside_faults(name),
	_clashes(name),
]) if {
	exists(name)
}

# What keeps credentials from standing side by side in one workspace: the gateway takes no permit with it.
_clashes(name) := array.concat(
	[$"credentials: {taken} is there twice" |
		some taken in {one | some one in _taken(name)}
		count([one | some one in _taken(name); one == taken]) > 1
	],
	[$"credentials.{index}.deliver: {deliver.host}:{deliver.port} is not in network.egress" |
		some index, credential in data.targets[name].credentials
		deliver := credential.deliver
		deliver.kind == "redis"
		not _reaches(name, deliver)
	],
)

_taken(name) := array.flatten([
	[$"the name {credential.name}" | some credential in data.targets[name].credentials],
	[$"the file {file.path}" |
		some credential in data.targets[name].credentials
		some file in credential.deliver.files
	],
	[$"Redis at {credential.deliver.host}:{credential.deliver.port}" |
		some credential in data.targets[name].credentials
		credential.deliver.kind == "redis"
	],
])

_reaches(name, deliver) if {
	some way in data.targets[name].network.egress
	[way.host, way.port] == [deliver.host, deliver.port]
}

# METADATA
# title: Shape of a target
# description: |
#   A target, as a JSON Schema.  What becomes part of a permit has the types and bounds of the gateway's own model.
#   A key that nobody knows is a fault: a misspelt limit must not pass for no limit.
shape := _object(
	["description", "backend", "session", "max_grant_seconds", "ask", "approvers", "allow"],
	{
		"description": _text,
		"ask": _text,
		"approvers": _text,
		"max_grant_seconds": _whole(1),
		"max_sessions": _whole(1),
		"allow": _allow,
		"backend": _name,
		"image": _text,
		"user": _object([], {"name": _name, "uid": _whole(1), "gid": _whole(1)}),
		"home": {"type": "string", "pattern": "^/"},
		"shell": {"type": "string"},
		"force_command": {"type": "string", "pattern": `\S`, "maxLength": 4096},
		"limits": _limits,
		"pod": _pod,
		"host": host_shape,
		"network": _network,
		"env": {"type": "object", "additionalProperties": {"type": "string"}},
		"credentials": _list(_credential),
		"session": _session,
		"require": {"type": "array", "minItems": 1, "items": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
		"capture_credentials": {"type": "boolean"},
		"labels": {
			"type": "object",
			"propertyNames": {"pattern": "^[A-Za-z0-9._/-]{1,128}$"},
			"additionalProperties": {"type": "string", "pattern": `\S`, "maxLength": 253},
		},
		"approval": _approval,
		"recording": _object([], {"what": _list({"type": "string"}), "required": {"type": "boolean"}}),
		"oblige": _oblige,
		"restrict": _restriction,
		"break_glass": _break_glass,
	},
)

# Who may let themselves in, for how long, who is told of it and who reviews it; and what they get, where it is another
# thing than with a grant.
_break_glass := {"allOf": [
	{"anyOf": [{"required": ["people"]}, {"required": ["groups"]}]},
	_object(["max_seconds", "notify"], {
		"people": _few(_name),
		"groups": _few(_name),
		"max_seconds": {"type": "integer", "minimum": 1, "maximum": 14400},
		"notify": object.union(_notify, {"minItems": 1}),
		"reviewers": _listed,
		"reason": _reason,
		"record": _record,
		"backend": _name,
		"image": _text,
		"network": _network,
		"credentials": _list(_credential),
	}),
]}

_network := _object([], {"egress": _list(_egress)})

# So many of these people, or whoever is on call by this rota.
_approval := object.union(
	_object([], {"needed": _whole(1), "by": _listed, "on_call": _name}),
	{"minProperties": 1, "dependencies": {"needed": ["by"], "by": ["needed"]}},
)

_listed := object.union(_object([], {"groups": _list(_name), "people": _list(_name)}), {"minProperties": 1})

_allow := _object([], {
	"shell": {"type": "boolean"},
	"exec": {"type": "boolean"},
	"sftp": {"anyOf": [{"type": "boolean"}, _object([], {"read": _list(_places), "write": _list(_places)})]},
	"forwards": _list(_address),
	"agent": {"type": "boolean"},
	"x11": {"type": "boolean"},
	"listen": _list(_place),
	"sockets": _object([], {"connect": _list(_path_pattern), "listen": _list(_path_pattern)}),
	"env": _list({"type": "string", "pattern": "^[A-Za-z0-9_*?]+$"}),
})

# Absolute and without a trailing slash; `*` and `?` within a name, `**` across names, and no other sign of a glob.
_places := {"type": "string", "pattern": "^(/|(/[^/\\[\\]{}\\\\\\x00-\\x1f]+)+)$", "maxLength": 4096}

_limits := _object(["memory_bytes", "cpus", "pids", "tmpfs_bytes"], {
	"memory_bytes": _whole(16777216),
	"cpus": {"type": "number", "exclusiveMinimum": 0, "maximum": 1024},
	"pids": _whole(32),
	"tmpfs_bytes": _whole(1048576),
})

# How the workspace's pod runs, where the backend is Kubernetes; in its words.
_pod := _object([], {
	"node_selector": {"type": "object", "maxProperties": 20, "additionalProperties": {"type": "string"}},
	"tolerations": {"type": "array", "maxItems": 20, "items": _toleration},
	"runtime_class": {"type": "string", "maxLength": 253},
	"image_pull_secrets": {"type": "array", "maxItems": 5, "items": _name},
	"priority_class": {"type": "string", "maxLength": 253},
	"isolation": {"enum": ["required", "best_effort"]},
	"beside": _beside,
})

_toleration := _object([], {
	"key": {"type": "string", "maxLength": 316},
	"operator": {"enum": ["Equal", "Exists"]},
	"value": {"type": "string", "maxLength": 63},
	"effect": {"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]},
})

_egress := _object(["host", "port"], {
	"host": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$", "maxLength": 253},
	"port": _port,
	"address": {"anyOf": [_address, {"type": "null"}]},
})

# Issued by a role, or a static secret that is read; and delivered in a way that is for it.
_credential := {"anyOf": [
	_object(["name", "issuer", "role", "ttl_seconds", "deliver"], object.union(_any_credential, {
		"role": _name,
		"deliver": {"anyOf": [_postgres, _mysql, _redis]},
	})),
	_object(["name", "issuer", "secret", "ttl_seconds", "deliver"], object.union(_any_credential, {
		"secret": _object(["mount", "path"], {
			"mount": object.union(_below, {"maxLength": 200}),
			"path": object.union(_below, {"maxLength": 500}),
			"version": _whole(1),
		}),
		"deliver": _object(["kind", "files"], {
			"kind": {"const": "file"},
			"files": {"type": "array", "minItems": 1, "maxItems": 20, "items": _secret_file},
		}),
	})),
]}

_any_credential := {
	"name": _name,
	"issuer": _name,
	"ttl_seconds": {"type": "integer", "minimum": 5, "maximum": 86400},
}

_postgres := _object(["host", "port", "dbname"], {
	"kind": {"const": "postgres"},
	"host": {"type": "string"},
	"port": _port,
	"dbname": {"type": "string"},
})

_mysql := _object(["kind", "host", "port", "dbname"], {
	"kind": {"const": "mysql"},
	"host": {"type": "string"},
	"port": _port,
	"dbname": {"type": "string"},
})

_redis := _object(["kind", "host", "port"], {
	"kind": {"const": "redis"},
	"host": {"type": "string"},
	"port": _port,
	"tls_name": {"anyOf": [{"type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}$"}, {"type": "null"}]},
})

_secret_file := _object(["path"], {
	"path": object.union(_below, {"maxLength": 200}),
	"key": {"type": "string", "maxLength": 253},
	"mode": {"enum": ["0400", "0600"]},
})

# Names with slashes between, none of which begins with a dot.
_below := {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"}

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

# Where the workspace may listen for an engineer; port 0 is one of its own choice.
_place := _object(["host", "port"], {
	"host": {"type": "string", "minLength": 1, "maxLength": 253},
	"port": {"type": "integer", "minimum": 0, "maximum": 65535},
})

_path_pattern := {"type": "string", "pattern": "^/[A-Za-z0-9._*?/@:+-]+$"}

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
