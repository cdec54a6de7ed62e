package gateway.admission_test

import data.gateway.admission

_may(entry, changes) := answer if {
	answer := admission.decision with input as _but(changes)
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
		with data.automations as {"ticketing": entry}
}

_everything := {"roots": ["grants"], "verbs": ["GET", "PUT", "PATCH", "DELETE"]}

_delete := {"/verb": "DELETE", "/new": null, "/old": {"target": "orders-db", "requested_by": "erin"}}

test_client_may_do_what_its_entry_says[note] if {
	some note, tc in {
		"everything": [{}, {}],
		"what is described": [{"description": "the ticketing system"}, {}],
		"its target": [{"targets": ["reports"]}, {}],
		"its target, before and after": [{"targets": ["reports", "orders-db"]}, {"/old": {"target": "orders-db"}}],
		"what is not there": [{"targets": [], "own_only": true}, {"/verb": "DELETE", "/new": null}],
		"a new one of its own": [{"own_only": true}, {}],
		"its own": [{"own_only": true}, {"/old": {"target": "reports", "requested_by": "ticketing"}}],
		"another's": [{"own_only": false}, {"/old": {"target": "reports", "requested_by": "erin"}}],
		"read another's": [{"own_only": true, "targets": []}, {"/verb": "GET", "/new": null}],
		"by its proof": [{"proofs": ["jwt", "token"]}, {}],
		"remove": [{}, _delete],
	}
	[entry, changes] := tc
	_may(object.union(_everything, entry), changes).allow
}

test_client_may_do_nothing_else[note] if {
	some note, tc in {
		"no entry": [null, {}, "client_unknown"],
		"an entry that is none": [7, {}, "client_unknown"],
		"no roots": [{"verbs": ["PUT"]}, {}, "root_refused"],
		"another root": [{"roots": ["roster"], "verbs": ["PUT"]}, {}, "root_refused"],
		"roots that are no list": [{"roots": "grants", "verbs": ["PUT"]}, {}, "root_refused"],
		"no verbs": [{"roots": ["grants"]}, {}, "verb_not_yours"],
		"another verb": [{"roots": ["grants"], "verbs": ["GET"]}, {}, "verb_not_yours"],
		"remove by a patch": [object.union(_everything, {"verbs": ["PATCH"]}), _delete, "verb_not_yours"],
		"another target": [object.union(_everything, {"targets": ["orders-db"]}), {}, "target_not_yours"],
		"targets that are no list": [object.union(_everything, {"targets": "reports"}), {}, "target_not_yours"],
		"what was another target's": [
			object.union(_everything, {"targets": ["reports"]}),
			{"/old": {"target": "orders-db"}},
			"target_not_yours",
		],
		"what has no target": [object.union(_everything, {"targets": ["reports"]}), {"/new": {}}, "target_not_yours"],
		"remove another target's": [object.union(_everything, {"targets": ["reports"]}), _delete, "target_not_yours"],
		"another's": [object.union(_everything, {"own_only": true}), _delete, "not_yours"],
		"nobody's": [object.union(_everything, {"own_only": "no"}), {"/old": {}}, "not_yours"],
		"a limit that is misspelt": [
			object.union(_everything, {"target": ["reports"]}),
			{},
			"client_misconfigured",
		],
		"another proof": [object.union(_everything, {"proofs": ["certificate"]}), {}, "proof_refused"],
		"proof that is none": [object.union(_everything, {"proofs": ["token"]}), {"/client/proof": 7}, "proof_refused"],
	}
	[entry, changes, code] := tc
	answer := _may(entry, changes)
	answer.allow == false
	answer.value == null
	[code, ""] in _faults(answer)
}

_verb_of(null) := "DELETE"

_verb_of(new) := "PUT" if is_object(new)

# Whether they may not speak so: as a set.
_not_theirs(entry, path, old, new) := {reason.code | some reason in answer.reasons; reason.code == "person_not_yours"} if {
	rights := object.union({"roots": ["approvals", "reviews"], "verbs": ["GET", "PUT", "DELETE"]}, entry)
	answer := _may(rights, {"/path": path, "/old": old, "/new": new, "/verb": _verb_of(new)})
}

test_a_person_speaks_for_nobody_else[note] if {
	approval := ["approvals", "alice", "INC-1", "erin"]
	review := ["reviews", "alice", "INC-1"]
	refused := {"person_not_yours"}
	some note, tc in {
		"their approval": [{"person": "erin"}, approval, null, {}, set()],
		"another's": [{"person": "bob"}, approval, null, {}, refused],
		"take back another's": [{"person": "bob"}, approval, {"at": "x"}, null, refused],
		"nobody's name": [{"person": 7}, approval, null, {}, refused],
		"who may speak for all": [{}, approval, null, {}, set()],
		"their review": [{"person": "erin"}, review, null, {"by": "erin"}, set()],
		"another's review": [{"person": "bob"}, review, null, {"by": "erin"}, refused],
		"over another's review": [{"person": "bob"}, review, {"by": "erin"}, {"by": "bob"}, refused],
		"a review of nobody": [{"person": "erin"}, review, null, {}, refused],
	}
	[entry, path, old, new, codes] := tc
	_not_theirs(entry, path, old, new) == codes
}

test_faults_are_told_only_to_who_may if {
	_faults(_may(null, {"/new/reason": ""})) == {["client_unknown", ""]}
}

test_approval_and_review_are_for_their_grants_target[note] if {
	some note, tc in {
		"an approval": ["approvals", ["approvals", "alice", "INC-1", "erin"], ["orders-db"], true],
		"another target's": ["approvals", ["approvals", "alice", "INC-1", "erin"], ["reports"], false],
		"a review": ["reviews", ["reviews", "alice", "INC-1"], ["orders-db"], true],
		"of no grant": ["reviews", ["reviews", "alice", "INC-404"], ["orders-db"], false],
		"a rota": ["roster", ["roster", "orders"], ["orders-db"], false],
	}
	[root, path, targets, is_theirs] := tc
	answer := _may({"roots": [root], "verbs": ["PUT"], "targets": targets}, {"/path": path})
	is_theirs == _not_in(["target_not_yours", ""], _faults(answer))
}

_not_in(fault, faults) if not fault in faults

_not_in(fault, faults) := false if fault in faults
