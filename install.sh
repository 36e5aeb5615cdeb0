#!/bin/sh
# Builds k3sd from this clone, or takes the built k3sd that lies beside this script, installs it, starts it and waits until
# it is ready:   sudo ./install.sh [command flags]
# Running it again upgrades. Settings are K3s's INSTALL_K3S_* variables; ./install.sh --help says what each does.
set -eu

SOURCE=$(cd "$(dirname "$0")" && pwd)

# Debian packages for building: the linker named in .cargo/config.toml, what rustc links with, the compiler of
# the .proto files, and the registry's roots.
PACKAGES="mold gcc libc6-dev protobuf-compiler ca-certificates"

# Debian packages for running pods: the container engine, and a client to try the cluster with. A program that is on PATH
# already, or below the data directory, takes the place of its package.
ENGINE_PACKAGES="containerd runc"
CLIENT_PACKAGE=kubernetes-client

# Stands in every file this script writes. A file without it belongs to somebody else and is never touched.
MARK="Written by k3sd's install.sh"

# How long a start may take before it counts as failed.
READY_LIMIT_SECONDS=60

usage() {
  cat <<'TEXT'
Usage: sudo ./install.sh [command and flags of k3sd; default: server]

Environment:
  INSTALL_K3S_EXEC             command and flags, before those given as arguments
  INSTALL_K3S_NAME             the service is called k3s-NAME instead of k3s (k3s-agent for agents)
  INSTALL_K3S_BIN_DIR          where the binary and its scripts go; default /usr/local/bin, or /opt/bin where that is read-only
  INSTALL_K3S_BIN_DIR_READ_ONLY
                               true: write nothing there, use the k3sd that is there; no links and no scripts
  INSTALL_K3S_SYSTEMD_DIR      where the unit goes; default /etc/systemd/system
  INSTALL_K3S_TYPE             type of the systemd unit; default notify
  INSTALL_K3S_SYMLINK          kubectl, crictl, ctr: made when no such command exists; skip: never, force: always
  INSTALL_K3S_SKIP_DOWNLOAD    true or binary: do not build, use the k3sd that is in the bin directory
  INSTALL_K3SD_BINARY          do not build, install this file; default the file k3sd beside this script, if it is no clone
  INSTALL_K3S_SKIP_ENABLE      true: install only; neither enable nor start the service
  INSTALL_K3S_SKIP_START       true: enable the service, but do not start it
  INSTALL_K3S_FORCE_RESTART    true: restart even when nothing has changed
  INSTALL_K3S_SKIP_SELINUX_RPM, INSTALL_K3S_SELINUX_WARN
                               true: do not warn that there is no policy for SELinux, where that is enforced
  INSTALL_K3S_VERSION, _COMMIT, _PR, _ARTIFACT_URL
                               refused: there is nothing to download; check out what is to be built
  INSTALL_K3S_CHANNEL, _CHANNEL_URL
                               without effect, for the same reason
  K3S_URL                      makes this an agent of that server; needs K3S_TOKEN or K3S_TOKEN_FILE
  K3S_*, K3SD_*, CONTAINERD_*, KINE_*, proxy settings
                               kept for the service in its environment file
  CARGO_TARGET_DIR             where cargo builds; default ~/.cache/k3sd/target of the building user
TEXT
}

say() { printf '%s\n' "k3sd: $*"; }
warn() { printf '%s\n' "k3sd: warning: $*" >&2; }
die() { printf '%s\n' "k3sd: error: $*" >&2; exit 1; }

# ---- What was asked for ----

# words TEXT: its words, one per line, quotes honoured and nothing executed.
words() { [ -z "$1" ] || printf '%s' "$1" | xargs printf '%s\n'; }

