// SPDX-License-Identifier: GPL-2.0
/* The parameters of the module, and the life of cards. */

#include <linux/debugfs.h>
#include <linux/module.h>

#include "vnic.h"

static char *cards = "ice:8";
module_param(cards, charp, 0444);
MODULE_PARM_DESC(cards, "PROFILE[:VFS][/HABIT=VALUE...], with commas between cards");

static int domain = 1;
module_param(domain, int, 0444);
MODULE_PARM_DESC(domain, "PCI domain of all cards (default 1)");

static bool iommu = true;
module_param(iommu, bool, 0444);
MODULE_PARM_DESC(iommu, "whether functions have IOMMU groups (default Y)");

bool vnic_wire;
module_param_named(wire, vnic_wire, bool, 0444);
MODULE_PARM_DESC(wire, "join all cards in one Ethernet segment (default N)");

struct vnic_card *vnic_cards[VNIC_MAX_CARDS];
static struct dentry *debugfs;

static void card_free(struct vnic_card *card)
{
	vnic_config_free(card);
	kvfree(card->vfs);
	kfree(card);
}

/* What comes before the first slash: PROFILE[:VFS]. */
static int card_parse(struct vnic_card *card, char *text)
{
	char *name = strsep(&text, "/");
	char *count = name;
	int err;

	name = strsep(&count, ":");
	card->profile = vnic_profile_find(name);
	if (!card->profile) {
		pr_err("vnic: no profile %s\n", name);
		return -EINVAL;
	}
	card->total_vfs = 8;
	if (count && (kstrtoint(count, 10, &card->total_vfs) || card->total_vfs < 1 ||
		      card->total_vfs > VNIC_MAX_VFS)) {
		pr_err("vnic: %s VFs are not 1 to %d\n", count, VNIC_MAX_VFS);
		return -EINVAL;
	}
	vnic_habits_preset(&card->habits);
	if (card->profile->habits) {
		char *preset = kstrdup(card->profile->habits, GFP_KERNEL);

		if (!preset)
			return -ENOMEM;
		err = vnic_habits_parse(&card->habits, preset, " ");
		kfree(preset);
		if (err)
			return err;
	}
	return text ? vnic_habits_parse(&card->habits, text, "/") : 0;
}

static struct vnic_card *card_create(int number, char *text)
{
	struct vnic_card *card = kzalloc(sizeof(*card), GFP_KERNEL);
	int err, i;

	if (!card)
		return ERR_PTR(-ENOMEM);
	card->number = number;
	INIT_LIST_HEAD(&card->subfunctions);
	INIT_DELAYED_WORK(&card->wake_up, vnic_wake_up);
	err = card_parse(card, text);
	if (err)
		goto fail;
	err = -ENOMEM;
	card->vfs = kvcalloc(card->total_vfs, sizeof(*card->vfs), GFP_KERNEL);
	if (!card->vfs)
		goto fail;
	for (i = 0; i < card->total_vfs; i++) {
		card->vfs[i].card = card;
		card->vfs[i].index = i;
		spin_lock_init(&card->vfs[i].lock);
		vnic_vf_forget(&card->vfs[i]);
	}
	err = vnic_config_alloc(card);
	if (err)
		goto fail;
	return card;
fail:
	card_free(card);
	return ERR_PTR(err);
}

static int cards_create(void)
{
	char *text = kstrdup(cards, GFP_KERNEL);
	char *rest = text;
	int err = 0, number = 0;
	char *one;

	if (!text)
		return -ENOMEM;
	while ((one = strsep(&rest, ",")) && !err) {
		struct vnic_card *card;

		if (number == VNIC_MAX_CARDS) {
			pr_err("vnic: more than %d cards\n", VNIC_MAX_CARDS);
			err = -E2BIG;
			break;
		}
		card = card_create(number, one);
		if (IS_ERR(card))
			err = PTR_ERR(card);
		else
			vnic_cards[number++] = card;
	}
	kfree(text);
	return err;
}

static void cards_remove(void)
{
	int i;

	debugfs_remove_recursive(debugfs);
	for (i = 0; i < VNIC_MAX_CARDS; i++) {
		if (vnic_cards[i] && vnic_cards[i]->root)
			vnic_bridge_remove(vnic_cards[i]);
	}
	vnic_drivers_unregister();
	/* frames on their way over the wire are through once no netdev is left */
	for (i = 0; i < VNIC_MAX_CARDS; i++) {
		if (vnic_cards[i])
			card_free(vnic_cards[i]);
	}
}

static int __init vnic_init(void)
{
	int err, i;

	err = cards_create();
	if (err)
		goto fail;
	/* drivers first, so that a card's netdev is there when insmod returns */
	err = vnic_drivers_register();
	if (err)
		goto fail;
	if (iommu)
		vnic_iommu_serve(&vnic_pci_ops);
	debugfs = debugfs_create_dir("vnic", NULL);
	for (i = 0; i < VNIC_MAX_CARDS && vnic_cards[i]; i++) {
		err = vnic_bridge_add(vnic_cards[i], domain);
		if (err)
			goto fail;
		vnic_debugfs_add(vnic_cards[i], debugfs);
	}
	return 0;
fail:
	cards_remove();
	vnic_iommu_serve(NULL);
	return err;
}

static void __exit vnic_exit(void)
{
	cards_remove();
	vnic_iommu_serve(NULL);
}

module_init(vnic_init);
module_exit(vnic_exit);
MODULE_DESCRIPTION("A software SR-IOV NIC");
MODULE_LICENSE("GPL");
