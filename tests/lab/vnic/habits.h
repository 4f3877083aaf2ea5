/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What drivers do differently from each other, as numbers that a profile presets, that the parameter `cards` overrides,
 * and that /sys/kernel/debug/vnic/CARD/habits changes at run time. Paths are those of Linux 6.12, below
 * drivers/net/ethernet unless they begin elsewhere. Error numbers are positive.
 */
#ifndef VNIC_HABITS_H
#define VNIC_HABITS_H

#include <linux/types.h>

#define VNIC_HABITS(X)								\
	/* NUMA node of the card; -1 for none. Read at load only. */		\
	X(node, -1)								\
	/* Whether the card is behind a PCIe root port. Read at load only. */	\
	X(root_port, 1)								\
	/* IPoIB instead of Ethernet (mellanox/mlx5/core/ipoib). */		\
	X(infiniband, 0)							\
	/* Whether a cable is plugged in. */					\
	X(cable, 1)								\
										\
	/* Writing sriov_numvfs takes so long: firmware of mlx5_core. */	\
	X(numvfs_ms, 0)								\
	/* It fails: EBUSY, EOPNOTSUPP (intel/ice/ice_sriov.c */		\
	/* ice_check_sriov_allowed), ENOMEM (drivers/pci/iov.c). */		\
	X(numvfs_errno, 0)							\
	/* With the PF down it succeeds and does nothing, for 0 as well */	\
	/* (broadcom/bnxt/bnxt_sriov.c bnxt_sriov_configure). */		\
	X(numvfs_needs_up, 0)							\
	/* The same with the PF up: firmware in reset (there). */		\
	X(numvfs_ignored, 0)							\
	/* Writing 0 succeeds and does nothing: VFs in a VM (there). */		\
	X(keep_vfs, 0)								\
	/* So many VFs at most; -1 for all. "Only able to reserve */		\
	/* resources for %d VFs" (there, bnxt_cfg_hw_sriov). */			\
	X(numvfs_at_most, -1)							\
	/* The PF loses its link for so long after VFs were made: the PF is */	\
	/* reset (intel/igb/igb_main.c igb_sriov_reinit, intel/ixgbe). */	\
	X(carrier_loss_ms, 0)							\
	/* VFs are in reset for so long after they were made. */		\
	X(enable_reset_ms, 0)							\
										\
	/* Netdevs appear late: intel/iavf/iavf_main.c iavf_watchdog_task, */	\
	/* intel/idpf/idpf_lib.c idpf_init_task. pf_ is the PF's. */		\
	X(netdev_ms, 0)								\
	X(pf_netdev_ms, 0)							\
	/* The VF's netdev never appears: firmware does not answer. */		\
	X(netdev_never, 0)							\
	/* Netdevs of one VF: two for mellanox/mlx4/en_netdev.c, dev_port. */	\
	X(netdevs, 1)								\
	/* A new netdev answers EBUSY for so long: iavf_open. */		\
	X(netdev_busy_ms, 0)							\
										\
	/* Setting MAC, VLAN or trust resets the VF for so long */		\
	/* (intel/ice ice_reset_vf, intel/i40e i40e_vc_reset_vf). */		\
	X(set_reset_ms, 0)							\
	/* This VF is in reset for good; -1 for none. */			\
	X(stuck_vf, -1)								\
	/* A call for a VF in reset waits so long under RTNL, then fails */	\
	/* with reset_errno: 800 ms and EBUSY (intel/ice/ice_vf_lib.c */	\
	/* ice_check_vf_ready_for_cfg), 300 ms and EAGAIN */			\
	/* (intel/i40e i40e_check_vf_init_timeout). For the list as well. */	\
	X(reset_wait_ms, 0)							\
	X(reset_errno, 16)							\
	/* i40e_ndo_get_vf_config does not wait for a VF in reset. */		\
	X(list_waits, 1)							\
	/* The next so many settings answer EAGAIN, or looks at one VF for */	\
	/* the list: "other operation is pending" */				\
	/* (intel/i40e/i40e_virtchnl_pf.c, every ndo). */			\
	X(pending, 0)								\
	X(list_pending, 0)							\
	/* This VF is left out of the kernel's list; -1 for none. */		\
	X(hidden_vf, -1)							\
	/* The e-switch belongs to another: every setting is EPERM, and no */	\
	/* VF is in the list (mellanox/mlx5/core/eswitch.c */			\
	/* mlx5_eswitch_get_vport). */						\
	X(no_manager, 0)							\
	/* With the PF down settings answer EAGAIN */				\
	/* (marvell/octeontx2/nic/otx2_pf.c otx2_set_vf_mac). */		\
	X(set_needs_up, 0)							\
										\
	/* A setting that the driver has not (EOPNOTSUPP), or refuses. */	\
	X(mac_errno, 0)								\
	X(vlan_errno, 0)							\
	X(rate_errno, 0)							\
	X(min_rate_errno, 0)							\
	X(spoofchk_errno, 0)							\
	X(trust_errno, 0)							\
	X(link_errno, 0)							\
	/* 802.1ad is accepted: ice in double VLAN mode, bnxt_en with */	\
	/* BNXT_FW_CAP_DFLT_VLAN_TPID_PCP. Otherwise EPROTONOSUPPORT. */	\
	X(vlan_ad, 0)								\
	/* PFs have sriov/N/trunk for each VF: drivers of Intel and NVIDIA, */	\
	/* not those of Linux. From the next VFs on. */				\
	X(vlan_trunk, 0)							\
	/* VLAN 0 with a priority is EINVAL (bnxt_set_vf_vlan). */		\
	X(qos_needs_vlan, 0)							\
	/* A zero MAC is EINVAL (otx2_set_vf_mac). */				\
	X(zero_mac_errno, 0)							\
	/* A rate above the link's is EINVAL (bnxt_set_vf_bw), so without */	\
	/* a link every rate is. */						\
	X(rate_needs_link, 0)							\
	/* What the list says of a VF without admin MAC: 1 its own */		\
	/* (ice_vfhw_mac_add, bnxt_get_vf_config), 0 zeros */			\
	/* (mellanox/mlx5/core/eswitch.c mlx5_eswitch_get_vport_config). */	\
	X(list_own_mac, 1)							\
										\
	/* When a bound VF takes its admin MAC over: 0 when its driver is */	\
	/* bound (mlx5), 1 at once (iavf, by the reset), 2 when it comes up */	\
	/* (bnxt_update_vf_mac). */						\
	X(mac_taken, 0)								\
	/* A VF with an admin MAC and no trust may not choose its own: EACCES */\
	/* (iavf_set_mac), EADDRNOTAVAIL (bnxt_approve_mac); 0 if it may. */	\
	X(own_mac_errno, 0)

#define VNIC_HABIT_FIELD(name, preset) s32 name;
struct vnic_habits {
	VNIC_HABITS(VNIC_HABIT_FIELD)
};

void vnic_habits_preset(struct vnic_habits *habits);
int vnic_habits_parse(struct vnic_habits *habits, char *text, const char *separators);

#endif
