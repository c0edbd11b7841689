/* Unit tests of src/base: handle map, arena, cursor. */
#include "base/arena.h"
#include "base/cursor.h"
#include "base/handles.h"
#include "tests/tap.h"

TEST(handle_lives_and_ends)
{
	int object;
	void *handle = fw_handle_new(3, &object);
	CHECK(handle != NULL);
	CHECK(fw_handle_get(handle, 3) == &object);
	CHECK(fw_handle_get(handle, 4) == NULL);
	CHECK_INT(fw_handle_kind(handle), 3);
	CHECK((intptr_t)handle > 1ll << 47); /* no address, and positive where a caller thinks it signed */
	CHECK(fw_handle_end(handle, 3) == &object);
	CHECK(fw_handle_get(handle, 3) == NULL);
	CHECK(fw_handle_end(handle, 3) == NULL);
	void *next = fw_handle_new(3, &object);
	CHECK(next != handle); /* the generation moved on */
	CHECK(fw_handle_get(handle, 3) == NULL);
	CHECK_INT(fw_handle_count(3), 1);
}

TEST(handle_refuses_junk)
{
	int object;
	CHECK(fw_handle_new(1, &object) != NULL);
	uint64_t junk[] = { 0, 1, 2, 0x7fffffff, (uint64_t)(uintptr_t)&object, ~0ull, 1ull << 63, 0x8100000000000000ull, 1ull << 62,
	                    0x4080000000000000ull };
	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++)
		CHECK(fw_handle_get((void *)(uintptr_t)junk[i], 1) == NULL);
}

TEST(handles_many)
{
	static void *handles[5000];
	static int objects[5000];
	for (int i = 0; i < 5000; i++)
		handles[i] = fw_handle_new(2, &objects[i]);
	for (int i = 0; i < 5000; i += 2)
		CHECK(fw_handle_end(handles[i], 2) == &objects[i]);
	for (int i = 1; i < 5000; i += 2)
		CHECK(fw_handle_get(handles[i], 2) == &objects[i]);
	CHECK_INT(fw_handle_count(2), 2500);
}

TEST(arena_zeroes_and_caps)
{
	struct fw_arena arena = { .cap = 1 << 20 };
	size_t got = 0;
	char *first = fw_arena_alloc(&arena, 100);
	CHECK(first && first[0] == 0 && first[99] == 0);
	CHECK(((uintptr_t)first & 15) == 0);
	while (fw_arena_alloc(&arena, 5000))
		got += 5000;
	CHECK(got > 500000 && got < 1 << 20);
	CHECK(fw_arena_alloc(&arena, (size_t)-1) == NULL);
	fw_arena_free(&arena);
	CHECK(arena.chunks == NULL);
}

TEST(cursor_stays_bad)
{
	uint8_t bytes[6] = { 1, 0, 0, 0, 2, 0 };
	struct fw_cursor c = fw_cursor(bytes, sizeof(bytes));
	CHECK_INT(fw_cursor_u32(&c), 1);
	CHECK_INT(fw_cursor_u32(&c), 0);
	CHECK(c.bad);
	CHECK_INT(fw_cursor_u8(&c), 0);
	struct fw_cursor whole = fw_cursor(bytes, sizeof(bytes));
	CHECK(fw_cursor_sub(&whole, 4, 3).bad);
	CHECK(fw_cursor_sub(&whole, 7, 0).bad);
	CHECK(!fw_cursor_sub(&whole, 6, 0).bad);
	CHECK(fw_cursor_sub(&whole, 1, UINT64_MAX).bad);
}

TEST_MAIN()
