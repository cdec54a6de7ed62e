package gateway.files_test

import data.gateway.files
import data.gateway.requests
import data.gateway.targets

_rules := {"read": ["/srv/pub/**", "/etc/motd", "/logs/*/**"], "write": ["/srv/pub/in/**", "/drop/*.csv"]}

# Why the operation is refused, or "" when it is not.
_code(request, rules) := "" if files.is_allowed(request, rules)

_code(request, rules) := files.refusal(request, rules).code if not files.is_allowed(request, rules)

_on(operation, path) := {"kind": "sftp", "operation": operation, "path": path}

_open(path, read, write) := object.union(_on("open", path), {"read": read, "write": write, "flags": []})

_both(operation, path, to) := object.union(_on(operation, path), {"to": to})

test_places_to_read[note] if {
	some note, tc in {
		"below": ["/srv/pub/a/b", ""],
		"the folder itself": ["/srv/pub", ""],
		"its parent": ["/srv", "sftp_path_refused"],
		"root": ["/", "sftp_path_refused"],
		"one that begins alike": ["/srv/public", "sftp_path_refused"],
		"one file": ["/etc/motd", ""],
		"below a file": ["/etc/motd/x", "sftp_path_refused"],
		"another": ["/etc/passwd", "sftp_path_refused"],
		"glob in the middle": ["/logs/app/today/x", ""],
		"its folder": ["/logs/app", ""],
		"folder above it": ["/logs", "sftp_path_refused"],
		"written alone": ["/drop/a.csv", "sftp_path_refused"],
		"not resolved": ["/srv/pub/../../etc/passwd", "sftp_path_refused"],
		"ends in dots": ["/srv/pub/..", "sftp_path_refused"],
		"dot": ["/srv/pub/./x", "sftp_path_refused"],
		"two slashes": ["/srv/pub//x", "sftp_path_refused"],
		"slash at the end": ["/srv/pub/x/", "sftp_path_refused"],
		"relative": ["srv/pub/x", "sftp_path_refused"],
		"empty": ["", "sftp_path_refused"],
		"no text": [7, "sftp_path_refused"],
		"hidden": ["/srv/pub/.x", ""],
		"three dots": ["/srv/pub/.../x", ""],
		"line end": ["/srv/pub/a\nb", ""],
	}
	some operation in ["opendir", "stat", "lstat", "readlink", "realpath", "statvfs"]
	[path, code] := tc
	_code(_on(operation, path), _rules) == code
	_code(_open(path, true, false), _rules) == code
}

test_places_to_write[note] if {
	some note, tc in {
		"below": ["/srv/pub/in/x", ""],
		"the folder itself is not below itself": ["/srv/pub/in", "sftp_write_refused"],
		"read alone": ["/srv/pub/x", "sftp_write_refused"],
		"by glob": ["/drop/a.csv", ""],
		"glob does not cross": ["/drop/a/b.csv", "sftp_write_refused"],
		"nowhere": ["/etc/passwd", "sftp_write_refused"],
	}
	some operation in ["setstat", "lsetstat", "fsetstat", "mkdir", "rmdir", "remove", "symlink"]
	[path, code] := tc
	_code(_on(operation, path), _rules) == code
	_code(_open(path, false, true), _rules) == code
}

test_open_both_ways_needs_both if {
	_code(_open("/srv/pub/in/x", true, true), _rules) == ""
	_code(_open("/drop/a.csv", true, true), _rules) == "sftp_write_refused"
	_code(_open("/srv/pub/x", true, true), _rules) == "sftp_write_refused"
}

test_open_that_says_nothing_is_refused[note] if {
	some note, request in {
		"neither": _open("/srv/pub/x", false, false),
		"no read": object.remove(_open("/srv/pub/x", true, false), ["read"]),
		"no write": object.remove(_open("/srv/pub/x", true, false), ["write"]),
		"text": _open("/srv/pub/x", "true", false),
	}
	_code(request, _rules) == "sftp_path_refused"
}

