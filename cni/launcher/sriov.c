/*
 * The CNI plugin `type: sriov` as the container runtime execs it.
 *
 * It decides nothing: it opens the network namespace where the runtime sees it, hands CNI_* environment, stdin and that
 * namespace to the sriovdp agent, prints the agent's answer and exits with the agent's exit code. Its own are VERSION,
 * errors about the agent not answering, and DEL and GC while there is no agent: these it keeps on disk for the next one.
 * When it is killed, its connection closes; that is how the agent learns that no client waits for the answer any more.
 * The format of frames and of what is kept on disk is described in cni/protocol/wire.py.
 *
 *     musl-gcc -static -Os -s -Wall -Wextra -Werror -o build/sriov cni/launcher/sriov.c
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef STDIN_TIMEOUT_MS
#define STDIN_TIMEOUT_MS 30000
#endif
#ifndef SEND_TIMEOUT_MS
#define SEND_TIMEOUT_MS 10000 /* to connect, and again to send */
#endif
#ifndef REPLY_TIMEOUT_MS
#define REPLY_TIMEOUT_MS 240000 /* the kubelet gives up a sandbox after as long */
#endif
#ifndef LIFETIME_S
#define LIFETIME_S 330 /* bounds what has no time-out of its own, like a stdout that is not read: SIGALRM kills then */
#endif

#define SOCKET "/run/sriovdp/agent.sock"
#define SPOOL "/var/lib/sriovdp/spool"
#define VERSIONS                                                                          \
	"{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.1.0\",\"0.2.0\",\"0.3.0\",\"0.3.1\",\"0.4.0\"," \
	"\"1.0.0\",\"1.1.0\"]}\n"

/* as in cni/protocol/wire.py */
#define MAGIC "SRIO"
#define DELEGATED "CNI_SRIOVDP_DELEGATED"
enum { PROTOCOL_VERSION = 1, REQUEST_HEADER = 20, REPLY_HEADER = 16 };
enum { ENVIRONMENT_MAX = 64 << 10, STDIN_MAX = 1 << 20, STDOUT_MAX = 4 << 20, EXIT_CODE_MAX = 255 };

/* error codes of the CNI specification 1.1.0, section "Error" */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, INVALID_CONFIG = 7, TRY_AGAIN = 11, NOT_AVAILABLE = 50 };

static const char *command;
static const char *agent = SOCKET;
static const char *spool = SPOOL;
static int netns = -1;
#include "io.h"
#include "spool.h"

static unsigned char request[REQUEST_HEADER + ENVIRONMENT_MAX + STDIN_MAX + TRAILER];
static size_t request_size;
static unsigned char reply[REPLY_HEADER + STDOUT_MAX];

/* Print all of it on stdout. 0, or -1 after a word on stderr. */
static int print(const void *data, size_t size)
{
	if (write_all(STDOUT_FILENO, data, size) == 0)
		return 0;
	dprintf(STDERR_FILENO, "sriov: the result cannot be printed: %s\n", strerror(errno));
	return -1;
}

/* The text as the inside of a JSON string. What is not ASCII becomes a question mark: it need not be UTF-8. */
static void escape(const char *text, char *out, size_t size)
{
	size_t used = 0;

	for (; *text && used + 7 < size; text++) {
		unsigned char c = (unsigned char)*text;
		if (c == '"' || c == '\\')
			out[used++] = '\\';
		if (c < 0x20 || c == 0x7f)
			used += (size_t)snprintf(out + used, size - used, "\\u%04x", (unsigned)c);
		else
			out[used++] = c < 0x80 ? (char)c : '?';
	}
	out[used] = '\0';
}

/* Print an error as the CNI specification wants it, and exit. */
__attribute__((format(printf, 3, 4))) static _Noreturn void fail(int code, const char *details, const char *format, ...)
{
	char message[1024], escaped[2048], document[4096];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	va_end(arguments);
	escape(message, escaped, sizeof(escaped));
	int size = snprintf(document, sizeof(document),
			    "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": %d,\n    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}\n",
			    code, escaped, details);
	print(document, (size_t)size);
	exit(1);
}

static int connect_agent(void);

/*
 * Keep DEL and GC for the next agent and exit, if there is none now; return if there is. The lock orders it: the agent
 * listens first, then takes the lock for itself alone, and then replays. So who sees no agent under the lock is seen.
 */
