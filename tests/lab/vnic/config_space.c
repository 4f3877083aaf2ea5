// SPDX-License-Identifier: GPL-2.0
/*
 * Config space: for each kind of function its content, and a mask of what can be written. A write through the mask is
 * all the emulation that is needed: the size of a BAR is in its mask, and a function level reset is a bit that never
 * sticks. The PCI core's own lock guards all of it. Offsets in (): PCI Express Base Specification.
 */

#include <linux/slab.h>
#include <linux/unaligned.h>

#include "vnic.h"

#define PORT_SIZE	256
#define PF_SIZE		4096
#define VF_SIZE		256	/* what is above reads 0 */
#define EXPRESS		0x40	/* where the PCI Express capability is */
#define SRIOV		0x100
#define SERIAL		0x150
#define PF_BAR		(64 << 10)
#define VF_BAR		(16 << 10)
/* above the 64-bit window of a port only prefetchable memory can lie, and the cards' window is at 128 GiB */
#define BAR_FLAGS	(PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH)
#define CLASS_INFINIBAND	0x0207	/* has no name in the kernel */
#define LINK_16GT_X16	(PCI_EXP_LNKCAP_SLS_16_0GB | 16 << 4)

static u8 port_mask[PORT_SIZE], pf_mask[PF_SIZE], vf_mask[VF_SIZE];

static void put8(u8 *config, int where, u8 value)
{
	config[where] = value;
}

static void put16(u8 *config, int where, u16 value)
{
	put_unaligned_le16(value, config + where);
}

static void put32(u8 *config, int where, u32 value)
{
	put_unaligned_le32(value, config + where);
}

/* The bus of the PF and its VFs: the second of the card's two where a root port is before it. */
int vnic_card_bus(const struct vnic_card *card)
{
	return card->buses.start + (card->habits.root_port ? 1 : 0);
}

static void write_express(u8 *config, int type, bool link)
{
	put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
	put8(config, PCI_CAPABILITY_LIST, EXPRESS);
	put8(config, EXPRESS, PCI_CAP_ID_EXP);
	put16(config, EXPRESS + PCI_EXP_FLAGS, 2 | type << 4);
	put32(config, EXPRESS + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER | (type == PCI_EXP_TYPE_ROOT_PORT ? 0 :
								      PCI_EXP_DEVCAP_FLR));
	if (link) {
		put32(config, EXPRESS + PCI_EXP_LNKCAP, LINK_16GT_X16);
		put16(config, EXPRESS + PCI_EXP_LNKSTA, LINK_16GT_X16);
	}
}

static void write_port(struct vnic_card *card)
{
	u8 *config = card->port_config;
	int bus = vnic_card_bus(card);

	put16(config, PCI_VENDOR_ID, PCI_VENDOR_ID_INTEL);
	put16(config, PCI_DEVICE_ID, 0x347a);	/* a root port of Ice Lake */
	put16(config, PCI_CLASS_DEVICE, PCI_CLASS_BRIDGE_PCI);
	put8(config, PCI_HEADER_TYPE, PCI_HEADER_TYPE_BRIDGE);
	/* preset, as firmware does: the core keeps them */
	put8(config, PCI_PRIMARY_BUS, card->buses.start);
	put8(config, PCI_SECONDARY_BUS, bus);
	put8(config, PCI_SUBORDINATE_BUS, bus);
	put16(config, PCI_PREF_MEMORY_BASE, PCI_PREF_RANGE_TYPE_64);
	put16(config, PCI_PREF_MEMORY_LIMIT, PCI_PREF_RANGE_TYPE_64);
	write_express(config, PCI_EXP_TYPE_ROOT_PORT, true);
}

