# METADATA
# title: Copies
# description: |
#   Several OPAs may share the data of one, the source: each of the others is a copy, overwritten whole about once a
#   second.  A copy that hears nothing does not know what was taken away, so it judges by what it has for as long as its
#   watermark says, and no longer.
# schemas:
#   - data.copied: schema["data.copied"]
#   - data.watermark: schema["data.watermark"]
package gateway.copies

import data.gateway.reasons

# METADATA
# description: Whether the data in this OPA is a copy.
is_copy if data.copied

# METADATA
# description: Whether what is asked now may be judged by it - always at the source.
is_current if not is_copy

is_current if {
	is_number(input.now_ns)
	input.now_ns < data.watermark.usable_until_ns
	input.now_ns > data.watermark.taken_at_ns - skew_ns
}

# METADATA
# description: How far ahead of the gateway's clock the source's may be, in nanoseconds.
skew_ns := 30000000000

# METADATA
# description: Why a question is refused whose answer would stand on a copy that is too old.
outdated := reasons.reason(
	"copy_outdated",
	"This door has not heard for too long who may do what, so the answer is no.",
	"Nothing is wrong with your grant. Try another door; tell the platform team that this one's copy of the data is outdated.",
)

# METADATA
# description: Why nothing is written at a copy.
overwritten := reasons.reason(
	"copy_only",
	"What is written here would be overwritten at once: this door's OPA is a copy.",
	"Write at the grants door of the gateway whose OPA is the source.",
)
