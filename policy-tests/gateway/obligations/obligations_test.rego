package gateway.obligations_test

import data.gateway.obligations
import data.gateway.targets

_world(oblige) := {"x": {"oblige": oblige}}

# What a target says, and what the gateway is told.
_said := {
	"nothing": {"oblige": {}, "told": []},
	"no object": {"oblige": "all", "told": []},
	"a reason": {
		"oblige": {"reason": {"min_length": 10}},
		"told": [{"kind": "reason", "min_length": 10}],
	},
	"a reason, as it comes": {"oblige": {"reason": {}}, "told": [{"kind": "reason"}]},
	"two webhooks": {
		"oblige": {"notify": [{"hook": "a"}, {"hook": "b", "required": true}]},
		"told": [{"kind": "notify", "hook": "a"}, {"kind": "notify", "hook": "b", "required": true}],
	},
	"files to read": {"oblige": {"read_only_sftp": true}, "told": [{"kind": "read_only_sftp"}]},
	"files to write": {"oblige": {"read_only_sftp": false}, "told": []},
	"in the order of doing": {
		"oblige": {"record": {"what": ["terminal"]}, "rate_limit": {"bytes_in_per_second": 4096}, "mask": {"env": ["X"]}},
		"told": [
			{"kind": "mask", "env": ["X"]},
			{"kind": "rate_limit", "bytes_in_per_second": 4096},
			{"kind": "record", "what": ["terminal"]},
		],
	},
	"four eyes are asked about": {"oblige": {"four_eyes": {"people": ["erin"], "seconds": 5}}, "told": []},
	"requests": {"oblige": {"requests": {"exec": {"mask": {"env": ["X"]}}}}, "told": []},
}

test_session_is_obliged_to_what_the_target_says[note] if {
	some note, tc in _said
	obligations.of_session("x", []) == tc.told with data.targets as _world(tc.oblige)
}

test_session_is_obliged_to_four_eyes_while_nobody_has_joined if {
	joining := [{"kind": "four_eyes", "seconds": 5}]
	world := _world({"notify": [{"hook": "a"}], "reason": {}})
	told := obligations.of_session("x", joining) with data.targets as world
	[obligation.kind | some obligation in told] == ["reason", "four_eyes", "notify"]
}

test_request_is_obliged_to_what_the_target_says_of_its_kind[note] if {
	some note, tc in {
		"exec": {"kind": "exec", "told": [{"kind": "mask", "env": ["X"]}, {"kind": "notify", "hook": "a"}]},
		"shell": {"kind": "shell", "told": []},
		"sftp": {"kind": "subsystem", "told": [{"kind": "read_only_sftp"}]},
	}
	world := _world({"requests": {
		"exec": {"notify": [{"hook": "a"}], "mask": {"env": ["X"]}},
		"subsystem": {"read_only_sftp": true},
	}})
	obligations.of_request("x", tc.kind) == tc.told with data.targets as world
}

test_nothing_is_obliged_where_there_is_no_such_target if {
	obligations.of_session("nowhere", []) == [] with data.targets as {}
	obligations.of_request("nowhere", "exec") == [] with data.targets as {}
}

_faults(oblige) := told if {
	target := object.union(data.fixtures.targets["orders-db"], {"oblige": oblige})
	told := concat("; ", targets.faults("x")) with data.targets as {"x": target}
}

test_every_obligation_that_is_well_formed_has_no_fault if {
	_faults({
		"mask": {"patterns": [`password=\S+`], "env": ["*_TOKEN"]},
		"reason": {"prompt": "Why?", "min_length": 10, "pattern": "INC-[0-9]+", "seconds": 60},
		"four_eyes": {"people": ["erin"], "groups": ["dba"], "seconds": 600, "hook": "chat"},
		"notify": [{"hook": "security", "required": true}],
		"read_only_sftp": true,
		"rate_limit": {"bytes_in_per_second": 1048576, "bytes_out_per_second": 1048576, "operations_per_minute": 60},
		"record": {"what": ["terminal"], "required": false},
		"requests": {
			"exec": {"mask": {"patterns": ["x"]}, "notify": [{"hook": "a"}], "rate_limit": {"operations_per_minute": 1}},
			"subsystem": {"read_only_sftp": true},
			"tcpip-forward": {"notify": [{"hook": "a"}]},
			"env": {"mask": {"env": ["X"]}},
		},
	}) == ""
}

test_faults_of_an_obligation_are_found[note] if {
	some note, tc in {
		"unknown": {"oblige": {"dance": true}, "says": "dance is not allowed"},
		"misspelt": {"oblige": {"reason": {"min_lenght": 3}}, "says": "min_lenght is not allowed"},
		"nobody": {"oblige": {"four_eyes": {"seconds": 5}}, "says": "four_eyes"},
		"no time": {"oblige": {"four_eyes": {"people": ["erin"]}}, "says": "seconds is required"},
		"empty list": {"oblige": {"four_eyes": {"people": [], "seconds": 5}}, "says": "people"},
		"text": {"oblige": {"read_only_sftp": "yes"}, "says": "Invalid type"},
		"no hook": {"oblige": {"notify": [{"required": true}]}, "says": "hook is required"},
		"nothing to limit": {"oblige": {"rate_limit": {}}, "says": "rate_limit"},
		"too slow": {"oblige": {"rate_limit": {"bytes_in_per_second": 1}}, "says": "bytes_in_per_second"},
		"nothing to hide": {"oblige": {"mask": {}}, "says": "mask"},
		"nothing to record": {"oblige": {"record": {"what": []}}, "says": "record.what"},
		"broken pattern": {"oblige": {"mask": {"patterns": ["("]}}, "says": "the pattern ( cannot be used"},
		"pattern of nothing": {"oblige": {"reason": {"pattern": "x*"}}, "says": "the pattern x* cannot be used"},
		"elsewhere": {"oblige": {"requests": {"exec": {"reason": {}}}}, "says": "reason is not allowed"},
		"no request": {"oblige": {"requests": {"lunch": {}}}, "says": "lunch is not allowed"},
		"files of a shell": {"oblige": {"requests": {"shell": {"read_only_sftp": true}}}, "says": "is not allowed"},
	}
	contains(_faults(tc.oblige), tc.says)
}