# Sets ARGUMENTS (one per line), COMMAND, UNIT and all directories.
read_settings() {
  [ "$(id -u)" -eq 0 ] || die "must run as root: sudo ./install.sh"
  words "${INSTALL_K3S_EXEC:-}" >/dev/null || die "INSTALL_K3S_EXEC has an unmatched quote: $INSTALL_K3S_EXEC"
  ARGUMENTS=$(words "${INSTALL_K3S_EXEC:-}"; for word in "$@"; do printf '%s\n' "$word"; done)
  case ${K3S_URL:-https://} in
    https://*) ;;
    *) die "K3S_URL must begin with https://, and is $K3S_URL" ;;
  esac
  COMMAND=$(printf '%s\n' "$ARGUMENTS" | head -n 1)
  case $COMMAND in
    '' | -*)
      COMMAND=server
      [ -z "${K3S_URL:-}" ] || COMMAND=agent
      ARGUMENTS=$(printf '%s\n%s' "$COMMAND" "$ARGUMENTS")
      ;;
  esac
  if [ "$COMMAND" = agent ]; then
    [ -n "${K3S_TOKEN:-}${K3S_TOKEN_FILE:-}" ] || [ -z "${K3S_URL:-}" ] || die "K3S_URL needs K3S_TOKEN or K3S_TOKEN_FILE"
  fi
  HAS_NODE=false
  if [ "$COMMAND" = server ] && ! printf '%s\n' "$ARGUMENTS" | grep -q '^--disable-agent'; then
    HAS_NODE=true
  fi

  if [ -n "${INSTALL_K3S_NAME:-}" ]; then
    UNIT=k3s-$INSTALL_K3S_NAME
  elif [ "$COMMAND" = server ]; then
    UNIT=k3s
  else
    UNIT=k3s-$COMMAND
  fi
  case $UNIT in *[!A-Za-z0-9@_.-]*) die "INSTALL_K3S_NAME: $UNIT cannot be the name of a service" ;; esac

  find_bin_dir
  SYSTEMD_DIR=${INSTALL_K3S_SYSTEMD_DIR:-/etc/systemd/system}
  BINARY=$BIN_DIR/k3sd
  KILLALL=$BIN_DIR/k3s-killall.sh
  UNINSTALL=$BIN_DIR/$UNIT-uninstall.sh
  START=$BIN_DIR/$UNIT-start.sh
  ! $BIN_DIR_READ_ONLY || START=/etc/rancher/k3s/$UNIT-start.sh
  PID_FILE=/run/k3s/$UNIT.pid
  LOG_FILE=/var/log/$UNIT.log
  if [ "$UNIT" = k3s ]; then
    PID_FILE=/run/k3s/k3sd.pid
    LOG_FILE=/var/log/k3sd.log
  fi
  # Panics, and whatever is said before logging is set up.
  STDERR_FILE=${LOG_FILE%.log}-stderr.log

  if [ -d /run/systemd/system ] && command -v systemctl >/dev/null; then
    INIT=systemd
    UNIT_FILE=$SYSTEMD_DIR/$UNIT.service
    ENV_FILE=$SYSTEMD_DIR/$UNIT.service.env
  elif [ -x /sbin/openrc-run ] && [ -d /run/openrc ]; then
    INIT=openrc
    UNIT_FILE=/etc/init.d/$UNIT
    ENV_FILE=/etc/rancher/k3s/$UNIT.env
  else
    INIT=none
    UNIT_FILE=$START
    ENV_FILE=/etc/rancher/k3s/$UNIT.env
  fi
  find_origin
}

# Sets BIN_DIR and BIN_DIR_READ_ONLY.
find_bin_dir() {
  BIN_DIR_READ_ONLY=false
  [ "${INSTALL_K3S_BIN_DIR_READ_ONLY:-}" != true ] || BIN_DIR_READ_ONLY=true
  BIN_DIR=${INSTALL_K3S_BIN_DIR:-}
  [ -z "$BIN_DIR" ] || return 0
  BIN_DIR=/usr/local/bin
  # Root may write anywhere but to what is mounted read-only.
  if ! $BIN_DIR_READ_ONLY && ! { mkdir -p $BIN_DIR && touch $BIN_DIR/.k3sd.new && rm -f $BIN_DIR/.k3sd.new; } 2>/dev/null; then
    BIN_DIR=/opt/bin
    say "/usr/local/bin is read-only: using $BIN_DIR"
  fi
}

# Sets ORIGIN: where the binary comes from, which is "installed" for one that is there already, "source", or a file.
find_origin() {
  case ${INSTALL_K3S_SKIP_DOWNLOAD:-} in
    true | binary) ORIGIN=installed ;;
    *)
      ORIGIN=${INSTALL_K3SD_BINARY:-}
      if [ -z "$ORIGIN" ] && [ -f "$SOURCE/Cargo.toml" ]; then
        ORIGIN=source
      elif [ -z "$ORIGIN" ]; then
        ORIGIN=$SOURCE/k3sd
      fi
      ;;
  esac
  ! $BIN_DIR_READ_ONLY || ORIGIN=installed
  if [ "$ORIGIN" != installed ]; then
    # Whoever asks for one version is not to get another.
    for refused in VERSION COMMIT PR ARTIFACT_URL; do
      eval "value=\${INSTALL_K3S_$refused:-}"
      [ -z "$value" ] ||
        die "INSTALL_K3S_$refused asks for a download, and there is none: check out what is to be built, or name a file with INSTALL_K3SD_BINARY"
    done
    for ignored in CHANNEL CHANNEL_URL; do
      eval "value=\${INSTALL_K3S_$ignored:-}"
      [ -z "$value" ] || warn "INSTALL_K3S_$ignored has no effect: nothing is downloaded"
    done
  fi
  if [ "${INSTALL_K3S_SKIP_SELINUX_RPM:-}${INSTALL_K3S_SELINUX_WARN:-}" = "" ] &&
    [ "$(getenforce 2>/dev/null || true)" = Enforcing ]; then
    warn "SELinux is enforced, and there is no policy for k3sd: what it starts may be refused"
  fi
}

