package gateway.authn

import data.gateway.people

# METADATA
# title: Honeypots
# description: |
#   Where anyone is let in by any method, as the person that the honeypot names; what that person reaches is said by
#   their grant and its target.  A honeypot is a whole gateway, by its instance's name, or login names that no real
#   person has.  Nothing is proven, and the identity says so.
trapped := {"outcome": "accept", "identity": _bait, "methods": [], "reasons": []} if {
	_is_open
	not _listens
}

trapped := {
	"outcome": "continue",
	"identity": null,
	"methods": _open_methods,
	"reasons": [],
	"verify": {"kind": "anything", "prompt": "Password: "},
} if {
	_is_open
	_listens
}

trapped := {"outcome": "continue", "identity": null, "methods": _open_methods, "reasons": []} if {
	_trap
	not _is_open
}

_bait := {"person": _trap.person, "groups": [], "honeypot": true}

_is_open if input.attempt.method in object.get(_trap, "methods", _all_methods)

# Over keyboard-interactive nothing is typed before something is asked.
_listens if {
	input.attempt.method == "keyboard-interactive"
	input.attempt.verified_by == ""
}

_all_methods := ["none", "publickey", "password", "keyboard-interactive"]

_open_methods := [method | some method in array.slice(_all_methods, 1, 4); method in object.get(_trap, "methods", _all_methods)]

# Of several, the first by name.
_trap := _door.honeypots[min(_traps)]

_traps := {name | some name, honeypot in _door.honeypots; _is_set(honeypot); _catches(honeypot)}

_is_set(honeypot) if {
	people.is_active(honeypot.person)
	is_array(object.get(honeypot, "methods", []))
}

_catches(honeypot) if input.gateway.instance in honeypot.instances

_catches(honeypot) if {
	input.login.user in honeypot.logins
	not _is_real
}

_is_real if data.people[_login.person]
