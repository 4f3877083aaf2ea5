/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A software SR-IOV NIC: a card is one PF on a PCI host bridge of its own, with a switch between its VFs, its PF and
 * its wire. A card lives from insmod to rmmod; drivers come and go on it.
 */
#ifndef VNIC_H
#define VNIC_H

#include <linux/etherdevice.h>
#include <linux/if_link.h>
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/workqueue.h>

#include "habits.h"

#define VNIC_MAX_CARDS	16
#define VNIC_VF_OFFSET	16	/* of a VF's routing id from its PF's */
#define VNIC_MAX_VFS	(256 - VNIC_VF_OFFSET)	/* so that all are on the PF's bus */
#define VNIC_NETDEVS	2	/* of one function, at most */

/* What a driver has or has not, where it is not a habit. */
#define VNIC_VF_OPS		BIT(0)	/* settings of VFs through the PF's netdev */
#define VNIC_VF_STATS		BIT(1)	/* ndo_get_vf_stats */
#define VNIC_DEVLINK		BIT(2)
#define VNIC_ESWITCH		BIT(3)	/* devlink eswitch modes with representors */
#define VNIC_ESWITCH_NO_VFS	BIT(4)	/* the mode is changed without VFs only */
#define VNIC_ESWITCH_STRICT	BIT(5)	/* VLAN and spoofchk in legacy mode only */
#define VNIC_SUBFUNCTIONS	BIT(6)

struct vnic_profile {
	const char *name;
	const char *pf_driver;
	const char *vf_driver;
	u16 vendor;
	u16 pf_device;
	u16 vf_device;
	u32 speed;		/* Mbit/s */
	u32 flags;
	const char *habits;	/* as the parameter `cards` has them, between spaces */
	const char *ddp;	/* devlink's fw.app.name */
};

struct vnic_card;

/* A reset that began at `since`, in jiffies, and lasts as long as a habit says; no habit: none began. */
struct vnic_reset {
	unsigned long since;
	const s32 *milliseconds;
};

struct vnic_vf {
	struct vnic_card *card;
	int index;
	/* set under RTNL, read by the switch without */
	u8 mac[ETH_ALEN];	/* zero: none was set through the PF */
	u16 vlan;
	u8 qos;
	__be16 vlan_proto;
	DECLARE_BITMAP(trunk, VLAN_N_VID);	/* VLANs that it may tag with */
	bool has_trunk;		/* false: all of them */
	struct kobject *trunk_kobj;
	bool spoofchk;
	bool trust;
	int link_state;
	u32 min_rate;		/* Mbit/s; 0 is no bound */
	u32 max_rate;
	u64 node_guid;
	u64 port_guid;
	struct vnic_reset reset;
	struct vnic_function *function;	/* while one of our drivers is bound; guarded by RTNL */
	struct net_device __rcu *netdev;
	struct net_device __rcu *representor;
	spinlock_t lock;	/* of the bucket */
	s64 bucket;		/* bytes that may be sent now */
	u64 filled;		/* when it was last filled, in ns */
	atomic64_t rx_packets, tx_packets, rx_bytes, tx_bytes;
	atomic64_t broadcast, multicast, rx_dropped, tx_dropped;
};

struct vnic_card {
	int number;
	const struct vnic_profile *profile;
	struct vnic_habits habits;
	int total_vfs;

	/* the bridge; config space is guarded by the PCI core's own lock */
	struct pci_sysdata sysdata;	/* pci_ops find the card by it */
	struct pci_bus *root;
	struct resource window;
	struct resource buses;
	u8 *port_config, *pf_config, *vf_config;
	bool plugged;

	/* the switch */
	struct net_device __rcu *netdev;	/* the PF's */
	struct vnic_vf *vfs;
	int num_vfs;
	bool running;		/* the PF's netdev is up */
	struct vnic_reset reset;	/* of the PF */
	bool switchdev;
	struct delayed_work wake_up;	/* after a reset */

	struct kobject *trunks;	/* the folder `sriov` of the PF */
	struct devlink *devlink;
	struct list_head subfunctions;	/* guarded by the lock of the devlink instance */
};

