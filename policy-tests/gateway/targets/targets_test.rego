package gateway.targets_test

import data.gateway.targets

_orders := data.fixtures.targets["orders-db"]

_with(change) := object.union(_orders, change)

_cache := {"kind": "redis", "host": "cache", "port": 6379}

_elsewhere := object.union(_cache, {"host": "else"})

_holding(deliveries) := _with({
	"network": {"egress": [{"host": "cache", "port": 6379}]},
	"credentials": [{"name": "a", "issuer": "vault", "role": "r", "ttl_seconds": 60, "deliver": deliver} |
		some deliver in deliveries
	],
})

_keeping(paths) := _with({"credentials": [{
	"name": "a",
	"issuer": "vault",
	"secret": {"mount": "kv", "path": "stock/supplier"},
	"ttl_seconds": 60,
	"deliver": {"kind": "file", "files": [{"path": path} | some path in paths]},
}]})

test_every_kind_of_credential_is_sound[note] if {
	some note, target in {
		"redis": _holding([_cache]),
		"redis with TLS": _holding([object.union(_cache, {"tls_name": "cache.internal"})]),
		"mysql": _holding([{"kind": "mysql", "host": "db", "port": 3306, "dbname": "stock"}]),
		"files": _keeping(["supplier.json", "keys/supplier"]),
	}
	targets.faults("x") == [] with data.targets as {"x": target}
}

test_fixtures_are_sound if {
	count(data.fixtures.targets) > 1
	targets.malformed == set() with data.targets as data.fixtures.targets
}

test_least_target_is_sound if {
	least := object.remove(_orders, ["network", "env", "credentials", "recording", "user", "home", "shell"])
	targets.faults("x") == [] with data.targets as {"x": least}
}

test_fault_is_found_and_reported[note] if {
	some note, tc in {
		"no object": {"target": "docker", "says": "no object"},
		"missing": {"target": object.remove(_orders, ["limits"]), "says": "limits is required"},
		"unknown key": {"target": _with({"limits": {"memroy_bytes": 1}}), "says": "memroy_bytes is not allowed"},
		"wrong type": {"target": _with({"session": {"idle_seconds": "15m"}}), "says": "session.idle_seconds: Invalid type"},
		"too small": {"target": _with({"limits": {"memory_bytes": 1}}), "says": "limits.memory_bytes: Must be"},
		"root": {"target": _with({"user": {"uid": 0}}), "says": "user.uid: Must be"},
		"blank": {"target": _with({"force_command": " "}), "says": "force_command: Does not match"},
		"in a list": {"target": _with({"credentials": [{}]}), "says": "credentials.0: name is required"},
		"no name": {"target": _holding([object.union(_cache, {"tls_name": true})]), "says": "credentials.0.deliver.tls_name"},
		"of no kind": {"target": _holding([{"kind": "rediss"}]), "says": "credentials.0.deliver.kind"},
		"no group": {"target": _holding([{"kind": "mysql", "host": "x", "port": 1}]), "says": "deliver: dbname is required"},
		"out of the folder": {"target": _keeping(["../x"]), "says": "files.0.path: Does not match"},
		"one file twice": {"target": _keeping(["x", "x"]), "says": "the file x is there twice"},
		"one name twice": {"target": _holding([_cache, _cache]), "says": "the name a is there twice"},
		"one Redis twice": {"target": _holding([_cache, _cache]), "says": "Redis at cache:6379 is there twice"},
		"no way to Redis": {"target": _holding([_elsewhere]), "says": "0.deliver: else:6379 is not in network.egress"},
		"port of a listener": {"target": _with({"allow": {"listen": [{"host": "*", "port": -1}]}}), "says": "port: Must be"},
		"relative socket": {"target": _with({"allow": {"sockets": {"connect": ["x"]}}}), "says": "connect.0: Does not match"},
		"agent in text": {"target": _with({"allow": {"agent": "yes"}}), "says": "allow.agent: Invalid type"},
		"bad pattern": {"target": _with({"allow": {"env": ["[a"]}}), "says": "allow.env.0: Does not match"},
	}
	reported := targets.malformed with data.targets as {"x": tc.target}
	some entry in reported
	entry.target == "x"
	contains(concat("; ", entry.problems), tc.says)
}

test_target_exists_or_not[note] if {
	some note, tc in {
		"there": {"name": "orders-db", "is": true},
		"not there": {"name": "nowhere", "is": false},
		"no name": {"name": "x y", "is": false},
		"no object": {"name": "text", "is": false},
		"null": {"name": null, "is": false},
	}
	world := {"orders-db": _orders, "x y": _orders, "text": "x"}
	existing := {"yes" | targets.exists(tc.name)} with data.targets as world
	existing == {"yes" | tc.is}
}

test_what_the_target_does_not_say_is_nothing if {
	world := {"x": {"allow": "all", "session": {"warn_seconds": "60"}, "max_grant_seconds": null, "ask": 7}}
	targets.allow("x") == {} with data.targets as world
	targets.allow("nowhere") == {} with data.targets as world
	targets.warn_ns("x") == 0 with data.targets as world
	targets.max_grant_seconds("x") == 0 with data.targets as world
	targets.whom_to_ask("x") == "Ask the platform team who gives grants for it." with data.targets as world
}