test_two_places[note] if {
	some note, tc in {
		"within": ["/srv/pub/in/a", "/srv/pub/in/b", "", ""],
		"out of it": ["/srv/pub/in/a", "/srv/pub/b", "sftp_rename_refused", "sftp_link_refused"],
		"into it": ["/srv/pub/a", "/srv/pub/in/b", "sftp_rename_refused", "sftp_link_refused"],
		"of what is elsewhere": ["/etc/shadow", "/srv/pub/in/b", "sftp_rename_refused", "sftp_link_refused"],
		"of what cannot be read": ["/drop/a.csv", "/srv/pub/in/a", "sftp_rename_refused", "sftp_link_refused"],
		"to where not all below is covered": ["/srv/pub/in/a", "/drop/a.csv", "sftp_rename_refused", ""],
		"of the folder itself": ["/srv/pub/in", "/srv/pub/in/x", "sftp_rename_refused", "sftp_link_refused"],
	}
	[path, to, renamed, linked] := tc
	_code(_both("rename", path, to), _rules) == renamed
	_code(_both("hardlink", path, to), _rules) == linked
}

test_two_places_need_a_second if {
	_code(_on("rename", "/srv/pub/in/a"), _rules) == "sftp_rename_refused"
	_code(_on("hardlink", "/srv/pub/in/a"), _rules) == "sftp_link_refused"
}

test_rules[note] if {
	some note, tc in {
		"none": [{}, "sftp_path_refused"],
		"empty": [{"read": [], "write": []}, "sftp_path_refused"],
		"all": [{"read": ["/**"]}, ""],
		"true": [true, ""],
		"false": [false, "sftp_path_refused"],
		"text": ["true", "sftp_path_refused"],
		"no list": [{"read": "/**"}, "sftp_path_refused"],
		"no text": [{"read": [7, null]}, "sftp_path_refused"],
		"glob that cannot be read": [{"read": ["/srv/[a", "/{a", "/srv/pub/x/"]}, "sftp_path_refused"],
		"relative": [{"read": ["srv/**", "**"]}, "sftp_path_refused"],
	}
	[rules, code] := tc
	_code(_on("stat", "/srv/pub/x"), rules) == code
}

test_whole_tree_has_a_root if {
	files.is_allowed(_on("opendir", "/"), {"read": ["/**"]})
	files.is_allowed(_on("opendir", "/"), {"read": ["/"]})
	not files.is_allowed(_on("opendir", "/x"), {"read": ["/"]})
	not files.is_allowed(_on("remove", "/"), {"write": ["/**"]})
}

test_unknown_operation_is_refused if {
	_code(_on("copy-data", "/srv/pub/x"), _rules) == "sftp_operation_unknown"
	not files.is_allowed(_on("copy-data", "/srv/pub/x"), true)
	_code({"kind": "sftp"}, _rules) == "sftp_operation_unknown"
}

test_remedy_says_what_is_allowed_and_nothing_of_the_rest if {
	read := files.refusal(_on("stat", "/secret"), {"read": ["/b/**", "/a"]})
	read.remedy == "You may read: /a, /b/**; change: nothing."
	not contains(read.message, "secret")
	startswith(files.refusal(_both("rename", "/a", "/b"), _rules).remedy, "Renaming needs rules that end in /**")
}

test_request_of_a_target_with_rules if {
	allow := {"sftp": _rules}
	requests.is_allowed({"kind": "subsystem", "name": "sftp"}, allow)
	requests.obligations({"kind": "subsystem", "name": "sftp"}, allow) == [{"kind": "judge_sftp"}]
	requests.obligations({"kind": "subsystem", "name": "sftp"}, {"sftp": true}) == []
	requests.obligations({"kind": "shell"}, allow) == []
	requests.is_allowed(_on("stat", "/srv/pub"), allow)
	not requests.is_allowed(_on("stat", "/etc"), allow)
	requests.refusal(_on("stat", "/etc"), allow, "reports").code == "sftp_path_refused"
	requests.refusal(_on("stat", "/etc"), {"sftp": false}, "reports").code == "subsystem_refused"
}

test_shape_of_rules[note] if {
	some note, tc in {
		"yes": [true, 0],
		"rules": [_rules, 0],
		"read alone": [{"read": ["/**", "/"]}, 0],
		"none": [{}, 0],
		"text": ["yes", 1],
		"misspelt": [{"reads": ["/**"]}, 1],
		"relative": [{"read": ["srv"]}, 1],
		"slash at the end": [{"read": ["/srv/"]}, 1],
		"sign of a glob that is not known": [{"write": ["/srv/{a,b}"]}, 1],
	}
	[rules, faults] := tc
	fixture := data.fixtures.targets.reports
	target := json.patch(fixture, [{"op": "replace", "path": "/allow/sftp", "value": rules}])
	found := targets.faults("reports") with data.targets as {"reports": target}
	min([count(found), 1]) == faults
}
