/*
 * Feeds the launcher what agents should never send, under AddressSanitizer and UndefinedBehaviorSanitizer: `make fuzz`.
 *
 *     gcc -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -o fuzz cni/launcher/fuzz.c && ./fuzz COUNT SEED
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -DLIBFUZZER -o fuzz cni/launcher/fuzz.c && ./fuzz
 *
 * The first has its own mutations, the same ones for the same seed. Whatever the launcher takes for a whole reply is
 * decoded once more here, and must be one.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdlib.h>
#include <sys/socket.h>

static jmp_buf left;
static _Noreturn void leave(int code)
{
	(void)code;
	longjmp(left, 1);
}
static ssize_t receive_checked(int fd, void *at, size_t size, int flags);

#define exit(code) leave(code)
#define main launcher_main
#define recv receive_checked
#include "sriov.c"
#undef main
#undef exit
#undef recv

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz: %s\n", what);
	abort();
}

/* More than a socket holds cannot be sent here, so that the room for it is there is checked before it is needed. */
static ssize_t receive_checked(int fd, void *at, size_t size, int flags)
{
	const unsigned char *start = at;

	check(start >= reply && size <= sizeof(reply) && start + size <= reply + sizeof(reply), "a reply has no room");
	return recv(fd, at, size, flags);
}

/* What the launcher accepted must be a reply as cni/protocol/wire.py says, and all of it must have come. */
static void check_reply(const uint8_t *data, size_t size, size_t output)
{
	check(size >= REPLY_HEADER && memcmp(data, "SRIO\0\0\0\1", 8) == 0, "a reply without a header was accepted");
	check(data[8] == 0 && data[9] == 0 && data[10] == 0, "an exit code over 255 was accepted");
	uint32_t told = (uint32_t)data[12] << 24 | (uint32_t)data[13] << 16 | (uint32_t)data[14] << 8 | data[15];
	check(output == told && told <= STDOUT_MAX && size - REPLY_HEADER >= told, "a cut or oversized reply was accepted");
	check(memcmp(reply + REPLY_HEADER, data + REPLY_HEADER, told) == 0, "another result was read than was sent");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int silent = -1;
	int ends[2];
	char text[64], escaped[32];

	command = "ADD";
	agent = "/run/fuzz.sock";
	if (silent < 0) { /* what the launcher prints; sanitizers write to stderr */
		silent = open("/dev/null", O_WRONLY | O_CLOEXEC);
		check(silent >= 0 && dup2(silent, STDOUT_FILENO) >= 0, "stdout cannot be silenced");
	}
	snprintf(text, sizeof(text), "%.*s", (int)(size < sizeof(text) ? size : sizeof(text)), (const char *)data);
	escape(text, escaped, sizeof(escaped));
	check(strlen(escaped) < sizeof(escaped), "an escaped text has no end");

	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0, "there is no socket");
	if (send(ends[1], data, size, MSG_DONTWAIT) == (ssize_t)size || size == 0) { /* else larger than its buffer */
		shutdown(ends[1], SHUT_WR);
		if (!setjmp(left)) {
			size_t output = receive_reply(ends[0]);
			check_reply(data, size, output);
			print(reply + REPLY_HEADER, output);
		}
	}
	close(ends[0]);
	close(ends[1]);
	return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint32_t next_random(uint32_t bound) /* xorshift64*, Marsaglia */
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 2685821657736338717ULL) >> 33) % bound;
}

/* A whole reply, then mutated: bytes changed, sizes off by a little or a lot, cut, or continued. Gives its size. */
static size_t make_input(uint8_t *input, size_t room)
{
	static const uint32_t sizes[] = {0, 1, 15, 16, 255, 256, STDOUT_MAX, STDOUT_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff};
	uint32_t output = next_random(4) ? next_random(64) : next_random((uint32_t)room - REPLY_HEADER);
	size_t size = REPLY_HEADER + output;

	memcpy(input, "SRIO\0\0\0\1\0\0\0", 11);
	input[11] = (uint8_t)next_random(256);
	put_u32(input + 12, output);
	for (size_t i = REPLY_HEADER; i < size; i++)
		input[i] = (uint8_t)next_random(256);
	switch (next_random(6)) {
	case 0:
		break;
	case 1:
		input[next_random((uint32_t)size)] = (uint8_t)next_random(256);
		break;
	case 2:
		put_u32(input + 12, sizes[next_random(sizeof(sizes) / sizeof(*sizes))]);
		break;
	case 3:
		size = next_random((uint32_t)size + 1);
		break;
	case 4:
		put_u32(input + 12, output + 1 - 2 * next_random(2));
		break;
	default:
		for (int i = 0; i < REPLY_HEADER; i++)
			input[i] = (uint8_t)next_random(256);
	}
	return size;
}

int main(int count, char **arguments)
{
	static uint8_t input[32 << 10];
	unsigned long rounds = count > 1 ? strtoul(arguments[1], NULL, 10) : 100000;

	state = (count > 2 ? strtoull(arguments[2], NULL, 10) : 1) * 2862933555777941757ULL + 1;
	for (unsigned long i = 0; i < rounds; i++)
		LLVMFuzzerTestOneInput(input, make_input(input, sizeof(input)));
	fprintf(stderr, "fuzz: %lu replies, no fault\n", rounds);
	return 0;
}
#endif
