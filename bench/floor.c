/*
 * The floor of an ADD and a DEL: a program that makes the system calls which the kernel needs, and execs the IPAM plugin
 * beside them, and does nothing else. It parses no configuration, keeps no state, checks nothing, undoes nothing.
 *
 *     floor add|del MODE PF_IFINDEX VF_INDEX VLAN VF_IFINDEX NAME NETNS [IPAM]
 *
 * MODE is kernel or dpdk; PF_IFINDEX is 0 where there is no PF (bench/native.py); VF_IFINDEX is 0 in DPDK mode; NAME is the VF's name in the sandbox (add) or on the host (del).
 * stdin and the CNI_* environment are the IPAM plugin's.
 *
 *     floor time FOLDER...
 *
 * The stop watch for all candidates alike: runs what the folders name, all together. Each holds `argv` and `environ`
 * (strings ended by NUL) and `stdin`, and gets `stdout`. Prints for each: number, exit code, ns from vfork to the exit;
 * then ns from the first vfork to the last exit.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* ---- netlink */

struct message {
	struct nlmsghdr header;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg address;
	};
	char attributes[512];
};

static int open_netlink(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (fd < 0)
		die("socket");
	return fd;
}

static struct rtattr *put(struct message *message, unsigned short type, const void *data, size_t size)
{
	struct rtattr *attribute = (struct rtattr *)((char *)message + NLMSG_ALIGN(message->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = (unsigned short)RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attribute), data, size);
	message->header.nlmsg_len = NLMSG_ALIGN(message->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static void end(struct message *message, struct rtattr *nest)
{
	nest->rta_len = (unsigned short)((char *)message + message->header.nlmsg_len - (char *)nest);
}

static struct message new_message(unsigned short type, unsigned short flags, size_t size)
{
	struct message message = {.header = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size), .nlmsg_type = type}};

	message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	return message;
}

static void request(int fd, struct message *message, const char *what)
{
	char reply[4096];

	if (send(fd, message, message->header.nlmsg_len, 0) < 0 || recv(fd, reply, sizeof(reply), 0) < 0)
		die(what);
	struct nlmsgerr *answer = NLMSG_DATA((struct nlmsghdr *)reply);
	if (answer->error) {
		errno = -answer->error;
		die(what);
	}
}

static void set_vlan(int fd, int pf, uint32_t vf, uint32_t vlan)
{
	struct message message = new_message(RTM_NEWLINK, 0, sizeof(struct ifinfomsg));
	struct ifla_vf_vlan value = {.vf = vf, .vlan = vlan};

	message.link.ifi_index = pf;
	struct rtattr *list = put(&message, IFLA_VFINFO_LIST | NLA_F_NESTED, NULL, 0);
	struct rtattr *info = put(&message, IFLA_VF_INFO | NLA_F_NESTED, NULL, 0);
	put(&message, IFLA_VF_VLAN, &value, sizeof(value));
	end(&message, info);
	end(&message, list);
	request(fd, &message, "setting the VLAN");
}

static void move(int fd, int ifindex, int netns, const char *name)
{
	struct message message = new_message(RTM_NEWLINK, 0, sizeof(struct ifinfomsg));

	message.link.ifi_index = ifindex;
	put(&message, IFLA_NET_NS_FD, &netns, sizeof(netns));
	put(&message, IFLA_IFNAME, name, strlen(name) + 1);
	request(fd, &message, "moving the VF");
}

static void set_up(int fd, int ifindex)
{
	struct message message = new_message(RTM_NEWLINK, 0, sizeof(struct ifinfomsg));

	message.link.ifi_index = ifindex;
	message.link.ifi_flags = message.link.ifi_change = IFF_UP;
	request(fd, &message, "setting the VF up");
}

static void add_address(int fd, unsigned ifindex, const char *cidr)
{
	struct message message = new_message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifaddrmsg));
	struct in_addr address;
	char text[64];
	int prefix;

	if (sscanf(cidr, "%63[0-9.]/%d", text, &prefix) != 2 || inet_pton(AF_INET, text, &address) != 1)
		die("reading the address");
	message.address.ifa_family = AF_INET;
	message.address.ifa_prefixlen = (unsigned char)prefix;
	message.address.ifa_index = ifindex;
	put(&message, IFA_LOCAL, &address, sizeof(address));
	put(&message, IFA_ADDRESS, &address, sizeof(address));
	request(fd, &message, "adding the address");
}

/* ---- IPAM */

static pid_t start_ipam(const char *ipam, int *output)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC) < 0)
		die("pipe");
	pid_t child = vfork();
	if (child == 0) {
		char *arguments[] = {(char *)ipam, NULL};
		dup2(ends[1], STDOUT_FILENO);
		execve(ipam, arguments, environ);
		_exit(127);
	}
	close(ends[1]);
	*output = ends[0];
	return child;
}