# Refuses to install over K3s itself, or over anything else that is not ours.
refuse_foreign_files() {
  for file in "$UNIT_FILE" "$KILLALL" "$UNINSTALL"; do
    if [ -e "$file" ] && ! grep -qF "$MARK" "$file"; then
      die "$file exists and is not ours; is K3s itself installed? Uninstall it first, or choose INSTALL_K3S_NAME and INSTALL_K3S_BIN_DIR"
    fi
  done
  if [ -e "$BIN_DIR/k3s" ] && [ "$(readlink "$BIN_DIR/k3s")" != k3sd ]; then
    die "$BIN_DIR/k3s exists and is not ours; is K3s itself installed? Uninstall it first, or choose INSTALL_K3S_BIN_DIR"
  fi
}

# ---- Building ----

# install_packages PACKAGE...: those that are missing.
install_packages() {
  [ $# -gt 0 ] || return 0
  if ! command -v dpkg-query >/dev/null; then
    warn "not Debian: please see to these yourself: $*"
    return
  fi
  missing=
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  say "installing packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # a list of words
  apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 && return
  # The package lists of a fresh machine are empty or old.
  apt-get update >/dev/null || die "apt-get update failed; cannot install:$missing"
  # shellcheck disable=SC2086
  apt-get install -y --no-install-recommends $missing >/dev/null || die "apt-get could not install:$missing"
}

# What a node runs beside k3sd. Debian's service of containerd is of no use to it: k3sd starts one of its own.
install_engine() {
  $HAS_NODE || return 0
  wanted=
  for package in $ENGINE_PACKAGES; do
    command -v "$package" >/dev/null || wanted="$wanted $package"
  done
  if ! command -v kubectl >/dev/null || [ "$(readlink "$(command -v kubectl)")" = k3sd ]; then
    [ -x /usr/bin/kubectl ] || wanted="$wanted $CLIENT_PACKAGE"
  fi
  # shellcheck disable=SC2086 # a list of words
  install_packages $wanted
}

home_of() { getent passwd "$1" | cut -d: -f6; }

# as USER NAME=VALUE... COMMAND...: runs it as that user, without root's idea of where cargo lives.
as() {
  user=$1
  shift
  if [ "$user" = "$(id -un)" ]; then
    env "$@"
  else
    runuser -u "$user" -- env -u CARGO_HOME -u RUSTUP_HOME -u XDG_CACHE_HOME HOME="$(home_of "$user")" "$@"
  fi
}

# Sets BUILDER and CARGO: whoever called sudo, else root, else the owner of the clone, whoever has a toolchain first.
find_toolchain() {
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$SOURCE/Cargo.toml")
  for BUILDER in "${SUDO_USER:-root}" root "$(stat -c %U "$SOURCE")"; do
    id "$BUILDER" >/dev/null 2>&1 || continue
    for CARGO in "$(home_of "$BUILDER")/.cargo/bin/cargo" "$(command -v cargo || true)" /usr/local/cargo/bin/cargo; do
      [ -x "$CARGO" ] || continue
      found=$(as "$BUILDER" "$CARGO" --version 2>/dev/null | cut -d' ' -f2) || continue
      [ -n "$found" ] || continue
      if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ]; then
        return
      fi
      old="$old $BUILDER:$found"
    done
  done
  [ -z "$old" ] || die "the Rust toolchain is too old (found$old, needs $wanted): rustup update stable"
  die "no Rust toolchain found; get one (at least $wanted) from https://rustup.rs and run this again"
}

# place FILE: makes it the binary.
place() {
  if cmp -s "$1" "$BINARY"; then
    say "$BINARY is up to date"
    return
  fi
  mkdir -p "$BIN_DIR"
  # Renamed into place: a running daemon keeps its file, and there is no moment without one.
  install -m 0755 "$1" "$BIN_DIR/.k3sd.new"
  mv -f "$BIN_DIR/.k3sd.new" "$BINARY"
  say "installed $BINARY ($("$BINARY" --version | head -n 1))"
}

bring_binary() {
  case $ORIGIN in
    installed)
      [ -x "$BINARY" ] || die "nothing is to be built or copied, and there is no $BINARY"
      say "using $BINARY as it is"
      ;;
    source) build ;;
    *)
      [ -x "$ORIGIN" ] || die "there is neither a clone around this script nor a program $ORIGIN"
      "$ORIGIN" --version >/dev/null || die "$ORIGIN does not run here"
      place "$ORIGIN"
      ;;
  esac
}

