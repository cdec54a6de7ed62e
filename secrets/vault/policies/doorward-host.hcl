# For a gateway whose host keys Vault certifies (ssh.host_certificate.vault), beside doorward-gateway on its token.
# The role fixes the names; the mount's authority signs hosts only, so a stolen token can pose as this door and no more.
path "ssh-host/sign/doorward-host" {
  capabilities = ["create", "update"]
}
