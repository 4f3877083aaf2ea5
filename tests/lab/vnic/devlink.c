// SPDX-License-Identifier: GPL-2.0
/* The devlink instance of a card, whose profile has one: what it is, and the modes of its e-switch. */

#include <net/devlink.h>

#include "devlink.h"

struct instance {
	struct vnic_card *card;
	struct devlink_port uplink;
	bool has_uplink;
};

static int info_get(struct devlink *devlink, struct devlink_info_req *req, struct netlink_ext_ack *extack)
{
	struct vnic_card *card = ((struct instance *)devlink_priv(devlink))->card;
	char serial[16];
	int err;

	snprintf(serial, sizeof(serial), "vnic%d", card->number);
	err = devlink_info_serial_number_put(req, serial);
	if (!err)
		err = devlink_info_version_running_put(req, DEVLINK_INFO_VERSION_GENERIC_FW, "1.0");
	/* the name of the DDP package: intel/ice/devlink/devlink.c ice_info_ddp_pkg_name */
	if (!err && card->profile->ddp)
		err = devlink_info_version_running_put(req, "fw.app.name", card->profile->ddp);
	return err;
}

static int eswitch_mode_get(struct devlink *devlink, u16 *mode)
{
	struct instance *instance = devlink_priv(devlink);

	*mode = instance->card->switchdev ? DEVLINK_ESWITCH_MODE_SWITCHDEV : DEVLINK_ESWITCH_MODE_LEGACY;
	return 0;
}

/* Where VFs are and when the uplink belongs to a switch: attributes are read again each time. */
static void uplink_set_switch(struct instance *instance)
{
	struct devlink_port_attrs *attrs = &instance->uplink.attrs;

	attrs->switch_id.id_len = sizeof(instance->card->number);
	memcpy(attrs->switch_id.id, &instance->card->number, attrs->switch_id.id_len);
	instance->uplink.switch_port = instance->card->switchdev;
}

static int eswitch_mode_set(struct devlink *devlink, u16 mode, struct netlink_ext_ack *extack)
{
	struct instance *instance = devlink_priv(devlink);
	struct vnic_card *card = instance->card;
	bool switchdev = mode == DEVLINK_ESWITCH_MODE_SWITCHDEV;
	int err = 0;

	if (mode != DEVLINK_ESWITCH_MODE_LEGACY && !switchdev)
		return -EOPNOTSUPP;
	if (card->switchdev == switchdev)
		return 0;
	if (card->num_vfs && card->profile->flags & VNIC_ESWITCH_NO_VFS) {
		/* intel/ice/ice_eswitch.c ice_eswitch_mode_set */
		NL_SET_ERR_MSG_MOD(extack, "Changing eswitch mode is allowed only if there is no VFs created");
		return -EOPNOTSUPP;
	}
	if (!switchdev)
		vnic_representors_remove_locked(card);
	WRITE_ONCE(card->switchdev, switchdev);
	uplink_set_switch(instance);
	if (switchdev)
		err = vnic_representors_add_locked(card);
	if (err) {
		WRITE_ONCE(card->switchdev, false);
		uplink_set_switch(instance);
	}
	return err;
}

static int port_new(struct devlink *devlink, const struct devlink_port_new_attrs *attrs,
		    struct netlink_ext_ack *extack, struct devlink_port **port)
{
	return vnic_subfunction_add(((struct instance *)devlink_priv(devlink))->card, attrs, extack, port);
}

static const struct devlink_ops plain_ops = {
	.info_get = info_get,
};

static const struct devlink_ops eswitch_ops = {
	.info_get = info_get,
	.eswitch_mode_get = eswitch_mode_get,
	.eswitch_mode_set = eswitch_mode_set,
};

static const struct devlink_ops subfunction_ops = {
	.info_get = info_get,
	.eswitch_mode_get = eswitch_mode_get,
	.eswitch_mode_set = eswitch_mode_set,
	.port_new = port_new,
};

static const struct devlink_ops *ops_of(u32 flags)
{
	if (flags & VNIC_SUBFUNCTIONS)
		return &subfunction_ops;
	return flags & VNIC_ESWITCH ? &eswitch_ops : &plain_ops;
}

static int uplink_add(struct instance *instance)
{
	struct devlink_port_attrs attrs = {
		.flavour = DEVLINK_PORT_FLAVOUR_PHYSICAL,
		.phys.port_number = 0,
	};
	int err;

	devlink_port_attrs_set(&instance->uplink, &attrs);
	err = devlink_port_register(priv_to_devlink(instance), &instance->uplink, 0);
	instance->has_uplink = !err;
	return err;
}

int vnic_devlink_add(struct vnic_function *pf)
{
	u32 flags = pf->card->profile->flags;
	struct instance *instance;
	struct devlink *devlink;

	pf->card->switchdev = false;
	if (!(flags & VNIC_DEVLINK))
		return 0;
	devlink = devlink_alloc(ops_of(flags), sizeof(*instance), &pf->pdev->dev);
	if (!devlink)
		return -ENOMEM;
	instance = devlink_priv(devlink);
	instance->card = pf->card;
	pf->card->devlink = devlink;
	return uplink_add(instance);
}

void vnic_devlink_show(struct vnic_card *card)
{
	if (card->devlink)
		devlink_register(card->devlink);
}

void vnic_devlink_hide(struct vnic_card *card)
{
	if (card->devlink)
		devlink_unregister(card->devlink);
}

void vnic_devlink_remove(struct vnic_card *card)
{
	struct instance *instance;

	if (!card->devlink)
		return;
	instance = devlink_priv(card->devlink);
	if (instance->has_uplink)
		devlink_port_unregister(&instance->uplink);
	devlink_free(card->devlink);
	card->devlink = NULL;
}

/* By its port a netdev has phys_port_name, phys_switch_id and an entry in `devlink port`. */
void vnic_devlink_name_netdev(struct vnic_card *card, struct net_device *netdev)
{
	if (card->devlink)
		SET_NETDEV_DEVLINK_PORT(netdev, &((struct instance *)devlink_priv(card->devlink))->uplink);
}