build() {
  # shellcheck disable=SC2086 # a list of words
  install_packages $PACKAGES
  old=
  find_toolchain
  target=${CARGO_TARGET_DIR:-$(home_of "$BUILDER")/.cache/k3sd/target}
  say "building as $BUILDER with cargo $found into $target (a first build takes some minutes)"
  as "$BUILDER" CARGO_TARGET_DIR="$target" PATH="$(dirname "$CARGO"):$PATH" \
    "$CARGO" ship || die "the build failed"
  place "$target/release/k3sd"
}

link_names() {
  ! $BIN_DIR_READ_ONLY || return 0
  link k3s
  [ "${INSTALL_K3S_SYMLINK:-}" != skip ] || return 0
  for name in kubectl crictl ctr; do
    link=$BIN_DIR/$name
    [ "$(readlink "$link" || true)" != k3sd ] || continue
    if [ "${INSTALL_K3S_SYMLINK:-}" = force ]; then
      [ ! -e "$link" ] || warn "replacing $link"
    elif [ -e "$link" ] || command -v "$name" >/dev/null; then
      say "not linking $name: there is one already"
      continue
    fi
    link "$name"
  done
}

# link NAME: another name of the binary, as which it acts.
link() {
  [ "$(readlink "$BIN_DIR/$1" || true)" != k3sd ] || return 0
  ln -sfn k3sd "$BIN_DIR/$1"
  say "linked $BIN_DIR/$1 to k3sd"
}

# ---- The service ----

# For shells and systemd alike: the text in double quotes.
double_quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"$`]/\\&/g')"; }

single_quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

# systemd expands % and $ even in quotes.
unit_quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"; }

# quoted_arguments HOW: every argument quoted by HOW, each after a space.
quoted_arguments() {
  printf '%s\n' "$ARGUMENTS" | while IFS= read -r argument; do
    [ -z "$argument" ] || printf ' %s' "$("$1" "$argument")"
  done
}

# replace FILE MODE: takes its new content from standard input; never half written, never readable too early, and left alone
# when it is as it should be.
replace() {
  mkdir -p "$(dirname "$1")"
  (umask 077 && cat >"$1.new")
  chmod "$2" "$1.new"
  if cmp -s "$1.new" "$1" && [ "$(stat -c %a "$1.new")" = "$(stat -c %a "$1")" ]; then
    rm -f "$1.new"
    return
  fi
  mv -f "$1.new" "$1"
  say "wrote $1"
}

write_environment() {
  names=$(env | sed -n 's/^\(\(K3S\|K3SD\|CONTAINERD\|KINE\)_[A-Za-z0-9_]*\|[Nn][Oo]_[Pp][Rr][Oo][Xx][Yy]\|[Hh][Tt][Tt][Pp][Ss]\{0,1\}_[Pp][Rr][Oo][Xx][Yy]\)=.*/\1/p' | sort)
  {
    echo "# $MARK"
    for name in $names; do
      # A line inside a longer value can look like a name.
      eval "[ -n \"\${$name+set}\" ]" || continue
      eval "value=\$$name"
      printf '%s=%s\n' "$name" "$(double_quoted "$value")"
    done
  } | replace "$ENV_FILE" 0600
}

systemd_unit() {
  cat <<TEXT
# $MARK
[Unit]
Description=k3sd, lightweight Kubernetes
Wants=network-online.target
After=network-online.target

[Service]
Type=${INSTALL_K3S_TYPE:-notify}
EnvironmentFile=-/etc/default/%N
EnvironmentFile=-/etc/sysconfig/%N
EnvironmentFile=-$ENV_FILE
User=root
# Pods outlive the daemon, so only the daemon is stopped.
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
# A kernel may have them built in, or have none.
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=$BINARY$(quoted_arguments unit_quoted)

[Install]
WantedBy=multi-user.target
TEXT
}

openrc_service() {
  cat <<TEXT
#!/sbin/openrc-run
# $MARK
description="k3sd, lightweight Kubernetes"
supervisor=supervise-daemon
command=$(single_quoted "$BINARY")
command_args=$(double_quoted "$(quoted_arguments single_quoted)")
pidfile="/run/$UNIT.pid"
output_log="$LOG_FILE"
error_log="$LOG_FILE"
respawn_delay=5
respawn_max=0

depend() {
  after network-online
  want cgroups
}

set -o allexport
[ ! -f /etc/environment ] || . /etc/environment
[ ! -f "$ENV_FILE" ] || . "$ENV_FILE"
set +o allexport
TEXT
}

# OpenRC's supervisor keeps the log open.
logrotate_entry() {
  cat <<TEXT
# $MARK
$LOG_FILE {
  missingok
  notifempty
  copytruncate
}
TEXT
}

