# METADATA
# title: Configuration
# description: |
#   What one session may be: which grant it stands on, and the whole permit that follows from the grant's target.
#   Whoever gets none is told why in their own situation, and whom to ask, and can choose where there is a choice.
# schemas:
#   - input: schema["input.config"]
#   - data.targets: schema["data.targets"]
package gateway.config

import data.gateway.contract
import data.gateway.desk
import data.gateway.people
import data.gateway.reasons
import data.gateway.targets

# METADATA
# description: A permit, or the reason why there is none; and what the door itself tells the person.
# entrypoint: true
decision := {"allow": true, "permit": permit, "desk": _desk, "reasons": []} if permit

else := {"allow": false, "permit": null, "desk": _desk, "reasons": [_refusal]}

# What is told is asked for by its word: `input.request` is then the exec of it.
_desk := {
	"words": [word | some word in _words],
	"text": object.get(_told, object.get(input, ["request", "command"], ""), ""),
	"choices": _choices,
	"seconds": desk.seconds,
} if {
	_is_complete
	_is_active
} else := {}

_told[word] := desk.text(word, _person, input.now_ns) if {
	input.request.kind == "exec"
	word := input.request.command
	word in _words
}

# Whoever may run one command and no other reads no more than that command says; a honeypot has no desk.
_words := {word | some word in desk.words; not _is_held_to_one_command; not _is_honeypot}

_is_held_to_one_command if input.identity.force_command != ""

_choices := desk.choices(_person, _reachable, input.now_ns) if count(_reachable) > 1

else := []

# Given that there is no permit: the first of these that applies.
_refusal := contract.unanswerable if not _is_complete

else := _disabled if not _is_active

else := _target_needed if count(_reachable) > 1

else := _stronger_login if _is_too_weak

else := _forced_twice if _is_forced_twice

else := _turned_down if _turned_down

else := _full if _is_full

else := contract.unanswerable if _is_uncounted

else := _target_misconfigured if count(_reachable) == 1

else := _no_glass if _no_glass

else := _not_yet if _not_yet

else := _requested if _asked

else := _over if _last

else := _no_grant_for_it if _named != ""

else := _no_grant

_disabled := reasons.reason(
	"person_disabled",
	"Your account was disabled or removed.",
	"Ask the people who keep the accounts.",
)

_target_needed := reasons.reason(
	"target_needed",
	$"You have grants for {count(_reachable)} targets, so say which: {concat(", ", sort(_reachable))}.",
	$"Put the target after your name, with a plus sign, as in ssh {_person}+{min(_reachable)}@door.",
)

_target_misconfigured := reasons.reason(
	"target_misconfigured",
	$"Your grant for {_target} holds, but the target's own entry has a fault, so nothing can be started.",
	"Nothing is wrong with your grant. Tell the platform team the session id.",
)

_stronger_login := reasons.reason(
	"stronger_login_needed",
	$"{_target} needs more proof of who you are than you gave: {_wanted_proofs}.",
	$"Say where you are going when you log in: ssh {_person}+{_target}{_word}@door",
)

_forced_twice := reasons.reason(
	"forced_command_conflict",
	$"Your certificate forces one command and {_target} another.",
	"Use a certificate without a forced command, or a key.",
)

# The same words whether or not there is such a target.
_no_grant_for_it := reasons.reason(
	"no_grant",
	$"You have no grant for {_named} at this time.",
	$"{targets.whom_to_ask(_named)}{_emergency}",
)

_no_grant := reasons.reason(
	"no_grant",
	"You have no grant at this time.",
	$"Name the target to be told whom to ask: ssh {_person}+target@door",
)

_is_complete if {
	contract.is_spoken
	is_number(input.now_ns)
	is_string(input.connection.id)
	_login.person == input.identity.person
	is_string(input.identity.force_command)
}

_is_honeypot if input.identity.honeypot == true

# What the target requires was proven, in whatever order.
_is_strong_enough if {
	some wanted in object.get(data.targets[_target], "require", [[]])
	every factor in wanted {
		factor in input.identity.via
	}
}

_is_too_weak if {
	_is_well_aimed
	not _is_strong_enough
}

_wanted_proofs := concat(", or ", [concat(" and ", wanted) | some wanted in data.targets[_target].require])

_is_full if {
	_is_well_aimed
	not _chosen
	_full
}

# There is a limit, and nobody counted.
_is_uncounted if {
	_is_well_aimed
	not _chosen
}

_is_well_aimed if {
	count(_reachable) == 1
	count(targets.faults(_target)) == 0
}

_is_active if people.is_active(_person)

# In a honeypot the name that was typed means nothing.
_login := {"person": input.identity.person, "target": "", "break_glass": false} if _is_honeypot

else := people.login(input.login.user)

_person := _login.person

_word := "+break-glass" if _names_break_glass

else := ""

# The target that was named: in the login, else by a choice at the desk; empty where none was.
_named := _login.target if _login.target != ""

else := input.request.target if is_string(input.request.target)

else := ""

_target := target if {
	count(_reachable) == 1
	some target in _reachable
}
