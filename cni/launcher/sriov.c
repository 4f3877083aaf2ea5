/*
 * The CNI plugin `type: sriov` as the container runtime execs it.
 *
 * It decides nothing: it opens the network namespace where the runtime sees it, hands CNI_* environment, stdin and that
 * namespace to the sriovdp agent, prints the agent's answer and exits with the agent's exit code. Only VERSION, and
 * errors about the agent not answering, are its own. The format of both frames is told in cni/wire.py.
 *
 *     musl-gcc -static -Os -s -Wall -Wextra -Werror -o build/sriov cni/launcher/sriov.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifndef SEND_TIMEOUT_MS
#define SEND_TIMEOUT_MS 10000 /* to connect, and again to send */
#endif
#ifndef REPLY_TIMEOUT_MS
#define REPLY_TIMEOUT_MS 240000 /* the kubelet gives up a sandbox after as long */
#endif

#define SOCKET "/run/sriovdp/agent.sock"
#define VERSIONS "{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n"

/* as in cni/wire.py */
#define MAGIC "SRIO"
enum { PROTOCOL_VERSION = 1, REQUEST_HEADER = 20, REPLY_HEADER = 16 };
enum { ENVIRONMENT_MAX = 64 << 10, STDIN_MAX = 1 << 20, STDOUT_MAX = 4 << 20, EXIT_CODE_MAX = 255 };

/* error codes of the CNI specification 1.1.0, section "Error" */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, INVALID_CONFIG = 7, TRY_AGAIN = 11, NOT_AVAILABLE = 50 };

static const char *command;
static const char *agent = SOCKET;
static unsigned char request[REQUEST_HEADER + ENVIRONMENT_MAX + STDIN_MAX + 1]; /* one more to see what is too long */
static unsigned char reply[REPLY_HEADER + STDOUT_MAX];

static void put_u32(unsigned char *at, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		at[i] = (unsigned char)(value >> (24 - 8 * i));
}

static uint32_t get_u32(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Wait until the fd is ready or the deadline is over (none if negative). 0, or -1 with errno. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd ready = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = deadline < 0 ? -1 : deadline - now_ms();
		if (deadline >= 0 && left < 0)
			left = 0;
		int count = poll(&ready, 1, (int)left);
		if (count > 0)
			return 0;
		if (count == 0) {
			errno = ETIMEDOUT;
			return -1;
		}
		if (errno != EINTR)
			return -1;
	}
}

/* Whether to go on after a failed call: it was interrupted, or the fd is ready again. */
static int retry(int fd, short events, int64_t deadline)
{
	if (errno == EINTR)
		return 1;
	return (errno == EAGAIN || errno == EWOULDBLOCK) && wait_for(fd, events, deadline) == 0;
}

