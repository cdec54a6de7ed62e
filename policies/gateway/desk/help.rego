package gateway.desk

# METADATA
# title: ssh door help
# description: How the door is used with a stock client, in the person's own name, and whom to ask for more.
help(person) := array.flatten([
	$"This is the door to production, and you are {person}.",
	"",
	"Connect:",
	$"  ssh {person}@door                    to your only target, or to a menu where you have several",
	$"  ssh {person}+{_any}@door             to one by its name, put after yours with a plus sign",
	$"  ssh {person}+{_any}@door 'uptime'    a command; its exit status is yours, and 254 is the door's own no",
	"",
	"Copy files:",
	$"  scp plan.txt {person}+{_any}@door:/tmp/",
	$"  scp {person}+{_any}@door:/tmp/plan.txt .",
	$"  rsync -a plans/ {person}+{_any}@door:/tmp/plans/",
	$"  sftp {person}+{_any}@door",
	"",
	"Forward a port, where the target allows it:",
	$"  ssh -L 5432:{_any}:5432 {person}+{_any}@door",
	$"  ssh -o ProxyCommand='ssh -W %h:%p {person}+{_any}@door' somebody@host",
	"",
	"Give a target a name of its own in ~/.ssh/config:",
	$"  Host {_any}",
	"    HostName door",
	$"    User {person}+{_any}",
	"",
	"Ask the door:",
	$"  ssh {person}@door access             what you may reach, until when, and what ended or is to come",
	$"  ssh {person}@door help               this",
	$"  ssh {person}+{_any}@door 'sh -c help'   a workspace's own program of such a name",
	"",
	"In an emergency, where the target allows it: on record, and reviewed by somebody else afterwards:",
	$"  ssh {person}+{_any}+break-glass@door",
	"",
	"Ask for access:",
	_whom_to_ask(person),
	$"  Name any other target to be told whom to ask: ssh {person}+{_any}@door",
])

# What stands for the name of any target.
_any := "target"
