package gateway.admission

import data.gateway.reasons
import data.gateway.roster

_open contains "roster"

_filled := {} if _root == "roster"

_refusals contains reasons.field_reason(
	fault.code,
	fault.field,
	$"{fault.field} {_fault_words[fault.code]}.",
	"See the schema of a rota, data.roster.json.",
) if {
	_is_write
	_root == "roster"
	is_object(input.new)
	some fault in roster.faults(input.new)
}
