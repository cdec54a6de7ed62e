package gateway.authz_test

import data.gateway.authz

_input := data.fixtures.inputs.authz

_decide(asked, held) := _decide_at(data.fixtures.targets, asked, held)

_decide_at(targets, asked, held) := answer if {
	answer := authz.decision with input as asked
		with data.people as data.fixtures.people
		with data.targets as targets
		with data.grants as held
}

_asking(request) := object.union(object.remove(_input, ["request"]), {"request": request})

test_what_the_target_allows_is_allowed[note] if {
	some note, request in {
		"shell": {"kind": "shell"},
		"exec": {"kind": "exec", "command": "psql"},
		"forward": {"kind": "direct-tcpip", "host": "orders-db", "port": 5432},
	}
	_decide(_asking(request), data.fixtures.grants) == {"allow": true, "obligations": [], "reasons": []}
}

test_what_it_does_not_is_refused if {
	answer := _decide(_asking({"kind": "x11-req"}), data.fixtures.grants)
	answer.allow == false
	answer.obligations == []
	[reason] := answer.reasons
	reason.code == "x11_refused"
}

test_nothing_is_allowed_when_the_grant_no_longer_stands[note] if {
	some note, tc in {
		"deleted": {"held": {}, "code": "grant_deleted"},
		"ended": {
			"held": {"alice": {"INC-1": object.union(data.fixtures.grants.alice["INC-1"], {"ends_at": "2030-01-31T11:00:00Z"})}},
			"code": "grant_ended",
		},
	}
	some kind in {"session", "shell", "window-change"}
	answer := _decide(_asking({"kind": kind}), tc.held)
	answer.allow == false
	[reason] := answer.reasons
	reason.code == tc.code
}

test_incomplete_question_is_refused[note] if {
	some note, asked in {
		"nothing": {},
		"null": null,
		"text": "x",
		"no identity": object.remove(_input, ["identity"]),
		"no permit": object.remove(_input, ["permit"]),
		"target that is no text": object.union(_input, {"permit": {"target": 7}}),
		"no request": object.remove(_input, ["request"]),
		"kind that is no text": object.union(_input, {"request": {"kind": 7}}),
		"no time": object.remove(_input, ["now_ns"]),
		"time in text": object.union(_input, {"now_ns": "now"}),
	}
	answer := _decide(asked, data.fixtures.grants)
	answer.allow == false
	[reason] := answer.reasons
	reason.code == "malformed_input"
}

test_what_a_certificate_does_not_permit_is_refused[note] if {
	some note, tc in {
		"a terminal": ["pty", {"kind": "pty-req"}],
		"a forward": ["port-forwarding", {"kind": "direct-tcpip", "host": "orders-db", "port": 5432}],
		"a listener": ["port-forwarding", {"kind": "tcpip-forward"}],
		"a socket": ["port-forwarding", {"kind": "direct-streamlocal@openssh.com"}],
		"a tunnel": ["port-forwarding", {"kind": "tun@openssh.com"}],
		"the agent": ["agent-forwarding", {"kind": "auth-agent-req@openssh.com"}],
		"X11": ["X11-forwarding", {"kind": "x11-req"}],
	}
	asked := json.patch(_asking(tc[1]), [{"op": "add", "path": "/identity/restrictions", "value": [tc[0]]}])
	[reason] := _decide(asked, data.fixtures.grants).reasons
	reason.code == "certificate_restricts"
	without := json.patch(_asking({"kind": "exec", "command": "id"}), [{
		"op": "add",
		"path": "/identity/restrictions",
		"value": [tc[0]],
	}])
	_decide(without, data.fixtures.grants).allow
}

test_what_the_target_closes_for_now_is_refused[note] if {
	some note, tc in {
		"a forward": ["forwards", {"kind": "direct-tcpip", "host": "orders-db", "port": 5432}],
		"a forward that it never allows": ["forwards", {"kind": "x11-req"}],
		"sftp": ["sftp", {"kind": "subsystem", "name": "sftp"}],
		"a file": ["sftp", {"kind": "sftp", "operation": "open", "path": "/x", "read": true}],
	}
	answer := _decide_at(_closing(tc[0]), _asking(tc[1]), data.fixtures.grants)
	answer.allow == false
	[reason] := answer.reasons
	reason.code == "restricted"
}

test_what_the_target_does_not_close_goes_on[note] if {
	some note, tc in {
		"a command": ["forwards", {"kind": "exec", "command": "id"}],
		"sftp": ["forwards", {"kind": "subsystem", "name": "sftp"}],
		"a forward": ["sftp", {"kind": "direct-tcpip", "host": "orders-db", "port": 5432}],
		"a shell": ["sftp", {"kind": "shell"}],
	}
	answer := _decide_at(_closing(tc[0]), _asking(tc[1]), data.fixtures.grants)
	answer.allow
}

_closing(word) := json.patch(data.fixtures.targets, [{
	"op": "add",
	"path": "/orders-db/restrict",
	"value": {"drop": [word], "reason": "INC-77 is looked into."},
}])
