# METADATA
# title: Files
# description: |
#   What may be done to which files over SFTP, by a target's `allow.sftp`: {"read": [places], "write": [places]}.
#
#   A place is an absolute path; `*` and `?` stand for what is within one name, `**` for any number of names.  `/srv/**`
#   is everything below /srv, and for reading /srv itself too.  The paths that are judged are canonical: no link, no `..`
#   and no `.` is in them, and what is opened is exactly what was judged.
package gateway.files

# METADATA
# description: |
#   Whether the operation is covered by the rules; by `true`, all of them are.
is_allowed(request, rules) if {
	rules == true
	request.operation in _known
}

is_allowed(request, rules) if {
	request.operation in _looks
	_may_read(request.path, rules)
}

is_allowed(request, rules) if {
	request.operation in _changes
	_may_write(request.path, rules)
}

is_allowed(request, rules) if {
	request.operation == "open"
	is_boolean(request.read)
	is_boolean(request.write)
	true in {request.read, request.write}
	_may_open_to_read(request, rules)
	_may_open_to_write(request, rules)
}

# What is renamed takes all that is below it along, into the rules of another place.
is_allowed(request, rules) if {
	request.operation == "rename"
	_covers_all_below(rules.read, request.path)
	_covers_all_below(rules.write, request.path)
	_covers_all_below(rules.write, request.to)
}

# Under a second name, a file has that place's rules too.
is_allowed(request, rules) if {
	request.operation == "hardlink"
	_may_read(request.path, rules)
	_may_write(request.path, rules)
	_may_write(request.to, rules)
}

_may_open_to_read(request, _) if request.read == false

_may_open_to_read(request, rules) if _may_read(request.path, rules)

_may_open_to_write(request, _) if request.write == false

_may_open_to_write(request, rules) if _may_write(request.path, rules)

_may_read(path, rules) if {
	some place in rules.read
	_covers(place, path)
}

_may_read(path, rules) if {
	some place in rules.read
	is_string(place)
	endswith(place, "/**")
	_covers(trim_suffix(place, "/**"), path)
}

# The root has no name, so no glob is asked.
_may_read("/", rules) if {
	some place in rules.read
	place in {"/", "/**"}
}

_may_write(path, rules) if {
	some place in rules.write
	_covers(place, path)
}

_covers(place, path) if {
	_is_path(path)
	_is_place(place)
	glob.match(place, ["/"], path)
}

_covers_all_below(places, path) if {
	some place in places
	_covers(place, path)
	endswith(place, "/**") # so it covers what is below too
}

# What is no canonical path was not resolved, and is not judged.
_is_path(path) if {
	is_string(path)
	startswith(path, "/")
	not regex.match(`/\.{0,2}(/|$)`, path)
}

# A glob that cannot be read would fail the whole decision.
_is_place(place) if {
	is_string(place)
	regex.match(`^(/|(/[^/\[\]{}\\\x00-\x1f]+)+)$`, place)
}

_looks := {"opendir", "stat", "lstat", "readlink", "realpath", "statvfs"}

_changes := {"setstat", "lsetstat", "fsetstat", "mkdir", "rmdir", "remove", "symlink"}

_known := (_looks | _changes) | {"open", "rename", "hardlink"}
