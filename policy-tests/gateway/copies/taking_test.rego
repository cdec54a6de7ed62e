package gateway.copies_test

import data.gateway.copies

_roots := {
	"approvals",
	"authorities",
	"automations",
	"door",
	"grants",
	"joins",
	"people",
	"reviews",
	"roster",
	"targets",
}

_taken(world, asked) := taken if {
	taken := copies.taken with input as asked
		with data.approvals as object.get(world, "approvals", {})
		with data.authorities as object.get(world, "authorities", {})
		with data.automations as object.get(world, "automations", {})
		with data.door as object.get(world, "door", {})
		with data.grants as object.get(world, "grants", {})
		with data.joins as object.get(world, "joins", {})
		with data.people as object.get(world, "people", {})
		with data.reviews as object.get(world, "reviews", {})
		with data.roster as object.get(world, "roster", {})
		with data.targets as object.get(world, "targets", {})
		with time.now_ns as _now
}

_age := {"copied", "watermark"}

test_all_data_is_taken_as_it_is if {
	world := object.filter(data.fixtures, _roots)
	taken := _taken(world, {})
	object.keys(taken) == _roots | _age
	copies.roots == _roots | _age
	every root in _roots {
		taken[root] == object.get(world, root, {})
	}
}

test_what_is_not_there_is_empty if {
	taken := copies.taken with time.now_ns as _now
	count(taken) == 12
	every root in _roots {
		taken[root] == {}
	}
}

# Nobody gets in by a copy that is not known to be one, or by one of which a part is older than its watermark says.
test_the_order_of_names_is_that_of_writing if {
	max(copies.roots) == "watermark"
	every root in {"door", "grants", "people", "targets"} {
		root > "copied"
	}
}

test_what_is_wanted_alone_is_taken[note] if {
	some note, tc in {
		"two roots": [["grants", "people"], {"grants", "people"}],
		"none": [[], set()],
		"one that is no data": [["tokens", "grants"], {"grants"}],
	}
	[roots, names] := tc
	object.keys(_taken({}, {"roots": roots})) == names | _age
}

test_whatever_has_a_null_is_left_out if {
	taken := _taken(
		{
			"people": {"alice": {"groups": []}, "bob": {"groups": [], "disabled": null}},
			"grants": {"alice": {"INC-1": {"windows": null}}, "bob": {"INC-2": {"reason": "it said null"}}},
		},
		{},
	)
	taken.people == {"alice": {"groups": []}}
	taken.grants == {"bob": {"INC-2": {"reason": "it said null"}}}
}

test_there_is_no_copy_of_a_door_with_a_null if {
	found := {taken | taken := _taken({"door": {"chain": null}}, {})}
	found == set()
}

test_there_is_no_copy_of_a_copy if {
	found := {taken | taken := copies.taken with data.copied as {"at_ns": _now}}
	found == set()
}

test_how_long_it_may_be_judged_by[note] if {
	some note, tc in {
		"not said": [null, 60],
		"nothing of it": [{}, 60],
		"ten minutes": [{"seconds": 600}, 600],
		"a week": [{"seconds": 604800}, 86400],
		"no time": [{"seconds": 0}, 60],
		"less than none": [{"seconds": -1}, 60],
		"text": [{"seconds": "600"}, 60],
	}
	[asked, seconds] := tc
	taken := _taken({}, asked)
	taken.watermark == {"taken_at_ns": _now, "usable_until_ns": _now + (seconds * _second)}
	taken.copied == {"at_ns": _now}
}
