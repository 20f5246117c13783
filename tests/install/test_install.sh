#!/usr/bin/env bash
# The installed package as a user has it: a program built with pkg-config alone trains by itself, under trainrun and under
# mpirun, to the same bits; CMake finds the package; the tree works after it was moved.
set -uo pipefail

prefix=$TMPDIR/prefix
count=0 failed=0
check() { # check NAME COMMAND...: the command's output is shown when it fails
  local name=$1
  shift
  count=$((count + 1))
  if "$@" >"$TMPDIR/said" 2>&1; then
    echo "ok - $name"
  else
    echo "not ok - $name (exit $?)"
    sed 's/^/# /' "$TMPDIR/said" | tail -n 20
    failed=1
  fi
}
# The value of a member of a run's only summary.
member() { python3 -c 'import glob, json, sys
print(json.load(open(glob.glob(sys.argv[1] + "/runs/*/*/summary.json")[0]))[sys.argv[2]])' "$1" "$2"; }
same_bits() { # same_bits NAME: as the program that ran by itself
  local alone
  alone=$(member "$TMPDIR/alone" params_crc32c)
  [ -n "$alone" ] && [ "$alone" = "$(member "$TMPDIR/$1" params_crc32c)" ]
}

if grep -q '^TRAINRUN_SANITIZE:[A-Z]*=.' "$TRAINRUN_BUILD_DIR/CMakeCache.txt"; then
  echo "a sanitized library is not for installing"
  exit 77
fi
echo "1..11"
check "installs" cmake --install "$TRAINRUN_BUILD_DIR" --prefix "$prefix"
# A first place, to be left: everything must find its parts from where it stands.
mv "$prefix" "$TMPDIR/moved" && prefix=$TMPDIR/moved
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
check "the command says its version after the move" "$prefix/bin/trainrun" --version

work=$TMPDIR/work
mkdir -p "$work"
cp "$TRAINRUN_SOURCE_DIR"/examples/regression/* "$work/"
read -ra flags <<<"$(pkg-config --cflags --libs trainrun)"
check "a program compiles with pkg-config alone" \
  cc -std=c17 -O2 -o "$work/mine" "$work/regression.c" "${flags[@]}" -lm -Wl,-rpath,"$prefix/lib"

train() { # train NAME COMMAND...: in a folder of its own, whose run is then looked at
  mkdir -p "$TMPDIR/$1"
  cd "$TMPDIR/$1" && shift && timeout 120 "$@"
}
small=(--set train.epochs=5)
sed -i 's/^epochs *=.*/epochs = 5/' "$work/job.toml"
check "it trains by itself" train alone "$work/mine" "$work/job.toml"
check "it trains under trainrun" train launched "$prefix/bin/trainrun" --workers 2 "${small[@]}" --set "program=$work/mine" \
  "$work/job.toml"
if command -v mpirun >/dev/null && [ -e "$prefix/lib/libtrainrun_mpi.so" ]; then
  check "it trains under mpirun" train mpi mpirun --oversubscribe -np 2 "$work/mine" "$work/job.toml"
  check "mpirun gives the same bits" same_bits mpi
else
  echo "ok - it trains under mpirun # SKIP no mpirun or no MPI module here"
  echo "ok - mpirun gives the same bits # SKIP no mpirun or no MPI module here"
fi
done_once() { [ "$(member "$TMPDIR/alone" status)" = "done" ]; }
check "its summary says done" done_once
check "trainrun gives the same bits" same_bits launched

check "an example compiles as C++17" \
  c++ -x c++ -std=c++17 -Wall -Wextra -Werror -o "$work/loop" "$TRAINRUN_SOURCE_DIR/examples/bring_your_own_loop.c" -x none \
  "${flags[@]}" -lm -Wl,-rpath,"$prefix/lib"

mkdir -p "$TMPDIR/cmake"
cat >"$TMPDIR/cmake/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.13)
project(mine C)
find_package(trainrun 0.1 REQUIRED)
add_executable(mine main.c)
target_link_libraries(mine PRIVATE trainrun::trainrun m)
END
cp "$work/regression.c" "$TMPDIR/cmake/main.c"
by_cmake() {
  cmake -S "$TMPDIR/cmake" -B "$TMPDIR/cmake/build" -DCMAKE_PREFIX_PATH="$prefix" && cmake --build "$TMPDIR/cmake/build"
}
check "CMake finds the package" by_cmake
exit $failed
