#!/usr/bin/env bash
# Installs what the tests need, then runs all of them. The exit code is the answer.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh
# shellcheck source=scripts/vm.sh
. scripts/vm.sh

# The Python client that tries the API, of the Kubernetes that is served.
PYTHON_CLIENT='kubernetes==34.*'

# A step that takes longer hangs: with nothing built before, and other work beside it, the release took half an hour on two
# cores. Everything together has to stay below CI's 90 minutes.
STEP_LIMIT_SECONDS=${STEP_LIMIT_SECONDS:-2400}
# When all of it has to be over: what hangs is stopped then, and steps that are left do not start. For a machine that would
# otherwise stop the whole run without a word of what it was at.
TOTAL_LIMIT_SECONDS=${TOTAL_LIMIT_SECONDS:-0}

usage() {
  cat <<'TEXT'
Usage: ./test.sh [--fast | --long] [--vm] [--help]

  (nothing)  format, lints, all tests, release build, chaos tests on the real binary
  --fast     format, lints and unit tests only
  --long     as without a flag, with many more random schedules and chaos rounds
  --vm       tests in a virtual machine only: systemd, cgroups v2, logind, NFS, SCTP
  --help     this text

Environment:
  CARGO_TARGET_DIR    where cargo builds; default ~/.cache/k3sd/target, outside the clone
  CHAOS_SEED, K3SD_MODEL_SEED
                      replay one seed of the chaos tests or of the supervision model; a failure prints it
  STEP_LIMIT_SECONDS  how long one step may take, default 2400
  TOTAL_LIMIT_SECONDS how long all of it may take; default 0, which is without limit
TEXT
}

fast=false vm=false
while [ $# -gt 0 ]; do
  case $1 in
    --fast) fast=true ;;
    --long) export CHAOS_LONG=1 STEP_LIMIT_SECONDS=14400 ;;
    --vm) vm=true ;;
    --help | -h) usage; exit 0 ;;
    *) echo "test.sh: unknown flag $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

# ---- What has to be there, beside what scripts/prepare.sh brings ----

# The Python client, in a place of its own. Without it its tests are reported as ignored.
install_python_client() {
  local place=${XDG_CACHE_HOME:-$HOME/.cache}/k3sd/python
  export K3SD_TEST_PYTHON=$place/bin/python
  if ! "$K3SD_TEST_PYTHON" -c 'import kubernetes' 2>/dev/null; then
    rm -rf "$place"
    python3 -m venv "$place" && "$place/bin/pip" install --quiet --disable-pip-version-check "$PYTHON_CLIENT" ||
      echo "the Python client could not be installed"
  fi
  echo "Python client: $("$K3SD_TEST_PYTHON" -c 'import kubernetes; print(kubernetes.__version__)' 2>/dev/null || echo none)"
}

# The newest containerd and runc of Debian's, beside the machine's own: pods have users of their own only with these. They
# are unpacked and not installed, with the C library they were built for. Without them their tests are not run again.
install_second_engine() {
  local place=${XDG_CACHE_HOME:-$HOME/.cache}/k3sd/engine
  second_engine=$place/usr/bin
  if ! "$second_engine/runc" --version >/dev/null 2>&1; then
    rm -rf "$place"
    fetch_second_engine "$place"
    "$second_engine/runc" --version >/dev/null 2>&1 || rm -rf "$place"
  fi
  echo "second engine: $("$second_engine/containerd" --version 2>/dev/null || echo none)"
}

