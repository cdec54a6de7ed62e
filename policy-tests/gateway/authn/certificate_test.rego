package gateway.authn_test

_ca := {
	"type": "ssh-ed25519",
	"fingerprint": "SHA256:ca",
	"public_key": data.fixtures.people.bob.keys[0],
	"bits": null,
	"touched": null,
	"pin_verified": null,
}

_certificate := {
	"key_id": "alice@corp",
	"serial": 7,
	"ca": _ca,
	"principals": ["alice"],
	"valid_after": 1896091000,
	"valid_before": 1896094000,
	"critical_options": {},
	"extensions": {"permit-pty": ""},
}

_certified(changes) := object.union(_key, {"certificate": json.patch(_certificate, [
{"op": "add", "path": path, "value": value} |
	some path, value in changes
])})

_trust(changes) := _rules({"authorities": {"corp": object.union({"public_key": $"{_ca.public_key} corp"}, changes)}})

test_a_certificate_is_accepted_with_what_it_narrows if {
	_judge(_certified({}), [], _trust({})).identity == {
		"person": "alice",
		"groups": ["oncall", "orders"],
		"via": ["certificate"],
		"key_id": "alice@corp",
		"restrictions": ["port-forwarding", "agent-forwarding", "X11-forwarding"],
		"force_command": "",
	}
}

test_all_permissions_leave_no_restriction if {
	extensions := {concat("-", ["permit", word]): "" |
		some word in ["pty", "port-forwarding", "agent-forwarding", "X11-forwarding", "user-rc"]
	}
	_judge(_certified({"/extensions": extensions}), [], _trust({})).identity.restrictions == []
}

test_a_forced_command_goes_into_the_identity if {
	certified := _certified({"/critical_options": {"force-command": "uptime"}})
	_judge(certified, [], _trust({})).identity.force_command == "uptime"
}

_other_fingerprint := "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

test_certificates_that_open[note] if {
	some note, tc in {
		"for ever": [{"/valid_before": -1}, {}],
		"as of now": [{"/valid_after": 1896091200}, {}],
		"from here": [{"/critical_options": {"source-address": "198.51.100.0/24,192.0.2.0/24"}}, {}],
		"from this address": [{"/critical_options": {"source-address": "192.0.2.7"}}, {}],
		"from here, and elsewhere": [{"/critical_options": {"source-address": "2001:db8::/32,::1,192.0.2.7"}}, {}],
		"of several names": [{"/principals": ["bob", "alice"]}, {}],
		"with extensions nobody knows": [{"/extensions": {"x@example": "y"}}, {}],
		"others are revoked": [{}, {"revoked": {"serials": [8], "key_ids": ["x"], "keys": [_other_fingerprint]}}],
	}
	_judge(_certified(tc[0]), [], _trust(tc[1])).outcome == "accept"
}

test_certificates_that_do_not_open[note] if {
	some note, tc in {
		"no names": [{"/principals": []}, {}, "certificate_not_yours"],
		"another name": [{"/principals": ["bob"]}, {}, "certificate_not_yours"],
		"not yet": [{"/valid_after": 1896091201}, {}, "certificate_not_yet_valid"],
		"over": [{"/valid_before": 1896091200}, {}, "certificate_expired"],
		"serial": [{}, {"revoked": {"serials": [7]}}, "certificate_revoked"],
		"key id": [{}, {"revoked": {"key_ids": ["alice@corp"]}}, "certificate_revoked"],
		"key": [{}, {"revoked": {"keys": [_key.key.fingerprint]}}, "certificate_revoked"],
		"elsewhere": [{"/critical_options": {"source-address": "198.51.100.0/24"}}, {}, "certificate_elsewhere"],
		"no address": [{"/critical_options": {"source-address": ""}}, {}, "certificate_elsewhere"],
		"one that is none": [
			{"/critical_options": {"source-address": "192.0.2.7,x"}},
			{}, "certificate_elsewhere",
		],
		"not an address": [{"/critical_options": {"source-address": "192.0.2.7/99"}}, {}, "certificate_elsewhere"],
		"no text": [{"/critical_options": {"source-address": 5}}, {}, "certificate_elsewhere"],
		"unknown option": [{"/critical_options": {"x@example": ""}}, {}, "certificate_option_unknown"],
		"empty command": [{"/critical_options": {"force-command": " "}}, {}, "certificate_option_unknown"],
		"no options": [{"/critical_options": null}, {}, "certificate_option_unknown"],
	}
	answer := _judge(_certified(tc[0]), [], _trust(tc[1]))
	answer.outcome == "reject"
	[reason] := answer.reasons
	reason.code == tc[2]
}

