package gateway.admission_test

import data.gateway.admission

_input := data.fixtures.inputs.admission

_decide(asked) := answer if {
	answer := admission.decision with input as asked
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.automations as data.fixtures.automations
		with data.grants as data.fixtures.grants
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

test_who_names_no_approver_is_told_how if {
	some reason in _decide(json.patch(_input, [{"op": "remove", "path": _without("approved_by")}])).reasons
	reason.field == "approved_by"
	contains(reason.remedy, "--approved-by NAME")
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
	some verb in ["POST", "put", "", null]
	["verb_refused", ""] in _faults(_decide(_but({"/verb": verb})))
}

test_patch_is_judged_by_what_results if {
	answer := _decide(_but({"/verb": "PATCH", "/old": object.union(_input.new, {"reason": "x"})}))
	answer.allow
	answer.value.requested_by == "ticketing"
	_faults(_decide(_but({"/verb": "PATCH", "/new/reason": ""}))) == {["wrong_type", "reason"]}
}

test_what_is_said_again_stays_as_it_is if {
	stored := object.union(_input.new, {"requested_by": "ticketing", "requested_at": "2030-01-31T11:59:00Z"})
	_decide(_but({"/old": stored})).value == stored
}

test_what_is_said_otherwise_or_by_another_is_new[note] if {
	some note, old in {
		"another reason": {"reason": "x", "requested_by": "ticketing"},
		"another client": {"requested_by": "erin"},
		"nobody": {},
	}
	stored := object.union(object.union(_input.new, {"requested_at": "2030-01-31T11:59:00Z"}), old)
	_decide(_but({"/old": stored})).value.requested_at == _input.now
}

test_root_without_rules_is_closed_to_writing[note] if {
	some note, path in {
		"a review": ["reviews", "alice", "INC-1"],
		"an approval": ["approvals", "alice", "INC-1", "erin"],
		"a rota": ["roster", "orders"],
	}
	_closed(path)
}

_closed(path) if {
	every verb in ["PUT", "PATCH", "DELETE"] {
		answer := _decide(_but({"/path": path, "/verb": verb})) with data.gateway.admission._open as {"grants"}
		["root_closed", "path"] in _faults(answer)
	}
	_decide(_but({"/path": path, "/verb": "GET", "/new": null})).allow
	_decide(_but({"/path": [path[0]], "/verb": "GET", "/new": null})).allow
}

test_document_of_another_root_has_its_own_depth[note] if {
	some note, path in {
		"a review": ["reviews", "alice"],
		"an approval": ["approvals", "alice", "INC-1"],
		"a rota": ["roster", "orders", "1"],
	}
	answer := _decide(_but({"/path": path}))
	_faults(answer) == {["path_refused", "path"]}
	some reason in answer.reasons
	contains(reason.message, $"at {path[0]}/<")
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
