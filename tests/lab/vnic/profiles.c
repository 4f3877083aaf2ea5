// SPDX-License-Identifier: GPL-2.0
/*
 * NICs as their drivers in Linux 6.12 make them look. Where a habit comes from is in habits.h. Device ids are chosen
 * among those of the driver so that no quirk of the kernel touches them.
 */

#include <linux/string.h>

#include "vnic.h"

static const struct vnic_profile profiles[] = {
	{
		/* Intel E810: intel/ice, intel/iavf */
		.name = "ice",
		.pf_driver = "ice",
		.vf_driver = "iavf",
		.vendor = 0x8086,
		.pf_device = 0x1592,
		.vf_device = 0x1889,
		.speed = 100000,
		.flags = VNIC_VF_OPS | VNIC_VF_STATS | VNIC_DEVLINK | VNIC_ESWITCH | VNIC_ESWITCH_NO_VFS,
		.habits = "netdev_ms=50 reset_wait_ms=800 reset_errno=16 mac_taken=1 own_mac_errno=13",
		.ddp = "ICE OS Default Package",
	}, {
		/* Intel X710: intel/i40e, intel/iavf */
		.name = "i40e",
		.pf_driver = "i40e",
		.vf_driver = "iavf",
		.vendor = 0x8086,
		.pf_device = 0x1572,
		.vf_device = 0x154c,
		.speed = 10000,
		.flags = VNIC_VF_OPS | VNIC_VF_STATS | VNIC_DEVLINK,
		.habits = "netdev_ms=50 reset_wait_ms=300 reset_errno=11 list_waits=0 min_rate_errno=22 mac_taken=1 "
			  "own_mac_errno=13",
	}, {
		/* Intel IPU E2100: intel/idpf for both; no settings of VFs through a netdev, which are late */
		.name = "idpf",
		.pf_driver = "idpf",
		.vf_driver = "idpf",
		.vendor = 0x8086,
		.pf_device = 0x1452,
		.vf_device = 0x145c,
		.speed = 100000,
		.habits = "netdev_ms=50 pf_netdev_ms=50",
	}, {
		/* ConnectX-6 Dx: mellanox/mlx5/core for both */
		.name = "mlx5",
		.pf_driver = "mlx5_core",
		.vf_driver = "mlx5_core",
		.vendor = 0x15b3,
		.pf_device = 0x101d,
		.vf_device = 0x101e,
		.speed = 100000,
		.flags = VNIC_VF_OPS | VNIC_VF_STATS | VNIC_DEVLINK | VNIC_ESWITCH | VNIC_ESWITCH_STRICT |
			 VNIC_SUBFUNCTIONS,
		.habits = "list_own_mac=0",
	}, {
		/* Broadcom BCM57508: broadcom/bnxt for both */
		.name = "bnxt",
		.pf_driver = "bnxt_en",
		.vf_driver = "bnxt_en",
		.vendor = 0x14e4,
		.pf_device = 0x1750,
		.vf_device = 0x1806,
		.speed = 100000,
		.flags = VNIC_VF_OPS | VNIC_DEVLINK | VNIC_ESWITCH,
		.habits = "numvfs_needs_up=1 qos_needs_vlan=1 rate_needs_link=1 mac_taken=2 own_mac_errno=99",
	}, {
		/* Marvell OcteonTX2: marvell/octeontx2/nic; no rate, spoofchk or link state */
		.name = "octeontx2",
		.pf_driver = "rvu_nicpf",
		.vf_driver = "rvu_nicvf",
		.vendor = 0x177d,
		.pf_device = 0xa063,
		.vf_device = 0xa064,
		.speed = 50000,
		.flags = VNIC_VF_OPS,
		.habits = "set_needs_up=1 zero_mac_errno=22 rate_errno=95 spoofchk_errno=95 link_errno=95",
	},
};

const struct vnic_profile *vnic_profile_find(const char *name)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(profiles); i++) {
		if (!strcmp(profiles[i].name, name))
			return &profiles[i];
	}
	return NULL;
}
