package gateway.contract_test

import data.gateway.admission
import data.gateway.authn
import data.gateway.authz
import data.gateway.config
import data.gateway.contract

_inputs := data.fixtures.inputs

_of_version(question, schema) := object.union(question, {"schema": schema})

test_only_its_own_version_is_spoken[note] if {
	some note, tc in {
		"this one": [{"schema": 1}, true],
		"the next": [{"schema": 2}, false],
		"the one before": [{"schema": 0}, false],
		"this one in text": [{"schema": "1"}, false],
		"none": [{}, false],
		"no question": [null, false],
	}
	[question, spoken] := tc
	_is_spoken(question) == spoken
}

_is_spoken(question) if contract.is_spoken with input as question

else := false

test_a_question_of_another_version_is_refused_by_every_decision[note] if {
	some note, schema in {"the next": 2, "this one in text": "1", "null": null}
	codes := {reason.code | some answer in _answers(schema); some reason in answer.reasons}
	codes == {"schema_unknown"}
	every answer in _answers(schema) {
		count(answer.reasons) > 0
		not _admits(answer)
	}
}

test_a_question_of_this_version_is_answered if {
	every answer in _answers(1) {
		answer.reasons == []
		_admits(answer)
	}
}

_admits(answer) if answer.allow == true

_admits(answer) if answer.outcome == "accept"

_admits(answer) if answer.verdict in {"keep", "warn"}

_answers(schema) := [
	_authn(_of_version(_inputs.authn, schema)),
	_config(_of_version(_inputs.config, schema)),
	_authz(_of_version(_inputs.authz, schema)),
	_live(_of_version(_inputs.live, schema)),
	_admission(_of_version(_inputs.admission, schema)),
]

_authn(question) := answer if {
	answer := authn.decision with input as question with data.people as data.fixtures.people
}

_config(question) := answer if {
	answer := config.decision with input as question
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
}

_authz(question) := answer if {
	answer := authz.decision with input as question
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
}

_admission(question) := answer if {
	answer := admission.decision with input as question
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
		with data.automations as data.fixtures.automations
}

_live(question) := answer.sessions[question.sessions[0].id] if {
	answer := authz.live with input as question
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
}
