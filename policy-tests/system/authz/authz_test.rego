package system.authz_test

import data.system.authz

_tokens := {
	crypto.sha256("gateway-token"): {"name": "door", "role": "gateway"},
	crypto.sha256("ticketing-token"): {"name": "ticketing", "role": "automation"},
	crypto.sha256("auditor-token"): {"name": "security", "role": "auditor"},
	crypto.sha256("roster-token"): {"name": "roster", "role": "automation", "roots": ["roster", "approvals", "people"]},
	crypto.sha256("reader-token"): {"name": "opal", "role": "copy_reader"},
	crypto.sha256("writer-token"): {"name": "opal", "role": "copy_writer"},
	crypto.sha256("root-token"): {"name": "root", "role": "admin"},
	crypto.sha256("odd-token"): {"name": "odd", "role": "superuser"},
}

_allowed(token, method, path) if {
	authz.allow with data.tokens as _tokens
		with input as {"identity": token, "method": method, "path": split(path, "/"), "params": {}}
}

test_what_a_role_may_do[note] if {
	some note in {
		"gateway-token POST v1/data/gateway/authn/decision",
		"gateway-token POST v1/data/gateway/grants/malformed",
		"gateway-token GET v1/data/grants",
		"gateway-token GET v1/data/grants/alice",
		"gateway-token PUT v1/data/grants/alice/INC-1",
		"gateway-token PATCH v1/data/grants/alice/INC-1",
		"gateway-token DELETE v1/data/grants/alice/INC-1",
		"gateway-token PATCH v1/data/grants",
		"gateway-token PUT v1/data/approvals/alice/INC-1/erin",
		"gateway-token DELETE v1/data/reviews/alice/INC-1",
		"gateway-token GET v1/data/roster",
		"roster-token PUT v1/data/roster/orders",
		"roster-token DELETE v1/data/approvals/alice/INC-1/erin",
		"roster-token GET v1/data/approvals",
		"gateway-token GET v1/data/people/alice",
		"gateway-token GET v1/data/targets",
		"gateway-token GET v1/status",
		"gateway-token GET v1/data/system/bundles",
		"gateway-token GET health",
		"ticketing-token GET v1/data/grants",
		"ticketing-token GET v1/data/grants/alice/INC-1",
		"ticketing-token PUT v1/data/grants/alice/INC-1",
		"ticketing-token PATCH v1/data/grants/alice/INC-1",
		"ticketing-token DELETE v1/data/grants/alice/INC-1",
		"ticketing-token PUT v1/data/joins/s-1/erin",
		"ticketing-token DELETE v1/data/joins/s-1/erin",
		"ticketing-token GET health",
		"auditor-token GET v1/policies",
		"auditor-token GET v1/data/people",
		"auditor-token GET v1/data/targets/orders-db",
		"auditor-token GET v1/data/grants",
		"auditor-token GET v1/data/roster",
		"auditor-token GET v1/data/approvals",
		"auditor-token GET v1/data/reviews",
		"auditor-token GET v1/data/door",
		"auditor-token GET v1/data/authorities",
		"reader-token POST v0/data/gateway/copies/taken",
		"reader-token GET health",
		"root-token PUT v1/policies/x",
		"root-token GET v1/data",
		"root-token PUT v1/data/tokens",
		"root-token GET v1/data//",
		"no-token GET health",
	}
	[token, method, path] := split(note, " ")
	_allowed(token, method, path)
}