static void spool_without_agent(const char *reason)
{
	int folder = open_spool(spool);
	int served = -1;

	if (folder >= 0 && flock(folder, LOCK_SH) == 0) {
		served = connect_agent();
		if (served >= 0 || (errno != ENOENT && errno != ECONNREFUSED)) {
			close(served);
			close(folder);
			return;
		}
		if (spool_request(folder, request, request_size, netns) == 0)
			exit(0);
	}
	fail(TRY_AGAIN, "start the agent, or make room on that disk and mount it writable; the call can be repeated",
	     "the sriovdp agent does not answer at %s: %s; and %s cannot be kept for it in %s: %s", agent, reason, command,
	     spool, strerror(errno));
}

static int is_set(const char *variable)
{
	const char *value = getenv(variable);

	return value && *value;
}

/* The agent is not there, or does not answer as it should. */
static _Noreturn void fail_unanswered(const char *reason)
{
	if ((strcmp(command, "DEL") == 0 && is_set("CNI_CONTAINERID") && is_set("CNI_IFNAME")) ||
	    strcmp(command, "GC") == 0)
		spool_without_agent(reason);
	fail(strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN,
	     "look whether the sriovdp agent of this node runs and what its log says (systemctl status, or kubectl logs "
	     "of its pod); the call can be repeated",
	     "the sriovdp agent does not answer at %s: %s", agent, reason);
}

/* Read stdin to its end into `at`, or at most STDIN_MAX + 1 bytes. Gives how many. */
static size_t read_stdin(unsigned char *at)
{
	int64_t deadline = now_ms() + STDIN_TIMEOUT_MS;
	size_t size = 0;

	while (size <= STDIN_MAX) {
		ssize_t got = wait_for(STDIN_FILENO, POLLIN, deadline);
		if (got == 0)
			got = read(STDIN_FILENO, at + size, STDIN_MAX + 1 - size);
		if (got == 0)
			return size;
		if (got > 0)
			size += (size_t)got;
		else if (errno != EINTR && errno != EAGAIN)
			fail(IO_FAILURE, "it is the runtime that gives it, and then closes it",
			     "the network configuration on stdin cannot be read: %s", strerror(errno));
	}
	fail(INVALID_CONFIG, "make it smaller", "the network configuration on stdin is larger than %d bytes", STDIN_MAX);
}

/* VERSION needs nothing of its stdin, but its writer must not get a broken pipe. */
static void discard_stdin(void)
{
	int64_t deadline = now_ms() + STDIN_TIMEOUT_MS;

	while (wait_for(STDIN_FILENO, POLLIN, deadline) == 0) {
		ssize_t got = read(STDIN_FILENO, request, sizeof(request));
		if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
			return;
	}
}

/* Put the CNI_* variables where the request has them. Gives their size. */
static size_t put_environment(unsigned char *at)
{
	size_t used = 0;

	for (char **entry = environ; *entry; entry++) {
		size_t size = strlen(*entry) + 1;
		if (strncmp(*entry, "CNI_", 4) != 0)
			continue;
		if (size > ENVIRONMENT_MAX - used)
			fail(INVALID_ENVIRONMENT, "make CNI_ARGS shorter",
			     "the CNI_* environment is larger than %d bytes", ENVIRONMENT_MAX);
		memcpy(at + used, *entry, size);
		used += size;
	}
	return used;
}

/* Connect. Gives the fd, or -1 with errno. */
static int connect_agent(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = SEND_TIMEOUT_MS / 1000, .tv_usec = SEND_TIMEOUT_MS % 1000 * 1000};

	if (strlen(agent) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(address.sun_path, agent);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* a full backlog makes connect(2) wait, and this bounds it: poll(2) cannot */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return -1;
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		if (errno == EINTR)
			continue;
		int reason = errno == EAGAIN ? ETIMEDOUT : errno;
		close(fd);
		errno = reason;
		return -1;
	}
	return fd;
}

