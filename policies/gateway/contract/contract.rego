# METADATA
# title: Contract
# description: |
#   Which questions these policies answer.  The gateway says in `schema` by which version it asks; whoever asks by
#   another one gets a refusal, since a field that means something else now must not be judged by what it meant.
package gateway.contract

import data.gateway.copies
import data.gateway.reasons

# METADATA
# description: The version of the questions and answers in `schemas/` that these policies are written for.
version := 1

# METADATA
# description: Whether the question is asked by that version, and what is known here is no outdated copy.
is_spoken if {
	input.schema == version
	copies.is_current
}

# METADATA
# description: Why a question that cannot be judged is refused.  Never the engineer's fault.
unanswerable := reasons.reason(
	"schema_unknown",
	$"The gateway and its policies speak different versions, so the answer is no; the policies know {version}.",
	"Nothing is wrong with your grant. Tell the platform team: policies and gateway of the same version belong together.",
) if input.schema != version

else := copies.outdated if not copies.is_current

else := reasons.reason(
	"malformed_input",
	"The gateway asked an incomplete question, so the answer is no.",
	"Nothing is wrong with your grant. Tell the platform team the session id.",
)
