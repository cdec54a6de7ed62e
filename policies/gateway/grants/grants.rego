# METADATA
# title: Grants
# description: |
#   A grant is one person's permission for one target, from one moment to another, with a reason and an approver.
#   It is always looked up by its person: a decision costs the same with ten grants and with a hundred thousand.
# schemas:
#   - data.grants: schema["data.grants"]
package gateway.grants

import data.gateway.moments
import data.gateway.people

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
# description: Whether the grant holds at this moment.  It begins with `starts_at` and is over at `ends_at`.
is_active(grant, now_ns) if {
	moments.ns(grant.starts_at) <= now_ns
	now_ns < moments.ns(grant.ends_at)
}

# METADATA
# description: Whether the grant is still to come.
is_pending(grant, now_ns) if now_ns < moments.ns(grant.starts_at)

# METADATA
# description: Whether the grant is over, and was not yet a day ago.
is_just_ended(grant, now_ns) if {
	ends_ns := moments.ns(grant.ends_at)
	ends_ns <= now_ns
	now_ns < ends_ns + ((24 * 3600) * moments.second)
}
