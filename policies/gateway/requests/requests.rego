# METADATA
# title: Requests
# description: |
#   The words of SSH, and what each needs of a target's `allow`.  A request that is not named here is refused.
package gateway.requests

import data.gateway.files

# METADATA
# description: Whether the request is covered by what the target allows.
is_allowed(request, _) if request.kind == "session"

is_allowed(request, allow) if {
	request.kind in _terminal
	_runs_programs(allow)
}

is_allowed(request, allow) if {
	request.kind == "env"
	is_string(request.value)
	is_variable_allowed(request.name, allow)
}

is_allowed(request, allow) if {
	request.kind == "shell"
	allow.shell == true
}

is_allowed(request, allow) if {
	request.kind == "exec"
	is_string(request.command)
	allow.exec == true
}

is_allowed(request, allow) if {
	request.kind == "subsystem"
	request.name == "sftp"
	_serves_files(allow)
}

is_allowed(request, allow) if {
	request.kind == "sftp"
	files.is_allowed(request, allow.sftp)
}

is_allowed(request, allow) if {
	request.kind == "direct-tcpip"
	some forward in allow.forwards
	forward.host == request.host
	forward.port == request.port
}

is_allowed(request, allow) if {
	request.kind == "x11-req"
	allow.x11 == true
}

is_allowed(request, allow) if {
	request.kind == "auth-agent-req@openssh.com"
	allow.agent == true
}

is_allowed(request, allow) if {
	request.kind == "tcpip-forward"
	some place in allow.listen
	place.port == request.port
	_is_same_host(place.host, request.host)
}

is_allowed(request, allow) if {
	request.kind == "direct-streamlocal@openssh.com"
	is_path_allowed(request.path, allow.sockets.connect)
}

is_allowed(request, allow) if {
	request.kind == "streamlocal-forward@openssh.com"
	is_path_allowed(request.path, allow.sockets.listen)
}

# To listen no more is for whoever may listen at all; the gateway lets go of the listener whatever is said here.
is_allowed(request, allow) if {
	request.kind == "cancel-tcpip-forward"
	some _ in allow.listen
}

is_allowed(request, allow) if {
	request.kind == "cancel-streamlocal-forward@openssh.com"
	some _ in allow.sockets.listen
}

# RFC 4254 section 7.1 calls all addresses "", and some clients "*".
_is_same_host(host, host)

_is_same_host("*", "")

# METADATA
# description: |
#   On what conditions the allowed request is allowed.  Where the target has rules for files, each operation of SFTP has
#   to be asked for.
obligations(request, allow) := [{"kind": "judge_sftp"}] if {
	request.kind == "subsystem"
	is_object(allow.sftp)
} else := []

_serves_files(allow) if allow.sftp == true

_serves_files(allow) if is_object(allow.sftp)

_runs_programs(allow) if allow.shell == true

_runs_programs(allow) if allow.exec == true

# What goes with a running program.
_terminal := {"pty-req", "window-change", "signal", "break", "eow@openssh.com", "xon-xoff"}
