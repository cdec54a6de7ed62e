package gateway.requests

import data.gateway.files
import data.gateway.reasons
import data.gateway.targets

# METADATA
# title: Refusals
# description: Why a request at the target is refused, given that `is_allowed` does not hold.
refusal(request, allow, target) := reasons.reason(
	"forward_refused",
	"This target does not forward to that host and port.",
	$"It forwards to: {concat(", ", _forwards(allow))}.",
) if {
	request.kind == "direct-tcpip"
	count(_forwards(allow)) > 0
}

else := reasons.reason(
	"remote_forward_refused",
	"This target does not listen at that address and port.",
	$"It listens at: {concat(", ", _listens(allow))}.",
) if {
	request.kind == "tcpip-forward"
	count(_listens(allow)) > 0
}

else := reasons.reason(
	"unix_socket_not_plain",
	"The path of a socket has to be absolute and plain: without `.`, `..`, empty parts or a slash at its end.",
	"Write the path in full.",
) if {
	request.kind in {"direct-streamlocal@openssh.com", "streamlocal-forward@openssh.com"}
	not is_path_canonical(object.get(request, "path", ""))
}

else := reasons.reason(
	"unix_socket_protected",
	"No target forwards sockets in this place.",
	"Use a path elsewhere that the target allows.",
) if {
	request.kind in {"direct-streamlocal@openssh.com", "streamlocal-forward@openssh.com"}
	is_path_protected(request.path)
}

else := reasons.reason(
	"unix_socket_refused",
	"This target does not forward that socket.",
	$"It forwards: {concat(", ", _sockets(request.kind, allow))}.",
) if {
	count(_sockets(request.kind, allow)) > 0
}

else := reasons.reason(
	"env_dangerous",
	"This variable can change which programs run, or where they connect, so no target takes it.",
	"Leave it out of SendEnv and SetEnv.",
) if {
	request.kind == "env"
	is_variable_dangerous(request.name)
}

else := files.refusal(request, allow.sftp) if {
	request.kind == "sftp"
	is_object(allow.sftp)
}

else := reasons.reason(words.code, words.message, _remedy(words, target)) if words := _words[request.kind]

else := reasons.reason(
	"request_unknown",
	"The door does not know this kind of request, and takes only what it knows.",
	"Tell the platform team what you were doing, if you need it.",
)

_remedy(words, _) := words.remedy

_remedy(words, target) := targets.whom_to_ask(target) if not words.remedy

_forwards(allow) := {$"{forward.host}:{forward.port}" | some forward in allow.forwards}

# Port 0 is for the workspace to choose.
_listens(allow) := {$"{place.host}:{place.port}" | some place in allow.listen}

_sockets("direct-streamlocal@openssh.com", allow) := {$"{path}" | some path in allow.sockets.connect}

_sockets("streamlocal-forward@openssh.com", allow) := {$"{path}" | some path in allow.sockets.listen}

# What some targets allow, and this one does not.
_words := object.union(
	{kind: _terminal_refused | some kind in _terminal},
	{
		"env": {
			"code": "env_refused",
			"message": "This target does not take this variable.",
			"remedy": "Set it by hand in your shell, or leave it out of SendEnv and SetEnv.",
		},
		"shell": {"code": "shell_refused", "message": "This target allows no shell."},
		"exec": {"code": "exec_refused", "message": "This target allows no commands, and so no scp or rsync."},
		"subsystem": {
			"code": "subsystem_refused",
			"message": "This target does not allow this subsystem; the only one there is, is sftp.",
		},
		"sftp": {"code": "subsystem_refused", "message": "This target no longer allows sftp."},
		"direct-tcpip": {"code": "forward_refused", "message": "This target forwards to nothing."},
		"x11-req": {
			"code": "x11_refused",
			"message": "This target does not forward X11.",
			"remedy": "Connect without -X and -Y.",
		},
		"auth-agent-req@openssh.com": {
			"code": "agent_refused",
			"message": "This target does not forward your key agent.",
			"remedy": "Connect without -A; the credentials that you need are already there.",
		},
		"tcpip-forward": _remote_forward,
		"cancel-tcpip-forward": _remote_forward,
		"direct-streamlocal@openssh.com": _unix_socket,
		"streamlocal-forward@openssh.com": _unix_socket,
		"cancel-streamlocal-forward@openssh.com": _unix_socket,
	},
)

_terminal_refused := {
	"code": "terminal_refused",
	"message": "A terminal and its signals need a shell or commands, and this target allows neither.",
}

_remote_forward := {
	"code": "remote_forward_refused",
	"message": "This target listens nowhere for you.",
	"remedy": "Connect without -R.",
}

_unix_socket := {
	"code": "unix_socket_refused",
	"message": "This target forwards no Unix sockets.",
	"remedy": "Forward a host and a port that the target allows, with -L.",
}
