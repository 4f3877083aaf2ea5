// SPDX-License-Identifier: GPL-2.0
/*
 * An IOMMU without hardware, so that vfio-pci takes the functions of vnic's cards: a group for each function, and
 * mappings that nobody ever uses, as no card reads memory. A module of its own, as the core holds a reference on its
 * owner for each device: the module with the devices has to be able to go first.
 */

#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/xarray.h>

#include "vnic.h"

static int vfs_per_group = 1;
module_param(vfs_per_group, int, 0644);
MODULE_PARM_DESC(vfs_per_group, "VFs that share an IOMMU group, as behind a switch without ACS (default 1)");

struct fake_domain {
	struct iommu_domain domain;
	struct xarray pages;	/* by number of the I/O page */
};

static struct platform_device *platform;
static struct iommu_device iommu;
static const struct pci_ops *served;	/* config accesses of the bridges that are ours */

static struct fake_domain *to_fake(struct iommu_domain *domain)
{
	return container_of(domain, struct fake_domain, domain);
}

static int attach(struct iommu_domain *domain, struct device *dev)
{
	return 0;
}

static int map(struct iommu_domain *domain, unsigned long iova, phys_addr_t to, size_t size, size_t count, int prot,
	       gfp_t gfp, size_t *mapped)
{
	size_t i;

	for (i = 0; i < count; i++) {
		void *entry = xa_mk_value((to >> PAGE_SHIFT) + i);
		int err = xa_err(xa_store(&to_fake(domain)->pages, (iova >> PAGE_SHIFT) + i, entry, gfp));

		if (err)
			return err;
		*mapped += size;
	}
	return 0;
}

static size_t unmap(struct iommu_domain *domain, unsigned long iova, size_t size, size_t count,
		    struct iommu_iotlb_gather *gather)
{
	size_t i;

	for (i = 0; i < count; i++)
		xa_erase(&to_fake(domain)->pages, (iova >> PAGE_SHIFT) + i);
	return size * count;
}

static phys_addr_t iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	void *entry = xa_load(&to_fake(domain)->pages, iova >> PAGE_SHIFT);

	return entry ? ((phys_addr_t)xa_to_value(entry) << PAGE_SHIFT) + offset_in_page(iova) : 0;
}

static void domain_free(struct iommu_domain *domain)
{
	xa_destroy(&to_fake(domain)->pages);
	kfree(to_fake(domain));
}

static const struct iommu_domain_ops paging_ops = {
	.attach_dev = attach,
	.map_pages = map,
	.unmap_pages = unmap,
	.iova_to_phys = iova_to_phys,
	.free = domain_free,
};

static const struct iommu_domain_ops static_ops = {
	.attach_dev = attach,
};

static struct iommu_domain identity = { .type = IOMMU_DOMAIN_IDENTITY, .ops = &static_ops };
static struct iommu_domain blocked = { .type = IOMMU_DOMAIN_BLOCKED, .ops = &static_ops };

static struct iommu_domain *domain_alloc_paging(struct device *dev)
{
	struct fake_domain *fake = kzalloc(sizeof(*fake), GFP_KERNEL);

	if (!fake)
		return NULL;
	xa_init(&fake->pages);
	fake->domain.geometry.aperture_end = ~0ULL;
	fake->domain.geometry.force_aperture = true;
	return &fake->domain;
}

/* VFIO refuses a device whose DMA may be incoherent. */
static bool fake_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_CACHE_COHERENCY;
}

static struct iommu_device *probe_device(struct device *dev)
{
	return &iommu;
}

static int def_domain_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

/* The group of the first VF of those that share one. */
static struct iommu_group *device_group(struct device *dev)
{
	struct pci_dev *first, *pdev = to_pci_dev(dev);
	int over = pdev->is_virtfn && vfs_per_group > 1 ? pci_iov_vf_id(pdev) % vfs_per_group : 0;
	struct iommu_group *group;

	if (!over)
		return generic_device_group(dev);
	first = pci_get_domain_bus_and_slot(pci_domain_nr(pdev->bus), pdev->bus->number, pdev->devfn - over);
	group = first ? iommu_group_get(&first->dev) : NULL;
	pci_dev_put(first);
	return group ?: generic_device_group(dev);
}

static const struct iommu_ops ops = {
	.owner = THIS_MODULE,
	.pgsize_bitmap = PAGE_SIZE,
	.capable = fake_capable,
	.domain_alloc_paging = domain_alloc_paging,
	.probe_device = probe_device,
	.device_group = device_group,
	.def_domain_type = def_domain_type,
	.identity_domain = &identity,
	.blocked_domain = &blocked,
	.default_domain_ops = &paging_ops,
};

/* Leads a new function of our bridges to this IOMMU; runs before the IOMMU core's own notifier. */
static int device_added(struct notifier_block *block, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);

	if (action == BUS_NOTIFY_ADD_DEVICE && served && pdev->bus->ops == served)
		iommu_fwspec_init(&pdev->dev, dev_fwnode(&platform->dev));
	return NOTIFY_DONE;
}

static struct notifier_block notifier = {
	.notifier_call = device_added,
	.priority = 100,
};

/* Serve functions on bridges with these config accesses, from now on. */
void vnic_iommu_serve(const struct pci_ops *pci)
{
	served = pci;
}
EXPORT_SYMBOL_GPL(vnic_iommu_serve);

static int __init vnic_iommu_init(void)
{
	/* a property, so that the device has a firmware node, by which functions are led here */
	static const struct property_entry properties[] = { PROPERTY_ENTRY_BOOL("vnic"), { } };
	struct platform_device_info info = {
		.name = "vnic_iommu",
		.id = PLATFORM_DEVID_NONE,
		.properties = properties,
	};
	int err;

	platform = platform_device_register_full(&info);
	if (IS_ERR(platform))
		return PTR_ERR(platform);
	err = iommu_device_sysfs_add(&iommu, &platform->dev, NULL, "vnic_iommu");
	if (err)
		goto fail;
	err = iommu_device_register(&iommu, &ops, &platform->dev);
	if (err)
		goto fail_sysfs;
	err = bus_register_notifier(&pci_bus_type, &notifier);
	if (!err)
		return 0;
	iommu_device_unregister(&iommu);
fail_sysfs:
	iommu_device_sysfs_remove(&iommu);
fail:
	platform_device_unregister(platform);
	return err;
}

static void __exit vnic_iommu_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &notifier);
	iommu_device_unregister(&iommu);
	iommu_device_sysfs_remove(&iommu);
	platform_device_unregister(platform);
}

module_init(vnic_iommu_init);
module_exit(vnic_iommu_exit);
MODULE_DESCRIPTION("An IOMMU for the functions of vnic");
MODULE_LICENSE("GPL");