static void write_sriov(struct vnic_card *card)
{
	u8 *config = card->pf_config + SRIOV;

	put32(config, 0, PCI_EXT_CAP_ID_SRIOV | 1 << 16 | SERIAL << 20);
	put16(config, PCI_SRIOV_INITIAL_VF, card->total_vfs);
	put16(config, PCI_SRIOV_TOTAL_VF, card->total_vfs);
	put16(config, PCI_SRIOV_VF_OFFSET, VNIC_VF_OFFSET);
	put16(config, PCI_SRIOV_VF_STRIDE, 1);
	put16(config, PCI_SRIOV_VF_DID, card->profile->vf_device);
	put32(config, PCI_SRIOV_SUP_PGSIZE, 0x553);
	put32(config, PCI_SRIOV_SYS_PGSIZE, 1);
	put32(config, PCI_SRIOV_BAR, BAR_FLAGS);
}

static void write_pf(struct vnic_card *card)
{
	u8 *config = card->pf_config;

	put16(config, PCI_VENDOR_ID, card->profile->vendor);
	put16(config, PCI_DEVICE_ID, card->profile->pf_device);
	put16(config, PCI_CLASS_DEVICE, card->habits.infiniband ? CLASS_INFINIBAND : PCI_CLASS_NETWORK_ETHERNET);
	put32(config, PCI_BASE_ADDRESS_0, BAR_FLAGS);
	put16(config, PCI_SUBSYSTEM_VENDOR_ID, card->profile->vendor);
	put16(config, PCI_SUBSYSTEM_ID, 1);
	write_express(config, card->habits.root_port ? PCI_EXP_TYPE_ENDPOINT : PCI_EXP_TYPE_RC_END,
		      card->habits.root_port);
	write_sriov(card);
	put32(config, SERIAL, PCI_EXT_CAP_ID_DSN | 1 << 16);
	put32(config, SERIAL + 4, 0x766e6963);
	put32(config, SERIAL + 8, card->number);
}

static void write_vf(struct vnic_card *card, int index)
{
	u8 *config = card->vf_config + index * VF_SIZE;

	/* ids of a VF read so (9.3.4.1.1), hence no scan of the bus finds it a second time */
	put16(config, PCI_VENDOR_ID, 0xffff);
	put16(config, PCI_DEVICE_ID, 0xffff);
	put16(config, PCI_CLASS_DEVICE, card->habits.infiniband ? CLASS_INFINIBAND : PCI_CLASS_NETWORK_ETHERNET);
	put16(config, PCI_SUBSYSTEM_VENDOR_ID, card->profile->vendor);
	put16(config, PCI_SUBSYSTEM_ID, 1);
	write_express(config, card->habits.root_port ? PCI_EXP_TYPE_ENDPOINT : PCI_EXP_TYPE_RC_END, false);
}

