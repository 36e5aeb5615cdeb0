#!/usr/bin/env bash
# Measures every bar in one go and prints them in one table. A bar that is missed is no failure; one that could not be
# measured is.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
# shellcheck source=scripts/prepare.sh
. scripts/prepare.sh

# part | name | bench | what | bar, one bar a line.
BARS=benches/bars.txt
PAGE=BENCHMARKS.md
BEGIN='<!-- All bars: written by ./bench.sh --write. -->'
END='<!-- The end of all bars. -->'

usage() {
  cat <<'TEXT'
Usage: ./bench.sh [--quick] [--write] [BENCH...]
       ./bench.sh --list | --table FILE [--write] | --help

  (nothing)     installs what is needed, builds for release, runs every bench and prints a table of all bars;
                about an hour on two cores that have nothing else to do
  BENCH...      these only, by the names in the third column of --list: figures etcd api scheduler controllers node ...
  --quick       the short form of each bench: shows that everything works, its figures mean little
  --write       puts the table into BENCHMARKS.md, too
  --list        every bar, and which bench measures it
  --table FILE  the table of what an earlier run has kept in FILE

Environment:
  CARGO_TARGET_DIR  where cargo builds; default ~/.cache/k3sd/target, outside the clone
  K3SD_BINARY       the binary to measure; default the release build of this clone
TEXT
}

quick=false write=false table='' wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=true ;;
    --write) write=true ;;
    --list) sed 's/^# *//' "$BARS"; exit 0 ;;
    --table) table=${2:-}; [ -r "$table" ] || die "--table needs a file that an earlier run has kept"; shift ;;
    --help | -h) usage; exit 0 ;;
    -*) echo "bench.sh: unknown flag $1" >&2; usage >&2; exit 2 ;;
    *) wanted+=("$1") ;;
  esac
  shift
done
if $quick && $write; then die "--quick measures nothing worth writing down"; fi

# "package bench" of every bench with bars, once each, in the order of the bars.
benches() { awk -F ' [|] ' '!/^#/ && !seen[$3]++ { print $3 }' "$BARS"; }

for name in "${wanted[@]}"; do
  benches | grep -q " $name\$" || die "there is no bench $name; --list shows them"
done

