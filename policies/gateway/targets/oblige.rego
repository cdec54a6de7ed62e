package gateway.targets

# What a target can oblige to, as the gateway's own model has it (docs/obligations.md).
_oblige := _object([], {
	"mask": _mask,
	"reason": _reason,
	"four_eyes": {"allOf": [
		{"anyOf": [{"required": ["people"]}, {"required": ["groups"]}]},
		_object(["seconds"], {
			"people": _few(_name),
			"groups": _few(_name),
			"seconds": _seconds(86400),
			"hook": _name,
		}),
	]},
	"notify": _notify,
	"read_only_sftp": {"type": "boolean"},
	"rate_limit": _rate_limit,
	"record": _record,
	"requests": {
		"type": "object",
		"additionalProperties": false,
		"properties": object.union_n([
			{kind: _object([], _carrying) |
				some kind in ["shell", "exec", "direct-tcpip", "direct-streamlocal@openssh.com"]
			},
			{"subsystem": _object([], object.union(_carrying, {"read_only_sftp": {"type": "boolean"}}))},
			{kind: _object([], {"mask": _mask, "notify": _notify}) | some kind in [
				"tcpip-forward",
				"streamlocal-forward@openssh.com",
				"x11-req",
				"auth-agent-req@openssh.com",
			]},
			{kind: _object([], {"mask": _mask}) | some kind in ["env", "sftp"]},
		]),
	},
})

_carrying := {"mask": _mask, "notify": _notify, "rate_limit": _rate_limit, "record": _record}

_reason := _object([], {
	"prompt": {"type": "string", "minLength": 1, "maxLength": 200},
	"min_length": {"type": "integer", "minimum": 1, "maximum": 500},
	"pattern": _pattern,
	"seconds": _seconds(3600),
})

_mask := {"allOf": [
	{"anyOf": [{"required": ["patterns"]}, {"required": ["env"]}]},
	_object([], {
		"patterns": {"type": "array", "maxItems": 32, "items": _pattern},
		"env": {"type": "array", "maxItems": 100, "items": {"type": "string", "pattern": "^[A-Za-z0-9_*?]{1,128}$"}},
	}),
]}

_notify := {
	"type": "array",
	"maxItems": 10,
	"items": _object(["hook"], {"hook": _name, "required": {"type": "boolean"}}),
}

_rate_limit := {"minProperties": 1, "allOf": [_object([], {
	"bytes_in_per_second": {"type": "integer", "minimum": 1024, "maximum": 1099511627776},
	"bytes_out_per_second": {"type": "integer", "minimum": 1024, "maximum": 1099511627776},
	"operations_per_minute": {"type": "integer", "minimum": 1, "maximum": 1000000},
})]}

_record := _object(["what"], {
	"what": {"type": "array", "minItems": 1, "maxItems": 20, "items": _name},
	"required": {"type": "boolean"},
})

_pattern := {"type": "string", "minLength": 1, "maxLength": 200}

_seconds(most) := {"type": "number", "exclusiveMinimum": 0, "maximum": most}

_few(items) := {"type": "array", "minItems": 1, "maxItems": 100, "items": items}

# What no schema can say of a pattern: that it is one, and does not match where nothing stands.
_pattern_faults(name) := [$"{path[0]}: the pattern {pattern} cannot be used" |
	some path, pattern in _patterns(name)
	not _is_usable(pattern)
]

_patterns(name) := {path: pattern |
	walk(object.filter(data.targets[name], ["oblige", "break_glass"]), [path, pattern])
	is_string(pattern)
	_is_of_pattern(path)
}

_is_of_pattern(path) if path[count(path) - 1] == "pattern"

_is_of_pattern(path) if path[count(path) - 2] == "patterns"

_is_usable(pattern) if {
	regex.is_valid(pattern)
	not regex.match(pattern, "")
}