# Where the log goes without an init system to take it, unless the arguments say so.
log_argument() {
  printf '%s\n' "$ARGUMENTS" | grep -q -e '^--log$' -e '^--log=' -e '^-l' || printf ' --log %s' "$LOG_FILE"
}

# Without an init system: a script that starts the daemon in the background, and again when it was killed or has failed.
# Nothing starts it after a reboot.
start_script() {
  cat <<TEXT
#!/bin/sh
# $MARK
# Starts the daemon in the background, unless it runs; starts it again when it was killed or has failed, as long as its
# number is in the file. Ended as asked (0), or with settings that are wrong (1), it stays ended.
set -eu
$(stop_code)
set -o allexport
[ ! -f "$ENV_FILE" ] || . "$ENV_FILE"
set +o allexport
mkdir -p "$(dirname "$PID_FILE")"
if [ "\${1:-}" = --keep ]; then
  while :; do
    # What comes before and beside the log, which the daemon rotates itself (--log).
    "$BINARY"$(quoted_arguments single_quoted)$(log_argument) >>"$STDERR_FILE" 2>&1 </dev/null &
    pid=\$!
    echo "\$pid" >"$PID_FILE"
    code=0
    wait "\$pid" || code=\$?
    sleep 1
    [ "\$code" -gt 1 ] && [ "\$(cat "$PID_FILE" 2>/dev/null)" = "\$pid" ] || exit 0
  done
fi
pid=\$(cat "$PID_FILE" 2>/dev/null || true)
if is_process "\$pid" "$BINARY"; then
  echo "already running, process \$pid"
  exit 0
fi
wait_for_end "\$pid"
rm -f "$PID_FILE"
(umask 077 && : >"$STDERR_FILE")
setsid "$START" --keep >/dev/null 2>&1 </dev/null &
waited=0
until [ -s "$PID_FILE" ] || [ \$waited -ge 50 ]; do
  sleep 0.1
  waited=\$((waited + 1))
done
TEXT
}

# The code with which both this script and those it writes stop a daemon that no init system knows.
stop_code() {
  cat <<'TEXT'
# is_process PID BINARY: whether that process is that binary, replaced since or not. A zombie is not: it has no binary.
is_process() {
  case $(readlink "/proc/${1:-none}/exe" || true) in "$2" | "$2 (deleted)") true ;; *) false ;; esac
}

# wait_for_end PID: one that was killed a moment ago has no program any more, but its sockets until its last thread has
# ended. A process with a program is somebody else's.
wait_for_end() {
  waited=0
  while [ "$waited" -lt 50 ] && ! readlink "/proc/${1:-none}/exe" >/dev/null &&
    grep -qs '^State:.[^Z]' "/proc/${1:-none}"/task/*/status; do
    sleep 0.1
    waited=$((waited + 1))
  done
}

# stop_by_pid_file FILE BINARY: stops the process only if it still is that binary.
stop_by_pid_file() {
  pid=$(cat "$1" 2>/dev/null || true)
  if ! is_process "$pid" "$2"; then
    # Another program's process now, or none at all; only the latter makes the file worthless.
    readlink "/proc/${pid:-none}/exe" >/dev/null || rm -f "$1"
    return 0
  fi
  echo "stopping process $pid"
  # Without it nobody starts the process again.
  rm -f "$1"
  kill -TERM "$pid" 2>/dev/null || true
  waited=0
  while is_process "$pid" "$2" && [ "$waited" -lt 300 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  if is_process "$pid" "$2"; then
    echo "process $pid did not stop within 30 s: killing it"
    kill -KILL "$pid" 2>/dev/null || true
  fi
  wait_for_end "$pid"
}
TEXT
}

# Where this installation keeps its data: flag, then environment, then default.
data_dir() {
  flag=$(printf '%s\n' "$ARGUMENTS" | sed -n -e 's/^--data-dir=//p' -e '/^--data-dir$/{n;p;}' -e '/^-d$/{n;p;}' | tail -n 1)
  printf '%s' "${flag:-${K3S_DATA_DIR:-/var/lib/rancher/k3s}}"
}

killall_script() {
  cat <<TEXT
#!/bin/sh
# $MARK
# Stops every k3sd service of this machine and clears what a killed daemon leaves behind. Installed files stay.
set -u
[ "\$(id -u)" -eq 0 ] || { echo "must run as root" >&2; exit 1; }
$(stop_code)
for unit in "$SYSTEMD_DIR"/k3s*.service; do
  if [ -d /run/systemd/system ] && grep -qsF "$MARK" "\$unit"; then
    systemctl stop "\$(basename "\$unit")"
  fi
done
for service in /etc/init.d/k3s*; do
  if [ -d /run/openrc ] && grep -qsF "$MARK" "\$service"; then
    "\$service" stop
  fi
done
for file in /run/k3s/*.pid; do
  [ ! -f "\$file" ] || stop_by_pid_file "\$file" "$BINARY"
done
rm -f /run/k3s/inspect.sock

# Pods outlive the daemon; here they end, with their engine.
state=/run/k3s/containerd
pids() {
  for process in /proc/[0-9]*; do
    # It may have ended by now.
    case \$({ tr '\\0' ' ' <"\$process/cmdline"; } 2>/dev/null) in
      *containerd-shim*" \$state/"* | *"containerd "*"/agent/etc/containerd/config.toml"*) echo "\${process#/proc/}" ;;
    esac
  done
}
# with_children PID...: they, and all that they started.
with_children() {
  for pid in "\$@"; do
    echo "\$pid"
    # shellcheck disable=SC2046 # a list of numbers
    with_children \$(cat "/proc/\$pid/task/"*/children 2>/dev/null)
  done
}
# shellcheck disable=SC2046
doomed=\$(with_children \$(pids))
# shellcheck disable=SC2086
[ -z "\$doomed" ] || kill -KILL \$doomed 2>/dev/null

