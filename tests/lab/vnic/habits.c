// SPDX-License-Identifier: GPL-2.0
/* Habits by name, and a card's files in debugfs: `habits` (NAME=VALUE, several between spaces) and `plug` (0, 1). */

#include <linux/debugfs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "vnic.h"

struct habit {
	const char *name;
	size_t offset;
	s32 preset;
};

#define HABIT(name, preset) { #name, offsetof(struct vnic_habits, name), preset },
static const struct habit table[] = { VNIC_HABITS(HABIT) };

static s32 *value_of(struct vnic_habits *habits, const struct habit *habit)
{
	return (s32 *)((char *)habits + habit->offset);
}

void vnic_habits_preset(struct vnic_habits *habits)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(table); i++)
		*value_of(habits, &table[i]) = table[i].preset;
}

static int set(struct vnic_habits *habits, char *word)
{
	char *name = strsep(&word, "=");
	s32 value;
	int i;

	for (i = 0; i < ARRAY_SIZE(table); i++) {
		if (strcmp(table[i].name, name))
			continue;
		if (!word || kstrtos32(word, 0, &value))
			break;
		WRITE_ONCE(*value_of(habits, &table[i]), value);
		return 0;
	}
	pr_err("vnic: %s=%s is no habit\n", name, word ?: "");
	return -EINVAL;
}

int vnic_habits_parse(struct vnic_habits *habits, char *text, const char *separators)
{
	char *word;
	int err = 0;

	while (!err && (word = strsep(&text, separators))) {
		if (*word)
			err = set(habits, word);
	}
	return err;
}

static int habits_show(struct seq_file *seq, void *unused)
{
	struct vnic_card *card = seq->private;
	int i;

	for (i = 0; i < ARRAY_SIZE(table); i++)
		seq_printf(seq, "%s=%d\n", table[i].name, *value_of(&card->habits, &table[i]));
	return 0;
}

static int habits_open(struct inode *inode, struct file *file)
{
	return single_open(file, habits_show, inode->i_private);
}

static ssize_t habits_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct vnic_card *card = ((struct seq_file *)file->private_data)->private;
	char *text = memdup_user_nul(from, size);
	int err;

	if (IS_ERR(text))
		return PTR_ERR(text);
	err = vnic_habits_parse(&card->habits, text, " \n");
	kfree(text);
	vnic_link_refresh(card);
	return err ?: size;
}

static const struct file_operations habits_fops = {
	.owner = THIS_MODULE,
	.open = habits_open,
	.read = seq_read,
	.write = habits_write,
	.llseek = seq_lseek,
	.release = single_release,
};

static int plug_get(void *data, u64 *value)
{
	*value = ((struct vnic_card *)data)->plugged;
	return 0;
}

static int plug_set(void *data, u64 value)
{
	vnic_card_plug(data, value);
	return 0;
}

DEFINE_DEBUGFS_ATTRIBUTE(plug_fops, plug_get, plug_set, "%llu\n");

void vnic_debugfs_add(struct vnic_card *card, struct dentry *parent)
{
	char name[16];

	snprintf(name, sizeof(name), "%04x:%02x:00.0", card->sysdata.domain & 0xfffff, vnic_card_bus(card) & 0xff);
	parent = debugfs_create_dir(name, parent);
	debugfs_create_file("habits", 0600, parent, card, &habits_fops);
	debugfs_create_file_unsafe("plug", 0600, parent, card, &plug_fops);
}