/* A PF or VF with one of our drivers. */
struct vnic_function {
	struct vnic_card *card;
	struct vnic_vf *vf;	/* NULL: the PF */
	struct pci_dev *pdev;
	struct net_device *netdevs[VNIC_NETDEVS];
	struct delayed_work birth;	/* of its netdevs */
	unsigned long bound;		/* since when, in jiffies */
};

/* Private data of a netdev. */
struct vnic_port {
	struct net_device *netdev;
	struct vnic_card *card;
	struct vnic_vf *vf;	/* NULL: the PF */
	bool representor;
	int number;		/* of the function's ports; only the first is at the switch */
	unsigned long born;	/* in jiffies */
};

/* main.c */
extern struct vnic_card *vnic_cards[VNIC_MAX_CARDS];
extern bool vnic_wire;

/* profiles.c */
const struct vnic_profile *vnic_profile_find(const char *name);

/* config_space.c */
extern struct pci_ops vnic_pci_ops;
int vnic_config_alloc(struct vnic_card *card);
void vnic_config_reset(struct vnic_card *card);
void vnic_config_free(struct vnic_card *card);
int vnic_card_bus(const struct vnic_card *card);

static inline struct vnic_card *vnic_card_of(const struct pci_bus *bus)
{
	if (bus->ops != &vnic_pci_ops)
		return NULL;
	return container_of((struct pci_sysdata *)bus->sysdata, struct vnic_card, sysdata);
}

/* bridge.c */
int vnic_bridge_add(struct vnic_card *card, int domain);
void vnic_bridge_remove(struct vnic_card *card);
void vnic_card_plug(struct vnic_card *card, bool plugged);

/* habits.c */
void vnic_debugfs_add(struct vnic_card *card, struct dentry *parent);

/* drivers.c */
bool vnic_is_bound(const struct pci_dev *pdev);
int vnic_drivers_register(void);
void vnic_drivers_unregister(void);

/* link.c */
void vnic_wake_up(struct work_struct *work);
void vnic_link_refresh(struct vnic_card *card);
void vnic_reset_begin(struct vnic_card *card, struct vnic_vf *vf, const s32 *milliseconds);
bool vnic_vf_in_reset(const struct vnic_vf *vf);
bool vnic_card_has_link(const struct vnic_card *card);
bool vnic_vf_has_link(const struct vnic_vf *vf);

/* netdev.c */
extern const struct ethtool_ops vnic_ethtool_ops;
struct net_device *vnic_netdev_create_plain(struct vnic_card *card, struct device *parent, const u8 *mac);
int vnic_netdevs_add(struct vnic_function *function);
void vnic_netdevs_remove(struct vnic_function *function);
void vnic_vf_netdevs_remove(struct vnic_card *card);
void vnic_take_mac(struct net_device *netdev, const struct vnic_vf *vf);

/* trunk.c */
int vnic_trunks_add(struct vnic_card *card, struct pci_dev *pf);
void vnic_trunks_remove(struct vnic_card *card);

/* switch.c */
netdev_tx_t vnic_xmit(struct sk_buff *skb, struct net_device *netdev);

/* vf_settings.c */
void vnic_vf_forget(struct vnic_vf *vf);
int vnic_set_vf_mac(struct net_device *netdev, int vf, u8 *mac);
int vnic_set_vf_vlan(struct net_device *netdev, int vf, u16 vlan, u8 qos, __be16 proto);
int vnic_set_vf_rate(struct net_device *netdev, int vf, int min_rate, int max_rate);
int vnic_set_vf_spoofchk(struct net_device *netdev, int vf, bool setting);
int vnic_set_vf_trust(struct net_device *netdev, int vf, bool setting);
int vnic_set_vf_link_state(struct net_device *netdev, int vf, int state);
int vnic_set_vf_guid(struct net_device *netdev, int vf, u64 guid, int kind);
int vnic_get_vf_guid(struct net_device *netdev, int vf, struct ifla_vf_guid *node, struct ifla_vf_guid *port);
int vnic_get_vf_config(struct net_device *netdev, int vf, struct ifla_vf_info *info);
int vnic_get_vf_stats(struct net_device *netdev, int vf, struct ifla_vf_stats *stats);

/* iommu.c, a module of its own */
void vnic_iommu_serve(const struct pci_ops *ops);

#endif
