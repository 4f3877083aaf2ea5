// SPDX-License-Identifier: GPL-2.0
/* Settings of VFs through the PF's netdev, and what the kernel's list says of them. All are called under RTNL. */

#include <linux/delay.h>
#include <linux/etherdevice.h>
#include <linux/if_vlan.h>

#include "vnic.h"

/* As after power-on. */
void vnic_vf_forget(struct vnic_vf *vf)
{
	eth_zero_addr(vf->mac);
	vf->vlan = 0;
	vf->qos = 0;
	vf->vlan_proto = htons(ETH_P_8021Q);
	bitmap_zero(vf->trunk, VLAN_N_VID);
	vf->has_trunk = false;
	vf->spoofchk = true;
	vf->trust = false;
	vf->link_state = IFLA_VF_LINK_STATE_AUTO;
	vf->min_rate = 0;
	vf->max_rate = 0;
	vf->node_guid = 0;
	vf->port_guid = 0;
	vf->reset.milliseconds = NULL;
	atomic64_set(&vf->rx_packets, 0);
	atomic64_set(&vf->tx_packets, 0);
	atomic64_set(&vf->rx_bytes, 0);
	atomic64_set(&vf->tx_bytes, 0);
	atomic64_set(&vf->broadcast, 0);
	atomic64_set(&vf->multicast, 0);
	atomic64_set(&vf->rx_dropped, 0);
	atomic64_set(&vf->tx_dropped, 0);
}

/* Counts down how often this is the answer. */
static bool is_pending(s32 *times)
{
	if (*times <= 0)
		return false;
	--*times;
	return true;
}

/* 0, or why the VF cannot be asked or set now. A wait stalls all who need RTNL, as it does with the real drivers. */
static int vf_await(struct vnic_vf *vf)
{
	struct vnic_habits *habits = &vf->card->habits;
	int left = habits->reset_wait_ms;

	for (; vnic_vf_in_reset(vf); left -= 20) {
		if (left <= 0)
			return -habits->reset_errno;
		msleep(20);
	}
	return 0;
}

/* The VF that is to be set. */
static struct vnic_vf *vf_to_set(struct net_device *netdev, int index, int refused)
{
	struct vnic_card *card = ((struct vnic_port *)netdev_priv(netdev))->card;
	int err;

	if (index >= card->num_vfs)
		return ERR_PTR(-EINVAL);
	if (card->habits.no_manager)
		return ERR_PTR(-EPERM);
	if (refused)
		return ERR_PTR(-refused);
	if (card->habits.set_needs_up && !card->running)
		return ERR_PTR(-EAGAIN);
	if (is_pending(&card->habits.pending))
		return ERR_PTR(-EAGAIN);
	err = vf_await(&card->vfs[index]);
	return err ? ERR_PTR(err) : &card->vfs[index];
}

static struct vnic_habits *habits_of(struct net_device *netdev)
{
	return &((struct vnic_port *)netdev_priv(netdev))->card->habits;
}

static bool is_strict(const struct vnic_card *card)
{
	return card->switchdev && card->profile->flags & VNIC_ESWITCH_STRICT;
}

static void vf_reset(struct vnic_vf *vf)
{
	vnic_reset_begin(vf->card, vf, &vf->card->habits.set_reset_ms);
}

int vnic_set_vf_mac(struct net_device *netdev, int index, u8 *mac)
{
	struct vnic_vf *vf = vf_to_set(netdev, index, habits_of(netdev)->mac_errno);
	struct net_device *own;

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	if (is_multicast_ether_addr(mac))
		return -EINVAL;
	if (is_zero_ether_addr(mac) && vf->card->habits.zero_mac_errno)
		return -vf->card->habits.zero_mac_errno;
	ether_addr_copy(vf->mac, mac);
	own = rtnl_dereference(vf->netdev);
	if (own && vf->card->habits.mac_taken == 1)
		vnic_take_mac(own, vf);
	vf_reset(vf);
	return 0;
}

int vnic_set_vf_vlan(struct net_device *netdev, int index, u16 vlan, u8 qos, __be16 proto)
{
	struct vnic_habits *habits = habits_of(netdev);
	struct vnic_vf *vf;

	if (proto != htons(ETH_P_8021Q) && (proto != htons(ETH_P_8021AD) || !habits->vlan_ad))
		return -EPROTONOSUPPORT;
	if (vlan >= VLAN_N_VID || qos > 7 || (!vlan && qos && habits->qos_needs_vlan))
		return -EINVAL;
	vf = vf_to_set(netdev, index, habits->vlan_errno);
	if (IS_ERR(vf))
		return PTR_ERR(vf);
	if (is_strict(vf->card))	/* "compatibility with libvirt": mlx5_eswitch_set_vport_vlan */
		return vlan ? -EOPNOTSUPP : 0;
	if (vf->vlan == vlan && vf->qos == qos && vf->vlan_proto == proto)
		return 0;
	WRITE_ONCE(vf->vlan, vlan);
	vf->qos = qos;
	vf->vlan_proto = proto;
	vf_reset(vf);
	return 0;
}

