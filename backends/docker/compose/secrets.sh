#!/bin/sh
# Makes the tokens and passwords that docker-compose.opa.yaml mounts, in DIR (0700), unless they are there.
# The files in it are readable to the containers' several accounts; the folder keeps everybody else out.
set -eu
directory=${1:?usage: secrets.sh DIR}
mkdir -p -m 0700 "$directory" && chmod 0700 "$directory"
cd "$directory"
umask 022
for name in postgres.password issuer.password vault-root.token opa-gateway.token opa-automation.token opa-admin.token \
    ticketing.token; do
    [ -s "$name" ] || head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n' >"$name"
done
printf 'Authorization: Bearer %s\n' "$(cat opa-admin.token)" >opa-admin.header
printf 'Authorization: Bearer %s\n' "$(cat ticketing.token)" >ticketing.header

# OPA knows only hashes.
mkdir -p opa-tokens
entries=
for role in gateway automation admin; do
    hash=$(sha256sum "opa-$role.token" | cut -d ' ' -f 1)
    entries="$entries${entries:+,}\"$hash\":{\"name\":\"$role\",\"role\":\"$role\"}"
done
printf '{"tokens":{%s}}\n' "$entries" >opa-tokens/data.json
printf '{"revision":"%s","roots":["tokens"]}\n' "$(sha256sum opa-tokens/data.json | cut -c 1-12)" >opa-tokens/.manifest
