// SPDX-License-Identifier: GPL-2.0
/*
 * vDPA management devices of VFs, and vDPA devices without working queues: as far as sysfs, netlink and device nodes
 * go (drivers/vdpa/mlx5 is a real one). A module of its own, as it needs vdpa. VFs that vnic's drivers are bound to
 * from now on get a management device.
 */

#include <linux/module.h>
#include <linux/vdpa.h>
#include <uapi/linux/vdpa.h>
#include <uapi/linux/virtio_ids.h>
#include <uapi/linux/virtio_net.h>

#include "vnic.h"

#define QUEUES		3
#define QUEUE_SIZE	256

struct management {
	struct list_head list;
	struct vdpa_mgmt_dev dev;
};

struct fake_vdpa {
	struct vdpa_device vdpa;
	struct virtio_net_config config;
	u64 features;
	u8 status;
};

static LIST_HEAD(managements);
static DEFINE_MUTEX(lock);
static struct virtio_device_id ids[] = { { VIRTIO_ID_NET, VIRTIO_DEV_ANY_ID }, { } };

static struct fake_vdpa *to_fake(struct vdpa_device *vdpa)
{
	return container_of(vdpa, struct fake_vdpa, vdpa);
}

static int set_vq_address(struct vdpa_device *vdpa, u16 index, u64 desc, u64 driver, u64 device)
{
	return 0;
}

static void set_vq_num(struct vdpa_device *vdpa, u16 index, u32 num)
{
}

static void kick_vq(struct vdpa_device *vdpa, u16 index)
{
}

static void set_vq_cb(struct vdpa_device *vdpa, u16 index, struct vdpa_callback *callback)
{
}

static void set_vq_ready(struct vdpa_device *vdpa, u16 index, bool ready)
{
}

static bool get_vq_ready(struct vdpa_device *vdpa, u16 index)
{
	return false;
}

static int set_vq_state(struct vdpa_device *vdpa, u16 index, const struct vdpa_vq_state *state)
{
	return 0;
}

static int get_vq_state(struct vdpa_device *vdpa, u16 index, struct vdpa_vq_state *state)
{
	return 0;
}

static u32 get_vq_align(struct vdpa_device *vdpa)
{
	return PAGE_SIZE;
}

static u64 get_device_features(struct vdpa_device *vdpa)
{
	return BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_F_ACCESS_PLATFORM) | BIT_ULL(VIRTIO_NET_F_MAC);
}

static int set_driver_features(struct vdpa_device *vdpa, u64 features)
{
	to_fake(vdpa)->features = features;
	return 0;
}

static u64 get_driver_features(struct vdpa_device *vdpa)
{
	return to_fake(vdpa)->features;
}

static void set_config_cb(struct vdpa_device *vdpa, struct vdpa_callback *callback)
{
}

static u16 get_vq_num_max(struct vdpa_device *vdpa)
{
	return QUEUE_SIZE;
}

static u32 get_device_id(struct vdpa_device *vdpa)
{
	return VIRTIO_ID_NET;
}

static u32 get_vendor_id(struct vdpa_device *vdpa)
{
	return to_pci_dev(vdpa->dev.parent)->vendor;
}

static u8 get_status(struct vdpa_device *vdpa)
{
	return to_fake(vdpa)->status;
}

static void set_status(struct vdpa_device *vdpa, u8 status)
{
	to_fake(vdpa)->status = status;
}

static int reset(struct vdpa_device *vdpa)
{
	to_fake(vdpa)->status = 0;
	return 0;
}

static size_t get_config_size(struct vdpa_device *vdpa)
{
	return sizeof(struct virtio_net_config);
}

static void get_config(struct vdpa_device *vdpa, unsigned int offset, void *to, unsigned int length)
{
	if (offset + length <= sizeof(struct virtio_net_config))
		memcpy(to, (u8 *)&to_fake(vdpa)->config + offset, length);
}

static void set_config(struct vdpa_device *vdpa, unsigned int offset, const void *from, unsigned int length)
{
}

