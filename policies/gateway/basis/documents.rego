package gateway.basis

import data.gateway.people

# METADATA
# title: What each decision reads
# description: |
#   Of authn: what holds for everybody, the person of that name, the target that was named, and whom a honeypot takes
#   them for.  The authorities are read for a certificate alone.
authn_documents contains _person(_login.person)

authn_documents contains _person(honeypot.person) if {
	some honeypot in data.door.honeypots
	people.is_name(honeypot.person)
}

authn_documents contains _target(_login.target) if _login.target != ""

authn_documents contains _door

authn_documents contains _authorities if is_object(input.attempt.certificate)

authn_documents contains _authorities if {
	some proof in input.proofs
	is_object(proof.certificate)
}

# METADATA
# description: |
#   Of config, the person with all their grants, the targets of those and the one that was named, and who joined.
config_documents contains _person(name) if some name in _names

config_documents contains _grants(name) if some name in _names

config_documents contains _target(name) if {
	count(_targets) <= most
	some name in _targets
}

config_documents contains _omitted(["targets"]) if count(_targets) > most

config_documents contains _joins(input.connection.id) if people.is_name(input.connection.id)

config_documents contains _person(by) if {
	some by, _ in data.joins[input.connection.id]
	people.is_name(by)
}

config_documents contains _person(answer.by) if {
	some answer in input.request.approvals
	people.is_name(answer.by)
}

_names contains _login.person

_names contains input.identity.person if people.is_name(input.identity.person)

_targets contains _login.target if _login.target != ""

_targets contains input.request.target if people.is_name(input.request.target)

_targets contains grant.target if {
	some name in _names
	not _is_too_long(data.grants[name])
	some grant in data.grants[name]
	people.is_name(grant.target)
}

# METADATA
# description: Of authz, the person, the one grant that the session stands on, and its target.
authz_documents contains _person(input.identity.person) if people.is_name(input.identity.person)

authz_documents contains _grant(input.identity.person, input.permit.grant) if {
	people.is_name(input.identity.person)
	people.is_name(input.permit.grant)
}

authz_documents contains _target(input.permit.target) if people.is_name(input.permit.target)

authz_documents contains _target(target) if {
	target := data.grants[input.identity.person][input.permit.grant].target
	people.is_name(target)
}

# METADATA
# description: Of each, whether what they read is a copy, and how old.
authn_documents contains document if some document in _age

config_documents contains document if some document in _age

authz_documents contains document if some document in _age

admission_documents contains document if some document in _age

admin_documents contains document if some document in _age

# METADATA
# description: |
#   Of admission, what the client may do, the person, and the target that the new grant names; the old one is in the
#   question.  An approval and a review are about a grant.
admission_documents contains _automation(input.client.name) if is_string(input.client.name)

admission_documents contains _grant(input.path[1], input.path[2]) if {
	input.path[0] in {"approvals", "reviews"}
	people.is_name(input.path[1])
	people.is_name(input.path[2])
}

admission_documents contains _person(input.path[1]) if people.is_name(input.path[1])

admission_documents contains _target(input.new.target) if people.is_name(input.new.target)

# METADATA
# description: Of admin, what the client may do.
admin_documents contains _automation(input.client.name) if is_string(input.client.name)

_automation(name) := _document(["automations", name], value) if value := data.automations[name]

else := _absent(["automations", name])

_age contains _document(["copied"], data.copied)

_age contains _document(["watermark"], data.watermark)

_door := _document(["door"], value) if value := data.door

else := _absent(["door"])

_authorities := _document(["authorities"], value) if value := data.authorities

else := _absent(["authorities"])
