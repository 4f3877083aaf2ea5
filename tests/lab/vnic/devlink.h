/* SPDX-License-Identifier: GPL-2.0 */
#ifndef VNIC_DEVLINK_H
#define VNIC_DEVLINK_H

#include "vnic.h"

int vnic_devlink_add(struct vnic_function *pf);
void vnic_devlink_show(struct vnic_card *card);
void vnic_devlink_hide(struct vnic_card *card);
void vnic_devlink_remove(struct vnic_card *card);
void vnic_devlink_name_netdev(struct vnic_card *card, struct net_device *netdev);
int vnic_representors_add(struct vnic_card *card);
int vnic_representors_add_locked(struct vnic_card *card);
void vnic_representors_remove(struct vnic_card *card);
void vnic_representors_remove_locked(struct vnic_card *card);

#endif
