package gateway.requests

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
	"env_dangerous",
	"This variable can change which programs run, or where they connect, so no target takes it.",
	"Leave it out of SendEnv and SetEnv.",
) if {
	request.kind == "env"
	is_variable_dangerous(request.name)
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

_words := object.union(_by_target, _never)

# What some targets allow, and this one does not.
_by_target := object.union(
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
		"direct-tcpip": {"code": "forward_refused", "message": "This target forwards to nothing."},
	},
)

_terminal_refused := {
	"code": "terminal_refused",
	"message": "A terminal and its signals need a shell or commands, and this target allows neither.",
}

# What no target can allow.
_never := {
	"x11-req": {
		"code": "x11_refused",
		"message": "X11 is never forwarded.",
		"remedy": "Connect without -X and -Y.",
	},
	"auth-agent-req@openssh.com": {
		"code": "agent_refused",
		"message": "Your key agent is never forwarded.",
		"remedy": "Connect without -A; the credentials that you need are already there.",
	},
	"tcpip-forward": _remote_forward,
	"cancel-tcpip-forward": _remote_forward,
	"direct-streamlocal@openssh.com": _unix_socket,
	"streamlocal-forward@openssh.com": _unix_socket,
	"cancel-streamlocal-forward@openssh.com": _unix_socket,
}

_remote_forward := {
	"code": "remote_forward_refused",
	"message": "Nothing may listen at the door for you.",
	"remedy": "Connect without -R.",
}

_unix_socket := {
	"code": "unix_socket_refused",
	"message": "Unix sockets are never forwarded.",
	"remedy": "Forward a host and a port that the target allows, with -L.",
}
