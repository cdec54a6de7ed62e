package gateway.config

import data.gateway.obligations
import data.gateway.people
import data.gateway.sessions
import data.gateway.targets

# METADATA
# title: Permit
# description: |
#   Field for field what the gateway's own model of a permit has.  It says nothing that the target does not say, but for
#   the grant, its end and, of what is started, the read-only root, which no target can lift.  Undefined when there is
#   nothing to permit.
permit := {
	"grant": _chosen.grant,
	"target": _target,
	"expires_at": _ends.at,
	"ending": _ends.reason,
	"workspace": _workspace,
	"break_glass": _is_behind_glass,
	"credentials": object.get(_entry, "credentials", []),
	"session": data.targets[_target].session,
	"max_sessions": sessions.limits(_chosen),
	"capture_credentials": _captures,
	"recording": object.get(data.targets[_target], "recording", {}),
	"obligations": _obligations,
} if {
	_is_complete
	people.is_active(_person)
	_is_strong_enough
	_is_forced_once
	count(targets.faults(_target)) == 0
	not _turned_down
}

_obligations := obligations.of_session(_target, _joining) if not _names_break_glass

else := obligations.of_break_glass(_target, _is_new, [grant | grant := _new_grant])

_joining := obligations.joining(_target, _person, input.connection.id, _approvals)

default _is_behind_glass := false

_is_behind_glass if _names_break_glass

default _is_new := false

_is_new if _new

# What is had behind broken glass may be another thing than what is had with a grant.
_entry := object.union(
	data.targets[_target],
	object.filter(data.targets[_target].break_glass, ["backend", "image", "network", "credentials"]),
) if {
	_names_break_glass
} else := data.targets[_target]

_turned_down := obligations.turned_down(_target, _person, input.connection.id, _approvals)

_approvals := input.request.approvals if is_array(input.request.approvals)

else := []

# A certificate's forced command narrows what the target gives; as in sshd, two that differ cannot both be obeyed.
_of_certificate := {"force_command": input.identity.force_command} if _has_forced_command

else := {}

_has_forced_command if input.identity.force_command != ""

_is_forced_once if not _is_forced_twice

_is_forced_twice if {
	_has_forced_command
	data.targets[_target].force_command != input.identity.force_command
}

# What somebody typed is put on record only where nobody's own secret can be: in a honeypot.
_captures if {
	data.targets[_target].capture_credentials == true
	_is_honeypot
} else := false

_workspace := object.union_n([
	{"backend": _entry.backend, "env": object.get(data.targets[_target], "env", {})},
	_what_it_is,
	_of_certificate,
	object.filter(data.targets[_target], ["user", "home", "shell", "force_command", "pod"]),
])

# A host is there already, and is as it is, and so is a service's pod; anything else is started, in these bounds.
_what_it_is := {"host": data.targets[_target].host} if data.targets[_target].host

else := {"image": _entry.image, "read_only": true} if data.targets[_target].pod.beside

else := {
	"image": _entry.image,
	"limits": data.targets[_target].limits,
	"network": object.get(_entry, "network", {}),
	"read_only": true,
}
