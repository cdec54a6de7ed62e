#!/bin/sh
# Loads into a Vault (or OpenBao) what a gateway needs of it, and writes the gateway's token to a file.  Can be run again.
# Run by a Vault administrator; also by the demo stack and docker-compose.opa.yaml.
#
#   VAULT_ADDR, VAULT_TOKEN          the server and an administrator's token (or VAULT_TOKEN_FILE)
#   POSTGRES_ADDRESS                 host:port/database?sslmode=...   as Vault sees it
#   ISSUER_PASSWORD_FILE             password of doorward_issuer (database/issuer.sql)
#   MARIADB_ADDRESS                  host:port of a MariaDB, as Vault sees it; password of its doorward_issuer (mariadb/issuer.sql)
#   MARIADB_PASSWORD_FILE            in this file
#   REDIS_ADDRESS, REDIS_PASSWORD_FILE  the same for a Redis 7: its user doorward_issuer is in ../README.md
#   KV_MOUNT                         where Vault keeps secrets that are delivered as files (KV version 2); made unless there
#   GATEWAY_TOKEN_FILE               where the token goes (0600); with KUBERNETES_HOST it can be left out, and none is made
#   KUBERNETES_HOST                  https://... of the cluster whose service account the gateway logs in as; it needs no token then
#   KUBERNETES_ACCOUNT               that account, NAMESPACE/NAME; doorward-workspaces/doorward-gateway unless said
#   KUBERNETES_CA_FILE, KUBERNETES_REVIEWER_TOKEN_FILE  for a Vault outside the cluster: whom to trust, and whose right to review tokens
#   HOST_NAMES                       names that engineers type for the door, comma-separated: Vault then signs its host keys
#   USER_NAMES                       people whose keys Vault may certify, comma-separated, or * (ssh-user/sign/doorward-user)
#   HOST_LOGINS                      accounts on real hosts that sessions may log in as, comma-separated (ssh-proxy/sign/doorward-proxy)
#   ROTATE_ISSUER=yes                afterwards let Vault change that password to one only it knows (production: do)
#   VAULT                            the command, `vault` by default
set -eu
umask 077
here=$(dirname "$0")
vault=${VAULT:-vault}
if [ -n "${VAULT_TOKEN_FILE:-}" ]; then
    VAULT_TOKEN=$(cat "$VAULT_TOKEN_FILE")
    export VAULT_TOKEN
fi

