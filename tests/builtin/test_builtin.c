/*
 * What the device gives to kernels besides instructions: printf's text, the kernel heap, the output buffer. Without an interpreter: the
 * address space is one array of this program.
 */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "soft/device/device.h"
#include "soft/exec/print.h"
#include "tests/tap.h"

/* ---- a space of two granules: all of the first may be read, nothing of the second ---------------------------------------- */

struct sw_space sw_space;
static uint8_t granules[2] = { SW_ACCESS_READ | SW_ACCESS_WRITE, SW_ACCESS_NONE };
static uint8_t *memory;
static unsigned live_blocks;

bool
sw_space_host(uint64_t address, uint64_t size)
{
	return false;
}

void *
sw_space_alloc(uint64_t size, uint64_t align)
{
	live_blocks++;
	return aligned_alloc(align, (size + align - 1) / align * align);
}

void
sw_space_free(void *block)
{
	live_blocks--;
	free(block);
}

static void
make_space(void)
{
	memory = aligned_alloc(SW_GRANULE, 2 * SW_GRANULE);
	memset(memory, 0, 2 * SW_GRANULE);
	sw_space = (struct sw_space){ .base = (uint64_t)(uintptr_t)memory, .size = 2 * SW_GRANULE, .granules = granules };
}

/* ---- printf ---------------------------------------------------------------------------------------------------------------- */

static uint64_t args_at;

static void
arg(const void *value, unsigned bytes)
{
	args_at = (args_at + bytes - 1) & ~(uint64_t)(bytes - 1);
	memcpy(memory + args_at, value, bytes);
	args_at += bytes;
}

static void
arg32(uint32_t value)
{
	arg(&value, 4);
}

static void
arg64(uint64_t value)
{
	arg(&value, 8);
}

static void
arg_double(double value)
{
	arg(&value, 8);
}

/* Prints with the arguments put so far; they begin at 4096, the format at 0. */
static int
print(const char *format, char *out, size_t size)
{
	struct sx_text text = { 0 };

	memcpy(memory, format, strlen(format) + 1);
	int count = sx_print(&text, sw_space.base, sw_space.base + 4096);
	if (text.bad)
		count = -100;
	snprintf(out, size, "%.*s", (int)text.used, text.data ? text.data : "");
	free(text.data);
	args_at = 4096;
	return count;
}

#define PRINTS(format, want, want_count) \
	do { \
		char out_[512]; \
		int count_ = print(format, out_, sizeof out_); \
		CHECK_STR(out_, want); \
		CHECK_INT(count_, want_count); \
	} while (0)

TEST(print_integers)
{
	make_space();
	args_at = 4096;
	PRINTS("plain text, no argument\n", "plain text, no argument\n", 0);
	arg32(-5);
	arg32(7);
	arg64(UINT64_C(1) << 40);
	PRINTS("%d %u %lld|", "-5 7 1099511627776|", 3);
	arg32(255);
	arg32(255);
	arg32(8);
	PRINTS("%x %#X %o", "ff 0XFF 10", 3);
	arg32(0x1234567);
	arg32(0x1234567);
	arg32(0xfffff);
	PRINTS("%hd %hhu %hi", "17767 103 -1", 3);
	arg64((uint64_t)-3);
	arg64(12);
	arg64(13);
	PRINTS("%ld %zu %jx", "-3 12 d", 3);
	arg32(5);
	arg32(-42);
	PRINTS("[%*d]", "[  -42]", 2);
	arg32((uint32_t)-5);
	arg32(42);
	PRINTS("[%*d]", "[42   ]", 2);
	arg32(7);
	PRINTS("%05d%%", "00007%", 1);
	arg32('x');
	PRINTS("%c", "x", 1);
}

TEST(print_numbers_and_pointers)
{
	make_space();
	args_at = 4096;
	arg32(1); /* a double after an int is aligned to 8 */
	arg_double(2.5);
	PRINTS("%d %.2f", "1 2.50", 2);
	arg_double(1e10);
	arg_double(-0.0);
	PRINTS("%e %g", "1.000000e+10 -0", 2);
	arg_double(1.0);
	PRINTS("%a", "0x1p+0", 1);
	arg32(3);
	arg_double(3.14159265);
	PRINTS("%.*f", "3.142", 2);
	arg64(0x1234);
	PRINTS("%p", "0x1234", 1);
}

