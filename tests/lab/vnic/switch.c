// SPDX-License-Identifier: GPL-2.0
/*
 * The switch of a card, and the wire between cards. In legacy mode VFs, PF and wire are its ports, and the settings of
 * VFs are enforced. In switchdev mode it only joins each VF with its representor, and the PF with the wire.
 *
 * A frame's outer VLAN tag is always beside it (skb_vlan_tag_present), never in its data. All runs under RCU.
 */

#include <linux/if_vlan.h>

#include "vnic.h"

#define BURST	(32 << 10)	/* bytes a VF with a rate may send at once */

static void deliver(struct net_device *netdev, struct sk_buff *skb)
{
	int length = skb->len;

	if (dev_forward_skb(netdev, skb) == NET_RX_SUCCESS)
		dev_sw_netstats_rx_add(netdev, length);
}

static void deliver_to_vf(struct vnic_vf *vf, struct net_device *netdev, struct sk_buff *skb)
{
	atomic64_inc(&vf->rx_packets);
	atomic64_add(skb->len, &vf->rx_bytes);
	if (is_broadcast_ether_addr(eth_hdr(skb)->h_dest))
		atomic64_inc(&vf->broadcast);
	else if (is_multicast_ether_addr(eth_hdr(skb)->h_dest))
		atomic64_inc(&vf->multicast);
	deliver(netdev, skb);
}

static bool is_for(const struct net_device *netdev, const struct sk_buff *skb, bool may_be_promiscuous)
{
	const u8 *mac = eth_hdr(skb)->h_dest;

	return is_multicast_ether_addr(mac) || ether_addr_equal(mac, netdev->dev_addr) ||
	       (may_be_promiscuous && netdev->flags & IFF_PROMISC);
}

static bool may_tag(const struct vnic_vf *vf, const struct sk_buff *skb)
{
	return !READ_ONCE(vf->has_trunk) || test_bit(skb_vlan_tag_get_id(skb), vf->trunk);
}

/* Whether a VF is in the frame's VLAN. One without a port VLAN gets what its guest tagged, as a trunk. */
static bool shares_vlan(const struct vnic_vf *vf, const struct sk_buff *skb)
{
	u16 vlan = READ_ONCE(vf->vlan);

	if (!vlan)
		return !skb_vlan_tag_present(skb) || (skb->vlan_proto == htons(ETH_P_8021Q) && may_tag(vf, skb));
	return skb_vlan_tag_present(skb) && skb_vlan_tag_get_id(skb) == vlan && skb->vlan_proto == vf->vlan_proto;
}

/* A copy to a VF; gives whether it was meant for it. */
static bool offer_to_vf(struct vnic_vf *vf, struct sk_buff *skb)
{
	struct net_device *netdev = rcu_dereference(vf->netdev);
	struct sk_buff *copy;

	if (!netdev || !netif_carrier_ok(netdev) || !shares_vlan(vf, skb) || !is_for(netdev, skb, READ_ONCE(vf->trust)))
		return false;
	copy = skb_clone(skb, GFP_ATOMIC);
	if (!copy)
		return true;
	if (vf->vlan)
		__vlan_hwaccel_clear_tag(copy);
	deliver_to_vf(vf, netdev, copy);
	return true;
}

static bool offer_to_pf(struct vnic_card *card, struct sk_buff *skb)
{
	struct net_device *netdev = rcu_dereference(card->netdev);
	struct sk_buff *copy;

	if (!netdev || !netif_running(netdev) || !is_for(netdev, skb, true))
		return false;
	copy = skb_clone(skb, GFP_ATOMIC);
	if (copy)
		deliver(netdev, copy);
	return ether_addr_equal(eth_hdr(skb)->h_dest, netdev->dev_addr);
}

/* To VFs and PF of one card; gives whether one of them has the destination's address. */
static bool offer_to_card(struct vnic_card *card, struct sk_buff *skb, struct vnic_port *from)
{
	bool known = false;
	int i;

	for (i = 0; i < card->num_vfs && !card->switchdev; i++) {
		if (!from || from->vf != &card->vfs[i])
			known |= offer_to_vf(&card->vfs[i], skb);
	}
	if (!from || from->vf)
		known |= offer_to_pf(card, skb);
	return known && !is_multicast_ether_addr(eth_hdr(skb)->h_dest);
}

static void send_over_wire(struct vnic_card *from, struct sk_buff *skb)
{
	int i;

	if (!vnic_wire || !vnic_card_has_link(from))
		return;
	for (i = 0; i < VNIC_MAX_CARDS && vnic_cards[i]; i++) {
		if (vnic_cards[i] != from && vnic_card_has_link(vnic_cards[i]))
			offer_to_card(vnic_cards[i], skb, NULL);
	}
}

