package gateway.desk_test

import data.gateway.desk

_noon := 1896091200000000000

_grant(target, from, to) := {
	"target": target,
	"starts_at": $"2030-01-31T{from}:00Z",
	"ends_at": $"2030-01-31T{to}:00Z",
	"reason": "stuck orders",
	"approved_by": "erin",
}

_told(word, held) := text if {
	text := desk.text(word, "alice", _noon) with data.people as data.fixtures.people
		with data.targets as data.fixtures.targets
		with data.grants as {"alice": held}
}

_offered(held, names) := choices if {
	choices := desk.choices("alice", names, _noon) with data.targets as data.fixtures.targets
		with data.grants as {"alice": held}
}

test_choice_says_what_it_is_and_until_when if {
	_offered(
		{
			"A": _grant("orders-db", "10:00", "12:30"),
			"B": _grant("orders-db", "10:00", "14:05"),
			"C": _grant("orders-db", "13:00", "20:00"),
		},
		{"orders-db"},
	) == [{
		"target": "orders-db",
		"login": "alice+orders-db",
		"label": "The orders database · until 2030-01-31 14:05 UTC (2 h 5 min)",
	}]
}

test_choices_are_in_order_and_no_more_than_fifty if {
	names := {$"t{number}" | some number in numbers.range(100, 199)}
	targets := {name: {} | some name in names}
	choices := desk.choices("alice", names, _noon) with data.targets as targets
		with data.grants as {"alice": {name: _grant(name, "10:00", "12:30") | some name in names}}
	count(choices) == 50
	choices[0].label == "t100 · until 2030-01-31 12:30 UTC (30 min)"
	choices[49].target == "t149"
}

test_access_is_told_in_sections_nearest_first if {
	told := split(
		_told("access", {
			"NOW": object.union(_grant("orders-db", "10:00", "14:00"), {"ticket": "INC-7"}),
			"ENDS-FIRST": _grant("reports", "10:00", "12:01"),
			"NEXT": _grant("reports", "13:30", "14:00"),
			"LAST": _grant("reports", "09:00", "11:59"),
			"MALFORMED": {"target": "reports"},
		}),
		"\n",
	)
	told == [
		"Grants of alice at 2030-01-31 12:00 UTC",
		"",
		"You may reach now:",
		"  reports  Files that reports are made of",
		"    connect  ssh alice+reports@door",
		"    from     2030-01-31 10:00 UTC",
		"    until    2030-01-31 12:01 UTC (1 min left)",
		"    grant    ENDS-FIRST, approved by erin",
		"    reason   stuck orders",
		"  orders-db  The orders database",
		"    connect  ssh alice+orders-db@door",
		"    from     2030-01-31 10:00 UTC",
		"    until    2030-01-31 14:00 UTC (2 h 0 min left)",
		"    grant    NOW, ticket INC-7, approved by erin",
		"    reason   stuck orders",
		"",
		"Not yet:",
		"  reports  Files that reports are made of",
		"    from     2030-01-31 13:30 UTC (in 1 h 30 min)",
		"    until    2030-01-31 14:00 UTC",
		"    grant    NEXT, approved by erin",
		"    reason   stuck orders",
		"",
		"Ended within the last day:",
		"  reports  Files that reports are made of",
		"    ended    2030-01-31 11:59 UTC (1 min ago)",
		"    grant    LAST, approved by erin",
		"    reason   stuck orders",
		"",
		"To ask for more, or for longer:",
		"  orders-db: Ask at #orders-oncall; who approves: the orders team lead.",
		"  reports: Ask at https://grants.example/reports; who approves: the reports team.",
		"  Name any other target to be told whom to ask: ssh alice+target@door",
	]
}

test_who_has_no_grant_is_told_so_and_how_to_ask_and_no_target if {
	every word in desk.words {
		told := _told(word, {})
		not contains(told, "orders-db")
		not contains(told, "reports")
		contains(told, "to be told whom to ask: ssh alice+target@door")
	}
	contains(_told("access", {}), "You have no grant, and had none within the last day.")
}

test_help_says_how_and_whom_to_ask if {
	told := _told("help", {"A": _grant("reports", "10:00", "12:01")})
	every said in ["alice+target@door:/tmp/", "ProxyCommand", "User alice+target", "access", "the reports team."] {
		contains(told, said)
	}
}

test_no_more_than_fifty_are_listed_and_the_rest_is_counted if {
	told := _told("access", {$"G{number}": _grant("reports", "10:00", "14:00") | some number in numbers.range(100, 162)})
	contains(told, "G149,")
	not contains(told, "G150,")
	contains(told, "  ... and 13 more")
}

test_free_text_writes_no_lines_of_ours if {
	told := _told("access", {"A": object.union(
		_grant("reports", "10:00", "14:00"),
		{"reason": concat("\n", ["x", "  orders-db  yours", _many_ys])},
	)})
	contains(told, "reason   x   orders-db  yours")
	not contains(told, substring(_many_ys, 0, 200))
}

test_nothing_else_is_a_word[word] if {
	some word in ["", "Help", "help ", "psql"]
	not _told(word, {})
}

_many_ys := concat("", ["y" | some _ in numbers.range(1, 500)])
