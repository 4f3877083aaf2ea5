// SPDX-License-Identifier: GPL-2.0
/* Netdevs of PFs and VFs. */

#include <linux/ethtool.h>
#include <linux/if_arp.h>
#include <linux/if_infiniband.h>
#include <linux/rtnetlink.h>

#include "devlink.h"
#include "vnic.h"

#define MAX_MTU	9216

/* Takes the admin MAC over, if there is one. */
void vnic_take_mac(struct net_device *netdev, const struct vnic_vf *vf)
{
	if (is_valid_ether_addr(vf->mac) && netdev->type == ARPHRD_ETHER)
		eth_hw_addr_set(netdev, vf->mac);
}

static bool is_busy(const struct vnic_port *port)
{
	int milliseconds = port->card->habits.netdev_busy_ms;

	return port->vf && milliseconds && time_before(jiffies, port->born + msecs_to_jiffies(milliseconds));
}

static int port_open(struct net_device *netdev)
{
	struct vnic_port *port = netdev_priv(netdev);

	if (is_busy(port))
		return -EBUSY;
	if (port->vf && port->card->habits.mac_taken == 2)
		vnic_take_mac(netdev, port->vf);
	if (!port->vf && !port->number)
		port->card->running = true;
	if (port->vf ? vnic_vf_has_link(port->vf) : vnic_card_has_link(port->card))
		netif_carrier_on(netdev);
	else
		netif_carrier_off(netdev);
	return 0;
}

static int port_stop(struct net_device *netdev)
{
	struct vnic_port *port = netdev_priv(netdev);

	if (!port->vf && !port->number)
		port->card->running = false;
	netif_carrier_off(netdev);
	return 0;
}

static int port_set_mac(struct net_device *netdev, void *address)
{
	const u8 *mac = ((struct sockaddr *)address)->sa_data;
	struct vnic_port *port = netdev_priv(netdev);
	struct vnic_vf *vf = port->vf;

	if (!is_valid_ether_addr(mac))
		return -EADDRNOTAVAIL;
	if (is_busy(port))
		return -EBUSY;
	if (vf && port->card->habits.own_mac_errno && is_valid_ether_addr(vf->mac) && !vf->trust &&
	    !ether_addr_equal(vf->mac, mac)) {
		netdev_warn(netdev, "VF MAC address %pM not approved by the PF\n", mac);
		return -port->card->habits.own_mac_errno;
	}
	eth_hw_addr_set(netdev, mac);
	return 0;
}

static int port_change_mtu(struct net_device *netdev, int mtu)
{
	if (is_busy(netdev_priv(netdev)))
		return -EBUSY;
	WRITE_ONCE(netdev->mtu, mtu);
	return 0;
}

static void port_set_rx_mode(struct net_device *netdev)
{
	/* the switch looks at the netdev's flags itself */
}

#define PORT_OPS					\
	.ndo_open = port_open,				\
	.ndo_stop = port_stop,				\
	.ndo_start_xmit = vnic_xmit,			\
	.ndo_validate_addr = eth_validate_addr,		\
	.ndo_set_mac_address = port_set_mac,		\
	.ndo_change_mtu = port_change_mtu,		\
	.ndo_set_rx_mode = port_set_rx_mode

#define SETTINGS					\
	.ndo_set_vf_mac = vnic_set_vf_mac,		\
	.ndo_set_vf_vlan = vnic_set_vf_vlan,		\
	.ndo_set_vf_rate = vnic_set_vf_rate,		\
	.ndo_set_vf_spoofchk = vnic_set_vf_spoofchk,	\
	.ndo_set_vf_trust = vnic_set_vf_trust,		\
	.ndo_set_vf_link_state = vnic_set_vf_link_state,	\
	.ndo_set_vf_guid = vnic_set_vf_guid,		\
	.ndo_get_vf_config = vnic_get_vf_config

