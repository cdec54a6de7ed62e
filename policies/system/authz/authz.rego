# METADATA
# title: Who may ask OPA what
# description: |
#   OPA asks this about every request to its own API.  A bearer token is known by its SHA-256 in `data.tokens`, so no
#   secret is ever in the data.  Without a known token there is nothing but the health check.
# schemas:
#   - input: schema["system.authz"]
package system.authz

import data.gateway.copies
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

# The gateway asks for decisions, and keeps what is written at the grants door.
allow if {
	_role == "gateway"
	input.method == "POST"
	["v1", "data", "gateway"] == array.slice(_path, 0, 3)
	count(_path) > 3
}

allow if {
	_role == "gateway"
	input.method in {"GET", "PUT", "PATCH", "DELETE"}
	["v1", "data"] == array.slice(_path, 0, 2)
	_path[2] in object.keys(_depths)
}

allow if {
	_role == "gateway"
	input.method == "GET"
	array.slice(_path, 0, 3) in {["v1", "data", "people"], ["v1", "data", "targets"]}
}

# And it tells which bundles are active, and whether one fails.
allow if {
	_role == "gateway"
	input.method == "GET"
	_path in {["v1", "status"], ["v1", "data", "system", "bundles"]}
}

# Automation reads its roots, and writes one document at a time.
allow if {
	_role == "automation"
	input.method == "GET"
	_is_its_root
}

allow if {
	_role == "automation"
	input.method in {"PUT", "PATCH", "DELETE"}
	_is_its_root
	count(_path) == _depths[_path[2]]
}

# A copy of the data is taken by one token and written by another, which opens nothing where the data is written first.
allow if {
	_role == "copy_reader"
	input.method == "POST"
	_path == ["v0", "data", "gateway", "copies", "taken"]
}

allow if {
	_role == "copy_writer"
	input.method == "PUT"
	["v1", "data"] == array.slice(_path, 0, 2)
	count(_path) == 3
	_path[2] in copies.roots
	opa.runtime().config.labels.doorward == "copy"
}

# Whoever studies what policy says reads the policies and what they read, and changes nothing.
allow if {
	_role == "auditor"
	input.method == "GET"
	["v1", "data"] == array.slice(_path, 0, 2)
	_path[2] in {"approvals", "authorities", "door", "grants", "joins", "people", "reviews", "roster", "targets"}
}

allow if {
	_role == "auditor"
	input.method == "GET"
	_path == ["v1", "policies"]
}

# Somebody's answer to a session that waits for four eyes, on their behalf.
allow if {
	_role == "automation"
	input.method in {"GET", "PUT", "DELETE"}
	["v1", "data", "joins"] == array.slice(_path, 0, 3)
	count(_path) == 5
}

# Where a document of each root is; nothing else is written over the API but by an administrator.
_depths := {"grants": 5, "approvals": 6, "reviews": 5, "roster": 4}

_is_its_root if {
	["v1", "data"] == array.slice(_path, 0, 2)
	_path[2] in object.keys(_depths)
	_path[2] in object.get(_token, "roots", ["grants"])
}

_token := data.tokens[crypto.sha256(input.identity)] if is_string(input.identity)

_role := _token.role

# Undefined when a segment is empty, `.`, `..` or anything else that is no plain name, since such a path may mean one
# thing here and another to the handler behind.
_path := input.path if {
	is_array(input.path)
	every segment in input.path {
		people.is_name(segment)
	}
}
