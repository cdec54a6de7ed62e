# For a gateway whose sessions log in to real hosts by certificate (backends.sshproxy.vault), beside doorward-gateway on
# its token.  The role fixes the accounts and the life; the mount's authority signs users of hosts only.  A stolen token
# can log in as these accounts wherever the authority is trusted, and each signature is in Vault's audit log.
path "ssh-proxy/sign/doorward-proxy" {
  capabilities = ["create", "update"]
}
