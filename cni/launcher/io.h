/* Numbers as frames have them, and waiting and writing with a deadline. Included by sriov.c. */

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

/* Write all of it. 0, or -1 with errno. */
static int write_all(int fd, const void *data, size_t size)
{
	const char *at = data;

	while (size > 0) {
		ssize_t written = write(fd, at, size);
		if (written >= 0) {
			at += written;
			size -= (size_t)written;
		} else if (!retry(fd, POLLOUT, -1)) {
			return -1;
		}
	}
	return 0;
}
