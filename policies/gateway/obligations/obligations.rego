# METADATA
# title: Obligations
# description: |
#   On what conditions something is allowed: what a target says under `oblige`, as the gateway wants to be told it.
#   The gateway refuses what it cannot keep, so a rule may add any obligation here, and none gets lost on the way.
# schemas:
#   - data.targets: schema["data.targets"]
package gateway.obligations

# METADATA
# description: |
#   What a session at the target is obliged to, in the order of the kinds below.  Where somebody has to join, `joining`
#   is the obligation that says so, and empty once they have.
of_session(target, joining) := array.flatten([obligations |
	some kind in _of_session
	obligations := _worded(kind, object.get(_oblige(target), kind, []), joining)
])

# METADATA
# description: What a request of this kind is obliged to at the target.
of_request(target, kind) := array.flatten([obligations |
	some obligation in _of_request
	obligations := _worded(obligation, object.get(_oblige(target), ["requests", kind, obligation], []), [])
])

_of_session := ["mask", "reason", "four_eyes", "notify", "read_only_sftp", "rate_limit", "record"]

_of_request := ["mask", "notify", "read_only_sftp", "rate_limit", "record"]

_worded("four_eyes", _, joining) := joining

_worded(kind, said, _) := [object.union({"kind": kind}, said)] if {
	kind != "four_eyes"
	is_object(said)
}

_worded(kind, said, _) := [object.union({"kind": kind}, one) | some one in said] if {
	kind != "four_eyes"
	is_array(said)
}

_worded(kind, true, _) := [{"kind": kind}] if kind != "four_eyes"

_worded(kind, false, _) := [] if kind != "four_eyes"

_oblige(target) := data.targets[target].oblige if {
	is_object(data.targets[target].oblige)
} else := {}