fetch_second_engine() (
  set -e
  mkdir -p "$1"/{packages,lists,cache}
  cd "$1/packages"
  echo 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian testing main' >../list
  options=(-o "Dir::Etc::sourcelist=$1/list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$1/lists"
    -o "Dir::Cache=$1/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update >/dev/null
  apt-get "${options[@]}" download {containerd,runc,libc6,libseccomp2}/testing >/dev/null
  for package in *.deb; do dpkg-deb -x "$package" "$1"; done
  rm -r "$1"/{packages,lists,cache}
  library=$(dirname "$(find "$1/usr/lib" -name libseccomp.so.2)")
  runc=$(readlink -f "$1/usr/bin/runc")
  patchelf --set-interpreter "$library/ld-linux-x86-64.so.2" --set-rpath "$library" "$runc"
)

# OpenRC's packages, which a test of install.sh unpacks on a machine of its own. Without them that test is ignored.
fetch_openrc() {
  export K3SD_TEST_OPENRC=${XDG_CACHE_HOME:-$HOME/.cache}/k3sd/openrc
  if [ ! -d "$K3SD_TEST_OPENRC" ]; then
    rm -rf "$K3SD_TEST_OPENRC.new"
    mkdir -p "$K3SD_TEST_OPENRC.new"
    (cd "$K3SD_TEST_OPENRC.new" && apt-get -o APT::Sandbox::User=root download openrc librc1 libeinfo1 insserv >/dev/null) &&
      mv "$K3SD_TEST_OPENRC.new" "$K3SD_TEST_OPENRC"
  fi
  [ -d "$K3SD_TEST_OPENRC" ] && echo "OpenRC: $(basename "$K3SD_TEST_OPENRC"/openrc_*.deb)" || echo "OpenRC: none"
}

check_formatters() {
  cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing: rustup component add rustfmt"
  cargo clippy --version >/dev/null 2>&1 || die "clippy is missing: rustup component add clippy"
}

# ---- Running steps ----

step_names=() step_seconds=() step_results=()
logs=$(mktemp -d) || die "no temporary directory"
job='' watchdog=''
cleanup() {
  # Each step is a process group of its own, so an interrupt or a time-out leaves no test binary behind.
  [ -z "$watchdog" ] || kill -KILL -- "-$watchdog" 2>/dev/null
  [ -z "$job" ] || kill -TERM -- "-$job" 2>/dev/null
  rm -rf "$logs" "$logs.beside"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
set -m

# step NAME COMMAND...: runs it, shows and keeps its output, notes time and outcome. Later steps run whatever happens.
step() {
  local name=$1 started=$SECONDS limit=$STEP_LIMIT_SECONDS code seconds
  shift
  if [ "$TOTAL_LIMIT_SECONDS" -gt 0 ] && [ $((TOTAL_LIMIT_SECONDS - started)) -lt "$limit" ]; then
    limit=$((TOTAL_LIMIT_SECONDS - started))
  fi
  if [ "$limit" -le 0 ]; then
    step_names+=("$name") step_seconds+=(0) step_results+=("FAILED (not run: no time was left)")
    return
  fi
  printf '\n=== %s: %s\n' "$name" "$*"
  (
    set -o pipefail
    "$@" 2>&1 | tee "$logs/${#step_names[@]}"
  ) &
  job=$!
  (
    sleep "$limit"
    kill -TERM -- "-$job"
    sleep 5
    kill -KILL -- "-$job"
  ) 2>/dev/null &
  watchdog=$!
  disown "$watchdog"
  wait "$job"
  code=$?
  kill -KILL -- "-$watchdog" 2>/dev/null
  job='' watchdog=''
  seconds=$((SECONDS - started))
  step_names+=("$name") step_seconds+=("$seconds")
  if [ $code -eq 0 ]; then
    step_results+=(ok)
  elif [ $seconds -ge "$limit" ]; then
    step_results+=("FAILED (hung: stopped after $limit s)")
  else
    step_results+=("FAILED ($code)")
  fi
  printf -- '--- %s: %s in %d s\n' "$name" "${step_results[-1]}" "$seconds"
}

# find_tests FOLDER...: sets `tests` to the flags that pick the integration tests of the crates in there, by name and from
# the whole workspace: picking crates would build their dependencies a second time, with other features.
find_tests() {
  local file name
  tests=()
  while IFS= read -r file; do
    name=${file##*/tests/} name=${name%/main.rs}
    tests+=(--test "${name%.rs}")
  done < <(find "$@" ! -path '*/src/*' \( -path '*/tests/*/main.rs' -o -path '*/tests/*.rs' ! -path '*/tests/*/*' \))
}

# Runs the chaos tests in two rows beside each other, since drills on the real binary wait half of the time: those that
# play a cluster inside their own process, and those that need the machine. What the former said follows at the end.
run_chaos() {
  local one beside code=0 simulated=() real=()
  local run=(cargo test --no-fail-fast --workspace --locked) flags=(--show-output --include-ignored)
  find_tests chaos-tests
  for one in "${tests[@]}"; do
    case $one in
      --test) ;;
      loops_* | chaos_cluster | cache_kills) simulated+=(--test "$one") ;;
      *) real+=(--test "$one") ;;
    esac
  done
  "${run[@]}" --no-run "${tests[@]}" || return
  "${run[@]}" "${simulated[@]}" -- "${flags[@]}" >"$logs.beside" 2>&1 &
  beside=$!
  "${run[@]}" "${real[@]}" -- "${flags[@]}" || code=$?
  wait "$beside" || code=$?
  cat "$logs.beside"
  return "$code"
}