# Innermost first.
mounts_below() { awk -v top="\$1" 'index(\$2, top) == 1 { print \$2 }' /proc/self/mounts | sort -r; }
for top in /run/k3s/ /var/lib/kubelet/pods/ /var/lib/kubelet/plugins/ /run/netns/cni-; do
  mounts_below "\$top" | while IFS= read -r mounted; do
    umount -l "\$(printf '%b' "\$mounted")" 2>/dev/null
  done
done
rm -f /run/netns/cni-*
if command -v ip >/dev/null; then
  ip -o link show master cni0 2>/dev/null | sed 's/^[0-9]*: \([^@:]*\).*/\1/' | while read -r link; do
    ip link delete "\$link"
  done
  for link in cni0 flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6; do
    ip link delete "\$link" 2>/dev/null
  done
  # Each node answers names at the address of kube-dns, which it gave itself.
  settings=$(single_quoted "$(data_dir)")/agent/etc/kubelet.conf.d/00-k3s-defaults.conf
  awk '/^clusterDNS:/ { inside = 1; next } !/^ *- / { inside = 0 } inside { gsub(/["'"'"' -]/, ""); print }' \
    "\$settings" 2>/dev/null | while IFS= read -r address; do
    case \$address in *:*) bits=128 ;; *) bits=32 ;; esac
    ip address delete "\$address/\$bits" dev lo 2>/dev/null
  done
fi
if command -v nft >/dev/null; then
  nft list tables 2>/dev/null | grep ' k3sd-' | while read -r _ family table; do
    nft delete table "\$family" "\$table"
  done
else
  echo "without nft the tables k3sd-* of the packet filter stay until the next start of the machine"
fi
# systemd keeps what it once had a unit of, so those end there.
if [ -d /run/systemd/system ] && systemctl is-active --quiet kubepods.slice; then
  systemctl stop kubepods.slice
  systemctl reset-failed 'cri-containerd-*.scope' 2>/dev/null
fi
for cgroup in /sys/fs/cgroup/kubepods /sys/fs/cgroup/kubepods.slice /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/*/kubepods.slice; do
  [ ! -d "\$cgroup" ] || find "\$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
done
# What shims and runc keep of containers, in a place that is every engine's.
for task in "\$state"/io.containerd.runtime.v2.task/k8s.io/*; do
  [ -d "\$task" ] || continue
  rm -rf "/run/containerd/runc/k8s.io/\${task##*/}"
  socket=\$(cat "\$task/address" 2>/dev/null)
  case \$socket in unix:///run/containerd/s/*) rm -f "\${socket#unix://}" ;; esac
done
rmdir /run/containerd/runc/k8s.io /run/containerd/runc /run/containerd/s /run/containerd 2>/dev/null
rm -rf /var/lib/cni /run/flannel /run/k3s/containerd
rmdir /run/k3s 2>/dev/null || true
TEXT
}