/* Up to the rate that was set; the rest is dropped, as the model has no queues. */
static bool is_within_rate(struct vnic_vf *vf, int length)
{
	u32 rate = READ_ONCE(vf->max_rate);
	bool within;
	u64 now;

	if (!rate)
		return true;
	spin_lock_bh(&vf->lock);
	now = ktime_get_ns();
	/* Mbit/s are bytes in 8 us */
	vf->bucket = min_t(u64, BURST, vf->bucket + div_u64(min_t(u64, now - vf->filled, NSEC_PER_SEC) * rate, 8000));
	vf->filled = now;
	within = vf->bucket >= length;
	if (within)
		vf->bucket -= length;
	spin_unlock_bh(&vf->lock);
	return within;
}

/* Whether a VF may send the frame as it is. */
static bool is_permitted(struct vnic_vf *vf, const struct sk_buff *skb)
{
	const struct net_device *netdev = skb->dev;
	const u8 *mac = is_zero_ether_addr(vf->mac) ? netdev->dev_addr : vf->mac;

	/* a trusted VF may have chosen another address than the PF gave it */
	if (READ_ONCE(vf->spoofchk) && !ether_addr_equal(eth_hdr(skb)->h_source, mac) &&
	    !(vf->trust && ether_addr_equal(eth_hdr(skb)->h_source, netdev->dev_addr)))
		return false;
	/* tags of its own are for a VF without port VLAN, or below one of 802.1ad */
	if (vf->vlan && skb_vlan_tag_present(skb) && vf->vlan_proto == htons(ETH_P_8021Q))
		return false;
	if (!vf->vlan && skb_vlan_tag_present(skb) && !may_tag(vf, skb))
		return false;
	return is_within_rate(vf, skb->len);
}

/* The frame as the switch has it: with the port VLAN outermost. NULL: no memory, and it is freed. */
static struct sk_buff *tag(const struct vnic_vf *vf, struct sk_buff *skb)
{
	if (!vf->vlan)
		return skb;
	if (skb_vlan_tag_present(skb)) {
		skb = __vlan_hwaccel_push_inside(skb);
		if (!skb)
			return NULL;
		skb_reset_mac_header(skb);
	}
	__vlan_hwaccel_put_tag(skb, vf->vlan_proto, vf->vlan | vf->qos << VLAN_PRIO_SHIFT);
	return skb;
}

static void send_from_vf(struct vnic_port *port, struct sk_buff *skb)
{
	struct vnic_card *card = port->card;
	struct vnic_vf *vf = port->vf;

	skb = tag(vf, skb);
	if (!skb)
		return;
	if (!offer_to_card(card, skb, port))
		send_over_wire(card, skb);
	consume_skb(skb);
}

static void send_to(struct net_device *netdev, struct sk_buff *skb)
{
	if (netdev && netif_running(netdev) && netif_carrier_ok(netdev))
		deliver(netdev, skb);
	else
		kfree_skb(skb);
}

static void send_legacy(struct vnic_port *port, struct sk_buff *skb)
{
	if (port->vf) {
		send_from_vf(port, skb);
		return;
	}
	if (!offer_to_card(port->card, skb, port))
		send_over_wire(port->card, skb);
	consume_skb(skb);
}

static void send_switchdev(struct vnic_port *port, struct sk_buff *skb)
{
	if (port->representor) {
		send_to(rcu_dereference(port->vf->netdev), skb);
	} else if (port->vf) {
		send_to(rcu_dereference(port->vf->representor), skb);
	} else {
		send_over_wire(port->card, skb);
		consume_skb(skb);
	}
}

/* A tag that is in the data, as of a packet socket, comes beside it. */
static bool untag(struct sk_buff *skb)
{
	__be16 proto = eth_hdr(skb)->h_proto;
	u16 tci;

	if (skb_vlan_tag_present(skb) || !eth_type_vlan(proto))
		return true;
	if (skb_cow_head(skb, 0) || __skb_vlan_pop(skb, &tci))
		return false;
	__vlan_hwaccel_put_tag(skb, proto, tci);
	skb_reset_mac_header(skb);
	return true;
}

static bool admit(struct vnic_port *port, struct sk_buff *skb)
{
	struct vnic_vf *vf = port->vf;

	if (port->number || !untag(skb))
		return false;
	if (!vf || port->representor)
		return true;
	if (!port->card->switchdev && !is_permitted(vf, skb)) {
		atomic64_inc(&vf->tx_dropped);
		return false;
	}
	atomic64_inc(&vf->tx_packets);
	atomic64_add(skb->len, &vf->tx_bytes);
	return true;
}

netdev_tx_t vnic_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct vnic_port *port = netdev_priv(netdev);

	skb_tx_timestamp(skb);
	skb_reset_mac_header(skb);
	if (netdev->addr_len != ETH_ALEN || !admit(port, skb)) {
		DEV_STATS_INC(netdev, tx_dropped);
		kfree_skb(skb);
		return NETDEV_TX_OK;
	}
	dev_sw_netstats_tx_add(netdev, 1, skb->len);
	rcu_read_lock();
	if (port->card->switchdev)
		send_switchdev(port, skb);
	else
		send_legacy(port, skb);
	rcu_read_unlock();
	return NETDEV_TX_OK;
}