static const struct vdpa_config_ops config_ops = {
	.set_vq_address = set_vq_address,
	.set_vq_num = set_vq_num,
	.kick_vq = kick_vq,
	.set_vq_cb = set_vq_cb,
	.set_vq_ready = set_vq_ready,
	.get_vq_ready = get_vq_ready,
	.set_vq_state = set_vq_state,
	.get_vq_state = get_vq_state,
	.get_vq_align = get_vq_align,
	.get_device_features = get_device_features,
	.set_driver_features = set_driver_features,
	.get_driver_features = get_driver_features,
	.set_config_cb = set_config_cb,
	.get_vq_num_max = get_vq_num_max,
	.get_device_id = get_device_id,
	.get_vendor_id = get_vendor_id,
	.get_status = get_status,
	.set_status = set_status,
	.reset = reset,
	.get_config_size = get_config_size,
	.get_config = get_config,
	.set_config = set_config,
};

static int dev_add(struct vdpa_mgmt_dev *management, const char *name, const struct vdpa_dev_set_config *config)
{
	struct fake_vdpa *fake;
	int err;

	fake = vdpa_alloc_device(struct fake_vdpa, vdpa, management->device, &config_ops, 1, 1, name, false);
	if (IS_ERR(fake))
		return PTR_ERR(fake);
	fake->vdpa.mdev = management;
	fake->vdpa.dma_dev = management->device;
	eth_random_addr(fake->config.mac);
	if (config->mask & BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR))
		ether_addr_copy(fake->config.mac, config->net.mac);
	err = _vdpa_register_device(&fake->vdpa, QUEUES);
	if (err)
		put_device(&fake->vdpa.dev);
	return err;
}

static void dev_del(struct vdpa_mgmt_dev *management, struct vdpa_device *vdpa)
{
	_vdpa_unregister_device(vdpa);
}

static const struct vdpa_mgmtdev_ops management_ops = {
	.dev_add = dev_add,
	.dev_del = dev_del,
};

static void management_add(struct pci_dev *pdev)
{
	struct management *management = kzalloc(sizeof(*management), GFP_KERNEL);

	if (!management)
		return;
	management->dev.device = &pdev->dev;
	management->dev.ops = &management_ops;
	management->dev.id_table = ids;
	management->dev.max_supported_vqs = QUEUES;
	management->dev.supported_features = get_device_features(NULL);
	management->dev.config_attr_mask = BIT_ULL(VDPA_ATTR_DEV_NET_CFG_MACADDR);
	if (vdpa_mgmtdev_register(&management->dev)) {
		kfree(management);
		return;
	}
	mutex_lock(&lock);
	list_add(&management->list, &managements);
	mutex_unlock(&lock);
}

/* That of one function, or with NULL all. */
static void managements_remove(struct pci_dev *pdev)
{
	struct management *management, *next;

	mutex_lock(&lock);
	list_for_each_entry_safe(management, next, &managements, list) {
		if (pdev && management->dev.device != &pdev->dev)
			continue;
		vdpa_mgmtdev_unregister(&management->dev);
		list_del(&management->list);
		kfree(management);
	}
	mutex_unlock(&lock);
}

static bool is_ours(const struct pci_dev *pdev)
{
	return pdev->is_virtfn && vnic_card_of(pdev->bus);
}

static int driver_changed(struct notifier_block *block, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);

	if (is_ours(pdev) && action == BUS_NOTIFY_BOUND_DRIVER && vnic_is_bound(pdev))
		management_add(pdev);
	else if (is_ours(pdev) && action == BUS_NOTIFY_UNBIND_DRIVER)
		managements_remove(pdev);
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = driver_changed };

static int __init vnic_vdpa_init(void)
{
	return bus_register_notifier(&pci_bus_type, &notifier);
}

static void __exit vnic_vdpa_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &notifier);
	managements_remove(NULL);
}

module_init(vnic_vdpa_init);
module_exit(vnic_vdpa_exit);
MODULE_DESCRIPTION("vDPA devices of vnic's VFs");
MODULE_LICENSE("GPL");
