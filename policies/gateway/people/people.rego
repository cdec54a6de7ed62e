# METADATA
# title: People
# description: Who logs in, what the name before the `@` means, and who is still with us.
# schemas:
#   - data.people: schema["data.people"]
package gateway.people

# METADATA
# description: |
#   Whether this is the name of a person, a target or a grant.  They stand in paths and on screens, so they are short
#   and plain; `.` and `..` mean something else in a path.
is_name(text) if {
	is_string(text)
	not text in {".", ".."}
	regex.match(`^[A-Za-z0-9._-]{1,128}$`, text)
}

# METADATA
# description: |
#   What was typed before the `@`: `person`, `person+target`, or `person+target+break-glass`.  The target is empty when
#   none was typed.  Undefined for anything else.
login(typed) := {"person": typed, "target": "", "break_glass": false} if is_name(typed)

login(typed) := {"person": person, "target": target, "break_glass": count(said) == 1} if {
	is_string(typed)
	[person, target] := array.slice(split(typed, "+"), 0, 2)
	said := array.slice(split(typed, "+"), 2, 4)
	said in {[], ["break-glass"]}
	is_name(person)
	is_name(target)
}

# METADATA
# description: Whether the person is known and not disabled.  Anything but `false` disables, also a slip of the pen.
is_active(person) if {
	entry := data.people[person]
	is_object(entry)
	object.get(entry, "disabled", false) == false
}

# METADATA
# description: The person's groups.
groups(person) := [group | some group in data.people[person].groups; is_name(group)]

# METADATA
# description: The public keys that are registered for the person.
keys(person) := {key | some key in data.people[person].keys; is_string(key)}
