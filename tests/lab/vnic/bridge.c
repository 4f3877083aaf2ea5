// SPDX-License-Identifier: GPL-2.0
/* A PCI host bridge for each card, and pulling and plugging the card. */

#include <linux/irqdomain.h>
#include <linux/msi.h>

#include "vnic.h"

#define WINDOW_START	0x2000000000ULL	/* 128 GiB: nothing is there in the lab's machine */
#define WINDOW_SIZE	(8ULL << 20)	/* 240 VFs of 16 KiB, and the PF */

/* VFIO asks for interrupt remapping, which a device has by its bridge's MSI domain: take that of any real device. */
static void borrow_msi_domain(struct pci_bus *root)
{
	struct irq_domain *domain = NULL;
	struct pci_dev *other = NULL;

	while (!domain && (other = pci_get_device(PCI_ANY_ID, PCI_ANY_ID, other))) {
		if (!vnic_card_of(other->bus))
			domain = dev_get_msi_domain(&other->dev);
	}
	pci_dev_put(other);
	dev_set_msi_domain(&root->dev, domain);
}

static int reserve_window(struct vnic_card *card)
{
	card->window.name = "vnic";
	card->window.flags = IORESOURCE_MEM | IORESOURCE_MEM_64 | IORESOURCE_PREFETCH;
	return allocate_resource(&iomem_resource, &card->window, WINDOW_SIZE, WINDOW_START, ~0ULL, WINDOW_SIZE, NULL,
				 NULL);
}

int vnic_bridge_add(struct vnic_card *card, int domain)
{
	LIST_HEAD(resources);
	int err;

	err = reserve_window(card);
	if (err)
		return err;
	card->buses.name = "vnic buses";
	card->buses.flags = IORESOURCE_BUS;
	card->sysdata.domain = domain;
	card->sysdata.node = card->habits.node;
	pci_add_resource(&resources, &card->buses);
	pci_add_resource(&resources, &card->window);

	pci_lock_rescan_remove();
	card->root = pci_create_root_bus(NULL, card->buses.start, &vnic_pci_ops, &card->sysdata, &resources);
	if (!card->root) {
		pci_unlock_rescan_remove();
		pci_free_resource_list(&resources);
		release_resource(&card->window);
		pr_err("vnic: PCI domain %d has the bus %d already\n", domain, (int)card->buses.start);
		return -EEXIST;
	}
	borrow_msi_domain(card->root);
	pci_scan_child_bus(card->root);
	pci_assign_unassigned_bus_resources(card->root);
	pci_bus_add_devices(card->root);
	pci_unlock_rescan_remove();
	return 0;
}

void vnic_bridge_remove(struct vnic_card *card)
{
	/* the core stops VFs one by one, before their PF */
	vnic_vf_netdevs_remove(card);
	pci_lock_rescan_remove();
	pci_stop_root_bus(card->root);
	pci_remove_root_bus(card->root);
	pci_unlock_rescan_remove();
	release_resource(&card->window);
	card->root = NULL;
}

static void pull(struct vnic_card *card)
{
	struct pci_dev *pf;

	card->plugged = false;
	pf = pci_get_domain_bus_and_slot(card->sysdata.domain, vnic_card_bus(card), 0);
	if (!pf)
		return;
	/*
	 * The driver first: a write of sriov_numvfs holds the device's lock and wants that of rescans
	 * (sriov_numvfs_store), removing a bound device holds that and wants the device's.
	 */
	device_release_driver(&pf->dev);
	pci_stop_and_remove_bus_device_locked(pf);
	pci_dev_put(pf);
}

/* As by hand: a pulled card no longer answers, then the core takes its functions away. */
void vnic_card_plug(struct vnic_card *card, bool plugged)
{
	if (plugged && !card->plugged) {
		pci_lock_rescan_remove();
		vnic_config_reset(card);
		card->plugged = true;
		pci_rescan_bus(card->root);
		pci_unlock_rescan_remove();
	} else if (!plugged && card->plugged) {
		pull(card);
	}
}