/* Send the request, the namespace (if there is one) with its first byte. */
static void send_request(int fd)
{
	int64_t deadline = now_ms() + SEND_TIMEOUT_MS;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec data = {.iov_base = request, .iov_len = request_size};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

	if (netns >= 0) {
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &netns, sizeof(int));
		message.msg_control = &control;
		message.msg_controllen = sizeof(control.space);
	}
	while (data.iov_len > 0) {
		ssize_t sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent >= 0) {
			data.iov_base = (char *)data.iov_base + sent;
			data.iov_len -= (size_t)sent;
			message.msg_control = NULL;
			message.msg_controllen = 0;
		} else if (!retry(fd, POLLOUT, deadline)) {
			if (errno == EPIPE || errno == ECONNRESET)
				return; /* an agent that refuses a request answers before it has read all of it */
			fail_unanswered(strerror(errno));
		}
	}
}

static void receive(int fd, unsigned char *at, size_t size, int64_t deadline)
{
	while (size > 0) {
		ssize_t got = recv(fd, at, size, MSG_DONTWAIT);
		if (got > 0) {
			at += got;
			size -= (size_t)got;
		} else if (got == 0) {
			fail_unanswered("it closed the connection before its answer was complete");
		} else if (!retry(fd, POLLIN, deadline)) {
			fail_unanswered(strerror(errno));
		}
	}
}

/* Receive the whole reply before anything of it is printed. Gives the size of what to print. */
static size_t receive_reply(int fd)
{
	int64_t deadline = now_ms() + REPLY_TIMEOUT_MS;
	char reason[128];

	receive(fd, reply, REPLY_HEADER, deadline);
	if (memcmp(reply, MAGIC, 4) != 0)
		fail_unanswered("what answers there is no sriovdp agent");
	if (get_u32(reply + 4) != PROTOCOL_VERSION) {
		snprintf(reason, sizeof(reason),
			 "it answers in protocol version %u, this launcher speaks %d; run `sriovdp install-cni` of its release",
			 (unsigned)get_u32(reply + 4), PROTOCOL_VERSION);
		fail_unanswered(reason);
	}
	if (get_u32(reply + 8) > EXIT_CODE_MAX || get_u32(reply + 12) > STDOUT_MAX)
		fail_unanswered("its answer is out of bounds");
	receive(fd, reply + REPLY_HEADER, get_u32(reply + 12), deadline);
	return get_u32(reply + 12);
}

/* The runtime may have blocked or ignored the signals that must end us. */
static void set_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGALRM, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	alarm(LIFETIME_S);
}

/* Read environment, stdin and namespace, and put the request together. */
static void build_request(void)
{
	const char *path = getenv("CNI_NETNS");
	int netns_errno = 0;
	size_t environment = put_environment(request + REQUEST_HEADER);
	size_t input = read_stdin(request + REQUEST_HEADER + environment);

	if (path && *path) {
		netns = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO there must not block */
		netns_errno = netns < 0 ? errno : 0;
	}
	memcpy(request, MAGIC, 4);
	put_u32(request + 4, PROTOCOL_VERSION);
	put_u32(request + 8, (uint32_t)netns_errno);
	put_u32(request + 12, (uint32_t)environment);
	put_u32(request + 16, (uint32_t)input);
	request_size = REQUEST_HEADER + environment + input;
}

int main(void)
{
	set_signals();
	command = getenv("CNI_COMMAND");
	if (!command || !*command)
		fail(INVALID_ENVIRONMENT, "this is the CNI plugin sriov of sriovdp; a container runtime calls it",
		     "CNI_COMMAND is not set");
	if (strcmp(command, "VERSION") == 0) {
		discard_stdin();
		return print(VERSIONS, strlen(VERSIONS)) < 0;
	}
	if (getenv(DELEGATED))
		fail(INVALID_CONFIG, "set it to an IPAM plugin, like host-local", "ipam.type leads to sriovdp itself");
	if (getenv("SRIOVDP_SOCKET"))
		agent = getenv("SRIOVDP_SOCKET");
	if (getenv("SRIOVDP_SPOOL"))
		spool = getenv("SRIOVDP_SPOOL");
	build_request();
	int fd = connect_agent();
	if (fd < 0)
		fail_unanswered(strerror(errno));
	send_request(fd);
	size_t output = receive_reply(fd);
	int printed = print(reply + REPLY_HEADER, output);
	return printed < 0 && get_u32(reply + 8) == 0 ? 1 : (int)get_u32(reply + 8);
}