uninstall_script() {
  cat <<TEXT
#!/bin/sh
# $MARK
# Stops this service and removes what the installer put there; with the last service go configuration and data, as in
# K3s. Elsewhere than in /var/lib/rancher/k3s, the data is what K3S_DATA_DIR names. Mounted file systems stay.
set -u
[ "\$(id -u)" -eq 0 ] || { echo "must run as root" >&2; exit 1; }
$(stop_code)
if [ -d /run/systemd/system ] && grep -qsF "$MARK" "$SYSTEMD_DIR/$UNIT.service"; then
  systemctl disable --now "$UNIT"
  systemctl reset-failed "$UNIT" 2>/dev/null
  rm -f "$SYSTEMD_DIR/$UNIT.service" "$SYSTEMD_DIR/$UNIT.service.env"
  systemctl daemon-reload
fi
if [ -d /run/openrc ] && grep -qsF "$MARK" "/etc/init.d/$UNIT"; then
  "/etc/init.d/$UNIT" stop
  rc-update delete "$UNIT" default
  rm -f "/etc/init.d/$UNIT" "/etc/logrotate.d/$UNIT"
fi
stop_by_pid_file "$PID_FILE" "$BINARY"
rm -f "/etc/rancher/k3s/$UNIT.env" "$START" "$LOG_FILE" "$STDERR_FILE"
# Rotated logs carry the time in their names.
rm -f "${LOG_FILE%.log}"-[0-9]*.log "${LOG_FILE%.log}"-[0-9]*.log.gz

# The binary and its names are shared by all services.
rm -f "$UNINSTALL"
for other in "$BIN_DIR"/k3s*-uninstall.sh; do
  if grep -qsF "$MARK" "\$other"; then
    echo "removed $UNIT; $BINARY stays for \$(basename "\$other" -uninstall.sh)"
    exit 0
  fi
done
for name in k3s kubectl crictl ctr; do
  [ "\$(readlink "$BIN_DIR/\$name")" != k3sd ] || rm -f "$BIN_DIR/\$name"
done
[ ! -x "$KILLALL" ] || "$KILLALL"
rm -f "$BINARY" "$KILLALL"
# How long logind waits for pods, where the daemon has told it.
login=/etc/systemd/logind.conf.d/99-kubelet.conf
if grep -qs '^# Written by the kubelet: pods need this long to end.' "\$login"; then
  rm -f "\$login"
  rmdir "\${login%/*}" 2>/dev/null
  systemctl kill --signal=HUP systemd-logind.service
fi
for tree in /etc/rancher/k3s /run/k3s /var/lib/kubelet "\${K3S_DATA_DIR:-/var/lib/rancher/k3s}"; do
  tree=\$(readlink -f "\$tree" || true)
  case \$tree in / | '') continue ;; esac
  # Never enters what is mounted below, so those directories are all that can be left.
  find "\$tree" -xdev -depth -delete 2>/dev/null
  [ ! -e "\$tree" ] || echo "left alone: \$tree, where something is mounted or in use"
done
rmdir /etc/rancher /var/lib/rancher 2>/dev/null
echo "removed $UNIT"
exit 0
TEXT
}

# Everything a change of which needs a restart.
fingerprint() { cat "$BINARY" "$UNIT_FILE" "$ENV_FILE" 2>/dev/null | sha256sum; }

write_service() {
  write_environment
  case $INIT in
    systemd) systemd_unit | replace "$UNIT_FILE" 0644 ;;
    openrc)
      openrc_service | replace "$UNIT_FILE" 0755
      logrotate_entry | replace "/etc/logrotate.d/$UNIT" 0644
      ;;
    none) start_script | replace "$UNIT_FILE" 0755 ;;
  esac
  ! $BIN_DIR_READ_ONLY || return 0
  killall_script | replace "$KILLALL" 0755
  uninstall_script | replace "$UNINSTALL" 0755
}

# The daemon's process, empty when it does not run. OpenRC knows the supervisor's, whose child it is.
main_pid() {
  case $INIT in
    systemd) systemctl show --property MainPID --value "$UNIT" | grep -vx 0 || true ;;
    openrc)
      supervisor=$(cat "/run/$UNIT.pid" 2>/dev/null || true)
      sed 's/ //g' "/proc/${supervisor:-none}/task/${supervisor:-none}/children" 2>/dev/null || true
      ;;
    none) cat "$PID_FILE" 2>/dev/null || true ;;
  esac
}

# What the daemon was started from; "(deleted)" at its end once that has been replaced.
running_binary() {
  pid=$(main_pid)
  readlink "/proc/${pid:-none}/exe" || true
}

is_running() {
  case $INIT in
    systemd) systemctl is-active --quiet "$UNIT" ;;
    openrc) "$UNIT_FILE" --quiet status ;;
    none) is_process "$(main_pid)" "$BINARY" ;;
  esac
}