static const struct net_device_ops plain_ops = { PORT_OPS };
static const struct net_device_ops settings_ops = { PORT_OPS, SETTINGS };
static const struct net_device_ops stats_ops = { PORT_OPS, SETTINGS, .ndo_get_vf_stats = vnic_get_vf_stats };

/* GUIDs make the kernel's list longer, so only who has some lists them. */
static const struct net_device_ops infiniband_ops = {
	.ndo_open = port_open,
	.ndo_stop = port_stop,
	.ndo_start_xmit = vnic_xmit,
	.ndo_change_mtu = port_change_mtu,
	SETTINGS,
	.ndo_get_vf_guid = vnic_get_vf_guid,
	.ndo_get_vf_stats = vnic_get_vf_stats,
};

static int port_get_link_ksettings(struct net_device *netdev, struct ethtool_link_ksettings *settings)
{
	struct vnic_port *port = netdev_priv(netdev);

	settings->base.speed = netif_carrier_ok(netdev) ? port->card->profile->speed : SPEED_UNKNOWN;
	settings->base.duplex = netif_carrier_ok(netdev) ? DUPLEX_FULL : DUPLEX_UNKNOWN;
	settings->base.port = PORT_FIBRE;
	return 0;
}

const struct ethtool_ops vnic_ethtool_ops = {
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = port_get_link_ksettings,
};

static const struct net_device_ops *ops_of(const struct vnic_function *function)
{
	u32 flags = function->card->profile->flags;

	if (function->card->habits.infiniband)
		return &infiniband_ops;
	if (function->vf || !(flags & VNIC_VF_OPS))
		return &plain_ops;
	return flags & VNIC_VF_STATS ? &stats_ops : &settings_ops;
}

/* An address of IPoIB: queue pair, link-local prefix, GUID. */
static void infiniband_setup(struct net_device *netdev, const struct vnic_function *function)
{
	int index = function->vf ? function->vf->index + 1 : 0;
	u64 guid = 0x0002c90300766e00ULL + (function->card->number << 16) + index;
	u8 address[INFINIBAND_ALEN] = { 0, 0, 0, 0x48, 0xfe, 0x80 };
	__be64 bytes;

	if (function->vf && function->vf->port_guid)
		guid = function->vf->port_guid;
	bytes = cpu_to_be64(guid);
	memcpy(address + 12, &bytes, sizeof(bytes));
	netdev->type = ARPHRD_INFINIBAND;
	netdev->addr_len = INFINIBAND_ALEN;
	netdev->header_ops = NULL;
	netdev->hard_header_len = 0;
	netdev->flags &= ~IFF_BROADCAST;
	netdev->mtu = 2044;
	memset(netdev->broadcast, 0xff, INFINIBAND_ALEN);
	__dev_addr_set(netdev, address, INFINIBAND_ALEN);
}

static void address_setup(struct net_device *netdev, const struct vnic_function *function, int number)
{
	u8 mac[ETH_ALEN] = { 0x02, 0x76, 0x6e, 0, function->card->number, number };

	if (function->card->habits.infiniband) {
		infiniband_setup(netdev, function);
	} else if (!function->vf) {
		eth_hw_addr_set(netdev, mac);
	} else {
		eth_hw_addr_random(netdev);
		if (!number)
			vnic_take_mac(netdev, function->vf);
	}
}

