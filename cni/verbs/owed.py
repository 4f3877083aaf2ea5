"""Which attachments are owed a release. Light to import: the agent asks this before it imports a verb."""

from dataclasses import replace

from sriovdp.state.journal import Attachment, read_boot_id


def is_owed(attachment: Attachment) -> bool:
    """Whether it has to be released: a release or an ADD that did not get to its end, or one of another boot.

    A verb at work holds the lock of the VF, so ask this with the lock held.
    """
    return attachment.phase != "attached" or attachment.boot_id != read_boot_id()


def without_lost_vf(attachment: Attachment) -> Attachment:
    """The attachment as far as it is to be released.

    A reboot made the VFs again, so only addresses may be left, and a port in Open vSwitch's database.
    """
    has_port = attachment.representor is not None and attachment.representor.switch == "ovs"
    is_lost = attachment.boot_id != read_boot_id() and not has_port
    return replace(attachment, released=attachment.released or is_lost)