# is_wanted BENCH: whether it is to be run, which all are if none is named.
is_wanted() {
  local name
  [ ${#wanted[@]} -gt 0 ] || return 0
  for name in "${wanted[@]}"; do [ "$name" != "$1" ] || return 0; done
  return 1
}

# make_table LINES BENCHES: the table of all bars of those benches (all, if none is named). Fails if one of them wasn't
# measured, or is not what the list of bars says.
make_table() {
  awk -v benches="$2" '
    BEGIN {
      count = split(benches, names, " ")
      for (i = 1; i <= count; i++) chosen[names[i]] = 1
      print "| part | what | bar | measured | ratio | |"
      print "|---|---|---|---|---|---|"
    }
    # The lines of the benches: name, bar, ours, what it is compared with, ratio, verdict.
    FILENAME == ARGV[1] {
      split($0, field, "\t")
      measured[field[1]] = $0
      next
    }
    /^#/ { next }
    {
      split($0, field, / [|] /)
      part = field[1]; name = field[2]; what = field[4]; bar = field[5]
      split(field[3], place, " ")
      listed[name] = 1
      if (count && !(place[2] in chosen)) next
      if (!(name in measured)) {
        missing++
        printf "| %s | %s | %s | - | - | not measured |\n", part, what, bar
        next
      }
      split(measured[name], line, "\t")
      # A bar may be followed by what it comes to in this run.
      if (index(line[2], bar) != 1) complaints = complaints sprintf("%s: the list says \"%s\" and the bench \"%s\"\n", name, bar, line[2])
      value = line[3]
      if (line[4] != "-") value = value " beside " line[4]
      printf "| %s | %s | %s | %s | %s | %s |\n", part, what, line[2], value, line[5], line[6]
      if (line[6] == "pass") passed++; else short++
    }
    END {
      for (name in measured) if (!(name in listed)) complaints = complaints sprintf("%s: no such bar in the list\n", name)
      printf "\n%d pass, %d fall short, %d not measured\n", passed, short, missing
      if (complaints != "") printf "%s", complaints > "/dev/stderr"
      exit (missing > 0 || complaints != "")
    }' "$1" "$BARS"
}

# write_page FILE: puts it between the two marks of the page.
write_page() {
  local mark
  for mark in "$BEGIN" "$END"; do grep -qxF "$mark" "$PAGE" || die "$PAGE lacks the line \"$mark\""; done
  awk -v begin="$BEGIN" -v end="$END" -v file="$1" '
    $0 == end { inside = 0 }
    !inside { print }
    $0 == begin { inside = 1; print ""; while ((getline line < file) > 0) print line; print "" }' "$PAGE" >"$PAGE.new" &&
    mv "$PAGE.new" "$PAGE" && echo "written to $PAGE"
}

# show LINES: prints the table, and writes it where that was asked for.
show() {
  local code=0 page
  page=$(mktemp) || die "no temporary file"
  printf '\n'
  make_table "$1" "${wanted[*]}" >"$page" || code=1
  cat "$page"
  if [ -r "$1.machine" ]; then
    { printf '\n'; cat "$1.machine"; } | tee -a "$page"
  fi
  ! $write || write_page "$page"
  rm -f "$page"
  return "$code"
}

if [ -n "$table" ]; then
  show "$table"
  exit
fi

# ---- The run ----

install_packages
check_toolchain
# Where benches/table.rs adds a line for each bar.
lines=$CARGO_TARGET_DIR/tmp/bars.tsv
mkdir -p "$CARGO_TARGET_DIR/tmp"
: >"$lines"
if [ -z "${K3SD_BINARY:-}" ]; then
  cargo ship || die "the release build failed"
  # A copy: benches of the same package have cargo build the program once more, as benches are built, in the same place.
  export K3SD_BINARY=$CARGO_TARGET_DIR/tmp/k3sd
  cp "$CARGO_TARGET_DIR/release/k3sd" "$K3SD_BINARY" || die "there is no release build"
fi

# Where cargo says what it has built, a line of JSON for each.
built=$CARGO_TARGET_DIR/tmp/benches.json

# build_benches "PACKAGE BENCH"...: in one go, since each selection of benches has dependencies with features of its own. Only
# the runtime's are for themselves: one shares its name with another crate's, and the runtime has hardly any dependencies.
build_benches() {
  local one runtime=() others=() build=(cargo bench --locked --no-run --message-format json-render-diagnostics)
  for one in "$@"; do
    if [ "${one% *}" = k3sd-runtime ]; then runtime+=(--bench "${one#* }"); else others+=(--bench "${one#* }"); fi
  done
  : >"$built"
  if [ ${#runtime[@]} -gt 0 ]; then "${build[@]}" --package k3sd-runtime "${runtime[@]}" >>"$built" || return; fi
  if [ ${#others[@]} -gt 0 ]; then "${build[@]}" --workspace "${others[@]}" >>"$built" || return; fi
}

# run_bench "PACKAGE BENCH" ARGUMENT...: as cargo would.
run_bench() {
  local line manifest program
  line=$(grep "\"package_id\":\"[^\"]*[/#]${1% *}[#@].*\"name\":\"${1#* }\".*\"executable\":\"" "$built") || die "no bench $1 was built"
  manifest=${line##*'"manifest_path":"'} program=${line##*'"executable":"'}
  shift
  (cd "$(dirname "${manifest%%\"*}")" && "${program%%\"*}" --bench "$@" </dev/null)
}

# processor_times: what was worked, and what was to be worked while the host gave the processors to others; in ticks.
processor_times() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8, $9 }' /proc/stat; }

# stolen_since TIMES: the share of work since then that had to wait for others, in per cent.
stolen_since() {
  printf '%s %s\n' "$1" "$(processor_times)" | awk '{ all = $3 - $1 + $4 - $2; printf "%.0f", all ? ($4 - $2) * 100 / all : 0 }'
}

chosen=()
while IFS= read -r one; do
  ! is_wanted "${one#* }" || chosen+=("$one")
done < <(benches)
build_benches "${chosen[@]}" || die "the benches do not build"
{
  $quick && printf 'Quick forms: these figures mean little. '
  printf 'Commit %s, %s; %s cores, Linux %s, load %s at the start.\n' \
    "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(date --utc +%F)" \
    "$(nproc)" "$(uname -r)" "$(cut -d' ' -f1 /proc/loadavg)"
} >"$lines.machine"
flags=()
! $quick || flags=(--quick)
failed='' stolen=''
for one in "${chosen[@]}"; do
  started=$SECONDS times=$(processor_times)
  printf '\n=== %s\n' "${one#* }"
  run_bench "$one" "${flags[@]}" || failed="$failed ${one#* }"
  share=$(stolen_since "$times")
  printf -- '--- %d s, %d %% of the processors went to others\n' $((SECONDS - started)) "$share"
  stolen="$stolen, ${one#* } $share %"
done
printf 'What other guests of the host took of the processors that were wanted: %s.\n' "${stolen#, }" >>"$lines.machine"
show "$lines"
code=$?
echo "kept in $lines"
[ -z "$failed" ] || die "these failed:$failed"
exit "$code"
