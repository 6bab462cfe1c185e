#!/usr/bin/env bash
# Runs the tests that this machine can run, and says in one line each what it had to leave out and why.
#   run.sh test          all tests that `make test` promises
#   run.sh fuzz 20s      each fuzz target for that long
set -euo pipefail
cd "$(dirname "$0")/.."
GO=${GO:-go}
export CGO_ENABLED=${CGO_ENABLED:-0}

left_out() { printf 'left out: %s\n' "$*"; }

# can_namespace: may this user make the namespaces that the lab and the executors' tests need?
can_namespace() { unshare --user --map-root-user --mount --net --pid --fork true 2>/dev/null || { [ "$(id -u)" = 0 ] && unshare --mount --net --pid --fork true 2>/dev/null; }; }

case "${1:-test}" in
test)
  packages=$($GO list ./... | grep -v '/test/e2e$')
  $GO test -count=1 -timeout 20m $packages
  if [ "$(uname -s)" != Linux ]; then
    left_out "test/e2e: the lab needs Linux namespaces, this is $(uname -s)"
  elif ! can_namespace; then
    left_out "test/e2e: this kernel or user may not make namespaces (try as root)"
  else
    make -s build
    $GO test ./test/e2e -count=1 -timeout 40m -v -short
  fi
  ;;
fuzz)
  time=${2:-20s}
  for pkg in $($GO list ./...); do
    for f in $($GO test "$pkg" -list '^Fuzz' 2>/dev/null | grep '^Fuzz' || true); do
      echo "fuzz $pkg $f for $time"
      $GO test "$pkg" -run '^$' -fuzz "^$f\$" -fuzztime "$time"
    done
  done
  ;;
*) echo "usage: run.sh test | fuzz [TIME]" >&2; exit 2 ;;
esac
