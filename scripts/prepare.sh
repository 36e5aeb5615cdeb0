# shellcheck shell=bash
# What has to be there for tests and benches; sourced by test.sh and bench.sh.

# Debian packages: the linker named in .cargo/config.toml, what rustc links with, the script linter, the compiler of the
# .proto files, the client that tries the datastore, and database servers for it with what makes their certificates, what
# the official Python client is installed with, and what libFuzzer is built with; for the node containerd and runc, a
# program to run in containers, and what looks at the kernel from outside; and what gives a simulation its randomness.
PACKAGES=(mold gcc libc6-dev shellcheck protobuf-compiler etcd-client etcd-server postgresql mariadb-server openssl
  python3-venv g++ containerd runc busybox-static iproute2 nftables procps util-linux bsdutils curl
  bind9-dnsutils dbus-daemon libfaketime)
# kubectl, unless there is one already: Debian's is old, but upstream's is no package of Debian's.
command -v kubectl >/dev/null || PACKAGES+=(kubernetes-client)

die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

install_packages() {
  local missing=() package
  command -v dpkg-query >/dev/null || {
    echo "not Debian: please see to these yourself: ${PACKAGES[*]}"
    return
  }
  for package in "${PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all present (${PACKAGES[*]})"
    return
  fi
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "missing packages, and neither root nor sudo: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  echo "packages: installing ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return
  # The package lists of a fresh machine are empty or old.
  "${as_root[@]}" apt-get update || die "apt-get update failed; cannot install: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
    die "apt-get could not install: ${missing[*]}"
}

# Puts cargo on PATH, and says where it builds.
check_toolchain() {
  PATH="$HOME/.cargo/bin:$PATH"
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  command -v cargo >/dev/null ||
    die "no Rust toolchain found; get one (at least $wanted) from https://rustup.rs and run this again"
  found=$(rustc --version | cut -d' ' -f2) || die "rustc does not run; is a toolchain installed? (rustup toolchain install stable)"
  [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
    die "rustc $found is older than $wanted; update it with: rustup update stable"
  echo "toolchain: rustc $found (needs $wanted)"
  export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/k3sd/target}
  echo "target directory: $CARGO_TARGET_DIR"
  [ -t 1 ] && export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-always}
  return 0
}
