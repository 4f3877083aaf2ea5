/*
 * The spool: requests on disk that wait for an agent. Included by sriov.c; cni/service/spool.py reads what this writes.
 * `size` bytes of `data` are a request, and TRAILER more behind them are there to be filled in.
 */
#define BOOT_ID "/proc/sys/kernel/random/boot_id"
enum { BOOT_ID_SIZE = 36, TRAILER = 16 + BOOT_ID_SIZE };

/* Open the spool and make it where it is missing. Gives an fd of the folder, or -1 with errno. */
static int open_spool(const char *spool)
{
	char path[PATH_MAX];
	int made = 0;

	if (snprintf(path, sizeof(path), "%s", spool) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (char *slash = path; (slash = strchr(slash + 1, '/')); *slash = '/') {
		*slash = '\0';
		made |= mkdir(path, 0755) == 0;
	}
	made |= mkdir(path, 0700) == 0;
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return folder >= 0 && made && syncfs(folder) < 0 ? -1 : folder;
}

/* Behind a request in the spool, see cni/protocol/wire.py. Zeros where the namespace, or its boot, are not known. */
static void put_trailer(unsigned char *at, int netns)
{
	struct stat status = {0};
	int fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);

	memset(at, 0, TRAILER);
	if (netns >= 0 && fstat(netns, &status) == 0) {
		put_u32(at, (uint32_t)((uint64_t)status.st_dev >> 32));
		put_u32(at + 4, (uint32_t)status.st_dev);
		put_u32(at + 8, (uint32_t)((uint64_t)status.st_ino >> 32));
		put_u32(at + 12, (uint32_t)status.st_ino);
	}
	if (fd >= 0 && read(fd, at + 16, BOOT_ID_SIZE) != BOOT_ID_SIZE)
		memset(at + 16, 0, BOOT_ID_SIZE);
	close(fd);
}

/* Make the request durable in the spool: its file is complete there, or not at all. 0, or -1 with errno. */
static int spool_request(int folder, unsigned char *data, size_t size, int netns)
{
	char name[64], temporary[65];
	struct timespec now;
	int fd;

	put_trailer(data + size, netns);
	do {
		clock_gettime(CLOCK_REALTIME, &now);
		snprintf(name, sizeof(name), "%011lld.%09ld-%d", (long long)now.tv_sec, now.tv_nsec, (int)getpid());
		snprintf(temporary, sizeof(temporary), ".%s", name);
		fd = openat(folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	} while (fd < 0 && errno == EEXIST);
	if (fd < 0)
		return -1;
	if (write_all(fd, data, size + TRAILER) == 0 && fsync(fd) == 0 &&
	    renameat(folder, temporary, folder, name) == 0)
		return fsync(folder);
	int reason = errno;
	unlinkat(folder, temporary, 0);
	errno = reason;
	return -1;
}
