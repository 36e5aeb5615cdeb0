# shellcheck shell=bash
# Makes the virtual machine that `./test.sh --vm` tests in: a Debian 13 with systemd, cgroups v2, logind, NFS and SCTP, none
# of which the machine that runs the tests has to have. Made once; changing this file makes it anew. Sourced by test.sh.

VM_SUITE=trixie
VM_MIRROR=http://deb.debian.org/debian
VM_KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# What is on its disk. Debian's ordinary kernel: that for clouds lacks modules. `udev` loads those that devices ask for.
VM_CONTENT=(systemd systemd-sysv udev kmod dbus openssh-server linux-image-amd64 initramfs-tools containerd runc
  kubernetes-client busybox-static iproute2 nftables curl nfs-kernel-server nfs-common socat procps e2fsprogs)

# On this machine: what runs it, and what makes it.
VM_PACKAGES=(qemu-system-x86 mmdebstrap e2fsprogs openssh-client)

# A file as large as this, of which about a third is taken.
VM_DISK=3G

# prepare_vm: sets and exports K3SD_VM, the directory with kernel, initrd, disk and key. Where that can't be had it says why
# and returns 1.
prepare_vm() {
  local place=${XDG_CACHE_HOME:-$HOME/.cache}/k3sd/vm recipe why
  recipe=$(sha256sum <"${BASH_SOURCE[0]}" | cut -d' ' -f1)
  if [ "$(uname -m)" != x86_64 ]; then
    echo "ignored: the virtual machine is one of x86_64"
    return 1
  fi
  if ! why=$(install_vm_packages 2>&1); then
    echo "ignored: no packages for a virtual machine: $why"
    return 1
  fi
  if [ "$(cat "$place/recipe" 2>/dev/null)" != "$recipe" ]; then
    if [ "$(id -u)" -ne 0 ]; then
      echo "ignored: making the disk of a virtual machine needs root"
      return 1
    fi
    echo "virtual machine: making $place (some minutes)"
    rm -rf "$place"
    mkdir -p "$place"
    # Not as a condition: there `set -e` would mean nothing.
    make_vm "$place" >"$place/log" 2>&1
    local code=$?
    if [ $code -ne 0 ]; then
      tail -n 20 "$place/log"
      echo "ignored: the disk of the virtual machine could not be made; all of it is in $place/log"
      return 1
    fi
    echo "$recipe" >"$place/recipe"
  fi
  export K3SD_VM=$place
  echo "virtual machine: $place, $(qemu-system-x86_64 --version | head -n 1)"
}

install_vm_packages() {
  local missing=() package
  for package in "${VM_PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}")
  "${install[@]}" >/dev/null 2>&1 && return
  # The package lists of a fresh machine are empty or old.
  "${as_root[@]}" apt-get update -qq >/dev/null && "${install[@]}" >/dev/null
}

# make_vm PLACE: the disk, and what boots from it.
make_vm() (
  set -eu
  place=$1
  # Devices and set-user-id programs are made in there, which temporary directories often forbid.
  tree=$place/tree
  ssh-keygen -q -t ed25519 -N '' -C 'tests of k3sd' -f "$place/key"
  mkdir "$place/hooks"
  write_vm_hooks "$place"
  mmdebstrap --mode=root --variant=minbase --format=directory --keyring="$VM_KEYRING" \
    --include="$(IFS=,; echo "${VM_CONTENT[*]}")" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --essential-hook="$place/hooks/early" --customize-hook="$place/hooks/late" \
    "$VM_SUITE" "$tree" "$VM_MIRROR"
  for file in vmlinuz initrd.img; do cp --dereference "$tree/boot/$file" "$place/$file"; done
  # All of it is needed when others write to their copies of it.
  mke2fs -q -t ext4 -L k3sd -d "$tree" "$place/disk.new" "$VM_DISK"
  mv "$place/disk.new" "$place/disk"
  rm -rf "$tree" "$place/hooks"
)

# write_vm_hooks PLACE: what runs while the disk is made, with the tree as its argument.
write_vm_hooks() {
  # Before kernel and initramfs-tools are there: a small initrd with what reads the disk, and nothing else.
  cat >"$1/hooks/early" <<'TEXT'
#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
echo 'MODULES=list' >"$1/etc/initramfs-tools/conf.d/k3sd"
printf '%s\n' virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/k3sd"
TEXT
  cat >"$1/hooks/late" <<TEXT
#!/bin/sh
set -eu
echo vm >"\$1/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' >"\$1/etc/hosts"
echo 'LABEL=k3sd / ext4 rw 0 1' >"\$1/etc/fstab"
# The emulated network is always the same; nobody has to be asked for an address.
mkdir -p "\$1/etc/systemd/network"
printf '[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nIPv6AcceptRA=no\n' >"\$1/etc/systemd/network/eth0.network"
rm -f "\$1/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"\$1/etc/resolv.conf"
install -D -m 0600 "$1/key.pub" "\$1/root/.ssh/authorized_keys"
# Known beforehand, so that a boot isn't the first of a new machine.
echo 5e7f3c1a9b2d4c6e8f0a1b2c3d4e5f60 >"\$1/etc/machine-id"
# Logs outlive a restart of the machine: tests read them.
mkdir -p "\$1/var/log/journal"
chroot "\$1" systemctl enable systemd-networkd ssh
# k3sd starts a containerd of its own; the rest only takes time.
chroot "\$1" systemctl disable containerd nfs-server rpcbind.socket rpcbind.service
chroot "\$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \\
  e2scrub_reap.service systemd-networkd-wait-online.service getty.target
ln -sf "\$(basename "\$1"/boot/vmlinuz-*)" "\$1/boot/vmlinuz"
ln -sf "\$(basename "\$1"/boot/initrd.img-*)" "\$1/boot/initrd.img"
# Modules of devices that aren't there are looked for at each boot, and what a first boot finds old is not.
chroot "\$1" systemctl mask modprobe@efi_pstore.service modprobe@drm.service modprobe@fuse.service sys-kernel-debug.mount \\
  sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount
chroot "\$1" apt-get clean
rm -rf "\$1"/var/lib/apt/lists/*
touch "\$1/etc/.updated" "\$1/var/.updated"
TEXT
  chmod +x "$1/hooks/early" "$1/hooks/late"
}
