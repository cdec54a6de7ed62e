# The gateway's own token.  It reads no secret: it can only make session tokens, each of which can.

# One child token per session, of the role that fixes its policy.  It is a child, so it dies with the gateway's token.
path "auth/token/create/doorward-session" {
  capabilities = ["create", "update"]
}

# End a session's token (and with it every lease it holds), also when the token itself was lost: by its accessor.
path "auth/token/revoke-accessor" {
  capabilities = ["create", "update"]
}

# End one lease and wait for the end (`sync`).  The path takes any lease id: whoever holds this token and learns the id
# of someone else's lease can end that lease.  It cannot list ids.
path "sys/leases/revoke" {
  capabilities = ["create", "update"]
}

# Know and renew itself; the token is periodic and is granted nothing by `default`.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["create", "update"]
}
