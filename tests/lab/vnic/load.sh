#!/bin/sh
# Put the software NIC into this guest, in place of the one that is there: load.sh FOLDER CARDS [PARAMETER=VALUE...]
set -eu
folder=$1 cards=$2
shift 2
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
for module in vnic_rdma vnic_verbs vnic_vdpa vnic vnic_iommu; do
    [ ! -d /sys/module/$module ] || rmmod $module
done
[ -n "$cards" ] || exit 0
insmod "$folder/vnic_iommu.ko"
insmod "$folder/vnic.ko" "cards=$cards" "$@" || { code=$?; dmesg | grep vnic: | tail -n 5 >&2; rmmod vnic_iommu; exit $code; }
# The drivers are there, so the kernel's own modules of these names cannot be loaded, and need not be.
mkdir -p /run/modprobe.d
for driver in /sys/module/vnic/drivers/pci:*; do
    echo "install ${driver##*pci:} /bin/true"
done >/run/modprobe.d/vnic.conf
