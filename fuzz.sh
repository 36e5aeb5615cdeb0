#!/usr/bin/env bash
# Throws arbitrary input at what reads requests: `./fuzz.sh [SECONDS]`, so long for each target. Coverage needs a nightly
# compiler; without one it says so, and is content.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/actors/objects/fuzz"

seconds=${1:-20}
if ! rustc +nightly --version 2>/dev/null; then
  echo "fuzzing: left out, there is no nightly compiler (rustup toolchain install nightly)"
  exit 0
fi
if ! command -v g++ >/dev/null; then
  echo "fuzzing: left out, there is no C++ compiler (Debian: g++)"
  exit 0
fi
# What cargo-fuzz sets, without the sanitizer: there is no unsafe code of ours that it could find fault with.
export RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1'
RUSTFLAGS=${RUSTFLAGS//$'\n'/ }
target=$(rustc +nightly -vV | sed -n 's/^host: //p')
place=${CARGO_TARGET_DIR:-target}/fuzz
cargo +nightly build --release --locked --target "$target" --target-dir "$place"
for name in decode patch selector; do
  corpus=$place/corpus/$name
  mkdir -p "$corpus"
  echo "fuzzing: $name for $seconds s"
  # Inputs are small: deep nesting fits, and a slow parser shows.
  "$place/$target/release/$name" -max_total_time="$seconds" -max_len=4096 -timeout=5 -rss_limit_mb=1024 \
    -artifact_prefix="$place/$name-" -print_final_stats=1 "$corpus" 2>&1 | tail -n 12
done
