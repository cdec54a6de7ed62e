package gateway.requests_test

import data.gateway.requests

_all := {
	"shell": true,
	"exec": true,
	"sftp": true,
	"forwards": [{"host": "db", "port": 5432}],
	"env": ["LANG", "LC_*", "*"],
}

# Why the request is refused, or "" when it is not.
_code(request, allow) := "" if requests.is_allowed(request, allow)

_code(request, allow) := requests.refusal(request, allow, "orders-db").code if not requests.is_allowed(request, allow)

_env(name) := {"kind": "env", "name": name, "value": "x"}

_to(host, port) := {"kind": "direct-tcpip", "host": host, "port": port}

test_request_is_judged_by_what_the_target_allows[note] if {
	some note, tc in {
		"session": [{"kind": "session"}, {}, ""],
		"pty with shell": [{"kind": "pty-req"}, {"shell": true}, ""],
		"pty with exec": [{"kind": "pty-req"}, {"exec": true}, ""],
		"pty with sftp alone": [{"kind": "pty-req"}, {"sftp": true}, "terminal_refused"],
		"resize": [{"kind": "window-change"}, {"shell": true}, ""],
		"signal": [{"kind": "signal", "name": "INT"}, {"exec": true}, ""],
		"break": [{"kind": "break"}, {"shell": true}, ""],
		"eow": [{"kind": "eow@openssh.com"}, {"exec": true}, ""],
		"xon-xoff": [{"kind": "xon-xoff"}, {"shell": true}, ""],
		"xon-xoff with nothing": [{"kind": "xon-xoff"}, {}, "terminal_refused"],
		"shell": [{"kind": "shell"}, {"shell": true}, ""],
		"shell with exec alone": [{"kind": "shell"}, {"exec": true}, "shell_refused"],
		"shell by a slip of the pen": [{"kind": "shell"}, {"shell": "true"}, "shell_refused"],
		"exec": [{"kind": "exec", "command": "uptime"}, {"exec": true}, ""],
		"scp of old": [{"kind": "exec", "command": "scp -t /tmp"}, {"exec": true}, ""],
		"exec with shell alone": [{"kind": "exec", "command": "uptime"}, {"shell": true}, "exec_refused"],
		"exec of nothing": [{"kind": "exec"}, _all, "exec_refused"],
		"sftp": [{"kind": "subsystem", "name": "sftp"}, {"sftp": true}, ""],
		"sftp with shell alone": [{"kind": "subsystem", "name": "sftp"}, {"shell": true}, "subsystem_refused"],
		"other subsystem": [{"kind": "subsystem", "name": "netconf"}, _all, "subsystem_refused"],
		"forward": [_to("db", 5432), _all, ""],
		"forward to another port": [_to("db", 5433), _all, "forward_refused"],
		"forward to another host": [_to("DB", 5432), _all, "forward_refused"],
		"forward of port in text": [_to("db", "5432"), _all, "forward_refused"],
		"forward to nowhere": [{"kind": "direct-tcpip"}, _all, "forward_refused"],
		"forward with none allowed": [_to("db", 5432), {"shell": true}, "forward_refused"],
		"X11": [{"kind": "x11-req"}, _all, "x11_refused"],
		"agent": [{"kind": "auth-agent-req@openssh.com"}, _all, "agent_refused"],
		"remote forward": [{"kind": "tcpip-forward", "host": "", "port": 1}, _all, "remote_forward_refused"],
		"its end": [{"kind": "cancel-tcpip-forward"}, _all, "remote_forward_refused"],
		"unix socket": [{"kind": "direct-streamlocal@openssh.com", "path": "/x"}, _all, "unix_socket_refused"],
		"remote unix socket": [{"kind": "streamlocal-forward@openssh.com"}, _all, "unix_socket_refused"],
		"unheard of": [{"kind": "tun@openssh.com"}, _all, "request_unknown"],
		"empty": [{"kind": ""}, _all, "request_unknown"],
	}
	[request, allow, code] := tc
	_code(request, allow) == code
}

test_variable_is_judged_by_name[note] if {
	some note, tc in {
		"listed": ["LANG", ["LANG", "LC_*"], ""],
		"by glob": ["LC_ALL", ["LANG", "LC_*"], ""],
		"by another glob": ["TERM1", ["TERM?"], ""],
		"not listed": ["EDITION", ["LANG", "LC_*"], "env_refused"],
		"begins like a listed one": ["LANGUAGE", ["LANG"], "env_refused"],
		"none listed": ["LANG", [], "env_refused"],
		"no list": ["LANG", null, "env_refused"],
		"glob that cannot be read": ["LANG", ["[L", 7, "{LANG"], "env_refused"],
		"empty name": ["", ["*"], "env_refused"],
		"name with a sign": ["A=B", ["*"], "env_refused"],
		"name with a line end": ["LANG\n", ["*"], "env_refused"],
		"function of old shells": ["BASH_FUNC_x%%", ["*"], "env_dangerous"],
		"name that is no text": [7, ["*"], "env_refused"],
	}
	[name, env, code] := tc
	_code(_env(name), {"env": env}) == code
}

test_dangerous_variable_is_refused_though_listed[name] if {
	some name in [
		"LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "path", "PGHOST", "PGSERVICEFILE", "BASH_ENV", "ENV", "IFS", "HOME", "SHELL",
		"PROMPT_COMMAND", "PYTHONPATH", "PERL5LIB", "NODE_OPTIONS", "GIT_SSH_COMMAND", "http_proxy", "ALL_PROXY", "LESSOPEN",
		"SSH_AUTH_SOCK", "TRACEPARENT", "DOORWARD_X", "VAULT_TOKEN",
	]
	_code(_env(name), _all) == "env_dangerous"
}

test_variable_without_a_value_is_refused if _code({"kind": "env", "name": "LANG"}, _all) == "env_refused"

test_remedy_is_what_one_can_do if {
	requests.refusal(_to("x", 1), _all, "orders-db").remedy == "It forwards to: db:5432."
	requests.refusal({"kind": "x11-req"}, _all, "orders-db").remedy == "Connect without -X and -Y."
	asked := requests.refusal({"kind": "shell"}, {}, "orders-db").remedy with data.targets as data.fixtures.targets
	asked == "Ask at #orders-oncall; who approves: the orders team lead."
}
