package gateway.basis_test

import data.gateway.basis

# The answers, over the fixtures' world with `changes` to its roots.
_answers(asked, changes) := answers if {
	world := object.union(object.remove(data.fixtures, object.keys(changes)), changes)
	answers := {
		"authn": basis.authn,
		"config": basis.config,
		"authz": basis.authz,
		"admission": basis.admission,
		"admin": basis.admin,
	} with input as asked
		with data.people as world.people
		with data.targets as world.targets
		with data.grants as world.grants
		with data.door as world.door
		with data.authorities as world.authorities
		with data.joins as object.get(world, "joins", {})
		with data.automations as world.automations
}

_told(name, asked, changes) := {concat("/", entry.path): _content(entry) |
	some entry in _answers(asked, changes)[name].basis
}

_content(entry) := value if value := entry.value

else := "omitted" if entry.omitted == true

else := "absent"

_input(name) := data.fixtures.inputs[name]

test_the_answer_is_the_decisions_own[name] if {
	some name in ["authn", "config", "authz", "admission", "admin"]
	answer := _answers(_input(name), {})[name]
	own := data.gateway[name].decision with input as _input(name)
		with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as data.fixtures.grants
		with data.door as data.fixtures.door
		with data.authorities as data.fixtures.authorities
		with data.automations as data.fixtures.automations
	own == object.remove(answer, ["basis"])
}

test_documents_are_told_as_they_are[name] if {
	some name, roots in {
		"authn": {"people/alice", "people/bait", "door"},
		"config": {"people/alice", "grants/alice", "targets/orders-db", "joins/c-1"},
		"authz": {"people/alice", "grants/alice/INC-1", "targets/orders-db"},
		"admission": {"automations/ticketing", "people/alice", "targets/reports"},
		"admin": {"automations/ticketing"},
	}
	told := _told(name, _input(name), {})
	object.keys(told) == roots
	every path, value in told {
		value == object.get(data.fixtures, split(path, "/"), "absent")
	}
}

test_what_is_not_there_is_told_as_absent[note] if {
	some note, tc in {
		"nobody of that name": {"name": "authn", "changes": {"login": {"user": "zoe"}}, "path": "people/zoe"},
		"no target that was named": {"name": "authn", "changes": {"login": {"user": "alice+x"}}, "path": "targets/x"},
		"no grants": {"name": "config", "changes": {"login": {"user": "bob"}, "identity": {"person": "bob"}}, "path": "grants/bob"},
		"no target that was chosen": {"name": "config", "changes": {"request": {"target": "x"}}, "path": "targets/x"},
		"no rights at the admin API": {"name": "admin", "changes": {"client": {"name": "x"}}, "path": "automations/x"},
		"no rights": {"name": "admission", "changes": {"client": {"name": "x"}}, "path": "automations/x"},
		"no grant to approve": {
			"name": "admission",
			"changes": {"path": ["approvals", "alice", "INC-9", "erin"]},
			"path": "grants/alice/INC-9",
		},
		"no grant": {"name": "authz", "changes": {"permit": {"grant": "INC-9"}}, "path": "grants/alice/INC-9"},
	}
	told := _told(tc.name, object.union(_input(tc.name), tc.changes), {})
	told[tc.path] == "absent"
}

test_a_door_and_authorities_that_are_not_there_are_told_as_absent if {
	attempt := object.union(_input("authn").attempt, {"certificate": {}})
	asked := object.union(_input("authn"), {"attempt": attempt})
	told := {concat("/", entry.path): _content(entry) | some entry in basis.authn.basis} with input as asked
	told == {"people/alice": "absent", "door": "absent", "authorities": "absent"}
}

test_authorities_are_told_for_a_certificate_alone if {
	attempt := object.union(_input("authn").attempt, {"certificate": {}})
	of_attempt := object.union(_input("authn"), {"attempt": attempt})
	of_proof := object.union(_input("authn"), {"proofs": [attempt]})
	every asked in [of_attempt, of_proof] {
		_told("authn", asked, {}).authorities == data.fixtures.authorities
	}
	not _told("authn", _input("authn"), {}).authorities
}

test_a_target_that_is_named_is_told if {
	_told("authn", object.union(_input("authn"), {"login": {"user": "alice+reports"}}), {})["targets/reports"].ask
	_told("config", object.union(_input("config"), {"login": {"user": "alice+reports"}}), {})["targets/reports"].ask
}

test_who_joined_is_told if {
	asked := object.union(_input("config"), {"request": {"approvals": [{"by": "dora", "approve": true}]}})
	joins := {"c-1": {"bob": {"approve": true}}}
	told := _told("config", asked, {"joins": joins})
	told["joins/c-1"] == joins["c-1"]
	{"people/alice", "people/bob", "people/dora"} == {path | some path, _ in told; startswith(path, "people/")}
}

test_too_much_is_omitted if {
	grants := {sprintf("INC-%d", [number]): {"target": sprintf("t-%d", [number])} | some number in numbers.range(1, 2001)}
	many := _told("config", _input("config"), {"grants": {"alice": grants}})
	many["grants/alice"] == "omitted"
	not many.targets

	fewer := object.remove(grants, ["INC-1"])
	named := object.union(_input("config"), {"request": {"target": "orders-db"}})
	told := _told("config", named, {"grants": {"alice": fewer}})
	count(told["grants/alice"]) == 2000
	told.targets == "omitted"
}

test_the_target_of_a_grant_that_was_changed_is_told if {
	changed := {"alice": {"INC-1": {"target": "reports"}}}
	_told("authz", _input("authz"), {"grants": changed})["targets/reports"].ask
}

test_an_answer_that_is_none_is_told_as_it_is if {
	answer := basis.authz with data.gateway.authz.decision as true
	answer == true
}

test_how_old_a_copy_is_belongs_to_every_basis[name] if {
	some name in ["authn", "config", "authz", "admission", "admin"]
	now_ns := _input(name).now_ns
	watermark := {"taken_at_ns": now_ns, "usable_until_ns": now_ns + 1}
	told := _told(name, _input(name), {}) with data.watermark as watermark with data.copied as {"at_ns": now_ns}
	told.watermark == watermark
	told.copied == {"at_ns": now_ns}
}
