#!/usr/bin/env bash
# The set-up script on machines that lack things: it installs, says the exact line, or says what is needed.
set -uo pipefail

setup=$TRAINRUN_SOURCE_DIR/scripts/setup
failed=0
check() { # check NAME CONDITION...
  local name=$1
  shift
  if "$@"; then echo "ok - $name"; else echo "not ok - $name"; failed=1; fi
}
has() { grep -qF -- "$1" "$TMPDIR/said"; }

# A folder of commands that knows no compiler, no CMake and, at first, no apt-get.
bin=$TMPDIR/bin
mkdir -p "$bin"
for command in bash env cut sort tr sed grep mktemp rm tail printf cat; do
  ln -s "$(command -v $command)" "$bin/$command"
done
run() { env -i PATH="$bin" TMPDIR="$TMPDIR" "$bin/bash" "$setup" "$@" >"$TMPDIR/said" 2>&1 </dev/null; }
user() { printf '#!/bin/sh\necho %s\n' "$1" >"$bin/id"; chmod +x "$bin/id"; }

echo 1..8
user 1000
run build
status=$?
check "another distribution: stops with 69" [ $status = 69 ]
check "another distribution: names what is needed" has "toml++ 3"

printf '#!/bin/sh\necho "$@" >>"%s"\nexit 1\n' "$TMPDIR/calls" >"$bin/apt-get"
chmod +x "$bin/apt-get"
run build
status=$?
check "an ordinary user without sudo: stops with 69" [ $status = 69 ]
check "an ordinary user without sudo: reads the exact line" has "apt-get install -y --no-install-recommends build-essential cmake"
check "an ordinary user without sudo: nothing was started" [ ! -e "$TMPDIR/calls" ]

user 0
run build
status=$?
check "root, and apt-get fails: stops with 69" [ $status = 69 ]
check "root: apt-get was asked to install" grep -q "^install .*build-essential" "$TMPDIR/calls"
run nonsense
check "an unknown purpose is a usage error" [ $? = 2 ]
exit $failed