TEST(print_strings)
{
	make_space();
	args_at = 4096;
	memcpy(memory + 64, "hello", 6);
	arg64(sw_space.base + 64);
	arg64(sw_space.base + 64);
	arg64(sw_space.base + 64);
	PRINTS("%s|%8s|%-7.3s|", "hello|   hello|hel    |", 3);
	arg64(0);
	PRINTS("%s", "(null)", 1);
	/* unterminated up to the end of what may be read, but with a precision that ends before */
	memset(memory + SW_GRANULE - 4, 'y', 4);
	arg64(sw_space.base + SW_GRANULE - 4);
	PRINTS("%.4s", "yyyy", 1);
	arg64(sw_space.base + SW_GRANULE - 4);
	PRINTS("%s", "", -100);
}

TEST(print_odd_formats)
{
	make_space();
	args_at = 4096;
	PRINTS("%y 100%", "%y 100%", 0);
	PRINTS("%n", "%n", 0);
	PRINTS("%", "%", 0);
	/* a width is capped */
	struct sx_text text = { 0 };
	memcpy(memory, "%99999999999d", 14);
	CHECK_INT(sx_print(&text, sw_space.base, sw_space.base + 4096), 1);
	CHECK_INT(text.used, 4096);
	free(text.data);
}

TEST(print_unreadable)
{
	struct sx_text text = { 0 };

	make_space();
	CHECK_INT(sx_print(&text, 0, 0), -1);
	sx_print(&text, 8, 0);
	CHECK_INT(text.bad, 8);
	free(text.data);
	text = (struct sx_text){ 0 };
	memcpy(memory, "%d", 3);
	sx_print(&text, sw_space.base, sw_space.base + SW_GRANULE);
	CHECK_INT(text.bad, sw_space.base + SW_GRANULE);
	free(text.data);
}

/* Each prefix of a format that has everything, with its terminator and without (then the format ends where memory ends). */
TEST(print_cut_at_every_byte)
{
	static const char format[] = "a %-+ #08.3lld %*.*f %hhd %s %% %p %c %e end";
	char out[512];

	make_space();
	for (size_t n = 0; n < sizeof format; n++) {
		char cut[sizeof format];
		memcpy(cut, format, n);
		cut[n] = 0;
		args_at = 4096;
		for (int k = 0; k < 12; k++)
			arg64(3);
		CHECK(print(cut, out, sizeof out) != -1);
		struct sx_text text = { 0 };
		memcpy(memory + SW_GRANULE - n, format, n);
		sx_print(&text, sw_space.base + SW_GRANULE - n, sw_space.base + 4096);
		if (n < sizeof format)
			CHECK(text.bad != 0);
		free(text.data);
	}
}

/* ---- heap ------------------------------------------------------------------------------------------------------------------ */

TEST(heap_simple)
{
	sw_heap_limit(1 << 20);
	char *a = sw_heap_alloc(100), *b = sw_heap_alloc(100);
	CHECK(a && b && a != b);
	CHECK_INT((uintptr_t)a % 16, 0);
	CHECK(b >= a + 100 || a >= b + 100);
	CHECK(sw_heap_free(a));
	CHECK(!sw_heap_free(a));
	CHECK(!sw_heap_free(b + 32));
	CHECK(!sw_heap_free(b + 1));
	CHECK(!sw_heap_free(NULL));
	CHECK(!sw_heap_free(&a));
	CHECK(sw_heap_free(b));
	CHECK(sw_heap_alloc(0) == NULL);
	char *all = sw_heap_alloc(1 << 20); /* everything came together again */
	CHECK(all != NULL);
	CHECK(sw_heap_alloc(1) == NULL);
	CHECK(sw_heap_free(all));
	CHECK(sw_heap_alloc((1 << 20) + 1) == NULL);
	CHECK(sw_heap_alloc(UINT64_MAX) == NULL);
	sw_heap_reset();
	CHECK_INT(live_blocks, 0);
}

