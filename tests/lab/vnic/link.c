// SPDX-License-Identifier: GPL-2.0
/* Who has a link: cable, resets of PF and VFs, link states set through the PF. */

#include "vnic.h"

#define WAKE_UP	msecs_to_jiffies(10)

/* A reset lasts as long as its habit says now, so that a test can end it. */
static bool is_on(const struct vnic_reset *reset)
{
	const s32 *milliseconds = READ_ONCE(reset->milliseconds);

	return milliseconds && time_before(jiffies, reset->since + msecs_to_jiffies(max(0, READ_ONCE(*milliseconds))));
}

bool vnic_vf_in_reset(const struct vnic_vf *vf)
{
	return is_on(&vf->reset) || READ_ONCE(vf->card->habits.stuck_vf) == vf->index;
}

bool vnic_card_has_link(const struct vnic_card *card)
{
	return READ_ONCE(card->habits.cable) && READ_ONCE(card->plugged) && !is_on(&card->reset);
}

bool vnic_vf_has_link(const struct vnic_vf *vf)
{
	switch (READ_ONCE(vf->link_state)) {
	case IFLA_VF_LINK_STATE_ENABLE:
		return !vnic_vf_in_reset(vf);
	case IFLA_VF_LINK_STATE_DISABLE:
		return false;
	default:
		return vnic_card_has_link(vf->card) && !vnic_vf_in_reset(vf);
	}
}

static void carrier_set(struct net_device *netdev, bool on)
{
	if (!netdev || !netif_running(netdev) || netif_carrier_ok(netdev) == on)
		return;
	if (on)
		netif_carrier_on(netdev);
	else
		netif_carrier_off(netdev);
}

void vnic_link_refresh(struct vnic_card *card)
{
	int i;

	rcu_read_lock();
	carrier_set(rcu_dereference(card->netdev), vnic_card_has_link(card));
	for (i = 0; i < card->num_vfs; i++) {
		bool on = vnic_vf_has_link(&card->vfs[i]);

		carrier_set(rcu_dereference(card->vfs[i].netdev), on);
		carrier_set(rcu_dereference(card->vfs[i].representor), on);
	}
	rcu_read_unlock();
}

/* A reset of a VF, or of the PF (NULL). Resets overlap, hence a look every few ms until all are over. */
void vnic_reset_begin(struct vnic_card *card, struct vnic_vf *vf, const s32 *milliseconds)
{
	struct vnic_reset *reset = vf ? &vf->reset : &card->reset;

	if (*milliseconds <= 0)
		return;
	WRITE_ONCE(reset->since, jiffies);
	WRITE_ONCE(reset->milliseconds, milliseconds);
	vnic_link_refresh(card);
	queue_delayed_work(system_unbound_wq, &card->wake_up, WAKE_UP);
}

void vnic_wake_up(struct work_struct *work)
{
	struct vnic_card *card = container_of(work, struct vnic_card, wake_up.work);
	bool again = is_on(&card->reset);
	int i;

	for (i = 0; i < card->num_vfs; i++)
		again |= is_on(&card->vfs[i].reset);
	vnic_link_refresh(card);
	if (again)
		queue_delayed_work(system_unbound_wq, &card->wake_up, WAKE_UP);
}
