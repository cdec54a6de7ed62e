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
