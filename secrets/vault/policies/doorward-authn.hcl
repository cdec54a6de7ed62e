# The gateway's token for one-time codes: it may have codes checked, and neither make nor read what makes them.
# Passwords need no token: a login brings its own.

path "totp/code/*" {
  capabilities = ["update"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
