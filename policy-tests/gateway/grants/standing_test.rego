package gateway.standing_test

import data.gateway.grants

_holding := {"person": "alice", "grant": "INC-1", "target": "orders-db"}

_grant := data.fixtures.grants.alice["INC-1"]

_noon := 1896091200000000000

_world := {
	"people": data.fixtures.people,
	"targets": data.fixtures.targets,
	"grant": _grant,
}

_stands(holding, world) if {
	grants.stands(holding, _noon) with data.people as world.people
		with data.targets as world.targets
		with data.grants as {"alice": {"INC-1": world.grant}}
}

_ending(holding, world) := answer if {
	answer := grants.ending(holding, _noon) with data.people as world.people
		with data.targets as world.targets
		with data.grants as {"alice": {"INC-1": world.grant}}
}

test_it_stands_while_everything_holds if _stands(_holding, _world)

test_what_no_longer_holds_is_named[note] if {
	some note, tc in {
		"removed": {"change": {"people": {"alice": null}}, "code": "person_disabled"},
		"disabled": {"change": {"people": {"alice": {"disabled": true}}}, "code": "person_disabled"},
		"target removed": {"change": {"targets": {"orders-db": null}}, "code": "target_removed"},
		"other target": {"change": {"grant": {"target": "reports"}}, "code": "grant_target_changed"},
		"target that is no text": {"change": {"grant": {"target": 7}}, "code": "grant_target_changed"},
		"grant without an end": {"change": {"grant": {"ends_at": null}}, "code": "grant_malformed"},
		"grant without approver": {"change": {"grant": {"approved_by": ""}}, "code": "grant_malformed"},
		"moved to later": {"change": {"grant": {"starts_at": "2030-01-31T12:00:01Z"}}, "code": "grant_not_started"},
		"ends now": {"change": {"grant": {"ends_at": "2030-01-31T12:00:00Z"}}, "code": "grant_ended"},
	}
	world := object.union(_world, tc.change)
	not _stands(_holding, world)
	_ending(_holding, world).code == tc.code
}

test_grant_that_is_gone_is_deleted[note] if {
	some note, holding in {
		"other id": {"person": "alice", "grant": "INC-9", "target": "orders-db"},
		"other person": {"person": "bob", "grant": "INC-1", "target": "orders-db"},
		"no id": {"person": "alice", "target": "orders-db"},
		"id that is no text": {"person": "alice", "grant": [], "target": "orders-db"},
	}
	not _stands(holding, _world)
	_ending(holding, _world).code == "grant_deleted"
}

test_grant_that_became_nothing_is_malformed_or_changed[note] if {
	some note, grant in {"null": null, "false": false, "text": "x"}
	_ending(_holding, json.patch(_world, [{"op": "replace", "path": "/grant", "value": grant}])).code in {
		"grant_deleted",
		"grant_target_changed",
	}
}

test_nobody_stands_on_anything[note] if {
	some note, holding in {"empty": {}, "null": null, "text": "alice"}
	not _stands(holding, _world)
	_ending(holding, _world).code == "person_disabled"
}

test_remedy_says_whom_to_ask if {
	reason := _ending(_holding, object.union(_world, {"grant": {"ends_at": "2030-01-31T12:00:00Z"}}))
	reason.message == "Your grant ended at 2030-01-31T12:00:00Z."
	reason.remedy == "Ask at #orders-oncall; who approves: the orders team lead."
}
