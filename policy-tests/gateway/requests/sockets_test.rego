package gateway.sockets_test

import data.gateway.requests

_connect := "direct-streamlocal@openssh.com"

_listen := "streamlocal-forward@openssh.com"

_some := {"sockets": {"connect": ["/run/app/*.sock", "/srv/**"], "listen": ["/tmp/mine/*"]}}

_all := {"sockets": {"connect": ["/**"], "listen": ["/**"]}}

_code(request, allow) := "" if requests.is_allowed(request, allow)

_code(request, allow) := requests.refusal(request, allow, "orders-db").code if not requests.is_allowed(request, allow)

test_socket_is_judged_by_its_path[note] if {
	some note, tc in {
		"listed": [_connect, "/run/app/x.sock", _some, ""],
		"in the folder below": [_connect, "/run/app/y/x.sock", _some, "unix_socket_refused"],
		"anywhere below": [_connect, "/srv/a/b", _some, ""],
		"listed to listen": [_listen, "/tmp/mine/x", _some, ""],
		"listed to connect only": [_listen, "/srv/a", _some, "unix_socket_refused"],
		"listed to listen only": [_connect, "/tmp/mine/x", _some, "unix_socket_refused"],
		"none listed": [_connect, "/srv/a", {"shell": true}, "unix_socket_refused"],
		"no list": [_connect, "/srv/a", {"sockets": {"connect": 7}}, "unix_socket_refused"],
		"glob that cannot be read": [_connect, "/srv/a", {"sockets": {"connect": ["/{srv", 7]}}, "unix_socket_refused"],
		"relative": [_connect, "srv/a", _all, "unix_socket_not_plain"],
		"abstract": [_connect, "@srv", _all, "unix_socket_not_plain"],
		"empty": [_connect, "", _all, "unix_socket_not_plain"],
		"the root": [_connect, "/", _all, "unix_socket_not_plain"],
		"back up": [_connect, "/srv/../run/app/x.sock", _all, "unix_socket_not_plain"],
		"back up at the end": [_connect, "/srv/..", _all, "unix_socket_not_plain"],
		"a dot": [_connect, "/srv/./a", _all, "unix_socket_not_plain"],
		"names that begin with dots": [_connect, "/srv/..a/.b/...", _all, ""],
		"two slashes": [_connect, "/srv//a", _all, "unix_socket_not_plain"],
		"a slash at the end": [_connect, "/srv/a/", _all, "unix_socket_not_plain"],
		"a line end": [_connect, "/srv/a\n", _all, "unix_socket_not_plain"],
		"too long": [_connect, sprintf("/%0107d", [0]), _all, "unix_socket_not_plain"],
		"a path that is no text": [_connect, 7, _all, "unix_socket_not_plain"],
		"ours": [_connect, "/run/doorward/x", _all, "unix_socket_protected"],
		"ours to listen": [_listen, "/run/doorward/x", _all, "unix_socket_protected"],
		"ours in other words": [_connect, "/var/run/doorward/x", _all, "unix_socket_protected"],
		"our folder itself": [_connect, "/run/doorward", _all, "unix_socket_protected"],
		"beside ours": [_connect, "/run/doorward2", _all, ""],
		"the kernel's": [_connect, "/proc/self/fd/3", _all, "unix_socket_protected"],
		"a device": [_listen, "/dev/log", _all, "unix_socket_protected"],
	}
	[kind, path, allow, code] := tc
	_code({"kind": kind, "path": path}, allow) == code
}

test_socket_without_a_path_is_refused if _code({"kind": _connect}, _all) == "unix_socket_not_plain"

test_remedy_names_what_there_is if {
	said := requests.refusal({"kind": _connect, "path": "/x"}, _some, "orders-db").remedy
	said == "It forwards: /run/app/*.sock, /srv/**."
}