int vnic_set_vf_rate(struct net_device *netdev, int index, int min_rate, int max_rate)
{
	struct vnic_habits *habits = habits_of(netdev);
	struct vnic_vf *vf = vf_to_set(netdev, index, habits->rate_errno);
	int speed;

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	if (min_rate && habits->min_rate_errno)
		return -habits->min_rate_errno;
	speed = vnic_card_has_link(vf->card) ? vf->card->profile->speed : 0;
	if (habits->rate_needs_link && (min_rate > speed || max_rate > speed))
		return -EINVAL;
	vf->min_rate = min_rate;
	WRITE_ONCE(vf->max_rate, max_rate);
	return 0;
}

int vnic_set_vf_spoofchk(struct net_device *netdev, int index, bool setting)
{
	struct vnic_vf *vf = vf_to_set(netdev, index, habits_of(netdev)->spoofchk_errno);

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	if (is_strict(vf->card))	/* mlx5_eswitch_set_vport_spoofchk */
		return -EOPNOTSUPP;
	WRITE_ONCE(vf->spoofchk, setting);
	return 0;
}

int vnic_set_vf_trust(struct net_device *netdev, int index, bool setting)
{
	struct vnic_vf *vf = vf_to_set(netdev, index, habits_of(netdev)->trust_errno);

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	/* ice_set_vf_trust, mlx5_eswitch_set_vport_trust */
	if (is_strict(vf->card) || (vf->card->switchdev && vf->card->profile->flags & VNIC_ESWITCH_NO_VFS))
		return -EOPNOTSUPP;
	if (vf->trust == setting)
		return 0;
	WRITE_ONCE(vf->trust, setting);
	vf_reset(vf);
	return 0;
}

int vnic_set_vf_link_state(struct net_device *netdev, int index, int state)
{
	struct vnic_vf *vf = vf_to_set(netdev, index, habits_of(netdev)->link_errno);

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	WRITE_ONCE(vf->link_state, state);
	vnic_link_refresh(vf->card);
	return 0;
}

int vnic_set_vf_guid(struct net_device *netdev, int index, u64 guid, int kind)
{
	struct vnic_vf *vf = vf_to_set(netdev, index, 0);

	if (IS_ERR(vf))
		return PTR_ERR(vf);
	if (kind == IFLA_VF_IB_NODE_GUID)
		vf->node_guid = guid;
	else
		vf->port_guid = guid;
	return 0;
}

int vnic_get_vf_guid(struct net_device *netdev, int index, struct ifla_vf_guid *node, struct ifla_vf_guid *port)
{
	struct vnic_card *card = ((struct vnic_port *)netdev_priv(netdev))->card;

	if (index >= card->num_vfs)
		return -EINVAL;
	node->guid = card->vfs[index].node_guid;
	port->guid = card->vfs[index].port_guid;
	return 0;
}

/* What a driver does not report stays -1, as the core has preset it; link states have no such value. */
static void describe(const struct vnic_vf *vf, struct ifla_vf_info *info)
{
	const struct vnic_habits *habits = &vf->card->habits;
	struct net_device *own = rtnl_dereference(vf->netdev);

	info->vf = vf->index;
	ether_addr_copy(info->mac, vf->mac);
	if (is_zero_ether_addr(vf->mac) && own && own->addr_len == ETH_ALEN && habits->list_own_mac)
		ether_addr_copy(info->mac, own->dev_addr);
	info->vlan = vf->vlan;
	info->qos = vf->qos;
	info->vlan_proto = vf->vlan_proto;
	info->min_tx_rate = vf->min_rate;
	info->max_tx_rate = vf->max_rate;
	info->linkstate = vf->link_state;
	if (habits->spoofchk_errno != EOPNOTSUPP)
		info->spoofchk = vf->spoofchk;
	if (habits->trust_errno != EOPNOTSUPP)
		info->trusted = vf->trust;
}

/* An error leaves the VF out of the kernel's list, silently (net/core/rtnetlink.c rtnl_fill_vfinfo). */
int vnic_get_vf_config(struct net_device *netdev, int index, struct ifla_vf_info *info)
{
	struct vnic_card *card = ((struct vnic_port *)netdev_priv(netdev))->card;
	int err;

	if (index >= card->num_vfs)
		return -EINVAL;
	if (card->habits.no_manager)
		return -EPERM;
	if (index == READ_ONCE(card->habits.hidden_vf) || is_pending(&card->habits.list_pending))
		return -EAGAIN;
	if (card->habits.list_waits) {
		err = vf_await(&card->vfs[index]);
		if (err)
			return err;
	}
	describe(&card->vfs[index], info);
	return 0;
}

int vnic_get_vf_stats(struct net_device *netdev, int index, struct ifla_vf_stats *stats)
{
	struct vnic_card *card = ((struct vnic_port *)netdev_priv(netdev))->card;
	struct vnic_vf *vf;

	if (index >= card->num_vfs)
		return -EINVAL;
	vf = &card->vfs[index];
	stats->rx_packets = atomic64_read(&vf->rx_packets);
	stats->tx_packets = atomic64_read(&vf->tx_packets);
	stats->rx_bytes = atomic64_read(&vf->rx_bytes);
	stats->tx_bytes = atomic64_read(&vf->tx_bytes);
	stats->broadcast = atomic64_read(&vf->broadcast);
	stats->multicast = atomic64_read(&vf->multicast);
	stats->rx_dropped = atomic64_read(&vf->rx_dropped);
	stats->tx_dropped = atomic64_read(&vf->tx_dropped);
	return 0;
}
