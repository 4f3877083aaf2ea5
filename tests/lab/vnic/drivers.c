// SPDX-License-Identifier: GPL-2.0
/* PCI drivers under the names of the vendors', as far as the cards need them, and the making of VFs. */

#include <linux/delay.h>
#include <linux/module.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>

#include "devlink.h"
#include "vnic.h"

#define TICK	msecs_to_jiffies(10)
#define MAX_IDS	(2 * VNIC_MAX_CARDS)

struct driver {
	struct pci_driver pci;
	struct pci_device_id ids[MAX_IDS + 1];
	int count;
};

static struct driver drivers[2 * VNIC_MAX_CARDS];

/* Whether the time of a habit that began at `since` is not over; a test ends it by changing the habit. */
static bool is_time_left(unsigned long since, const s32 *milliseconds)
{
	return time_before(jiffies, since + msecs_to_jiffies(max(0, READ_ONCE(*milliseconds))));
}

static bool are_netdevs_late(const struct vnic_function *function)
{
	const struct vnic_habits *habits = &function->card->habits;

	return is_time_left(function->bound, function->vf ? &habits->netdev_ms : &habits->pf_netdev_ms);
}

static void netdevs_are_born(struct work_struct *work)
{
	struct vnic_function *function = container_of(work, struct vnic_function, birth.work);
	int err;

	if (are_netdevs_late(function)) {
		queue_delayed_work(system_unbound_wq, &function->birth, TICK);
		return;
	}
	err = vnic_netdevs_add(function);
	if (err)
		pci_err(function->pdev, "no netdev: %pe\n", ERR_PTR(err));
}

static int netdevs_begin(struct vnic_function *function)
{
	if (function->vf && function->card->habits.netdev_never)
		return 0;
	if (!are_netdevs_late(function))
		return vnic_netdevs_add(function);
	queue_delayed_work(system_unbound_wq, &function->birth, TICK);
	return 0;
}

static void function_bind(struct vnic_vf *vf, struct vnic_function *function)
{
	rtnl_lock();
	if (vf)
		vf->function = function;
	rtnl_unlock();
}

static int function_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct pci_dev *pf = pci_physfn(pdev);
	struct vnic_card *card = vnic_card_of(pf->bus);
	struct vnic_function *function;
	int err;

	if (!card)
		return -ENODEV;	/* a real card that has the same ids */
	err = pci_enable_device(pdev);
	if (err)
		return err;
	pci_set_master(pdev);
	function = kzalloc(sizeof(*function), GFP_KERNEL);
	if (!function) {
		pci_disable_device(pdev);
		return -ENOMEM;
	}
	function->card = card;
	function->pdev = pdev;
	function->bound = jiffies;
	function->vf = pdev->is_virtfn ? &card->vfs[pci_iov_vf_id(pdev)] : NULL;
	INIT_DELAYED_WORK(&function->birth, netdevs_are_born);
	pci_set_drvdata(pdev, function);
	function_bind(function->vf, function);
	err = function->vf ? 0 : vnic_devlink_add(function);
	if (err)
		goto fail;
	err = netdevs_begin(function);
	if (err)
		goto fail;
	if (!function->vf)
		vnic_devlink_show(card);
	return 0;
fail:
	if (!function->vf)
		vnic_devlink_remove(card);
	function_bind(function->vf, NULL);
	kfree(function);
	pci_disable_device(pdev);
	return err;
}

/* Whether one of our drivers is bound, and not vfio-pci or such. */
bool vnic_is_bound(const struct pci_dev *pdev)
{
	return pdev->driver && pdev->driver->probe == function_probe;
}
EXPORT_SYMBOL_GPL(vnic_is_bound);

static void vfs_remove(struct vnic_card *card, struct pci_dev *pf)
{
	vnic_trunks_remove(card);
	vnic_representors_remove(card);
	vnic_vf_netdevs_remove(card);
	pci_disable_sriov(pf);
	card->num_vfs = 0;
}

