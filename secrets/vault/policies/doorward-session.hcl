# One session's token: a child of the gateway's, renewed while the session lives, so that a gateway that dies takes the
# session's leases with it after one TTL.
#
# To widen: one `path` block for each database role that any permit names.  A wildcard (database/creds/*) hands every
# session's token every role of the mount; which one a session gets is then Rego's decision alone.
path "database/creds/orders-readonly" {
  capabilities = ["read"]
}

path "database/creds/stock-readonly" {
  capabilities = ["read"]
}
path "database/creds/cache-readonly" {
  capabilities = ["read"]
}

# A secret that is delivered as files (KV version 2): one block for each, likewise.
path "kv/data/stock/supplier" {
  capabilities = ["read"]
}

# Its own leases.  (The paths take any lease id; ids hold a random part and cannot be listed with this policy.)
path "sys/leases/renew" {
  capabilities = ["create", "update"]
}
path "sys/leases/revoke" {
  capabilities = ["create", "update"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["create", "update"]
}
path "auth/token/revoke-self" {
  capabilities = ["create", "update"]
}
