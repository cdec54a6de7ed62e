package gateway.targets_test

import data.gateway.targets

_service := {"namespace": "shop", "selector": {"app.kubernetes.io/name": "payments-api", "tier": ""}}

_beside(change) := object.union(
	object.union(
		object.remove(_orders, ["limits", "network", "pod", "credentials"]),
		{"backend": "kubernetes", "pod": {"beside": _service}},
	),
	change,
)

test_target_can_be_beside_a_service[note] if {
	some note, change in {
		"by itself": {},
		"sharing": {"pod": {"beside": {"container": "api", "share_processes": true}}},
		"sharing nothing": {"pod": {"beside": {"container": "", "share_processes": false}}},
		"nothing given": {"credentials": [], "network": {"egress": []}},
		"another image behind glass": {"break_glass": {
			"people": ["alice"],
			"max_seconds": 60,
			"notify": [{"hook": "oncall"}],
			"image": "x",
		}},
	}
	targets.faults("x") == [] with data.targets as {"x": _beside(change)}
}

test_fault_beside_a_service_is_found[note] if {
	some note, tc in {
		"no selector": {"change": {"selector": {}}, "says": "Must have at least 1 properties"},
		"another selector": {"change": {"selector": {"a=b,c": "d"}}, "says": "a=b,c"},
		"a value of more": {"change": {"selector": {"a": "b,c=d"}}, "says": "pod.beside.selector.a: Does not match"},
		"namespace": {"change": {"namespace": "../kube-system"}, "says": "pod.beside.namespace: Does not match"},
		"unknown key": {"change": {"privileged": true}, "says": "privileged is not allowed"},
		"nobody's processes": {"change": {"share_processes": true}, "says": "pod.beside.container: needed by"},
		"container alone": {"change": {"container": "api"}, "says": "pod.beside.container: for share_processes alone"},
	}

	# Instead, for a union would leave the labels that were there.
	service := object.union(object.remove(_service, object.keys(tc.change)), tc.change)
	entry := object.union(object.remove(_beside({}), ["pod"]), {"pod": {"beside": service}})
	faults := targets.faults("x") with data.targets as {"x": entry}
	some fault in faults
	contains(fault, tc.says)
}

test_what_no_service_can_give_is_found[note] if {
	some note, tc in {
		"another backend": {"change": {"backend": "docker"}, "says": "backend: only kubernetes"},
		"limits": {"change": {"limits": _orders.limits}, "says": "limits: beside a service"},
		"a pod's options": {"change": {"pod": {"isolation": "required"}}, "says": "pod.isolation: beside a service"},
		"credentials": {"change": {"credentials": [{}]}, "says": "credentials: beside a service"},
		"network": {"change": {"network": {"egress": [{"host": "db", "port": 1}]}}, "says": "network.egress: beside a"},
		"behind glass": {"change": {"break_glass": {"backend": "docker"}}, "says": "break_glass.backend: only"},
		"given there": {"change": {"break_glass": {"credentials": [{}]}}, "says": "break_glass.credentials: beside"},
		"no image": {"change": {"image": ""}, "says": "image: String length"},
	}
	faults := targets.faults("x") with data.targets as {"x": _beside(tc.change)}
	some fault in faults
	startswith(fault, tc.says)
}

test_malformed_service_is_a_fault_and_not_undefined[note] if {
	some note, entry in {
		"no object": _beside({"pod": {"beside": "payments"}}),
		"a list": _beside({"pod": {"beside": [_service]}}),
		"nothing": _beside({"pod": {"beside": null}}),
		"not": _beside({"pod": {"beside": false}}),
		"pod in text": _beside({"pod": "beside"}),
		"glass in text": _beside({"break_glass": "x"}),
		"no image": object.remove(_beside({}), ["image"]),
		"no backend": object.remove(_beside({}), ["backend"]),
		"no namespace": _beside({"pod": {"beside": {"namespace": null}}}),
	}
	faults := targets.faults("x") with data.targets as {"x": entry}
	count(faults) > 0
}
