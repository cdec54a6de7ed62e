# METADATA
# title: Roster
# description: |
#   Who is on call: rotas by name, each with shifts ({"person", "from", "to"}), weekly windows of persons, or both.
#   A rota is looked up by its name, and in it only what is the person's is read.  What is malformed puts nobody on call.
# schemas:
#   - data.roster: schema["data.roster"]
package gateway.roster

import data.gateway.moments
import data.gateway.people
import data.gateway.windows

# METADATA
# description: |
#   Until when the person is on call, in nanoseconds: shifts that touch are one.  Undefined for who is not on call now.
on_call_until(rota, person, now_ns) := moments.leaving(_spans(rota, person, now_ns), now_ns)

# METADATA
# description: When the person's next shift begins, within a week.  Undefined where there is none.
next_shift(rota, person, now_ns) := min([from |
	some [from, _] in _spans(rota, person, now_ns)
	now_ns < from
])

# METADATA
# description: |
#   What is wrong with a rota, a set of {"field", "code"}; empty for a well-formed one.
#   Codes: not_an_object, missing, wrong_type, unknown_field, too_many, not_a_time, ends_before_start, unknown_person,
#   and those of windows.
faults(rota) := {{"field": "", "code": "not_an_object"}} if not is_object(rota)

faults(rota) := union({_unknown(rota), _unfit(rota), _shift_faults(rota), _weekly_faults(rota)}) if is_object(rota)

# METADATA
# description: How many shifts and weekly windows a rota may have, each.
most := 500

_spans(rota, person, now_ns) := _shifts(rota, person) | _weekly(rota, person, now_ns)

_shifts(rota, person) := {[from, to] |
	some shift in data.roster[rota].shifts
	shift.person == person
	from := moments.ns(shift.from)
	to := moments.ns(shift.to)
}

_weekly(rota, person, now_ns) := windows.spans(_windows(rota, person), now_ns)

_windows(rota, person) := [object.remove(window, ["person"]) |
	some window in data.roster[rota].weekly
	window.person == person
	count(windows.window_faults(window, {"person"})) == 0
]

_parts := {"shifts", "weekly"}

_unknown(rota) := {{"field": field, "code": "unknown_field"} |
	some field in (object.keys(rota) - (_parts | {"description"}))
} | {{"field": "shifts", "code": "missing"} | count(_parts & object.keys(rota)) == 0}

_unfit(rota) := {{"field": part, "code": code} |
	some part in _parts
	some code in _list_faults(rota[part])
} | {{"field": "description", "code": "wrong_type"} |
	value := rota.description
	not is_string(value)
}

_list_faults(list) := {"wrong_type"} if not is_array(list)

_list_faults(list) := {"too_many" | count(list) > most} if is_array(list)

_shift_faults(rota) := {{"field": $"shifts[{at}]{place}", "code": code} |
	is_array(rota.shifts)
	some at, shift in rota.shifts
	some [place, code] in _faults_of_shift(shift)
}

_faults_of_shift(shift) := {["", "wrong_type"]} if not is_object(shift)

_faults_of_shift(shift) := union({
	{[$".{key}", "missing"] | some key in ({"person", "from", "to"} - object.keys(shift))},
	{[$".{key}", "unknown_field"] | some key in (object.keys(shift) - {"person", "from", "to"})},
	{[$".{key}", "not_a_time"] | some key in ["from", "to"]; value := shift[key]; not moments.is_moment(value)},
	{[".to", "ends_before_start"] | moments.ns(shift.to) <= moments.ns(shift.from)},
	_person_faults(shift),
}) if {
	is_object(shift)
}

_weekly_faults(rota) := {{"field": $"weekly[{at}]{place}", "code": code} |
	is_array(rota.weekly)
	some at, window in rota.weekly
	some [place, code] in (windows.window_faults(window, {"person"}) | _person_faults(window))
}

_person_faults(entry) := {[".person", "unknown_person"] |
	person := entry.person
	not _is_known(person)
}

_is_known(person) if {
	people.is_name(person)
	is_object(data.people[person])
}
