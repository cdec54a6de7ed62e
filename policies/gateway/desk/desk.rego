# METADATA
# title: The desk
# description: |
#   What the door itself tells a person: the targets they can choose from, and the commands that it answers.
#   It names no target that the person has no grant for.
# schemas:
#   - data.targets: schema["data.targets"]
package gateway.desk

import data.gateway.grants
import data.gateway.moments
import data.gateway.targets

# METADATA
# description: |
#   Commands that the door answers, when one of them is the whole command.  A program of that name in a workspace is
#   still to be had (`sh -c help`); leave a word out, and it is the workspace's again.
words := {"access", "help"}

# METADATA
# description: How long a menu waits for a choice, in seconds.
seconds := 120

# METADATA
# description: What the door answers to one of its words.  Undefined for anything else.
text("access", person, now_ns) := concat("\n", access(person, now_ns))

text("help", person, _) := concat("\n", help(person))

# METADATA
# description: |
#   What a menu offers, or a list shows, of the targets: [{"target", "login", "label"}].
#   No more than fifty: who has more will know a name.
choices(person, names, now_ns) := [choice |
	some name in array.slice(sort(names), 0, 50)
	choice := {"target": name, "login": $"{person}+{name}", "label": _label(person, name, now_ns)}
]

_label(person, name, now_ns) := $"{_described(name)} · {_until(max(ends), now_ns)}" if {
	ends := [until |
		some id, grant in grants.held(person)
		grants.is_for(grant, name)
		[until, _] := grants.until({"person": person, "grant": id, "target": name}, now_ns)
	]
}

_until(ns, now_ns) := $"until {moments.shown(ns)} ({moments.span(ns - now_ns)})"

_described(name) := _line(data.targets[name].description) if {
	is_string(data.targets[name].description)
} else := name

# Where to ask about the targets that the person has, or had: of others they know only who tells them a name.
_whom_to_ask(person) := [$"  {name}: {_line(targets.whom_to_ask(name))}" |
	some name in array.slice(sort(_targets(person)), 0, 50)
]

_targets(person) := {target | some grant in grants.held(person); some target in grants.targets_of(grant)}

# Free text as one line of a bounded length: who wrote it writes no lines of ours.
_line(text) := substring(regex.replace(text, `[\x00-\x1f\x7f]+`, " "), 0, 200)
