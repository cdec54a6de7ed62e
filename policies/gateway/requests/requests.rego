# METADATA
# title: Requests
# description: |
#   The words of SSH, and what each needs of a target's `allow`.  A request that is not named here is refused.
package gateway.requests

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
	allow.sftp == true
}

is_allowed(request, allow) if {
	request.kind == "direct-tcpip"
	some forward in allow.forwards
	forward.host == request.host
	forward.port == request.port
}

_runs_programs(allow) if allow.shell == true

_runs_programs(allow) if allow.exec == true

# What goes with a running program.
_terminal := {"pty-req", "window-change", "signal", "break", "eow@openssh.com", "xon-xoff"}
