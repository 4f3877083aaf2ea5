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

struct devlink_port;
struct devlink_port_new_attrs;

int vnic_subfunctions_register(void);
void vnic_subfunctions_unregister(void);
int vnic_subfunction_add(struct vnic_card *card, const struct devlink_port_new_attrs *attrs,
			 struct netlink_ext_ack *extack, struct devlink_port **port);
void vnic_subfunctions_remove(struct vnic_card *card);

#endif
