# METADATA
# title: Grants
# description: |
#   A grant is one person's permission for one target, or for those of some labels, from one moment to another, with a
#   reason, and approved.
#   It is always looked up by its person: a decision costs the same with ten grants and with a hundred thousand.
#   What is said of a grant at a target is said of a holding: {"person", "grant" (its id), "target"}.
# schemas:
#   - data.grants: schema["data.grants"]
package gateway.grants

import data.gateway.moments
import data.gateway.people
import data.gateway.targets

# METADATA
# description: The person's grants by id, without those that are malformed, which have no effect anywhere.
held(person) := {id: grant |
	some id, grant in data.grants[person]
	is_well_formed(id, grant)
}

# METADATA
# description: Whether the grant can be relied on to mean what it says.
is_well_formed(id, grant) if {
	people.is_name(id)
	count(faults(grant)) == 0
}

# METADATA
# description: Whether the grant is for this target, by its name or by its labels.
is_for(grant, target) if {
	grant.target == target
	targets.exists(target)
}

is_for(grant, target) if targets.has_labels(target, grant.targets.labels)

# METADATA
# description: |
#   The names of the targets that the grant is for.  For a grant by labels all targets are looked through, so this is for
#   whoever has to be shown a choice, and no request is judged by it.
targets_of(grant) := {grant.target} if is_string(grant.target)

else := targets.labelled(grant.targets.labels)

# METADATA
# description: Whether it was taken by breaking the glass.
is_break_glass(grant) if grant.kind == "break_glass"

# METADATA
# description: When the grant is over, in nanoseconds - at `ends_at`, or when it was ended before.
over_ns(grant) := min({moments.ns(grant.ends_at)} | {ended | ended := moments.ns(grant.ended_at)})

# METADATA
# description: Whether the grant is over, and was not yet a day ago.
is_just_over(grant, now_ns) if {
	over := over_ns(grant)
	over <= now_ns
	now_ns < over + ((24 * 3600) * moments.second)
}
