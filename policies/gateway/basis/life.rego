package gateway.basis

import data.gateway.grants
import data.gateway.people

# What the life of a grant adds to what is read: approvals and who gave them, rotas, reviews, and targets by labels.
# What is not there is not told: a decision that is asked again finds it as little.
# METADATA
# description: Of config, also approvals and who gave them, reviews, rotas, and the targets of a grant by labels.
config_documents contains _document(["approvals", name], data.approvals[name]) if some name in _names

config_documents contains _document(["reviews", name], data.reviews[name]) if some name in _names

config_documents contains _person(by) if {
	some name in _names
	some _, by_approver in data.approvals[name]
	some by, _ in by_approver
	people.is_name(by)
}

config_documents contains _person(review.by) if {
	some name in _names
	some review in data.reviews[name]
	people.is_name(review.by)
}

config_documents contains _rota(name) if some name in _targets

# Whoever named a target looks at no other for a grant by labels.
_targets contains target if {
	_login.target == ""
	some name in _names
	not _is_too_long(data.grants[name])
	some grant in data.grants[name]
	is_object(grant.targets.labels)
	some target in grants.targets_of(grant)
}

# METADATA
# description: Of authz, also the approvals of the grant, who gave them, and the rota.
authz_documents contains _approvals(input.identity.person, input.permit.grant)

authz_documents contains _person(by) if {
	some by, _ in data.approvals[input.identity.person][input.permit.grant]
	people.is_name(by)
}

authz_documents contains _rota(input.permit.target)

# METADATA
# description: Of admission, also what a debt, an approval and a review are judged by.
admission_documents contains _grants(input.path[1]) if {
	input.new.kind == "break_glass"
	people.is_name(input.path[1])
}

admission_documents contains _document(["reviews", input.path[1]], data.reviews[input.path[1]])

admission_documents contains _person(name) if {
	name := input.path[3]
	people.is_name(name)
}

admission_documents contains _person(name) if {
	name := input.new.by
	people.is_name(name)
}

admission_documents contains _target(name) if {
	input.path[0] in {"approvals", "reviews"}
	some name in grants.targets_of(data.grants[input.path[1]][input.path[2]])
	people.is_name(name)
}

_approvals(person, id) := _document(["approvals", person, id], data.approvals[person][id])

_rota(target) := _document(["roster", name], data.roster[name]) if name := data.targets[target].approval.on_call
