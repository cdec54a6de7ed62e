# METADATA
# title: Who may ask OPA what
# description: |
#   OPA asks this about every request to its own API.  A bearer token is known by its SHA-256 in `data.tokens`, so no
#   secret is ever in the data.  Without a known token there is nothing but the health check.
# schemas:
#   - input: schema["system.authz"]
package system.authz

import data.gateway.people

# METADATA
# description: Whether OPA serves the request.
# entrypoint: true
default allow := false

allow if {
	input.method == "GET"
	input.path == ["health"]
}

allow if _role == "admin"

# The gateway asks for decisions, and keeps grants for the grants door.
allow if {
	_role == "gateway"
	input.method == "POST"
	["v1", "data", "gateway"] == array.slice(_path, 0, 3)
	count(_path) > 3
}

allow if {
	_role == "gateway"
	input.method in {"GET", "PUT", "PATCH", "DELETE"}
	["v1", "data", "grants"] == array.slice(_path, 0, 3)
}

allow if {
	_role == "gateway"
	input.method == "GET"
	array.slice(_path, 0, 3) in {["v1", "data", "people"], ["v1", "data", "targets"]}
}

# Ticketing automation reads grants, and writes one at a time.
allow if {
	_role == "automation"
	input.method == "GET"
	["v1", "data", "grants"] == array.slice(_path, 0, 3)
}

allow if {
	_role == "automation"
	input.method in {"PUT", "PATCH", "DELETE"}
	["v1", "data", "grants"] == array.slice(_path, 0, 3)
	count(_path) == 5
}

_role := data.tokens[crypto.sha256(input.identity)].role if is_string(input.identity)

# Undefined when a segment is empty, `.`, `..` or anything else that is no plain name, since such a path may mean one
# thing here and another to the handler behind.
_path := input.path if {
	is_array(input.path)
	every segment in input.path {
		people.is_name(segment)
	}
}
