#!/bin/busybox sh
# First process of the guest, in the initial RAM file system: loads what is
# needed to see the host's files, lays a tmpfs over them, and goes there.
/bin/busybox --install -s /bin
export PATH=/bin

die() {
	echo "ontlab-guest: $1"
	poweroff -f
}

mkdir -p /proc /sys /dev /host /over /new
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do
	insmod "$module" || die "cannot load ${module##*/}"
done
# msize: the default of 8 KiB would make four times as many requests.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose host /host || die "cannot mount the host's files"
mount -t tmpfs tmpfs /over
mkdir /over/upper /over/work
mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work overlay /new || die "cannot mount the overlay"

mkdir -p /new/proc /new/sys /new/dev /new/run
mount -o move /proc /new/proc
mount -o move /sys /new/sys
mount -o move /dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts devpts /new/dev/pts
mount -t tmpfs tmpfs /new/dev/shm
mount -t tmpfs tmpfs /new/run
[ -e /new/sys/kernel/debug ] && mount -t debugfs debugfs /new/sys/kernel/debug
mkdir /new/run/ontlab
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none job /new/run/ontlab || die "cannot mount the job"
mkdir /new/run/ontlab-bin
cp /bin/busybox /new/run/ontlab-bin/busybox
exec chroot /new /run/ontlab-bin/busybox sh /run/ontlab/start