static void finish_ipam(pid_t child, int output, char *answer, size_t room)
{
	size_t size = 0;
	ssize_t got;
	int status;

	while ((got = read(output, answer + size, room - 1 - size)) > 0)
		size += (size_t)got;
	answer[size] = '\0';
	if (waitpid(child, &status, 0) < 0 || status != 0)
		die("the IPAM plugin");
}

static void write_sysctl(const char *family, const char *name, const char *key)
{
	char path[128];

	snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", family, name, key);
	int fd = open(path, O_WRONLY);
	if (fd >= 0 && write(fd, "1", 1) < 0)
		die(path);
	close(fd);
}

/* ---- verbs */

static void enter(int netns)
{
	if (setns(netns, CLONE_NEWNET) < 0)
		die("setns");
}

static int run_verb(char **arguments)
{
	int adds = strcmp(arguments[0], "add") == 0, kernel = strcmp(arguments[1], "kernel") == 0;
	int pf = atoi(arguments[2]), ifindex = atoi(arguments[5]), output = -1;
	const char *name = arguments[6], *ipam = arguments[8];
	char answer[4096] = "";
	pid_t child = ipam ? start_ipam(ipam, &output) : 0;
	int host = open_netlink(), inside = -1;

	if (pf)
		set_vlan(host, pf, (uint32_t)atoi(arguments[3]), adds ? (uint32_t)atoi(arguments[4]) : 0);
	if (kernel) {
		int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
		int netns = open(arguments[7], O_RDONLY | O_CLOEXEC);
		if (adds)
			move(host, ifindex, netns, name);
		enter(netns);
		inside = open_netlink();
		if (adds) {
			write_sysctl("ipv4", name, "arp_notify");
			write_sysctl("ipv6", name, "ndisc_notify");
			write_sysctl("ipv6", name, "optimistic_dad");
			set_up(inside, ifindex);
		} else {
			move(inside, ifindex, home, name);
		}
	}
	if (ipam)
		finish_ipam(child, output, answer, sizeof(answer));
	if (ipam && adds && kernel) {
		char *address = strstr(answer, "\"address\": \"");
		if (!address)
			die("the IPAM plugin's answer");
		add_address(inside, (unsigned)ifindex, address + strlen("\"address\": \""));
	}
	return write(STDOUT_FILENO, answer, strlen(answer)) < 0;
}

/* ---- stop watch */

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int open_in(const char *folder, const char *name, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	int fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die(path);
	return fd;
}

/* The strings of a file, each ended by NUL. */
static char **read_strings(const char *folder, const char *name)
{
	static const size_t room = 64 << 10, most = 256;
	char *text = malloc(room), **strings = calloc(most, sizeof(*strings));
	int fd = open_in(folder, name, O_RDONLY);
	ssize_t size = read(fd, text, room);

	for (ssize_t at = 0, i = 0; at < size && i < (ssize_t)most - 1; at += (ssize_t)strlen(text + at) + 1)
		strings[i++] = text + at;
	close(fd);
	return strings;
}

struct job {
	char **arguments, **environment;
	int input, output;
	pid_t child;
	int64_t started;
};

static int run_timed(int count, char **folders)
{
	struct job *jobs = calloc((size_t)count, sizeof(*jobs));

	for (int i = 0; i < count; i++)
		jobs[i] = (struct job){read_strings(folders[i], "argv"), read_strings(folders[i], "environ"),
				       open_in(folders[i], "stdin", O_RDONLY),
				       open_in(folders[i], "stdout", O_WRONLY | O_CREAT | O_TRUNC), 0, 0};
	int64_t first = now_ns();
	for (int i = 0; i < count; i++) {
		jobs[i].started = now_ns();
		jobs[i].child = vfork();
		if (jobs[i].child == 0) {
			dup2(jobs[i].input, STDIN_FILENO);
			dup2(jobs[i].output, STDOUT_FILENO);
			execve(jobs[i].arguments[0], jobs[i].arguments, jobs[i].environment);
			_exit(127);
		}
	}
	for (int left = count; left > 0; left--) {
		int status;
		pid_t child = wait(&status);
		int64_t ended = now_ns();
		for (int i = 0; i < count; i++)
			if (jobs[i].child == child)
				printf("%d %d %lld\n", i, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
				       (long long)(ended - jobs[i].started));
	}
	printf("%lld\n", (long long)(now_ns() - first));
	return 0;
}

int main(int count, char **arguments)
{
	if (count > 2 && strcmp(arguments[1], "time") == 0)
		return run_timed(count - 2, arguments + 2);
	if (count == 9 || count == 10)
		return run_verb(arguments + 1);
	fprintf(stderr, "usage: see bench/floor.c\n");
	return 2;
}
