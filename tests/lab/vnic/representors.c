// SPDX-License-Identifier: GPL-2.0
/* Representors of VFs, in switchdev mode: a netdev each, and a devlink port. */

#include <linux/rtnetlink.h>
#include <net/devlink.h>

#include "devlink.h"

struct representor {
	struct vnic_port port;	/* first: what the switch takes for the private data of a netdev */
	struct devlink_port devlink;
	u8 hw_addr[ETH_ALEN];
};

static int representor_open(struct net_device *netdev)
{
	struct vnic_port *port = netdev_priv(netdev);

	if (vnic_vf_has_link(port->vf))
		netif_carrier_on(netdev);
	return 0;
}

static int representor_stop(struct net_device *netdev)
{
	netif_carrier_off(netdev);
	return 0;
}

static const struct net_device_ops representor_ops = {
	.ndo_open = representor_open,
	.ndo_stop = representor_stop,
	.ndo_start_xmit = vnic_xmit,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_set_mac_address = eth_mac_addr,
};

static int hw_addr_get(struct devlink_port *port, u8 *address, int *length, struct netlink_ext_ack *extack)
{
	struct representor *representor = container_of(port, struct representor, devlink);

	ether_addr_copy(address, representor->port.vf->mac);
	*length = ETH_ALEN;
	return 0;
}

static int hw_addr_set(struct devlink_port *port, const u8 *address, int length, struct netlink_ext_ack *extack)
{
	struct representor *representor = container_of(port, struct representor, devlink);

	ether_addr_copy(representor->port.vf->mac, address);
	return 0;
}

static const struct devlink_port_ops port_ops = {
	.port_fn_hw_addr_get = hw_addr_get,
	.port_fn_hw_addr_set = hw_addr_set,
};

static int port_add(struct vnic_vf *vf, struct representor *representor)
{
	struct devlink_port_attrs *attrs = &representor->devlink.attrs;

	attrs->switch_id.id_len = sizeof(vf->card->number);
	memcpy(attrs->switch_id.id, &vf->card->number, attrs->switch_id.id_len);
	devlink_port_attrs_pci_vf_set(&representor->devlink, 0, 0, vf->index, false);
	return devl_port_register_with_ops(vf->card->devlink, &representor->devlink, vf->index + 1, &port_ops);
}

static int representor_add(struct vnic_vf *vf, struct device *parent)
{
	struct representor *representor;
	struct net_device *netdev;
	int err;

	netdev = alloc_etherdev(sizeof(*representor));
	if (!netdev)
		return -ENOMEM;
	representor = netdev_priv(netdev);
	representor->port = (struct vnic_port){ .netdev = netdev, .card = vf->card, .vf = vf, .representor = true };
	netdev->netdev_ops = &representor_ops;
	netdev->ethtool_ops = &vnic_ethtool_ops;
	netdev->max_mtu = 9216;
	netdev->features = NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_HIGHDMA | NETIF_F_HW_VLAN_CTAG_TX;
	netdev->lltx = true;
	netdev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	eth_hw_addr_random(netdev);
	netif_carrier_off(netdev);
	SET_NETDEV_DEV(netdev, parent);
	err = port_add(vf, representor);
	if (err)
		goto fail;
	SET_NETDEV_DEVLINK_PORT(netdev, &representor->devlink);
	err = register_netdev(netdev);
	if (err)
		goto fail_port;
	rcu_assign_pointer(vf->representor, netdev);
	return 0;
fail_port:
	devl_port_unregister(&representor->devlink);
fail:
	free_netdev(netdev);
	return err;
}

static void representor_remove(struct vnic_vf *vf)
{
	struct net_device *netdev = rcu_dereference_protected(vf->representor, true);
	struct representor *representor;

	if (!netdev)
		return;
	representor = netdev_priv(netdev);
	/* cleared first: unregistering waits for those who still read it */
	RCU_INIT_POINTER(vf->representor, NULL);
	unregister_netdev(netdev);
	devl_port_unregister(&representor->devlink);
	free_netdev(netdev);
}

void vnic_representors_remove_locked(struct vnic_card *card)
{
	int i;

	for (i = 0; i < card->num_vfs; i++)
		representor_remove(&card->vfs[i]);
}

int vnic_representors_add_locked(struct vnic_card *card)
{
	int err = 0, i;

	for (i = 0; i < card->num_vfs && card->switchdev && !err; i++)
		err = representor_add(&card->vfs[i], devlink_to_dev(card->devlink));
	if (err)
		vnic_representors_remove_locked(card);
	return err;
}

/* Modes are changed under the instance's lock; so VFs come and go under it too. */
int vnic_representors_add(struct vnic_card *card)
{
	int err;

	if (!card->devlink)
		return 0;
	devl_lock(card->devlink);
	err = vnic_representors_add_locked(card);
	devl_unlock(card->devlink);
	return err;
}

void vnic_representors_remove(struct vnic_card *card)
{
	if (!card->devlink)
		return;
	devl_lock(card->devlink);
	vnic_representors_remove_locked(card);
	devl_unlock(card->devlink);
}
