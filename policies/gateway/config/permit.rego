package gateway.config

import data.gateway.grants
import data.gateway.moments
import data.gateway.people
import data.gateway.targets

# METADATA
# title: Permit
# description: |
#   Field for field what the gateway's own model of a permit has.  It says nothing that the target does not say, but for
#   the grant, its end and the read-only root, which no target can lift.  Undefined when there is nothing to permit.
permit := {
	"grant": _chosen,
	"target": _target,
	"expires_at": _wanted[_chosen].ends_at,
	"workspace": _workspace,
	"credentials": object.get(data.targets[_target], "credentials", []),
	"session": data.targets[_target].session,
	"recording": object.get(data.targets[_target], "recording", {}),
} if {
	_is_complete
	people.is_active(_person)
	count(targets.faults(_target)) == 0
}

# Of several grants for the same target, the one that ends last.
_chosen := max([[moments.ns(grant.ends_at), id] |
	some id, grant in _wanted
	grants.is_active(grant, input.now_ns)
])[1]

_next := _wanted[min([[moments.ns(grant.starts_at), id] |
	some id, grant in _wanted
	grants.is_pending(grant, input.now_ns)
])[1]]

_last := _wanted[max([[moments.ns(grant.ends_at), id] |
	some id, grant in _wanted
	grants.is_just_ended(grant, input.now_ns)
])[1]]

_workspace := object.union(
	{
		"backend": data.targets[_target].backend,
		"image": data.targets[_target].image,
		"limits": data.targets[_target].limits,
		"network": object.get(data.targets[_target], "network", {}),
		"env": object.get(data.targets[_target], "env", {}),
		"read_only": true,
	},
	object.filter(data.targets[_target], ["user", "home", "shell"]),
)