/* Many blocks of changing sizes: none overlap, contents stay, all space returns. */
TEST(heap_random)
{
	enum { COUNT = 500 };
	struct { uint8_t *at; uint32_t size; uint8_t mark; } blocks[COUNT] = { 0 };
	uint32_t state = 12345;

	sw_heap_limit(1 << 18);
	for (int step = 0; step < 40000; step++) {
		state = state * 1664525 + 1013904223;
		unsigned n = state >> 8 & 0xffff, slot = n % COUNT;
		if (blocks[slot].at) {
			for (uint32_t k = 0; k < blocks[slot].size; k++)
				if (blocks[slot].at[k] != blocks[slot].mark) {
					CHECK(!"a block was overwritten");
					return;
				}
			CHECK(sw_heap_free(blocks[slot].at));
			blocks[slot].at = NULL;
			continue;
		}
		blocks[slot].size = 1 + n % 3000;
		blocks[slot].mark = (uint8_t)step;
		blocks[slot].at = sw_heap_alloc(blocks[slot].size);
		if (blocks[slot].at)
			memset(blocks[slot].at, blocks[slot].mark, blocks[slot].size);
	}
	for (int n = 0; n < COUNT; n++)
		if (blocks[n].at)
			CHECK(sw_heap_free(blocks[n].at));
	void *all = sw_heap_alloc(1 << 18);
	CHECK(all != NULL);
	sw_heap_reset();
	CHECK_INT(live_blocks, 0);
}

TEST(heap_limit)
{
	sw_heap_limit(65536);
	void *a = sw_heap_alloc(1000);
	sw_heap_limit(1 << 20); /* in use: holds after the reset */
	CHECK(sw_heap_alloc(100000) == NULL);
	CHECK(sw_heap_free(a));
	sw_heap_limit(1 << 20);
	CHECK(sw_heap_alloc(100000) != NULL);
	sw_heap_reset();
}

/* ---- output ------------------------------------------------------------------------------------------------------------------ */

/* What sw_output_flush writes to stdout. */
static void
flushed(char *out, size_t size)
{
	int pipes[2], keep;

	fflush(stdout);
	if (pipe(pipes) || (keep = dup(1)) < 0 || dup2(pipes[1], 1) < 0)
		abort();
	sw_output_flush();
	fflush(stdout);
	dup2(keep, 1);
	close(keep);
	close(pipes[1]);
	size_t used = 0;
	for (ssize_t got; used < size - 1 && (got = read(pipes[0], out + used, size - 1 - used)) > 0;)
		used += (size_t)got;
	out[used] = 0;
	close(pipes[0]);
}

TEST(output_in_order)
{
	char out[256];

	sw_output_append("one ", 4);
	sw_output_append("two ", 4);
	sw_output_append("three", 5);
	flushed(out, sizeof out);
	CHECK_STR(out, "one two three");
	flushed(out, sizeof out);
	CHECK_STR(out, "");
}

TEST(output_drops_the_oldest)
{
	char out[4096], line[32];

	sw_output_limit(1024);
	for (int n = 0; n < 200; n++)
		sw_output_append(line, (size_t)snprintf(line, sizeof line, "line %03d\n", n));
	flushed(out, sizeof out);
	CHECK_INT(strlen(out) % 9, 0);
	CHECK(strlen(out) > 500 && strlen(out) <= 1024);
	CHECK_STR(out + strlen(out) - 9, "line 199\n");
	for (size_t n = 0; n + 9 < strlen(out); n += 9)
		CHECK(strncmp(out + n, out + n + 9, 9) < 0);
	memset(out, 'z', sizeof out);
	sw_output_append(out, sizeof out); /* longer than the ring: cut */
	flushed(out, sizeof out);
	CHECK(strlen(out) > 1000 && strlen(out) <= 1024);
}

TEST_MAIN()
