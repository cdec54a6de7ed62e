#!/bin/sh
# Grants with nothing but curl: DOOR is the grants door's address, HEADER a file with `Authorization: Bearer <token>`.
set -eu
grant=$DOOR/v1/data/grants/alice/INC-1
now=$(date -u +%FT%TZ)
later=$(date -u -d '+1 hour' +%FT%TZ)
latest=$(date -u -d '+2 hours' +%FT%TZ)

# Write it, if there is none yet.
curl -sS --fail-with-body -X PUT -H @"$HEADER" -H 'If-None-Match: *' "$grant" -d '{
  "target": "orders-db", "reason": "stuck orders", "approved_by": "the orders team lead", "ticket": "INC-1",
  "starts_at": "'"$now"'", "ends_at": "'"$later"'"}'

# Read it, and keep its ETag.
curl -sS --fail-with-body -D head.txt -H @"$HEADER" "$grant?pretty"
etag=$(sed -n 's/^[Ee][Tt]ag: //p' head.txt | tr -d '\r')

# Make it longer, unless somebody has changed it meanwhile.
curl -sS --fail-with-body -X PATCH -H @"$HEADER" -H "If-Match: $etag" "$grant" \
  -d '[{"op": "replace", "path": "/ends_at", "value": "'"$latest"'"}]'

# Try something and see what is wrong with it: nothing is written.
curl -sS -X PATCH -H @"$HEADER" "$grant?dry-run" -d '[{"op": "remove", "path": "/reason"}]'

# Take it away: sessions that stand on it have been told to end when this returns.
curl -sS --fail-with-body -X DELETE -H @"$HEADER" "$grant"
