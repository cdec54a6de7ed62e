package gateway.targets

# A running service beside which the workspace is, in one of its pods: which, in Kubernetes' words, and whose processes
# are shared.
_beside := _object(["namespace", "selector"], {
	"namespace": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"},
	"selector": {
		"type": "object",
		"minProperties": 1,
		"maxProperties": 20,
		"propertyNames": {
			"pattern": concat("", [
				"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?",
				"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$",
			]),
			"maxLength": 317,
		},
		"additionalProperties": {"type": "string", "pattern": "^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$"},
	},
	"container": {"type": "string", "pattern": "^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"},
	"share_processes": {"type": "boolean"},
})

# What no schema says in words: what cannot be had beside a service, since it is its pod's to say, or to share.
_beside_faults(name) := array.flatten([
	["backend: only kubernetes starts anything beside a service" | data.targets[name].backend != "kubernetes"],
	["limits: beside a service nothing can keep them: leave them out" | _ := data.targets[name].limits],
	[$"pod.{key}: beside a service the pod is as it is: leave it out" |
		some key, _ in data.targets[name].pod
		key != "beside"
	],
	_sharing_faults(data.targets[name].pod.beside),
	_given_beside("", data.targets[name]),
	_given_beside("break_glass.", object.get(data.targets[name], "break_glass", {})),
	["break_glass.backend: only kubernetes starts anything beside a service" |
		data.targets[name].break_glass.backend != "kubernetes"
	],
]) if {
	data.targets[name].pod.beside
} else := []

_sharing_faults(beside) := ["pod.beside.container: needed by share_processes: say whose processes they are"] if {
	is_object(beside)
	beside.share_processes == true
	object.get(beside, "container", "") == ""
}

else := ["pod.beside.container: for share_processes alone: set that, or leave it out"] if {
	is_object(beside)
	object.get(beside, "share_processes", false) == false
	object.get(beside, "container", "") != ""
}

else := []

_given_beside(where, given) := array.concat(
	[$"{where}credentials: beside a service there is no place for them that is not its pod's too: leave them out" |
		given.credentials != []
	],
	[$"{where}network.egress: beside a service the network is its own: leave it out" |
		given.network.egress != []
	],
)
