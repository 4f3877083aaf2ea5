"""The netlink messages that this program sends and reads, as bytes; `sriovdp.kernel.netlink` is the client.

pyroute2 decodes every attribute of every answer, which costs more than all system calls of an ADD together
(docs/performance.md). Here only what is used is read, and only the VF that is meant. pyroute2 is the tests' oracle.
Numbers and layouts are those of linux/netlink.h, linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
"""
