# METADATA
# title: Targets
# description: What a grant can be for, what may be done there, and whom to ask about it.
# schemas:
#   - data.targets: schema["data.targets"]
package gateway.targets

import data.gateway.moments
import data.gateway.people

# METADATA
# description: Whether there is a target of this name.
exists(name) if {
	people.is_name(name)
	is_object(data.targets[name])
}

# METADATA
# description: What is allowed at the target; nothing, where it does not say.
allow(name) := allowed if {
	allowed := data.targets[name].allow
	is_object(allowed)
} else := {}

# METADATA
# description: How long before an end the engineer is warned, in nanoseconds.
warn_ns(name) := data.targets[name].session.warn_seconds * moments.second if {
	is_number(data.targets[name].session.warn_seconds)
} else := 0

# METADATA
# description: The longest grant that the target takes, in seconds.
max_grant_seconds(name) := data.targets[name].max_grant_seconds if {
	is_number(data.targets[name].max_grant_seconds)
} else := 0

# METADATA
# description: Where to ask for a grant, and who approves it.
whom_to_ask(name) := $"Ask at {target.ask}; who approves: {target.approvers}." if {
	target := data.targets[name]
	is_string(target.ask)
	is_string(target.approvers)
} else := "Ask the platform team who gives grants for it."

# METADATA
# description: |
#   Whether the target exists and has all of these labels; a label may be wanted with one value or with any of a list.
#   None wanted is none had.
has_labels(name, wanted) if {
	exists(name)
	count(wanted) > 0
	every key, value in wanted {
		_is_one_of(data.targets[name].labels[key], value)
	}
}

# METADATA
# description: The names of all targets that have these labels.  It looks at every target.
labelled(wanted) := {name | some name, _ in data.targets; has_labels(name, wanted)}

# METADATA
# description: How long who breaks the glass may stay, in seconds.
break_glass_seconds(name) := data.targets[name].break_glass.max_seconds if {
	is_number(data.targets[name].break_glass.max_seconds)
} else := 0

_is_one_of(label, wanted) if label == wanted

_is_one_of(label, wanted) if {
	is_array(wanted)
	label in wanted
}
