#!/bin/busybox sh
# The virtual machine's first process: the host's root, read-only, under a layer in memory; then systemd, which runs
# one unit, the command, and switches off. With `bare` on the kernel's command line the command runs without systemd.
PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /host /layer /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in virtio_pci 9pnet_virtio 9p overlay; do modprobe "$module" || echo "no module $module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
mount -t tmpfs layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
for name in proc sys dev; do mount --move /$name /root/$name; done
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs -o mode=755 run /root/run
mount -t cgroup2 -o nsdelegate cgroup2 /root/sys/fs/cgroup
ip link set lo up
mkdir -p /root/run/systemd/system
cp /command /root/run/dialtone-vm
cat >/root/run/systemd/system/dialtone-vm.service <<'UNIT'
[Unit]
DefaultDependencies=no
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Delegate=yes
ExecStart=/bin/sh /run/dialtone-vm
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
UNIT
case " $(cat /root/proc/cmdline) " in
  *" bare "*) exec switch_root /root /bin/sh -c '/bin/sh /run/dialtone-vm; echo o >/proc/sysrq-trigger; while :; do :; done' ;;
esac
exec switch_root /root /lib/systemd/systemd --unit=dialtone-vm.service
