#!/usr/bin/env bash
# The product at work on this machine, in about a minute: three nodes in namespaces, one resource group (service IP, file
# system, application), a client that never stops asking, and a crash of the node that serves it. Everything that happens is
# done by the product; this script only breaks the node and shows.
set -euo pipefail
cd "$(dirname "$0")/../.."
BIN=$PWD/bin
NAME=${DEMO_NAME:-demo}
export HOLDFAST_LAB=$NAME
work=$(mktemp -d)
probe=
finish() {
  [ -z "$probe" ] || kill "$probe" 2>/dev/null || true
  "$BIN/cllab" down >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "${*//$BIN\//}"; "$@"; }

cp deploy/lab/demo.yaml "$work/demo.yaml"
share=()
if [ "$(id -u)" = 0 ] && command -v mkfs.ext4 >/dev/null && [ -e /dev/loop-control ]; then
  truncate -s 32M "$work/app.img" && mkfs.ext4 -q -F "$work/app.img"
  share=(--share "$work/app.img")
else
  # A directory that is bound into place: an ordinary user may not mount a file system on a loop device.
  echo "left out: the ext4 image on a loop device (needs root and mkfs.ext4); the file system of the demo is a bound directory"
  sed -i 's#{name: app_fs,.*#{name: app_fs, device: /shared, mount_point: /app, type: bind}#' "$work/demo.yaml"
fi

say "A cluster of three nodes: found it, let two join with one-time tokens, bring the group online."
run "$BIN/cllab" up --nodes 3 --fence "${share[@]}" --cluster "$work/demo.yaml"

say "Where is it?"
run "$BIN/cllab" exec node2 -- clRGinfo

say "A client of its own on the network asks the service IP a hundred times a second; it never stops."
"$BIN/cllab" probe 10.77.1.100:8080 --min 100ms --for 40s > "$work/probe" 2>&1 &
probe=$!
for _ in $(seq 100); do grep -q answer "$work/probe" && break; sleep 0.05; done
tail -f --pid="$probe" "$work/probe" 2>/dev/null | sed -u 's/^/    client: /' &

say "node1 dies: link, processes and mounts at once."
run "$BIN/cllab" crash node1
for _ in $(seq 150); do grep -q 'outage' "$work/probe" && break; sleep 0.1; done
sleep 0.3
say "What the cluster saw, decided and did:"
run "$BIN/cllab" exec node2 -- clmgr query events | tail -8
run "$BIN/cllab" exec node2 -- clRGinfo

say "node1 comes back; the group stays where it is (NFB), until the operator moves it."
run "$BIN/cllab" boot node1
for _ in $(seq 100); do "$BIN/cllab" exec node1 -- clmgr -a STATE query node node1 2>/dev/null | grep -q NORMAL && break; sleep 0.1; done
run "$BIN/cllab" exec node3 -- clmgr move resource_group app_rg NODE=node1
sleep 0.5

say "The application is killed; it is restarted where it is."
run "$BIN/cllab" exec node1 -- sh -c 'kill -9 $(cat /run/app.pid)'
sleep 1.5

say "Stop in order."
run "$BIN/cllab" exec node1 -- clmgr stop cluster -m graceful
kill "$probe" 2>/dev/null || true
wait "$probe" 2>/dev/null || true
probe=
say "Why it was there, in the cluster's own words:"
run "$BIN/cllab" exec node1 -- clmgr explain app_rg
