package gateway.admin_test

import data.gateway.admin

_input := data.fixtures.inputs.admin

_everything := {"actions": [
	"status", "reevaluate", "sessions:list", "sessions:end", "approvals:list",
	"approvals:answer",
]}

_may(entry, changes) := answer if {
	answer := admin.decision with input as object.union(_input, changes)
		with data.automations as {"ticketing": entry}
}

_codes(answer) := {reason.code | some reason in answer.reasons}

test_client_may_do_what_its_entry_says[note] if {
	some note, tc in {
		"end a session": [_everything, {}],
		"end one that is not there": [_everything, {"session": null}],
		"judge again": [{"actions": ["reevaluate"]}, {"action": "reevaluate", "session": null}],
		"see who is inside": [{"actions": ["sessions:list"]}, {"action": "sessions:list", "session": null}],
		"see all, though it is limited": [
			object.union(_everything, {"targets": ["reports"]}),
			{"action": "sessions:list", "session": null},
		],
		"end its target's": [object.union(_everything, {"targets": ["orders-db", "reports"]}), {}],
		"answer its target's": [
			object.union(_everything, {"targets": ["orders-db"]}),
			{"action": "approvals:answer", "by": "erin"},
		],
		"by its proof": [object.union(_everything, {"proofs": ["token"]}), {}],
		"beside its rights at the grants door": [object.union(_everything, {"roots": ["grants"], "verbs": ["GET"]}), {}],
	}
	[entry, changes] := tc
	_may(entry, changes) == {"allow": true, "reasons": []}
}

test_client_may_do_nothing_else[note] if {
	some note, tc in {
		"no entry": [null, {}, {"client_unknown"}],
		"an entry that is none": [7, {}, {"client_unknown"}],
		"no actions": [{"roots": ["grants"], "verbs": ["GET"]}, {}, {"action_not_yours"}],
		"another action": [{"actions": ["reevaluate"]}, {}, {"action_not_yours"}],
		"actions that are no list": [{"actions": "sessions:end"}, {}, {"action_not_yours"}],
		"an action that nobody knows": [_everything, {"action": "sessions:all"}, {"action_not_yours"}],
		"another target's": [object.union(_everything, {"targets": ["reports"]}), {}, {"target_not_yours"}],
		"answer another target's": [
			object.union(_everything, {"targets": ["reports"]}),
			{"action": "approvals:answer"},
			{"target_not_yours"},
		],
		"one that is not there, being limited": [
			object.union(_everything, {"targets": ["reports"]}),
			{"session": null},
			{"target_not_yours"},
		],
		"targets that are no list": [object.union(_everything, {"targets": "orders-db"}), {}, {"target_not_yours"}],
		"a limit that is misspelt": [
			object.union(_everything, {"target": ["reports"]}),
			{},
			{"client_misconfigured"},
		],
		"another proof": [object.union(_everything, {"proofs": ["jwt"]}), {}, {"proof_refused"}],
	}
	[entry, changes, codes] := tc
	answer := _may(entry, changes)
	answer.allow == false
	_codes(answer) == codes
}

test_question_that_is_none_is_refused[note] if {
	some note, tc in {
		"another version": [{"schema": 2}, "schema_unknown"],
		"nobody": [{"client": null}, "malformed_input"],
		"no name": [{"client": {"name": 7}}, "malformed_input"],
		"no action": [{"action": null}, "malformed_input"],
	}
	[changes, code] := tc
	answer := _may(_everything, changes)
	answer.allow == false
	_codes(answer) == {code}
}