test_what_it_may_not[note] if {
	some note in {
		"auditor-token GET v1/data",
		"auditor-token GET v1/data/tokens",
		"auditor-token GET v1/data/grants/../tokens",
		"auditor-token GET v1/policies/x",
		"auditor-token GET v1/config",
		"auditor-token PUT v1/data/grants/alice/INC-1",
		"auditor-token PATCH v1/data/people/alice",
		"auditor-token DELETE v1/data/grants/alice/INC-1",
		"auditor-token PUT v1/policies/x",
		"auditor-token POST v1/data/gateway/config/decision",
		"auditor-token POST v1/query",
		"gateway-token GET v1/data",
		"gateway-token POST v1/data",
		"gateway-token POST v1/data/gateway",
		"gateway-token POST v1/data/gateway/",
		"gateway-token POST v1/data/system/authz/allow",
		"gateway-token POST v1/data/gateway/../tokens",
		"gateway-token POST v1/data/gatewayx/authn",
		"gateway-token POST v1/query",
		"gateway-token POST v1/compile",
		"gateway-token POST v0/data/gateway/authn/decision",
		"gateway-token GET v1/data/tokens",
		"gateway-token GET v1/data/system",
		"gateway-token PUT v1/data/system/bundles",
		"gateway-token GET v1/config",
		"ticketing-token GET v1/status",
		"gateway-token GET v1/data/grants/../tokens",
		"gateway-token PUT v1/data/people/alice",
		"gateway-token PUT v1/data/targets/orders-db",
		"gateway-token PUT v1/data/gateway/authn",
		"gateway-token PUT v1/policies/x",
		"gateway-token GET v1/policies",
		"gateway-token GET metrics",
		"ticketing-token PUT v1/data/joins/s-1",
		"ticketing-token PATCH v1/data/joins/s-1/erin",
		"gateway-token PUT v1/data/joins/s-1/erin",
		"ticketing-token GET v1/data",
		"ticketing-token POST v1/data",
		"ticketing-token POST v1/data/grants",
		"ticketing-token GET v1/data/people",
		"ticketing-token GET v1/data/tokens",
		"ticketing-token POST v1/data/gateway/authn/decision",
		"ticketing-token PUT v1/data/grants",
		"ticketing-token PUT v1/data/grants/alice",
		"ticketing-token DELETE v1/data/grants/alice",
		"ticketing-token PUT v1/data/grants/alice/INC-1/ends_at",
		"ticketing-token PUT v1/data/grants//INC-1",
		"ticketing-token PUT v1/data/grants/alice/",
		"ticketing-token PUT v1/data/grants/../people",
		"ticketing-token PUT v1/data/grants/./INC-1",
		"ticketing-token PUT v1/data/grants/alice/a%2Fb",
		"ticketing-token put v1/data/grants/alice/INC-1",
		"ticketing-token PUT v1/policies/x",
		"ticketing-token GET v1/config",
		"ticketing-token PUT v1/data/approvals/alice/INC-1/erin",
		"ticketing-token GET v1/data/roster",
		"ticketing-token PUT v1/data/reviews/alice/INC-1",
		"roster-token PUT v1/data/grants/alice/INC-1",
		"roster-token GET v1/data/people",
		"roster-token PUT v1/data/people/alice",
		"roster-token PUT v1/data/roster",
		"roster-token PUT v1/data/roster/orders/x",
		"roster-token PUT v1/data/approvals/alice/INC-1",
		"gateway-token PUT v1/data/automations/ticketing",
		"reader-token POST v0/data/gateway/copies",
		"reader-token POST v0/data/grants",
		"reader-token POST v1/data/gateway/copies/taken",
		"reader-token GET v1/data/grants",
		"reader-token PUT v1/data/grants",
		"writer-token PUT v1/data/grants",
		"writer-token POST v0/data/gateway/copies/taken",
		"odd-token GET v1/data/grants",
		"no-token GET v1/data/grants",
		"no-token POST v1/data/gateway/authn/decision",
		"no-token POST health",
		"no-token GET health/live",
		"no-token GET ",
	}
	[token, method, path] := split(note, " ")
	not _allowed(token, method, path)
}

_runtime(label) := {"config": {"labels": {"doorward": label}}}

test_a_copy_is_written_by_its_token_alone[note] if {
	some note in {
		"PUT v1/data",
		"PUT v1/data/",
		"PUT v1/data/tokens",
		"PUT v1/data/gateway",
		"PATCH v1/data/grants",
		"PUT v1/data/grants/alice/INC-1",
		"GET v1/data/grants",
		"PUT v1/policies/x",
	}
	[method, path] := split(note, " ")
	_allowed("writer-token", "PUT", "v1/data/grants") with opa.runtime as _runtime("copy")
	not _allowed("writer-token", "PUT", "v1/data/grants") with opa.runtime as _runtime("source")
	not _allowed("writer-token", method, path) with opa.runtime as _runtime("copy")
	not _allowed("reader-token", "PUT", "v1/data/grants") with opa.runtime as _runtime("copy")
}

test_anything_is_decided[note] if {
	some note, asked in {
		"nothing": {},
		"null": null,
		"token that is no text": {"identity": 7, "method": "GET", "path": ["v1", "data"]},
		"path that is no list": {"identity": "ticketing-token", "method": "GET", "path": "v1/data/grants"},
		"segment that is no text": {"identity": "ticketing-token", "method": "GET", "path": ["v1", "data", "grants", 7]},
	}
	authz.allow == false with input as asked with data.tokens as _tokens
}

test_without_tokens_there_is_health_alone if {
	authz.allow == false with input as {"identity": "root-token", "method": "GET", "path": ["v1"]} with data.tokens as {}
	authz.allow with input as {"method": "GET", "path": ["health"]} with data.tokens as {}
}
