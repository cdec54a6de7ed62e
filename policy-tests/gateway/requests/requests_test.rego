package gateway.requests_test

import data.gateway.requests

_all := {
	"shell": true,
	"exec": true,
	"sftp": true,
	"forwards": [{"host": "db", "port": 5432}],
	"env": ["LANG", "LC_*", "*"],
	"agent": true,
	"x11": true,
	"listen": [{"host": "localhost", "port": 0}, {"host": "*", "port": 8080}],
	"sockets": {"connect": ["/tmp/app/*.sock", "/**"], "listen": ["/tmp/mine/**"]},
}

# Why the request is refused, or "" when it is not.
_code(request, allow) := "" if requests.is_allowed(request, allow)

_code(request, allow) := requests.refusal(request, allow, "orders-db").code if not requests.is_allowed(request, allow)

_env(name) := {"kind": "env", "name": name, "value": "x"}

_listen(host, port) := {"kind": "tcpip-forward", "host": host, "port": port}

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
		"X11": [{"kind": "x11-req", "single_connection": false, "screen": 0}, _all, ""],
		"X11 of no target": [{"kind": "x11-req"}, {"shell": true}, "x11_refused"],
		"X11 by a slip of the pen": [{"kind": "x11-req"}, {"x11": "true"}, "x11_refused"],
		"agent": [{"kind": "auth-agent-req@openssh.com"}, _all, ""],
		"agent of no target": [{"kind": "auth-agent-req@openssh.com"}, {"exec": true}, "agent_refused"],
		"listener of a port to be chosen": [_listen("localhost", 0), _all, ""],
		"listener everywhere": [_listen("", 8080), _all, ""],
		"listener everywhere in other words": [_listen("*", 8080), _all, ""],
		"listener at another address": [_listen("127.0.0.1", 8080), _all, "remote_forward_refused"],
		"listener at another port": [_listen("localhost", 9000), _all, "remote_forward_refused"],
		"listener at a chosen port everywhere": [_listen("", 0), _all, "remote_forward_refused"],
		"listener where none may be": [_listen("localhost", 0), {"shell": true}, "remote_forward_refused"],
		"listener where the list is none": [_listen("localhost", 0), {"listen": 7}, "remote_forward_refused"],
		"its end": [{"kind": "cancel-tcpip-forward", "host": "x", "port": 1}, _all, ""],
		"its end where none may be": [{"kind": "cancel-tcpip-forward"}, {"listen": []}, "remote_forward_refused"],
		"end of a socket's": [{"kind": "cancel-streamlocal-forward@openssh.com"}, _all, ""],
		"end of none": [{"kind": "cancel-streamlocal-forward@openssh.com"}, {"listen": 7}, "unix_socket_refused"],
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
		"SSH_AUTH_SOCK", "DISPLAY", "XAUTHORITY", "TRACEPARENT", "DOORWARD_X", "VAULT_TOKEN",
	]
	_code(_env(name), _all) == "env_dangerous"
}

test_variable_without_a_value_is_refused if _code({"kind": "env", "name": "LANG"}, _all) == "env_refused"

test_remedy_is_what_one_can_do if {
	requests.refusal(_to("x", 1), _all, "orders-db").remedy == "It forwards to: db:5432."
	requests.refusal({"kind": "x11-req"}, {}, "orders-db").remedy == "Connect without -X and -Y."
	requests.refusal(_listen("x", 1), _all, "orders-db").remedy == "It listens at: *:8080, localhost:0."
	asked := requests.refusal({"kind": "shell"}, {}, "orders-db").remedy with data.targets as data.fixtures.targets
	asked == "Ask at #orders-oncall; who approves: the orders team lead."
}
