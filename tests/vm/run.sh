#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Boots Debian's own kernel in qemu (TCG will do) over this machine's root file system: shared in read-only by 9p, with a
# tmpfs above, so that nothing written inside comes out. Cgroup v2 only. A shell, or CMD... and its exit status.
set -euo pipefail
CACHE=${STASIS_VM_CACHE:-$STASIS_BUILD/vm}
MODULES=(virtio_pci 9pnet_virtio 9p overlay loop)
mkdir -p "$CACHE"

# The kernel package is only unpacked: installing it would run hooks for a boot loader.
if [[ ! -s $CACHE/vmlinuz ]]; then
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}')
  [[ -n $package ]] || { apt-get update -qq; package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ {print $2; exit}'); }
  echo "vm: fetching $package" >&2
  (cd "$CACHE" && rm -f linux-image-*.deb && apt-get download -qq "$package" 2>/dev/null && dpkg -x linux-image-*.deb tree && rm -f linux-image-*.deb)
  depmod -b "$CACHE/tree" "${package#linux-image-}"
  cp "$CACHE"/tree/boot/vmlinuz-* "$CACHE/vmlinuz.new"
  mv "$CACHE/vmlinuz.new" "$CACHE/vmlinuz"
fi
version=$(ls "$CACHE/tree/lib/modules")

work=$(mktemp -d /tmp/stasis-vm-XXXXXX)
trap 'rm -rf "$work"' EXIT
root=$work/initramfs
mkdir -p "$root"/{bin,modules,proc,sys,dev,host,upper,new}
busybox=$(command -v busybox)
cp "$busybox" "$root/bin/busybox"
number=100
for module in "${MODULES[@]}"; do
  while read -r verb file _; do
    [[ $verb == insmod ]] || continue
    name=$(basename "$file")
    compgen -G "$root/modules/*-$name" >/dev/null || cp "$file" "$root/modules/$((number++))-$name"
  done < <(modprobe -S "$version" -d "$CACHE/tree" --show-depends "$module" 2>/dev/null)
done

# What runs inside, on the overlay: only file systems are set up, no init system.
cat >"$root/inside" <<'INSIDE'
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=${TERM:-vt100} LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
. /vm/environment
mkdir -p /vm/tmp
mount --bind /tmp /vm/tmp
mount -t tmpfs -o mode=1777 tmpfs /tmp
for directory in "$STASIS_SOURCE" "$STASIS_BUILD"; do
  case $directory in /tmp/*) mkdir -p "$directory" && mount --bind "/vm$directory" "$directory" ;; esac
done
mount -t tmpfs -o mode=755 tmpfs /run
# podman's overlay does not go over ours.
mkdir -p /var/lib/containers
mount -t tmpfs tmpfs /var/lib/containers
# All modules of the kernel, for what it loads by itself on demand (socket diagnosis, nftables, veth, fuse).
case $STASIS_VM_CACHE in /tmp/*) cache=/vm$STASIS_VM_CACHE ;; *) cache=$STASIS_VM_CACHE ;; esac
mkdir -p "/lib/modules/$(uname -r)"
mount --bind "$cache/tree/lib/modules/$(uname -r)" "/lib/modules/$(uname -r)"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory +pids +io +cpuset' >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null
ip link set lo up 2>/dev/null || busybox ip link set lo up
ln -sfn /proc/self/fd /dev/fd
cd "$STASIS_SOURCE" || cd /
if [ -s /vm/command ]; then
  stty -onlcr -echo 2>/dev/null
  bash /vm/command </dev/null
else
  setsid busybox cttyhack bash -i
fi
status=$?
echo "$status" >/dev/ttyS1
sync
printf '\0' | dd of=/dev/port bs=1 seek=244 conv=notrunc status=none 2>/dev/null  # isa-debug-exit: without a last word of the kernel
busybox poweroff -f
INSIDE
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*; do /bin/busybox insmod "$module" || echo "vm: cannot load $module"; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose host /host &&
  /bin/busybox mount -t tmpfs -o size=75% tmpfs /upper &&
  /bin/busybox mkdir /upper/up /upper/work &&
  /bin/busybox mount -t overlay -o lowerdir=/host,upperdir=/upper/up,workdir=/upper/work overlay /new || {
  echo "vm: cannot set up the root file system"
  /bin/busybox poweroff -f
}
/bin/busybox mkdir -p /new/vm
/bin/busybox cp /inside /environment /command /new/vm/
/bin/busybox umount /proc
/bin/busybox mount --move /dev /new/dev 2>/dev/null
exec /bin/busybox switch_root -c /dev/ttyS0 /new /bin/sh /vm/inside
INIT
chmod 755 "$root/init" "$root/inside"
{
  printf 'export STASIS_SOURCE=%q STASIS_BUILD=%q STASIS_VM_CACHE=%q STASIS_IN_VM=1\n' "$STASIS_SOURCE" "$STASIS_BUILD" "$CACHE"
  printf 'export STASIS_TEST_HANG=%q\n' "${STASIS_TEST_HANG:-300}"
  printf 'export STASIS_TEST_FILTER=%q\n' "${STASIS_TEST_FILTER:-}"
} >"$root/environment"
: >"$root/command"
if (($#)); then printf '%q ' "$@" >"$root/command"; fi
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/initrd"

# Emulation works everywhere; nested KVM often does not, so it has to be asked for.
accelerator=(-accel tcg,thread=multi -cpu max)
[[ ${STASIS_VM_KVM:-} != 1 ]] || accelerator=(-accel kvm -cpu host)
qemu-system-x86_64 "${accelerator[@]}" -smp 2 -m "${STASIS_VM_MEMORY:-2G}" -nodefaults -no-reboot -display none -device isa-debug-exit,iobase=0xf4,iosize=4 \
  -kernel "$CACHE/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off" \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
  -chardev stdio,id=terminal,signal=off -serial chardev:terminal -serial "file:$work/status" || true
status=$(tr -dc 0-9 <"$work/status")
[[ -n $status ]] || { echo "vm: it went down without a status" >&2; exit 125; }
exit "$status"