static int netdev_add(struct vnic_function *function, int number)
{
	const char *name = function->card->habits.infiniband ? "ib%d" : "eth%d";
	struct net_device *netdev;
	struct vnic_port *port;
	int err;

	netdev = alloc_netdev(sizeof(struct vnic_port), name, NET_NAME_ENUM, ether_setup);
	if (!netdev)
		return -ENOMEM;
	port = netdev_priv(netdev);
	*port = (struct vnic_port){ .netdev = netdev, .card = function->card, .vf = function->vf, .number = number,
				    .born = jiffies };
	netdev->netdev_ops = ops_of(function);
	netdev->ethtool_ops = &vnic_ethtool_ops;
	netdev->min_mtu = ETH_MIN_MTU;
	netdev->max_mtu = MAX_MTU;
	netdev->features = NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_HIGHDMA | NETIF_F_HW_VLAN_CTAG_TX |
			   NETIF_F_HW_VLAN_STAG_TX;
	netdev->hw_features = netdev->features;
	netdev->vlan_features = NETIF_F_SG | NETIF_F_HW_CSUM | NETIF_F_HIGHDMA;
	netdev->lltx = true;
	netdev->needs_free_netdev = true;
	netdev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	netdev->dev_port = number;
	address_setup(netdev, function, number);
	SET_NETDEV_DEV(netdev, &function->pdev->dev);
	if (!function->vf && !number)
		vnic_devlink_name_netdev(function->card, netdev);
	netif_carrier_off(netdev);
	rtnl_lock();
	err = register_netdevice(netdev);
	if (!err) {
		function->netdevs[number] = netdev;
		if (!number)
			rcu_assign_pointer(*(function->vf ? &function->vf->netdev : &function->card->netdev), netdev);
	}
	rtnl_unlock();
	if (err)
		free_netdev(netdev);
	return err;
}

/* One that is at no switch: what it sends is dropped. */
struct net_device *vnic_netdev_create_plain(struct vnic_card *card, struct device *parent, const u8 *mac)
{
	struct net_device *netdev = alloc_etherdev(sizeof(struct vnic_port));
	struct vnic_port *port;
	int err;

	if (!netdev)
		return ERR_PTR(-ENOMEM);
	port = netdev_priv(netdev);
	*port = (struct vnic_port){ .netdev = netdev, .card = card, .number = 1 };
	netdev->netdev_ops = &plain_ops;
	netdev->ethtool_ops = &vnic_ethtool_ops;
	netdev->lltx = true;
	netdev->needs_free_netdev = true;
	netdev->pcpu_stat_type = NETDEV_PCPU_STAT_TSTATS;
	if (is_valid_ether_addr(mac))
		eth_hw_addr_set(netdev, mac);
	else
		eth_hw_addr_random(netdev);
	SET_NETDEV_DEV(netdev, parent);
	err = register_netdev(netdev);
	if (!err)
		return netdev;
	free_netdev(netdev);
	return ERR_PTR(err);
}

int vnic_netdevs_add(struct vnic_function *function)
{
	int count = function->vf ? clamp(function->card->habits.netdevs, 1, VNIC_NETDEVS) : 1;
	int err = 0, i;

	for (i = 0; i < count && !err; i++)
		err = netdev_add(function, i);
	if (err)
		vnic_netdevs_remove(function);
	return err;
}
EXPORT_SYMBOL_GPL(vnic_netdevs_add);

/* The kernel frees them after RTNL (needs_free_netdev). */
static void netdevs_forget(struct vnic_function *function, struct list_head *leaving)
{
	int i;

	/* cleared first: unregistering waits for those who still read it */
	RCU_INIT_POINTER(*(function->vf ? &function->vf->netdev : &function->card->netdev), NULL);
	for (i = 0; i < VNIC_NETDEVS; i++) {
		if (function->netdevs[i])
			unregister_netdevice_queue(function->netdevs[i], leaving);
		function->netdevs[i] = NULL;
	}
}

void vnic_netdevs_remove(struct vnic_function *function)
{
	LIST_HEAD(leaving);

	rtnl_lock();
	netdevs_forget(function, &leaving);
	unregister_netdevice_many(&leaving);
	rtnl_unlock();
}
EXPORT_SYMBOL_GPL(vnic_netdevs_remove);

/* Those of all VFs at once, as each time the kernel waits for its readers: a second for 128 VFs instead of three. */
void vnic_vf_netdevs_remove(struct vnic_card *card)
{
	LIST_HEAD(leaving);
	int i;

	rtnl_lock();
	for (i = 0; i < card->num_vfs; i++) {
		if (card->vfs[i].function)
			netdevs_forget(card->vfs[i].function, &leaving);
	}
	unregister_netdevice_many(&leaving);
	rtnl_unlock();
}
