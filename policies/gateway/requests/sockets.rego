package gateway.requests

# METADATA
# title: Sockets
# description: |
#   Whether a Unix socket's path is one that the target names: canonical, in no protected place, and matched by a glob
#   in which `*` stays within one folder and `**` does not.  The agent opens it without following any link.
is_path_allowed(path, globs) if {
	is_path_canonical(path)
	not is_path_protected(path)
	some pattern in globs
	_is_path_pattern(pattern)
	glob.match(pattern, ["/"], path)
}

# METADATA
# description: |
#   Whether a path says where it leads: absolute, without `.`, `..`, empty parts or control characters, and short enough
#   for a socket.
is_path_canonical(path) if {
	is_string(path)
	regex.match(`^(/[^/\x00-\x1f\x7f]+)+$`, path)
	not regex.match(`/\.\.?(/|$)`, path)
	count(path) < 108
}

# METADATA
# description: Whether no target may name this path, since it is the gateway's own, or the kernel's.
is_path_protected(path) if {
	some place in _protected
	startswith($"{path}/", $"{place}/")
}

_protected := {"/dev", "/proc", "/run/doorward", "/sys", "/var/run/doorward"}

# A glob that cannot be read would fail the whole decision.
_is_path_pattern(pattern) if {
	is_string(pattern)
	regex.match(`^/[A-Za-z0-9._*?/@:+-]+$`, pattern)
}
