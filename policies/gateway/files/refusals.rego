package gateway.files

import data.gateway.reasons

# METADATA
# title: Refusals of file operations
# description: |
#   Why an operation is refused, given that `is_allowed` does not hold.  It says what is allowed, and nothing of the place
#   that is not: not even whether something is there.
refusal(request, rules) := reasons.reason(
	"sftp_rename_refused",
	"A rename takes along all that is below, so both places have to be covered wholly.",
	_remedy(rules, "Renaming needs rules that end in /**, for reading and writing there. "),
) if {
	request.operation == "rename"
}

else := reasons.reason(
	"sftp_link_refused",
	"A hard link puts a file under the rules of a second place, so both have to be yours to write.",
	_remedy(rules, ""),
) if {
	request.operation == "hardlink"
}

else := reasons.reason(
	"sftp_write_refused",
	"This target does not let you change that over SFTP.",
	_remedy(rules, ""),
) if {
	_is_change(request)
}

else := reasons.reason(
	"sftp_path_refused",
	"This target does not let you read that over SFTP.",
	_remedy(rules, ""),
) if {
	request.operation in _known
}

else := reasons.reason(
	"sftp_operation_unknown",
	"The door does not know this operation on files, and takes only what it knows.",
	"Tell the platform team what you were doing, if you need it.",
)

_is_change(request) if request.operation in _changes

_is_change(request) if {
	request.operation == "open"
	request.write == true
}

_remedy(rules, first) := concat("", [first, $"You may read: {_list(rules, "read")}; change: {_list(rules, "write")}."])

_list(rules, what) := "nothing" if count(_places(rules, what)) == 0

_list(rules, what) := concat(", ", _places(rules, what)) if count(_places(rules, what)) > 0

_places(rules, what) := {place | some place in rules[what]; is_string(place)}
