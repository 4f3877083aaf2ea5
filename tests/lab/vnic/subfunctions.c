// SPDX-License-Identifier: GPL-2.0
/*
 * Subfunctions: a devlink port of the flavour pcisf each, which is an auxiliary device `mlx5_core.sf.N` with a netdev
 * once it is active (mellanox/mlx5/core/sf). No packets go through them. All is done under the devlink instance's lock.
 */

#include <linux/auxiliary_bus.h>
#include <linux/idr.h>
#include <net/devlink.h>

#include "devlink.h"

#define FIRST_PORT	0x8000	/* index of a devlink port, above those of VFs */
#define MODULE_NAME	"mlx5_core"	/* auxiliary devices are called by the module they are of */

struct subfunction {
	struct list_head list;
	struct vnic_card *card;
	struct devlink_port port;
	struct sf_device *device;	/* while it is active */
	u32 number;
	u8 hw_addr[ETH_ALEN];
};

/* Of a life of its own, as whoever has its sysfs files open holds it. */
struct sf_device {
	struct auxiliary_device auxiliary;
	u32 number;
	struct vnic_card *card;
	u8 hw_addr[ETH_ALEN];
};

static DEFINE_IDA(ids);

static ssize_t sfnum_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return sysfs_emit(text, "%u\n", container_of(dev, struct sf_device, auxiliary.dev)->number);
}
static DEVICE_ATTR_RO(sfnum);

static struct attribute *sf_attrs[] = { &dev_attr_sfnum.attr, NULL };
ATTRIBUTE_GROUPS(sf);

static void device_release(struct device *dev)
{
	struct sf_device *device = container_of(dev, struct sf_device, auxiliary.dev);

	ida_free(&ids, device->auxiliary.id);
	kfree(device);
}

static int activate(struct subfunction *sf)
{
	struct sf_device *device = kzalloc(sizeof(*device), GFP_KERNEL);
	int err;

	if (!device)
		return -ENOMEM;
	device->number = sf->number;
	device->card = sf->card;
	ether_addr_copy(device->hw_addr, sf->hw_addr);
	err = ida_alloc_min(&ids, 1, GFP_KERNEL);
	if (err < 0) {
		kfree(device);
		return err;
	}
	device->auxiliary.id = err;
	device->auxiliary.name = "sf";
	device->auxiliary.dev.parent = devlink_to_dev(sf->card->devlink);
	device->auxiliary.dev.groups = sf_groups;
	device->auxiliary.dev.release = device_release;
	err = auxiliary_device_init(&device->auxiliary);
	if (err) {
		ida_free(&ids, device->auxiliary.id);
		kfree(device);
		return err;
	}
	err = __auxiliary_device_add(&device->auxiliary, MODULE_NAME);
	if (err) {
		auxiliary_device_uninit(&device->auxiliary);
		return err;
	}
	sf->device = device;
	return 0;
}

static void deactivate(struct subfunction *sf)
{
	if (!sf->device)
		return;
	auxiliary_device_delete(&sf->device->auxiliary);
	auxiliary_device_uninit(&sf->device->auxiliary);
	sf->device = NULL;
}

static struct subfunction *to_subfunction(struct devlink_port *port)
{
	return container_of(port, struct subfunction, port);
}

static int state_get(struct devlink_port *port, enum devlink_port_fn_state *state,
		     enum devlink_port_fn_opstate *opstate, struct netlink_ext_ack *extack)
{
	bool active = to_subfunction(port)->device;

	*state = active ? DEVLINK_PORT_FN_STATE_ACTIVE : DEVLINK_PORT_FN_STATE_INACTIVE;
	*opstate = active ? DEVLINK_PORT_FN_OPSTATE_ATTACHED : DEVLINK_PORT_FN_OPSTATE_DETACHED;
	return 0;
}

