# METADATA
# title: Basis
# description: |
#   What a decision stands on: the documents that it may read, as they are at that moment, given together with the
#   answer, so that the gateway can put them on record and the decision can be asked again under another policy.
#   A rule that reads another document has to name it here; `opa deps` is asked whether that was done.
#   An entry is {"path", "value"}; without a value there was no such document, and with "omitted" it is too long to tell.
package gateway.basis

import data.gateway.people

# METADATA
# description: The most grants of one person, and the most targets, that a record holds.
most := 2000

# METADATA
# description: The answer of `gateway.authn.decision`, and its basis.
# entrypoint: true
authn := _standing_on(data.gateway.authn.decision, authn_documents)

# METADATA
# description: The answer of `gateway.config.decision`, and its basis.
# entrypoint: true
config := _standing_on(data.gateway.config.decision, config_documents)

# METADATA
# description: The answer of `gateway.authz.decision`, and its basis.
# entrypoint: true
authz := _standing_on(data.gateway.authz.decision, authz_documents)

# METADATA
# description: The answer of `gateway.admission.decision`, and its basis.
# entrypoint: true
admission := _standing_on(data.gateway.admission.decision, admission_documents)

# METADATA
# description: The answer of `gateway.admin.decision`, and its basis.
# entrypoint: true
admin := _standing_on(data.gateway.admin.decision, admin_documents)

# An answer that is none is for the gateway to refuse.
_standing_on(answer, documents) := object.union(answer, {"basis": [document | some document in documents]}) if {
	is_object(answer)
} else := answer

_person(name) := _document(["people", name], value) if value := data.people[name]

else := _absent(["people", name])

_target(name) := _document(["targets", name], value) if value := data.targets[name]

else := _absent(["targets", name])

_grant(person, id) := _document(["grants", person, id], value) if value := data.grants[person][id]

else := _absent(["grants", person, id])

_grants(person) := _omitted(["grants", person]) if _is_too_long(data.grants[person])

else := _document(["grants", person], value) if value := data.grants[person]

else := _absent(["grants", person])

_joins(session) := _document(["joins", session], value) if value := data.joins[session]

else := _absent(["joins", session])

_is_too_long(documents) if {
	is_object(documents)
	count(documents) > most
}

_document(path, value) := {"path": path, "value": value}

_absent(path) := {"path": path}

_omitted(path) := {"path": path, "omitted": true}

_login := people.login(input.login.user)
