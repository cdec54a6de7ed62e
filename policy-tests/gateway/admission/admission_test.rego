package gateway.admission_test

import data.gateway.admission

_input := data.fixtures.inputs.admission

_decide(asked) := answer if {
	answer := admission.decision with input as asked
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
}

# The input, with some values changed: {path: value}.
_but(changes) := json.patch(_input, [{"op": "add", "path": path, "value": value} | some path, value in changes])

_faults(answer) := {[reason.code, object.get(reason, "field", "")] | some reason in answer.reasons}

test_good_grant_is_stored_with_who_asked_and_when if {
	_decide(_input) == {
		"allow": true,
		"reasons": [],
		"value": object.union(_input.new, {"requested_by": "ticketing", "requested_at": "2030-01-31T12:00:00Z"}),
	}
}

test_who_asked_and_when_is_what_the_door_knows if {
	answer := _decide(_but({"/new/requested_by": "erin", "/new/requested_at": 7}))
	answer.allow
	answer.value.requested_by == "ticketing"
	answer.value.requested_at == "2030-01-31T12:00:00Z"
}

test_fault_is_named_by_its_field[note] if {
	some note, tc in {
		"target missing": [_without("target"), {["missing", "target"]}],
		"end missing": [_without("ends_at"), {["missing", "ends_at"]}],
		"reason of wrong type": [{"/new/reason": 7}, {["wrong_type", "reason"]}],
		"reason empty": [{"/new/reason": ""}, {["wrong_type", "reason"]}],
		"ticket of wrong type": [{"/new/ticket": []}, {["wrong_type", "ticket"]}],
		"approver of wrong type": [{"/new/approved_by": 7}, {["wrong_type", "approved_by"]}],
		"start no time": [{"/new/starts_at": "now"}, {["not_a_time", "starts_at"]}],
		"end no time": [{"/new/ends_at": "2030-02-30T12:00:00Z"}, {["not_a_time", "ends_at"]}],
		"end before start": [{"/new/starts_at": "2030-01-31T17:00:00Z"}, {["ends_before_start", "ends_at"]}],
		"already ended": [
			{"/new/starts_at": "2030-01-31T11:00:00Z", "/new/ends_at": "2030-01-31T12:00:00Z"},
			{["already_ended", "ends_at"]},
		],
		"too long": [{"/new/ends_at": "2030-01-31T20:00:01Z"}, {["too_long", "ends_at"]}],
		"unknown target": [{"/new/target": "nowhere"}, {["unknown_target", "target"]}],
		"target of wrong type": [{"/new/target": 7}, {["wrong_type", "target"]}],
		"unknown field": [{"/new/end_at": "x"}, {["unknown_field", "end_at"]}],
		"unknown person": [{"/path": ["grants", "zoe", "INC-2"]}, {["unknown_person", "person"]}],
		"approved by themselves": [{"/new/approved_by": "Alice "}, {["self_approved", "approved_by"]}],
		"no object": [{"/new": null}, {["not_an_object", ""]}],
		"nothing sent": ["/new", {["not_an_object", ""]}],
		"several at once": [
			{"/new/target": "nowhere", "/new/ends_at": 7, "/new/colour": "red"},
			{["unknown_target", "target"], ["wrong_type", "ends_at"], ["unknown_field", "colour"]},
		],
	}
	[changes, faults] := tc
	answer := _decide(_apply(changes))
	answer.allow == false
	answer.value == null
	_faults(answer) == faults
}

_apply(changes) := _but(changes) if is_object(changes)

_apply(field) := json.patch(_input, [{"op": "remove", "path": field}]) if is_string(field)

_without(field) := $"/new/{field}"

test_longest_grant_is_just_allowed if _decide(_but({"/new/ends_at": "2030-01-31T20:00:00Z"})).allow

test_sentence_names_field_and_fault if {
	[reason] := _decide(_but({"/new/ends_at": "tonight"})).reasons
	reason.message == "ends_at is no time: write it as 2030-01-31T18:00:00Z."
}

test_delete_is_allowed_whether_or_not_there_is_such_a_grant[note] if {
	some note, old in {"there": data.fixtures.grants.alice["INC-1"], "not there": null, "malformed": 7}
	_decide(_but({
		"/verb": "DELETE",
		"/path": ["grants", "zoe", "INC-1"],
		"/old": old,
		"/new": null,
	})) == {"allow": true, "reasons": [], "value": null}
}

test_get_is_allowed_under_grants[note] if {
	some note, path in {"one": ["grants", "alice", "INC-1"], "of a person": ["grants", "alice"], "all": ["grants"]}
	_decide(_but({"/verb": "GET", "/path": path, "/new": null})) == {"allow": true, "reasons": [], "value": null}
}

test_other_path_is_refused[note] if {
	some note, path in {
		"all grants": ["grants"],
		"a person's grants": ["grants", "alice"],
		"a field": ["grants", "alice", "INC-1", "ends_at"],
		"people": ["people", "alice", "keys"],
		"nothing": [],
		"empty id": ["grants", "alice", ""],
		"dots": ["grants", "..", "people"],
		"slash": ["grants", "alice", "a/b"],
		"too long": ["grants", "alice", concat("", [format_int(number, 10) | some number in numbers.range(100, 142)])],
		"id that is no text": ["grants", "alice", 7],
		"text": "grants/alice/INC-1",
	}
	some verb in {"PUT", "DELETE"}
	answer := _decide(_but({"/verb": verb, "/path": path}))
	answer.allow == false
	_faults(answer) == {["path_refused", "path"]}
}

test_get_of_another_path_is_refused[note] if {
	some note, path in {
		"people": ["people"],
		"everything": [],
		"a field": ["grants", "alice", "INC-1", "ends_at"],
		"dots": ["grants", ".."],
		"text": "grants",
	}
	_faults(_decide(_but({"/verb": "GET", "/path": path}))) == {["path_refused", "path"]}
}

test_other_verb_is_refused[verb] if {
	some verb in ["PATCH", "POST", "put", "", null]
	_faults(_decide(_but({"/verb": verb}))) == {["verb_refused", ""]}
}

test_incomplete_question_is_refused[note] if {
	some note, changes in {
		"no client": {"/client": {}},
		"client that is no text": {"/client/name": 7},
		"no time": {"/now_ns": null},
		"time that is none": {"/now": "now"},
	}
	answer := _decide(_but(changes))
	answer.allow == false
	["malformed_input", ""] in _faults(answer)
}

test_anything_is_decided[note] if {
	some note, asked in {"nothing": {}, "null": null, "text": "x", "list": [1]}
	answer := _decide(asked)
	answer.allow == false
	answer.value == null
	count(answer.reasons) > 0
}
