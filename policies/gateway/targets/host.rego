package gateway.targets

# METADATA
# title: Shape of a host
# description: |
#   A real SSH host as a target's workspace: where it is, the keys that it is known by, and how the gateway logs in.  No
#   key that is pinned is a fault: a host that anybody could pose as is no target.
host_shape := {"allOf": [
	{"oneOf": [{"required": ["vault"]}, {"required": ["key"]}]},
	_object(["address", "user", "host_keys"], {
		"address": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9.:_-]*$", "maxLength": 253},
		"port": _port,
		"user": _name,
		"host_keys": {"type": "array", "minItems": 1, "maxItems": 20, "items": _host_key},
		"vault": _object(["role"], {"role": _name, "principals": {"type": "array", "maxItems": 16, "items": _name}}),
		"key": _name,
	}),
]}

# As OpenSSH has public keys; of an authority with the marker that known_hosts has for it.
_host_key := {
	"type": "string",
	"maxLength": 4096,
	"pattern": concat("", [
		"^(@cert-authority )?(ssh-(ed25519|rsa)|ecdsa-sha2-nistp(256|384|521))",
		` [A-Za-z0-9+/]+=*( [^\r\n]*)?$`,
	]),
}

# What no schema says in words: a target is either started, and has all of this, or a host, and has none of it.
_host_faults(name) := [$"(root): {key} is required" |
	some key in _starting(name)
	not data.targets[name][key]
] if {
	not data.targets[name].host
}

else := array.concat(
	[$"{key}: a host is as it is, and cannot be given this" |
		some key in ["image", "limits", "user", "home", "shell", "network", "pod"]
		_ := data.targets[name][key]
	],
	array.concat(_given_to_host(name), _unkept_on_host(name)),
)

# Beside a service nothing could keep a limit.
_starting(name) := ["image"] if data.targets[name].pod.beside

else := ["image", "limits"]

_given_to_host(name) := array.concat(
	array.concat(
		["backend: a host is reached by sshproxy, and by no other" | data.targets[name].backend != "sshproxy"],
		["credentials: there is no agent on a host that would take them" | data.targets[name].credentials != []],
	),
	[$"break_glass.{key}: a host is as it is, and cannot be given this" |
		some key in ["backend", "image", "network", "credentials"]
		_ := data.targets[name].break_glass[key]
	],
)

# There a name can lead elsewhere by the time that it is opened.
_unkept_on_host(name) := ["allow.sftp: rules by path cannot be kept on a host: say true or false"] if {
	is_object(data.targets[name].allow.sftp)
} else := []