test_certificates_of_nobody_we_trust_are_not_recognised[note] if {
	weak := {"type": "ssh-rsa", "public_key": "ssh-rsa AAAA", "bits": 1024}
	some note, tc in {
		"no authority": [{}, _rules({})],
		"another authority": [{}, _rules({"authorities": {"other": {"public_key": "ssh-ed25519 AAAA"}}})],
		"disabled": [{}, _trust({"disabled": true})],
		"half disabled": [{}, _rules({"authorities": {
			"a": {"public_key": _ca.public_key},
			"b": {"public_key": _ca.public_key, "disabled": true},
		}})],
		"misshapen": [{}, _trust({"revoked": {"serials": "7"}})],
		"a fingerprint that is none": [{}, _trust({"revoked": {"keys": ["SHA256:x"]}})],
		"a padded fingerprint": [{}, _trust({"revoked": {"keys": [$"{_other_fingerprint}="]}})],
		"an unknown word": [{}, _trust({"revoke": {}})],
		"weak authority": [{"/ca": weak}, _rules({"authorities": {"weak": {"public_key": "ssh-rsa AAAA"}}})],
		"unknown person": [{"/principals": ["zoe"]}, object.union(_trust({}), {"login": "zoe"})],
		"disabled person": [{"/principals": ["carol"]}, object.union(_trust({}), {"login": "carol"})],
	}
	answer := _judge(_certified(tc[0]), [], tc[1])
	answer.outcome == "reject"
	[reason] := answer.reasons
	reason.code in {"not_recognised", "certificate_not_yours"}
}

test_an_offered_certificate_may_sign_to_be_told_what_is_wrong[note] if {
	some note, tc in {
		"good": [{}, _trust({}), "accept"],
		"over": [{"/valid_before": 1}, _trust({}), "continue"],
		"not trusted": [{}, _rules({}), "reject"],
	}
	_judge(object.union(_certified(tc[0]), {"proven": false}), [], tc[1]).outcome == tc[2]
}

test_what_a_certificate_may_call_somebody[note] if {
	some note, tc in {
		"another name": [["ops-alice"], ["ops-alice"], "accept"],
		"no longer their own": [["ops-alice"], ["alice"], "reject"],
		"nothing": [[], ["alice"], "reject"],
		"no list": [5, ["alice"], "reject"],
	}
	rules := object.union(_trust({}), {"alice": {"principals": tc[0]}})
	_judge(_certified({"/principals": tc[1]}), [], rules).outcome == tc[2]
}

test_a_certificate_is_not_a_key if {
	_judge(_certified({}), [], object.union(_trust({}), {"alice": {"chain": [["publickey"]]}})).outcome == "reject"
}

test_certificates_and_hardware[note] if {
	facts := {"type": "sk", "fingerprint": "SHA256:sk", "public_key": _sk, "touched": false, "pin_verified": false}
	some note, tc in {
		"not touched": [{}, "reject"],
		"touch was lifted": [{"/extensions": {"no-touch-required": ""}}, "accept"],
		"PIN is asked for": [
			{"/extensions": {"no-touch-required": ""}, "/critical_options": {"verify-required": ""}},
			"reject",
		],
	}
	_judge(object.union(_certified(tc[0]), {"key": facts}), [], _trust({})).outcome == tc[1]
}
