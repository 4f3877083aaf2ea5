// SPDX-License-Identifier: GPL-2.0
/*
 * VLANs that a VF may tag with: sriov/N/trunk below a PF, as vendors' own drivers have it and Linux does not. Intel's
 * takes and shows lists (i40e and ice of Intel, kcompat_vfd.c), NVIDIA's takes one span at a time and shows all numbers
 * (MLNX_OFED, mlx5_core/sriov_sysfs.c). An empty list lets all pass.
 */

#include <linux/kobject.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "vnic.h"

struct trunk {
	struct kobject kobj;
	struct vnic_vf *vf;
};

static bool is_nvidia(const struct vnic_vf *vf)
{
	return !strcmp(vf->card->profile->pf_driver, "mlx5_core");
}

static ssize_t trunk_show(struct kobject *kobj, struct attribute *attr, char *buffer)
{
	struct vnic_vf *vf = container_of(kobj, struct trunk, kobj)->vf;
	int vlan, length = 0;

	if (!is_nvidia(vf))
		return scnprintf(buffer, PAGE_SIZE, "%*pbl\n", VLAN_N_VID, vf->trunk);
	if (bitmap_empty(vf->trunk, VLAN_N_VID))
		return 0;
	length = scnprintf(buffer, PAGE_SIZE, "Allowed 802.1Q VLANs:");
	for_each_set_bit(vlan, vf->trunk, VLAN_N_VID)
		length += scnprintf(buffer + length, PAGE_SIZE - length, " %d", vlan);
	return length + scnprintf(buffer + length, PAGE_SIZE - length, "\n");
}

static int trunk_parse(const struct vnic_vf *vf, const char *words, unsigned long *vlans)
{
	u16 first, last;

	if (!is_nvidia(vf))
		return bitmap_parselist(words, vlans, VLAN_N_VID);
	if (sscanf(words, "%hu %hu", &first, &last) != 2 || first > last || last >= VLAN_N_VID)
		return -EINVAL;
	bitmap_set(vlans, first, last - first + 1);
	return 0;
}

static ssize_t trunk_store(struct kobject *kobj, struct attribute *attr, const char *buffer, size_t count)
{
	struct vnic_vf *vf = container_of(kobj, struct trunk, kobj)->vf;
	unsigned long *vlans = bitmap_zalloc(VLAN_N_VID, GFP_KERNEL);
	int err = -EINVAL;

	if (!vlans)
		return -ENOMEM;
	if (!strncmp(buffer, "add ", 4) || !strncmp(buffer, "rem ", 4))
		err = trunk_parse(vf, buffer + 4, vlans);
	if (!err && buffer[0] == 'a')
		bitmap_or(vf->trunk, vf->trunk, vlans, VLAN_N_VID);
	else if (!err)
		bitmap_andnot(vf->trunk, vf->trunk, vlans, VLAN_N_VID);
	WRITE_ONCE(vf->has_trunk, !bitmap_empty(vf->trunk, VLAN_N_VID));
	bitmap_free(vlans);
	return err ?: count;
}

static void trunk_release(struct kobject *kobj)
{
	kfree(container_of(kobj, struct trunk, kobj));
}

static struct attribute trunk_attribute = { .name = "trunk", .mode = 0644 };
static struct attribute *trunk_attrs[] = { &trunk_attribute, NULL };
ATTRIBUTE_GROUPS(trunk);
static const struct sysfs_ops trunk_ops = { .show = trunk_show, .store = trunk_store };
static const struct kobj_type trunk_type = {
	.sysfs_ops = &trunk_ops,
	.default_groups = trunk_groups,
	.release = trunk_release,
};

static int trunk_add(struct vnic_vf *vf, struct kobject *parent)
{
	struct trunk *trunk = kzalloc(sizeof(*trunk), GFP_KERNEL);
	int err;

	if (!trunk)
		return -ENOMEM;
	trunk->vf = vf;
	err = kobject_init_and_add(&trunk->kobj, &trunk_type, parent, "%d", vf->index);
	if (err)
		kobject_put(&trunk->kobj);
	else
		vf->trunk_kobj = &trunk->kobj;
	return err;
}

void vnic_trunks_remove(struct vnic_card *card)
{
	int i;

	for (i = 0; i < card->total_vfs; i++) {
		kobject_put(card->vfs[i].trunk_kobj);
		card->vfs[i].trunk_kobj = NULL;
	}
	kobject_put(card->trunks);
	card->trunks = NULL;
}

int vnic_trunks_add(struct vnic_card *card, struct pci_dev *pf)
{
	int err = 0, i;

	if (!card->habits.vlan_trunk)
		return 0;
	card->trunks = kobject_create_and_add("sriov", &pf->dev.kobj);
	if (!card->trunks)
		return -ENOMEM;
	for (i = 0; i < card->num_vfs && !err; i++)
		err = trunk_add(&card->vfs[i], card->trunks);
	if (err)
		vnic_trunks_remove(card);
	return err;
}
