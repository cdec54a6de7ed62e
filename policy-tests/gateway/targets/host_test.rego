package gateway.targets_test

import data.gateway.targets

_host := {
	"address": "db1.example",
	"port": 22,
	"user": "deploy",
	"host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBQqHo db1", "@cert-authority ssh-rsa AAAAB3NzaC1yc2E="],
	"vault": {"role": "doorward-proxy"},
}

_on_host(change) := object.union(
	object.union(
		object.remove(_orders, ["image", "limits", "user", "home", "shell", "network", "pod", "credentials"]),
		{"backend": "sshproxy", "host": _host},
	),
	change,
)

test_target_can_be_a_host[note] if {
	some note, change in {
		"by certificate": {},
		"no credentials": {"credentials": []},
		"files or not": {"allow": {"sftp": true}},
	}
	targets.faults("x") == [] with data.targets as {"x": _on_host(change)}
}

test_host_by_key_is_sound if {
	host := object.union(object.remove(_host, ["vault"]), {"key": "main"})
	entry := object.union(object.remove(_on_host({}), ["host"]), {"host": host})
	targets.faults("x") == [] with data.targets as {"x": entry}
}

test_fault_of_a_host_is_found[note] if {
	some note, tc in {
		"no key pinned": {"change": {"host": {"host_keys": []}}, "says": "host.host_keys: Array must have"},
		"no key at all": {"change": {"host": {"host_keys": ["*"]}}, "says": "host.host_keys.0: Does not match"},
		"two ways in": {"change": {"host": {"key": "main"}}, "says": "host: Must validate one and only one"},
		"address": {"change": {"host": {"address": "-oProxyCommand=x"}}, "says": "host.address: Does not match"},
		"another backend": {"change": {"backend": "docker"}, "says": "backend: a host is reached by sshproxy"},
		"image": {"change": {"image": "x"}, "says": "image: a host is as it is"},
		"network": {"change": {"network": {"egress": []}}, "says": "network: a host is as it is"},
		"credentials": {"change": {"credentials": [{}]}, "says": "credentials: there is no agent"},
		"behind glass": {"change": {"break_glass": {"image": "x"}}, "says": "break_glass.image: a host is as it is"},
		"rules by path": {"change": {"allow": {"sftp": {"read": []}}}, "says": "allow.sftp: rules by path cannot be kept"},
	}
	faults := targets.faults("x") with data.targets as {"x": _on_host(tc.change)}
	some fault in faults
	startswith(fault, tc.says)
}

test_what_is_no_host_has_to_say_how_it_is_started if {
	entry := object.remove(_on_host({}), ["host"])
	faults := targets.faults("x") with data.targets as {"x": entry}
	{"(root): image is required", "(root): limits is required"} == {fault | some fault in faults}
}