# Sets STARTED when there is something to wait for.
start_service() {
  STARTED=false
  if [ "${INSTALL_K3S_SKIP_ENABLE:-}" = true ]; then
    say "neither enabled nor started, as INSTALL_K3S_SKIP_ENABLE asks"
    return
  fi
  case $INIT in
    systemd)
      systemctl daemon-reload
      systemctl enable --quiet "$UNIT"
      ;;
    openrc) rc-update --quiet add "$UNIT" default ;;
    none) say "neither systemd nor OpenRC runs here: $START starts the daemon and keeps it running, but nothing does so after a reboot" ;;
  esac
  if [ "${INSTALL_K3S_SKIP_START:-}" = true ]; then
    say "not started, as INSTALL_K3S_SKIP_START asks"
    return
  fi
  STARTED=true
  if [ "${INSTALL_K3S_FORCE_RESTART:-}" != true ] && is_running && [ "$BEFORE" = "$(fingerprint)" ] &&
    [ "$(running_binary)" = "$BINARY" ]; then
    say "$UNIT runs and nothing has changed: not restarted"
    return
  fi
  say "starting $UNIT"
  case $INIT in
    # Returns when the daemon has said that it is ready, or as soon as it has failed; 124 is the time limit.
    systemd) timeout "$READY_LIMIT_SECONDS" systemctl restart "$UNIT" || [ $? -eq 124 ] || fail_start ;;
    openrc) "$UNIT_FILE" --quiet restart || fail_start ;;
    none)
      stop_by_pid_file "$PID_FILE" "$BINARY"
      "$START"
      ;;
  esac
}

# The inspection socket this service will have: flag, then environment, then default.
inspect_socket() {
  flag=$(printf '%s\n' "$ARGUMENTS" | sed -n -e 's/^--inspect-socket=//p' -e '/^--inspect-socket$/{n;p;}' | tail -n 1)
  printf '%s' "${flag:-${K3SD_INSPECT_SOCKET:-/run/k3s/inspect.sock}}"
}

fail_start() {
  # What has ended is not to be tried again and again.
  [ "$INIT" != none ] || [ -n "$(running_binary)" ] || rm -f "$PID_FILE"
  case $INIT in
    systemd) journalctl --unit "$UNIT" --lines 30 --no-pager ;;
    *) tail -n 30 "$STDERR_FILE" "$LOG_FILE" 2>/dev/null || true ;;
  esac >&2
  die "$UNIT did not become ready; the lines above are the end of its log"
}

wait_until_ready() {
  socket=$(inspect_socket)
  polls=0
  until "$BINARY" actors tree --inspect-socket "$socket" >/dev/null 2>&1 && is_running; do
    polls=$((polls + 1))
    if [ $polls -gt $((READY_LIMIT_SECONDS * 5)) ] || { [ "$INIT" = none ] && [ -z "$(running_binary)" ]; }; then
      fail_start
    fi
    sleep 0.2
  done
  say "$UNIT is ready"
  ! $HAS_NODE || wait_for_node
}

# Waits until pods can run here. Needs a kubectl; without one the log tells.
wait_for_node() {
  if ! "$BINARY" kubectl version --client >/dev/null 2>&1; then
    warn "no kubectl found, so nobody looks whether the node is ready"
    return
  fi
  polls=0
  until "$BINARY" kubectl get nodes --no-headers 2>/dev/null | grep -q ' Ready '; do
    polls=$((polls + 1))
    if [ $polls -gt $((READY_LIMIT_SECONDS * 2)) ]; then
      "$BINARY" kubectl describe nodes >&2 || true
      fail_start
    fi
    sleep 0.5
  done
  say "the node is ready"
  "$BINARY" kubectl get nodes -o wide
}

show_next_steps() {
  case $INIT in
    systemd) start="systemctl start $UNIT" log="journalctl -u $UNIT -f" ;;
    openrc) start="rc-service $UNIT start" log="tail -f $LOG_FILE" ;;
    none) start=$START log="tail -f $LOG_FILE" ;;
  esac
  case ":$PATH:" in *":$BIN_DIR:"*) ;; *) warn "$BIN_DIR is not in PATH" ;; esac
  printf '\nTry next, as root:\n'
  $STARTED || step "$start" "starts it"
  if $HAS_NODE; then
    step "k3sd kubectl run hello --image=busybox -it -- sh" "a container, and a shell in it"
    step "k3sd kubectl get pods -A" "what runs"
  fi
  [ ! -f "$SOURCE/fixtures/application/shop.yaml" ] ||
    step "k3sd kubectl apply -f fixtures/application/shop.yaml" "an application; the top of the file says what it is"
  step "k3sd actors tree" "the supervision tree, as it is now"
  step "k3sd actors top" "the same live: mailboxes, messages, restarts"
  step "k3sd server --help" "every flag; /etc/rancher/k3s/config.yaml takes them too"
  step "$log" "what it says"
  $BIN_DIR_READ_ONLY || step "$(basename "$UNINSTALL")" "removes everything this script installed"
}

step() { printf '  %-58s %s\n' "$1" "$2"; }

main() {
  case ${1:-} in --help | -h) usage; exit 0 ;; esac
  read_settings "$@"
  cd "$SOURCE"
  refuse_foreign_files
  eval "$(stop_code)"
  BEFORE=$(fingerprint)
  bring_binary
  install_engine
  link_names
  write_service
  start_service
  if $STARTED; then wait_until_ready; fi
  show_next_steps
}

main "$@"