/* Print all of it on stdout. 0, or -1 after a word on stderr. */
static int print(const void *data, size_t size)
{
	const char *at = data;

	while (size > 0) {
		ssize_t written = write(STDOUT_FILENO, at, size);
		if (written >= 0) {
			at += written;
			size -= (size_t)written;
		} else if (!retry(STDOUT_FILENO, POLLOUT, -1)) {
			dprintf(STDERR_FILENO, "sriov: the result can not be printed: %s\n", strerror(errno));
			return -1;
		}
	}
	return 0;
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

static _Noreturn void fail_unanswered(const char *reason)
{
	fail(strcmp(command, "STATUS") == 0 ? NOT_AVAILABLE : TRY_AGAIN,
	     "look whether the sriovdp agent of this node runs and what its log says (systemctl status, or kubectl logs "
	     "of its pod); the call can be repeated",
	     "the sriovdp agent does not answer at %s: %s", agent, reason);
}

/* Read stdin to its end into `at`, or at most STDIN_MAX + 1 bytes. Gives how many. */
static size_t read_stdin(unsigned char *at)
{
	size_t size = 0;

	while (size <= STDIN_MAX) {
		ssize_t got = read(STDIN_FILENO, at + size, STDIN_MAX + 1 - size);
		if (got == 0)
			return size;
		if (got > 0)
			size += (size_t)got;
		else if (!retry(STDIN_FILENO, POLLIN, -1))
			fail(IO_FAILURE, "it is the runtime that gives it", "stdin can not be read: %s", strerror(errno));
	}
	fail(INVALID_CONFIG, "make it smaller", "the network configuration on stdin is larger than %d bytes", STDIN_MAX);
}

/* VERSION's stdin tells nothing that is needed, but whoever writes it shall not get a broken pipe. */
static void discard_stdin(void)
{
	ssize_t got;

	do
		got = read(STDIN_FILENO, request, sizeof(request));
	while (got > 0 || (got < 0 && retry(STDIN_FILENO, POLLIN, -1)));
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

static int connect_agent(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = SEND_TIMEOUT_MS / 1000, .tv_usec = SEND_TIMEOUT_MS % 1000 * 1000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(agent) >= sizeof(address.sun_path))
		fail_unanswered(strerror(ENAMETOOLONG));
	strcpy(address.sun_path, agent);
	/* a full backlog makes connect(2) wait, and this bounds it: poll(2) can not */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		fail_unanswered(strerror(errno));
	while (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		if (errno != EINTR)
			fail_unanswered(strerror(errno == EAGAIN ? ETIMEDOUT : errno));
	return fd;
}

/* Send the request, the namespace (if not negative) with its first byte. */
static void send_request(int fd, size_t size, int netns)
{
	int64_t deadline = now_ms() + SEND_TIMEOUT_MS;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec data = {.iov_base = request, .iov_len = size};
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

	receive(fd, reply, REPLY_HEADER, deadline);
	if (memcmp(reply, MAGIC, 4) != 0)
		fail_unanswered("what answers there is no sriovdp agent");
	if (get_u32(reply + 4) != PROTOCOL_VERSION)
		fail_unanswered("it speaks another protocol version; install the launcher that belongs to the agent");
	if (get_u32(reply + 8) > EXIT_CODE_MAX || get_u32(reply + 12) > STDOUT_MAX)
		fail_unanswered("its answer is out of bounds");
	receive(fd, reply + REPLY_HEADER, get_u32(reply + 12), deadline);
	return get_u32(reply + 12);
}

int main(void)
{
	const char *path = getenv("CNI_NETNS");
	int netns = -1, netns_errno = 0;

	signal(SIGPIPE, SIG_IGN);
	command = getenv("CNI_COMMAND");
	if (!command || !*command)
		fail(INVALID_ENVIRONMENT, "this is the CNI plugin sriov of sriovdp; a container runtime calls it",
		     "CNI_COMMAND is not set");
	if (strcmp(command, "VERSION") == 0) {
		discard_stdin();
		return print(VERSIONS, strlen(VERSIONS)) < 0;
	}
	if (getenv("SRIOVDP_SOCKET"))
		agent = getenv("SRIOVDP_SOCKET");

	size_t environment = put_environment(request + REQUEST_HEADER);
	size_t input = read_stdin(request + REQUEST_HEADER + environment);
	if (path && *path) {
		netns = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO there shall not hold us up */
		netns_errno = netns < 0 ? errno : 0;
	}
	memcpy(request, MAGIC, 4);
	put_u32(request + 4, PROTOCOL_VERSION);
	put_u32(request + 8, (uint32_t)netns_errno);
	put_u32(request + 12, (uint32_t)environment);
	put_u32(request + 16, (uint32_t)input);

	int fd = connect_agent();
	send_request(fd, REQUEST_HEADER + environment + input, netns);
	size_t output = receive_reply(fd);
	int printed = print(reply + REPLY_HEADER, output);
	return printed < 0 && get_u32(reply + 8) == 0 ? 1 : (int)get_u32(reply + 8);
}
