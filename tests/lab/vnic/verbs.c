// SPDX-License-Identifier: GPL-2.0
/*
 * RDMA devices of VFs, as the driver of a NIC makes them: below the PCI function, there as long as the driver is bound,
 * and in a network namespace of their own. They have no queues (drivers/infiniband/hw/mlx5 is a real one). Soft RoCE
 * cannot stand for them: it has no disassociate_ucontext, so it cannot change its namespace, and it is gone when its
 * netdev does. A module of its own, as it needs ib_core. VFs that vnic's drivers are bound to from now on get one.
 */

#include <linux/module.h>
#include <rdma/ib_verbs.h>

#include "vnic.h"

struct vnic_context {
	struct ib_ucontext ibucontext;
};

struct vnic_ib {
	struct ib_device ib;
	struct list_head list;
	struct pci_dev *pdev;
};

static LIST_HEAD(devices);
static DEFINE_MUTEX(lock);

static struct vnic_ib *to_vnic(struct ib_device *ib)
{
	return container_of(ib, struct vnic_ib, ib);
}

static int query_device(struct ib_device *ib, struct ib_device_attr *attr, struct ib_udata *udata)
{
	attr->vendor_id = to_vnic(ib)->pdev->vendor;
	attr->vendor_part_id = to_vnic(ib)->pdev->device;
	attr->max_pkeys = 1;
	return 0;
}

static int query_port(struct ib_device *ib, u32 port, struct ib_port_attr *attr)
{
	attr->state = IB_PORT_ACTIVE;
	attr->phys_state = IB_PORT_PHYS_STATE_LINK_UP;
	attr->max_mtu = attr->active_mtu = IB_MTU_4096;
	attr->gid_tbl_len = 1;
	attr->pkey_tbl_len = 1;
	return 0;
}

static int get_port_immutable(struct ib_device *ib, u32 port, struct ib_port_immutable *immutable)
{
	immutable->core_cap_flags = RDMA_CORE_CAP_PROT_IB;
	immutable->gid_tbl_len = 1;
	immutable->pkey_tbl_len = 1;
	return 0;
}

static int query_gid(struct ib_device *ib, u32 port, int index, union ib_gid *gid)
{
	gid->global.subnet_prefix = cpu_to_be64(0xfe80000000000000ULL);
	gid->global.interface_id = ib->node_guid;
	return 0;
}

static int query_pkey(struct ib_device *ib, u32 port, u16 index, u16 *pkey)
{
	*pkey = 0xffff;
	return 0;
}

static int alloc_ucontext(struct ib_ucontext *context, struct ib_udata *udata)
{
	return 0;
}

static void dealloc_ucontext(struct ib_ucontext *context)
{
}

static void disassociate_ucontext(struct ib_ucontext *context)
{
}

static const struct ib_device_ops ops = {
	.owner = THIS_MODULE,
	.driver_id = RDMA_DRIVER_UNKNOWN,
	.uverbs_abi_ver = 1,
	.query_device = query_device,
	.query_port = query_port,
	.get_port_immutable = get_port_immutable,
	.query_gid = query_gid,
	.query_pkey = query_pkey,
	.alloc_ucontext = alloc_ucontext,
	.dealloc_ucontext = dealloc_ucontext,
	.disassociate_ucontext = disassociate_ucontext,
	INIT_RDMA_OBJ_SIZE(ib_ucontext, vnic_context, ibucontext),
};

static void ib_device_add(struct pci_dev *pdev)
{
	struct vnic_function *function = pci_get_drvdata(pdev);
	struct vnic_ib *device = ib_alloc_device(vnic_ib, ib);

	if (!device)
		return;
	device->pdev = pdev;
	device->ib.dev.parent = &pdev->dev;
	device->ib.node_type = RDMA_NODE_IB_CA;
	device->ib.phys_port_cnt = 1;
	device->ib.num_comp_vectors = 1;
	device->ib.node_guid = cpu_to_be64(function->vf->node_guid);
	ib_set_device_ops(&device->ib, &ops);
	if (ib_register_device(&device->ib, "mlx5_%d", NULL)) {
		ib_dealloc_device(&device->ib);
		return;
	}
	mutex_lock(&lock);
	list_add(&device->list, &devices);
	mutex_unlock(&lock);
}

/* That of one function, or with NULL all. */
static void ib_devices_remove(struct pci_dev *pdev)
{
	struct vnic_ib *device, *next;

	mutex_lock(&lock);
	list_for_each_entry_safe(device, next, &devices, list) {
		if (pdev && device->pdev != pdev)
			continue;
		list_del(&device->list);
		ib_unregister_device(&device->ib);
		ib_dealloc_device(&device->ib);
	}
	mutex_unlock(&lock);
}

/*
 * IPoIB is a client of ib_core, and all clients begin anew when an RDMA device changes its namespace: the netdev is gone
 * then, wherever it was, and there is another one in the host's namespace (drivers/infiniband/ulp/ipoib/ipoib_main.c).
 */
static struct vnic_function *find_ipoib(struct ib_device *ib)
{
	struct vnic_function *function;

	if (ib->ops.query_port != query_port)
		return NULL;
	function = pci_get_drvdata(to_vnic(ib)->pdev);
	return function && function->card->habits.infiniband ? function : NULL;
}

static int client_added(struct ib_device *ib)
{
	struct vnic_function *function = find_ipoib(ib);

	return function && !function->netdevs[0] ? vnic_netdevs_add(function) : 0;
}

static void client_removed(struct ib_device *ib, void *data)
{
	struct vnic_function *function = find_ipoib(ib);

	if (function)
		vnic_netdevs_remove(function);
}

static struct ib_client client = {
	.name = "vnic_ipoib",
	.add = client_added,
	.remove = client_removed,
	.no_kverbs_req = true,
};

static bool is_ours(const struct pci_dev *pdev)
{
	return pdev->is_virtfn && vnic_card_of(pdev->bus);
}

static int driver_changed(struct notifier_block *block, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);

	if (is_ours(pdev) && action == BUS_NOTIFY_BOUND_DRIVER && vnic_is_bound(pdev))
		ib_device_add(pdev);
	else if (is_ours(pdev) && action == BUS_NOTIFY_UNBIND_DRIVER)
		ib_devices_remove(pdev);
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = driver_changed };

static int __init vnic_verbs_init(void)
{
	int err = ib_register_client(&client);

	if (err)
		return err;
	err = bus_register_notifier(&pci_bus_type, &notifier);
	if (err)
		ib_unregister_client(&client);
	return err;
}

static void __exit vnic_verbs_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &notifier);
	ib_devices_remove(NULL);
	ib_unregister_client(&client);
}

module_init(vnic_verbs_init);
module_exit(vnic_verbs_exit);
MODULE_DESCRIPTION("RDMA devices of vnic's VFs");
MODULE_LICENSE("GPL");