# One pass over the kept output. A test that an early step ignores and a later one runs counts as run; a name is told
# apart by the binary it lives in, which cargo announces before running it. Tests that find out while they run that the
# machine lacks something say so, and count as ignored.
summarise_tests() {
  cat "$logs"/* 2>/dev/null | sed 's/\x1b\[[0-9;]*m//g' | awk '
    /^ +Running / { binary = $NF }
    /^ +Doc-tests / { binary = $NF }
    /^test .* \.\.\. / {
      name = $0; sub(/^test /, "", name); sub(/ \.\.\. .*$/, "", name)
      outcome = $0; sub(/^.* \.\.\. /, "", outcome)
      if (outcome ~ /^FAILED/) broken[binary " " name] = 1
      if (outcome ~ /^ignored/) { sub(/^ignored(, )?/, "", outcome); left[binary " " name] = outcome }
      else ran[binary " " name] = 1
    }
    # What tests that passed have said comes below "successes:".
    /^(successes|failures):$/ { shows = /^successes/; shown = ""; next }
    shows && /^---- .* stdout ----$/ { shown = binary " " $2; next }
    shown != "" && /^ignored: / {
      outcome = $0; sub(/^ignored: /, "", outcome)
      left[shown] = outcome; delete ran[shown]
      passed--; shown = ""
    }
    /^test result:/ {
      shows = 0; shown = ""
      for (i = 1; i < NF; i++) {
        if ($(i + 1) ~ /^passed/) passed += $i
        if ($(i + 1) ~ /^failed/) failed += $i
      }
    }
    END {
      for (key in left) if (!(key in ran)) {
        ignored++
        name = key; sub(/^[^ ]* /, "", name)
        printf "ignored: %s: %s\n", name, (left[key] == "" ? "no reason given" : left[key])
      }
      for (key in broken) printf "failed: %s\n", key
      printf "%d passed, %d failed, %d ignored\n", passed, failed, ignored
    }'
}

report() {
  local i failed=0
  printf '\n=== Summary\n'
  for i in "${!step_names[@]}"; do
    printf '%-28s %6d s  %s\n' "${step_names[i]}" "${step_seconds[i]}" "${step_results[i]}"
    [ "${step_results[i]}" = ok ] || failed=1
  done
  printf '%-28s %6d s\n' total "$SECONDS"
  summarise_tests
  return $failed
}

# ---- The run ----

if $vm; then
  echo "=== Preparation"
  install_packages
  check_toolchain
  prepare_vm
  [ -n "${K3SD_VM:-}" ] || exit 0
  export K3SD_BINARY="$CARGO_TARGET_DIR/release/k3sd"
  # Without help of the processor everything in there takes its time.
  export STEP_LIMIT_SECONDS=3600
  step "release build" cargo ship
  step "virtual machine" cargo test --no-fail-fast --workspace --locked --test vm -- --show-output --test-threads=1
  report
  exit
fi

echo "=== Preparation"
$fast || PACKAGES+=(patchelf)
install_packages
$fast || install_python_client
second_engine=/nonexistent
$fast || install_second_engine
$fast || fetch_openrc
check_toolchain
check_formatters

step "scripts" shellcheck -x test.sh bench.sh install.sh fuzz.sh .ci/run
step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --locked -- -D warnings
step "unit tests" cargo test --no-fail-fast --workspace --locked --lib --bins -- --show-output
if ! $fast; then
  # What is marked as ignored needs the right to mount.
  may_mount=()
  unshare --mount true 2>/dev/null && may_mount=(--include-ignored)
  find_tests runtime datastore netlink actors
  step "integration tests" \
    cargo test --no-fail-fast --workspace --locked "${tests[@]}" -- --show-output "${may_mount[@]}"
  step "documentation tests" cargo test --no-fail-fast --workspace --locked --doc
  step "fuzzing" ./fuzz.sh 10
  step "release build" cargo ship
  # A plain `cargo test` drills the debug binary; here it is the one that ships. `--include-ignored` is for what only
  # makes sense with that one.
  export K3SD_BINARY="$CARGO_TARGET_DIR/release/k3sd"
  step "chaos on the real binary" run_chaos
  if [ -x "$second_engine/runc" ]; then
    step "newest containerd" env PATH="$second_engine:$PATH" \
      cargo test --no-fail-fast --workspace --locked --test node --test node_pods -- --show-output
    step "users of pods" env PATH="$second_engine:$PATH" \
      cargo test --no-fail-fast --workspace --locked --test node_server -- --show-output pods_may_have_users
  fi
  # That the measurement works, not what it finds: the machine that runs the tests has other things to do.
  step "datastore beside etcd" cargo test --workspace --locked --bench etcd -- --quick
  step "API beside a bare server" cargo test --workspace --locked --bench api -- --quick
fi
report