static void write_masks(void)
{
	put16(port_mask, PCI_COMMAND, 0x547);
	memset(port_mask + PCI_PRIMARY_BUS, 0xff, 3);
	put32(port_mask, PCI_MEMORY_BASE, 0xfff0fff0);
	put32(port_mask, PCI_PREF_MEMORY_BASE, 0xfff0fff0);
	put32(port_mask, PCI_PREF_BASE_UPPER32, ~0);
	put32(port_mask, PCI_PREF_LIMIT_UPPER32, ~0);
	put16(port_mask, PCI_BRIDGE_CONTROL, 0xffff);
	put16(port_mask, EXPRESS + PCI_EXP_DEVCTL, 0x7fff);
	put16(port_mask, EXPRESS + PCI_EXP_LNKCTL, 0x03fb);

	put16(pf_mask, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	put32(pf_mask, PCI_BASE_ADDRESS_0, ~(PF_BAR - 1));
	put32(pf_mask, PCI_BASE_ADDRESS_1, ~0);
	put8(pf_mask, PCI_INTERRUPT_LINE, 0xff);
	put16(pf_mask, EXPRESS + PCI_EXP_DEVCTL, 0x7fff);
	put16(pf_mask, EXPRESS + PCI_EXP_LNKCTL, 0x03fb);
	put16(pf_mask, SRIOV + PCI_SRIOV_CTRL, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE);
	put16(pf_mask, SRIOV + PCI_SRIOV_NUM_VF, 0xffff);
	put32(pf_mask, SRIOV + PCI_SRIOV_SYS_PGSIZE, ~0);
	put32(pf_mask, SRIOV + PCI_SRIOV_BAR, ~(VF_BAR - 1));
	put32(pf_mask, SRIOV + PCI_SRIOV_BAR + 4, ~0);

	put16(vf_mask, PCI_COMMAND, PCI_COMMAND_MASTER);
	put16(vf_mask, EXPRESS + PCI_EXP_DEVCTL, 0x7fff);
}

/* The state after power-on; what the port in front of a replugged card has been given stays. */
void vnic_config_reset(struct vnic_card *card)
{
	int i;

	memset(card->pf_config, 0, PF_SIZE);
	memset(card->vf_config, 0, card->total_vfs * VF_SIZE);
	write_pf(card);
	for (i = 0; i < card->total_vfs; i++)
		write_vf(card, i);
}

int vnic_config_alloc(struct vnic_card *card)
{
	card->buses.start = 2 * card->number;
	card->buses.end = vnic_card_bus(card);
	card->port_config = kzalloc(PORT_SIZE, GFP_KERNEL);
	card->pf_config = kzalloc(PF_SIZE, GFP_KERNEL);
	card->vf_config = kvcalloc(card->total_vfs, VF_SIZE, GFP_KERNEL);
	if (!card->port_config || !card->pf_config || !card->vf_config)
		return -ENOMEM;
	write_masks();
	write_port(card);
	vnic_config_reset(card);
	card->plugged = true;
	return 0;
}

void vnic_config_free(struct vnic_card *card)
{
	kfree(card->port_config);
	kfree(card->pf_config);
	kvfree(card->vf_config);
}

static u8 *find_vf(struct vnic_card *card, int index)
{
	u8 *sriov = card->pf_config + SRIOV;

	if (!(get_unaligned_le16(sriov + PCI_SRIOV_CTRL) & PCI_SRIOV_CTRL_VFE) ||
	    index >= get_unaligned_le16(sriov + PCI_SRIOV_NUM_VF) || index >= card->total_vfs)
		return NULL;
	return card->vf_config + index * VF_SIZE;
}

/* The config space of a function with its mask and size; NULL where nothing answers. */
static u8 *find_function(struct pci_bus *bus, unsigned int devfn, u8 **mask, int *size)
{
	struct vnic_card *card = vnic_card_of(bus);

	if (card->habits.root_port && bus->number == card->buses.start) {
		*mask = port_mask;
		*size = PORT_SIZE;
		return devfn ? NULL : card->port_config;
	}
	if (bus->number != vnic_card_bus(card) || !card->plugged)
		return NULL;
	if (!devfn) {
		*mask = pf_mask;
		*size = PF_SIZE;
		return card->pf_config;
	}
	*mask = vf_mask;
	*size = VF_SIZE;
	return devfn < VNIC_VF_OFFSET ? NULL : find_vf(card, devfn - VNIC_VF_OFFSET);
}

static int config_read(struct pci_bus *bus, unsigned int devfn, int where, int width, u32 *value)
{
	u8 *mask, *config;
	int size, i;

	config = find_function(bus, devfn, &mask, &size);
	if (!config) {
		*value = ~0;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*value = 0;
	for (i = 0; i < width && where + i < size; i++)
		*value |= (u32)config[where + i] << 8 * i;
	return PCIBIOS_SUCCESSFUL;
}

static int config_write(struct pci_bus *bus, unsigned int devfn, int where, int width, u32 value)
{
	u8 *mask, *config;
	int size, i;

	config = find_function(bus, devfn, &mask, &size);
	if (!config)
		return PCIBIOS_DEVICE_NOT_FOUND;
	for (i = 0; i < width && where + i < size; i++) {
		u8 bits = mask[where + i];

		config[where + i] = (config[where + i] & ~bits) | (value >> 8 * i & bits);
	}
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops vnic_pci_ops = {
	.read = config_read,
	.write = config_write,
};
EXPORT_SYMBOL_GPL(vnic_pci_ops);
