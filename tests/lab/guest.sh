#!/bin/busybox sh
# First program of the lab's guest: makes the root from the one that is shared (9p, read-only) and an overlay in memory,
# runs the command, leaves its exit code in the folder for results, and switches the machine off. Run twice: by the kernel
# from the initramfs, then (with an argument) as first program of the new root. Variables come with /settings.
set -u
HERE=${HERE:-}
CHECKOUT=
BUSYBOX=$HERE/bin/busybox
. "$HERE/settings"
NODE_FOLDERS="/etc/cni /var/lib/cni /var/lib/containerd /var/lib/kubelet /var/lib/sriovdp"

die() {
    echo "lab: $*" >/dev/console
    $BUSYBOX poweroff -f
}

mount_root() {
    $BUSYBOX mount -t proc proc /proc
    $BUSYBOX mount -t sysfs sysfs /sys
    $BUSYBOX mount -t devtmpfs devtmpfs /dev
    for module in /modules/*; do
        $BUSYBOX insmod "$module" || die "loading $module failed"
    done
    $BUSYBOX mount -t tmpfs -o size=75% tmpfs /memory
    mount_shared root /new
    [ -z "$CHECKOUT" ] || mount_beside
    for folder in proc sys dev; do
        $BUSYBOX mount -o move /$folder /new/$folder
    done
    $BUSYBOX mount -t tmpfs tmpfs /new/run
    $BUSYBOX mkdir -p /new/run/lab/bin /new/run/lab/result
    $BUSYBOX cp $BUSYBOX /new/run/lab/bin/
    $BUSYBOX cp /settings /init /new/run/lab/
    HERE=/run/lab exec $BUSYBOX switch_root /new /bin/sh /run/lab/init enter
}

mount_shared() {
    $BUSYBOX mkdir -p "/lower/$1" "/memory/$1/upper" "/memory/$1/work" "$2"
    # the host's files do not change under a guest that lives for minutes: cache them for good
    $BUSYBOX mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 "$1" "/lower/$1" || die "no $1"
    $BUSYBOX mount -t overlay -o "lowerdir=/lower/$1,upperdir=/memory/$1/upper,workdir=/memory/$1/work" overlay "$2" ||
        die "no overlay for $1"
}

mount_beside() {
    # a root of its own has neither the checkout nor the cache, and the virtual environment is of another Python
    mount_shared checkout "/new$CHECKOUT"
    mount_shared cache "/new$CACHE"
    packages=/new$CHECKOUT/.venv/lib/python$PYTHON/site-packages
    $BUSYBOX mkdir -p "$packages"
    printf '%s\n' "$PACKAGES" "$CHECKOUT" >"$packages/lab.pth"
    $BUSYBOX cp -r "/new$CHECKOUT"/.venv/lib/python*/site-packages/sriovdp-*.dist-info "$packages"
}

mount_rest() {
    $BUSYBOX mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 result /run/lab/result || die "no result"
    $BUSYBOX mkdir -p /dev/pts /dev/shm /dev/hugepages /lib/modules
    $BUSYBOX mount -t devpts devpts /dev/pts
    $BUSYBOX mount -t tmpfs tmpfs /dev/shm
    $BUSYBOX mount -t hugetlbfs hugetlbfs /dev/hugepages
    $BUSYBOX mount -t cgroup2 cgroup2 /sys/fs/cgroup
    $BUSYBOX mount -t bpf bpf /sys/fs/bpf
    $BUSYBOX mount -o bind "$MODULES" /lib/modules
    $BUSYBOX ln -sf /proc/self/fd /dev/fd
}

enter() {
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export PATH
    mount_rest
    hide_host
    $BUSYBOX hostname lab
    ip link set lo up
    modprobe -a igb virtio_net virtio_console 8021q || die "a module is missing"
    [ -z "$VNIC" ] || sh "$VNIC_LOAD" "$VNIC_FOLDER" "$VNIC" wire=$WIRE || die "the software NIC is not loaded"
    [ -z "$DISK" ] || mount_disk
    [ -z "$CONTROL_PLANE" ] || reach_control_plane
    [ -z "$CONTAINERD" ] || start_containerd
    run_command
    sync
    $BUSYBOX poweroff -f
}

hide_host() {
    # what a node's programs leave there on the host is not this node's: its pods, its journal, its networks
    for folder in $NODE_FOLDERS /etc/sriovdp /opt/cni; do
        mkdir -p $folder
        mount -t tmpfs tmpfs $folder
    done
}

reach_control_plane() {
    cd /sys/bus/virtio/drivers/virtio_net/virtio*/net/* || die "the network device to the API server is missing"
    ip link set "${PWD##*/}" up
    ip address add 10.0.2.15/24 dev "${PWD##*/}"
    cd /
}

mount_disk() {
    modprobe -a virtio_blk ext4 || die "a module is missing"
    mkdir -p /disk
    mount /dev/vda /disk || die "no disk"
    # what is on a node's disk, as far as it changes; /run is lost at a reboot
    for folder in $NODE_FOLDERS /usr/lib/cni; do
        mkdir -p $folder
        [ -e /disk$folder ] || { mkdir -p /disk$folder && cp -a $folder/. /disk$folder/; }
        mount -o bind /disk$folder $folder
    done
}

start_containerd() {
    # its snapshots cannot lie on the overlay that is the root: hide_host or mount_disk gave it another
    # a pod's user, who need not be root, gets the device nodes that the kubelet asks for
    sed -i '/^ *\[plugins."io.containerd.grpc.v1.cri"\]/a device_ownership_from_security_context = true' \
        /etc/containerd/config.toml
    [ -z "$CHECKOUT" ] || enable_cdi
    ulimit -l unlimited # as DPDK needs it, and containerd hands on to containers
    containerd >/run/lab/result/containerd.log 2>&1 &
    tries=0
    until ctr version >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 60 ] || die "containerd does not answer, see its log: $(tail -n 5 /run/lab/result/containerd.log)"
        sleep 0.5
    done
}

enable_cdi() {
    # as a node has it on which somebody wants them: containerd 1.7 has both, and neither is on
    sed -i '/^ *\[plugins."io.containerd.grpc.v1.cri"\]/a enable_cdi = true\ncdi_spec_dirs = ["/etc/cdi", "/run/cdi"]' \
        /etc/containerd/config.toml
    printf '[plugins."io.containerd.nri.v1.nri"]\ndisable = false\n' >>/etc/containerd/config.toml
}

run_command() {
    if [ -n "$INTERACTIVE" ]; then
        setsid -c /bin/sh /run/lab/result/command </dev/hvc0 >/dev/hvc0 2>&1
    else
        /bin/sh /run/lab/result/command </dev/null >"$(echo /dev/vport*p1)" 2>"$(echo /dev/vport*p2)"
    fi
    code=$?
    # written beside and renamed: the host reads a whole number or nothing
    echo $code >/run/lab/result/exit-code.new
    mv /run/lab/result/exit-code.new /run/lab/result/exit-code
}

if [ "${1:-}" = enter ]; then enter; else mount_root; fi