static void function_remove(struct pci_dev *pdev)
{
	struct vnic_function *function = pci_get_drvdata(pdev);
	struct vnic_card *card = function->card;

	function_bind(function->vf, NULL);
	cancel_delayed_work_sync(&function->birth);
	if (!function->vf) {
		vnic_devlink_hide(card);
		vnic_subfunctions_remove(card);
		vfs_remove(card, pdev);
		cancel_delayed_work_sync(&card->wake_up);
	}
	vnic_netdevs_remove(function);
	if (!function->vf)
		vnic_devlink_remove(card);
	kfree(function);
	pci_disable_device(pdev);
}

/* Negative: fails so; positive: go on. */
static int may_configure(struct vnic_card *card, int count)
{
	const struct vnic_habits *habits = &card->habits;
	unsigned long since = jiffies;

	while (is_time_left(since, &habits->numvfs_ms))
		msleep(20);
	if (habits->numvfs_errno)
		return -habits->numvfs_errno;
	if (habits->numvfs_needs_up && !card->running) {
		pr_warn("vnic: Reject SRIOV config request since if is down!\n");
		return 0;
	}
	return !habits->numvfs_ignored && (count || !habits->keep_vfs);
}

static int vfs_add(struct vnic_card *card, struct pci_dev *pf, int count)
{
	int i, err;

	if (card->habits.numvfs_at_most >= 0)
		count = min(count, card->habits.numvfs_at_most);
	if (!count)
		return 0;
	for (i = 0; i < count; i++)
		vnic_vf_forget(&card->vfs[i]);
	/* before the VFs are seen, as settings may come while their drivers probe them */
	card->num_vfs = count;
	for (i = 0; i < count; i++)
		vnic_reset_begin(card, &card->vfs[i], &card->habits.enable_reset_ms);
	vnic_reset_begin(card, NULL, &card->habits.carrier_loss_ms);
	err = pci_enable_sriov(pf, count);
	if (!err)
		err = vnic_representors_add(card);
	if (!err)
		err = vnic_trunks_add(card, pf);
	if (!err)
		return count;
	vfs_remove(card, pf);
	return err;
}

static int sriov_configure(struct pci_dev *pf, int count)
{
	struct vnic_function *function = pci_get_drvdata(pf);
	int ret = may_configure(function->card, count);

	if (ret <= 0)
		return ret;
	if (count)
		return vfs_add(function->card, pf, count);
	vfs_remove(function->card, pf);
	return 0;
}

static struct driver *find_driver(const char *name)
{
	struct driver *driver = drivers;

	while (driver->pci.name && strcmp(driver->pci.name, name))
		driver++;
	driver->pci.name = name;
	return driver;
}

static void serve(const char *name, u16 vendor, u16 device)
{
	struct driver *driver = find_driver(name);
	struct pci_device_id id = { PCI_DEVICE(vendor, device) };

	driver->ids[driver->count++] = id;
}

static int register_driver(struct driver *driver)
{
	int err;

	driver->pci.id_table = driver->ids;
	driver->pci.probe = function_probe;
	driver->pci.remove = function_remove;
	driver->pci.sriov_configure = sriov_configure;
	err = pci_register_driver(&driver->pci);
	if (err) {
		pr_err("vnic: the driver %s cannot be registered: %pe\n", driver->pci.name, ERR_PTR(err));
		driver->pci.probe = NULL;
	}
	return err;
}

int vnic_drivers_register(void)
{
	int err = 0, i;

	for (i = 0; i < VNIC_MAX_CARDS && vnic_cards[i]; i++) {
		const struct vnic_profile *profile = vnic_cards[i]->profile;

		serve(profile->pf_driver, profile->vendor, profile->pf_device);
		serve(profile->vf_driver, profile->vendor, profile->vf_device);
	}
	for (i = 0; i < ARRAY_SIZE(drivers) && drivers[i].pci.name && !err; i++)
		err = register_driver(&drivers[i]);
	return err ?: vnic_subfunctions_register();
}

void vnic_drivers_unregister(void)
{
	int i;

	vnic_subfunctions_unregister();
	for (i = 0; i < ARRAY_SIZE(drivers); i++) {
		if (drivers[i].pci.probe)
			pci_unregister_driver(&drivers[i].pci);
	}
}
