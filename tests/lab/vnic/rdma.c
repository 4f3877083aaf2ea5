// SPDX-License-Identifier: GPL-2.0
/*
 * Puts soft RoCE devices (rdma_rxe) below the PCI function of their netdev, where RDMA devices of NICs are; otherwise
 * they are below /sys/devices/virtual. Loaded after ib_core and before ib_uverbs and ib_umad, which copy the parent.
 */

#include <linux/module.h>
#include <linux/netdevice.h>
#include <rdma/ib_verbs.h>

static int device_added(struct ib_device *ibdev)
{
	struct net_device *netdev = ib_device_get_netdev(ibdev, 1);
	int err = 0;

	if (netdev && netdev->dev.parent)
		err = device_move(&ibdev->dev, netdev->dev.parent, DPM_ORDER_NONE);
	dev_put(netdev);
	return err;
}

static void device_removed(struct ib_device *ibdev, void *data)
{
}

static struct ib_client client = {
	.name = "vnic_rdma",
	.add = device_added,
	.remove = device_removed,
};

static int __init vnic_rdma_init(void)
{
	return ib_register_client(&client);
}

static void __exit vnic_rdma_exit(void)
{
	ib_unregister_client(&client);
}

module_init(vnic_rdma_init);
module_exit(vnic_rdma_exit);
MODULE_DESCRIPTION("Soft RoCE devices below their NIC");
MODULE_LICENSE("GPL");