static int state_set(struct devlink_port *port, enum devlink_port_fn_state state, struct netlink_ext_ack *extack)
{
	struct subfunction *sf = to_subfunction(port);

	if (state == DEVLINK_PORT_FN_STATE_ACTIVE)
		return sf->device ? 0 : activate(sf);
	deactivate(sf);
	return 0;
}

static int hw_addr_get(struct devlink_port *port, u8 *address, int *length, struct netlink_ext_ack *extack)
{
	ether_addr_copy(address, to_subfunction(port)->hw_addr);
	*length = ETH_ALEN;
	return 0;
}

static int hw_addr_set(struct devlink_port *port, const u8 *address, int length, struct netlink_ext_ack *extack)
{
	ether_addr_copy(to_subfunction(port)->hw_addr, address);
	return 0;
}

static void subfunction_free(struct subfunction *sf)
{
	deactivate(sf);
	devl_port_unregister(&sf->port);
	list_del(&sf->list);
	kfree(sf);
}

static int port_del(struct devlink *devlink, struct devlink_port *port, struct netlink_ext_ack *extack)
{
	subfunction_free(to_subfunction(port));
	return 0;
}

static const struct devlink_port_ops port_ops = {
	.port_del = port_del,
	.port_fn_state_get = state_get,
	.port_fn_state_set = state_set,
	.port_fn_hw_addr_get = hw_addr_get,
	.port_fn_hw_addr_set = hw_addr_set,
};

int vnic_subfunction_add(struct vnic_card *card, const struct devlink_port_new_attrs *attrs,
			 struct netlink_ext_ack *extack, struct devlink_port **port)
{
	struct subfunction *sf;
	int err;

	if (attrs->flavour != DEVLINK_PORT_FLAVOUR_PCI_SF || !attrs->sfnum_valid) {
		NL_SET_ERR_MSG_MOD(extack, "User must provide unique sfnum");
		return -EOPNOTSUPP;
	}
	sf = kzalloc(sizeof(*sf), GFP_KERNEL);
	if (!sf)
		return -ENOMEM;
	sf->card = card;
	sf->number = attrs->sfnum;
	devlink_port_attrs_pci_sf_set(&sf->port, 0, 0, sf->number, false);
	err = devl_port_register_with_ops(card->devlink, &sf->port, FIRST_PORT + sf->number, &port_ops);
	if (err) {
		kfree(sf);
		return err;
	}
	list_add(&sf->list, &card->subfunctions);
	*port = &sf->port;
	return 0;
}

void vnic_subfunctions_remove(struct vnic_card *card)
{
	struct subfunction *sf, *next;

	if (!card->devlink)
		return;
	devl_lock(card->devlink);
	list_for_each_entry_safe(sf, next, &card->subfunctions, list)
		subfunction_free(sf);
	devl_unlock(card->devlink);
}

static int sf_probe(struct auxiliary_device *auxiliary, const struct auxiliary_device_id *id)
{
	struct sf_device *device = container_of(auxiliary, struct sf_device, auxiliary);
	struct net_device *netdev = vnic_netdev_create_plain(device->card, &auxiliary->dev, device->hw_addr);

	if (IS_ERR(netdev))
		return PTR_ERR(netdev);
	auxiliary_set_drvdata(auxiliary, netdev);
	return 0;
}

static void sf_remove(struct auxiliary_device *auxiliary)
{
	/* freed by the kernel after it (needs_free_netdev) */
	unregister_netdev(auxiliary_get_drvdata(auxiliary));
}

static const struct auxiliary_device_id sf_ids[] = { { .name = MODULE_NAME ".sf" }, { } };

static struct auxiliary_driver sf_driver = {
	.name = "sf",
	.probe = sf_probe,
	.remove = sf_remove,
	.id_table = sf_ids,
};

int vnic_subfunctions_register(void)
{
	return __auxiliary_driver_register(&sf_driver, THIS_MODULE, MODULE_NAME);
}

void vnic_subfunctions_unregister(void)
{
	if (sf_driver.driver.owner)
		auxiliary_driver_unregister(&sf_driver);
}