for policy in "$here"/policies/*.hcl; do
    "$vault" policy write "$(basename "$policy" .hcl)" "$policy"
done
# Not an orphan: session tokens die with the gateway's.  No `default` policy: the policy file says all they may do.
"$vault" write auth/token/roles/doorward-session allowed_policies=doorward-session orphan=false renewable=true \
    token_no_default_policy=true

"$vault" read sys/mounts/database >/dev/null 2>&1 || "$vault" secrets enable -path=database database
"$vault" write database/config/orders plugin_name=postgresql-database-plugin allowed_roles='orders-*' \
    connection_url="postgresql://{{username}}:{{password}}@$POSTGRES_ADDRESS" \
    username=doorward_issuer password=@"$ISSUER_PASSWORD_FILE" password_authentication=scram-sha-256
# roles_of FOLDER DATABASE
roles_of() {
    for create in "$here/$1"/*.create.*; do
        role=$(basename "${create%.create.*}")
        revoke=$here/$1/$role.revoke.sql
        [ -e "$revoke" ] || revoke=
        "$vault" write "database/roles/$role" db_name="$2" default_ttl=1h max_ttl=24h \
            creation_statements=@"$create" ${revoke:+revocation_statements=@"$revoke"}
    done
    [ "${ROTATE_ISSUER:-}" != yes ] || "$vault" write -force "database/rotate-root/$2"
}
roles_of database orders

# Of MySQL and MariaDB alike.  The password is in no URL of ours: Vault fills it in.
if [ -n "${MARIADB_ADDRESS:-}" ]; then
    "$vault" write database/config/stock plugin_name=mysql-database-plugin allowed_roles='stock-*' \
        connection_url="{{username}}:{{password}}@tcp($MARIADB_ADDRESS)/" \
        username=doorward_issuer password=@"$MARIADB_PASSWORD_FILE"
    roles_of mariadb stock
fi
# Revocation is DELUSER, which ends the user's connections: Vault's plugin does that itself.
if [ -n "${REDIS_ADDRESS:-}" ]; then
    "$vault" write database/config/cache plugin_name=redis-database-plugin allowed_roles='cache-*' \
        host="${REDIS_ADDRESS%:*}" port="${REDIS_ADDRESS##*:}" username=doorward_issuer password=@"$REDIS_PASSWORD_FILE"
    roles_of redis cache
fi
if [ -n "${KV_MOUNT:-}" ]; then
    "$vault" read "sys/mounts/$KV_MOUNT" >/dev/null 2>&1 || "$vault" secrets enable -path="$KV_MOUNT" -version=2 kv
fi

# The authority of host keys is a mount of its own: it can sign no user, whatever is asked.
if [ -n "${HOST_NAMES:-}" ]; then
    "$vault" read sys/mounts/ssh-host >/dev/null 2>&1 || "$vault" secrets enable -path=ssh-host ssh
    "$vault" read ssh-host/config/ca >/dev/null 2>&1 ||
        "$vault" write ssh-host/config/ca generate_signing_key=true key_type=ed25519
    "$vault" write ssh-host/roles/doorward-host key_type=ca allow_host_certificates=true \
        allow_user_certificates=false allowed_domains="$HOST_NAMES" allow_bare_domains=true allow_subdomains=false \
        ttl=24h max_ttl=168h
fi

# The authority of people's keys, another mount again.  Who may have a certificate for whom is said by who may write to
# ssh-user/sign/doorward-user; with allowed_users_template=true and {{identity.entity.name}} each gets their own name only.
if [ -n "${USER_NAMES:-}" ]; then
    "$vault" read sys/mounts/ssh-user >/dev/null 2>&1 || "$vault" secrets enable -path=ssh-user ssh
    "$vault" read ssh-user/config/ca >/dev/null 2>&1 ||
        "$vault" write ssh-user/config/ca generate_signing_key=true key_type=ed25519
    "$vault" write ssh-user/roles/doorward-user - <<END
{"key_type": "ca", "allow_user_certificates": true, "allow_host_certificates": false, "allowed_users": "$USER_NAMES",
 "allowed_extensions": "permit-pty,permit-port-forwarding", "default_extensions": {"permit-pty": ""},
 "allowed_critical_options": "source-address,force-command", "ttl": "8h", "max_ttl": "24h"}
END
fi

# The authority of sessions on real hosts (docs/hosts.md), a mount again: its certificates are good for a login within
# minutes, as these accounts alone, and say in their key id who it is.  What is done then is judged at the door, so they
# permit what OpenSSH's extensions can; drop one here to have every host refuse it as well.
if [ -n "${HOST_LOGINS:-}" ]; then
    "$vault" read sys/mounts/ssh-proxy >/dev/null 2>&1 || "$vault" secrets enable -path=ssh-proxy ssh
    "$vault" read ssh-proxy/config/ca >/dev/null 2>&1 ||
        "$vault" write ssh-proxy/config/ca generate_signing_key=true key_type=ed25519
    "$vault" write ssh-proxy/roles/doorward-proxy - <<END
{"key_type": "ca", "allow_user_certificates": true, "allow_host_certificates": false, "allowed_users": "$HOST_LOGINS",
 "allow_user_key_ids": true, "allowed_critical_options": "source-address", "not_before_duration": "30s",
 "allowed_extensions": "permit-pty,permit-port-forwarding,permit-agent-forwarding,permit-X11-forwarding",
 "default_extensions": {"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": "",
                        "permit-X11-forwarding": ""},
 "ttl": "2m", "max_ttl": "1h"}
END
fi

# A gateway in a cluster is known by its pod's service account, and no token has to be brought to it.  Periodic, and an
# orphan by nature: the tokens of its sessions are its children, so it must not have a longest life.
if [ -n "${KUBERNETES_HOST:-}" ]; then
    account=${KUBERNETES_ACCOUNT:-doorward-workspaces/doorward-gateway}
    "$vault" read sys/auth/kubernetes >/dev/null 2>&1 || "$vault" auth enable kubernetes
    "$vault" write auth/kubernetes/config kubernetes_host="$KUBERNETES_HOST" \
        ${KUBERNETES_CA_FILE:+kubernetes_ca_cert=@"$KUBERNETES_CA_FILE"} \
        ${KUBERNETES_REVIEWER_TOKEN_FILE:+token_reviewer_jwt=@"$KUBERNETES_REVIEWER_TOKEN_FILE"}
    "$vault" write auth/kubernetes/role/doorward-gateway bound_service_account_names="${account#*/}" \
        bound_service_account_namespaces="${account%/*}" audience=vault alias_name_source=serviceaccount_uid \
        token_policies="doorward-gateway${HOST_NAMES:+,doorward-host}${HOST_LOGINS:+,doorward-proxy}" token_no_default_policy=true token_period=24h
    [ -n "${GATEWAY_TOKEN_FILE:-}" ] || exit 0
fi

# Periodic and orphan: lives as long as the gateway renews it, and not only as long as who ran this.
"$vault" token create -orphan -no-default-policy -policy=doorward-gateway ${HOST_NAMES:+-policy=doorward-host} ${HOST_LOGINS:+-policy=doorward-proxy} -period=24h -display-name=doorward-gateway \
    -field=token >"$GATEWAY_TOKEN_FILE.new"
mv "$GATEWAY_TOKEN_FILE.new" "$GATEWAY_TOKEN_FILE"
