#!/bin/sh
# One authority and two verifiers in a time that passes many times faster: begin it under `faketime`,
# which then holds for all of them. Needs PROGRAM, NODE_FOLDER, PYTHONPATH and SECONDS_LONG.
set -u
data=$(mktemp -d)
# The program takes its settings from the environment, and refuses what it does not know.
env -u CLOAKROOM_PUBLIC -u CLOAKROOM_ADMIN "$PROGRAM" serve --data "$data" &
authority=$!
trap 'kill "$authority"; wait "$authority"; rm -rf "$data"' EXIT
waited=0
until env -u CLOAKROOM_PUBLIC -u CLOAKROOM_ADMIN "$PROGRAM" health --ready --admin-url "$CLOAKROOM_ADMIN" > /dev/null 2>&1; do
  waited=$((waited + 1))
  [ "$waited" -gt 600 ] && exit 1
  sleep 1
done
CLOAKROOM_API_KEY=$(cat "$data/root-api.key")
export CLOAKROOM_API_KEY
scripts=$(dirname "$0")
(cd "$NODE_FOLDER" && node rotation.mjs) > "$data/jose" 2>&1 &
jose=$!
# PyJWT keeps the key set by the monotonic clock, which must pass as fast.
env -u FAKETIME_DONT_FAKE_MONOTONIC python3 "$scripts/rotation.py" > "$data/pyjwt" 2>&1 &
wait "$jose" "$!"
cat "$data/jose" "$data/pyjwt"
# One that broke down has no closing line.
grep -h '^[0-9]* passed, [0-9]* failed$' "$data/jose" "$data/pyjwt" | awk '
  { passed += $1; failed += $3 }
  END { printf "%d passed, %d failed\n", passed, failed + 2 - NR }'
