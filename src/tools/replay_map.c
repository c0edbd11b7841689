/*
 * farwarp replay: handles and addresses of a record, and what they are here.
 *
 * An address may stand anywhere: in a kernel's parameters, in a structure, in data that is copied to the device. So each aligned word that
 * lies in an allocation of the recorded program is taken for an address. Addresses are 47-bit numbers, of which allocations are a small
 * part: a number that is taken for one by chance is possible, but it is far from likely.
 */
#include "tools/replay.h"

#include <stdlib.h>
#include <string.h>

#define HANDLE_LEAST 0x10000u /* no handle and no address is below */

static size_t
place(const struct replay_map *map, uint64_t recorded)
{
	size_t at = (size_t)(recorded * 0x9e3779b97f4a7c15u >> 20) & (map->handle_room - 1);

	while (map->handles[at].recorded && map->handles[at].recorded != recorded)
		at = (at + 1) & (map->handle_room - 1);
	return at;
}

static bool
grow_handles(struct replay_map *map)
{
	struct replay_map larger = { .handle_room = map->handle_room ? map->handle_room * 2 : 256 };

	larger.handles = calloc(larger.handle_room, sizeof(*larger.handles));
	if (!larger.handles)
		return false;
	for (size_t i = 0; i < map->handle_room; i++)
		if (map->handles[i].recorded)
			larger.handles[place(&larger, map->handles[i].recorded)] = map->handles[i];
	free(map->handles);
	map->handles = larger.handles;
	map->handle_room = larger.handle_room;
	return true;
}

bool
replay_add_handle(struct replay_map *map, uint64_t recorded, uint64_t here)
{
	if (recorded <= 2)
		return true;
	if (map->handle_count * 2 >= map->handle_room && !grow_handles(map))
		return false;
	struct replay_handle *handle = &map->handles[place(map, recorded)];
	map->handle_count += handle->recorded == 0;
	*handle = (struct replay_handle){ recorded, here };
	return true;
}

bool
replay_handle(const struct replay_map *map, uint64_t *value)
{
	if (*value <= 2)
		return true;
	if (!map->handle_room)
		return false;
	const struct replay_handle *handle = &map->handles[place(map, *value)];
	if (!handle->recorded)
		return false;
	*value = handle->here;
	return true;
}

/* Index of the first range that ends behind the address. */
static size_t
lower_bound(const struct replay_map *map, uint64_t address)
{
	size_t low = 0, high = map->range_count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		if (map->ranges[middle].address + map->ranges[middle].size <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct replay_range *
find_range(const struct replay_map *map, uint64_t address)
{
	size_t at = lower_bound(map, address);

	return at < map->range_count && map->ranges[at].address <= address ? &map->ranges[at] : NULL;
}

/* Room for `more` ranges. */
static bool
grow_ranges(struct replay_map *map, size_t more)
{
	if (map->range_count + more <= map->range_room)
		return true;
	size_t room = map->range_room * 2 + 64;
	struct replay_range *larger = realloc(map->ranges, room * sizeof(*larger));
	if (larger) {
		map->ranges = larger;
		map->range_room = room;
	}
	return larger;
}

bool
replay_add_range(struct replay_map *map, uint64_t address, uint64_t size, uint64_t here)
{
	if (size == 0 || size > UINT64_MAX - address)
		return true;
	if (!grow_ranges(map, 2))
		return false;
	uint64_t end = address + size;
	size_t first = lower_bound(map, address), last = first, count = 0;
	struct replay_range pieces[3];
	while (last < map->range_count && map->ranges[last].address < end)
		last++;
	if (first < last && map->ranges[first].address < address) {
		pieces[count] = map->ranges[first];
		pieces[count++].size = address - map->ranges[first].address;
	}
	pieces[count++] = (struct replay_range){ address, size, here };
	if (first < last && map->ranges[last - 1].address + map->ranges[last - 1].size > end) {
		const struct replay_range *old = &map->ranges[last - 1];
		uint64_t cut = end - old->address;
		pieces[count++] = (struct replay_range){ end, old->size - cut, old->here + cut };
	}
	memmove(map->ranges + first + count, map->ranges + last, (map->range_count - last) * sizeof(*map->ranges));
	memcpy(map->ranges + first, pieces, count * sizeof(pieces[0]));
	map->range_count = map->range_count - (last - first) + count;
	map->moved |= address != here;
	return true;
}

bool
replay_address(const struct replay_map *map, uint64_t *value)
{
	const struct replay_range *range = find_range(map, *value);

	if (range)
		*value = range->here + (*value - range->address);
	return range;
}

uint64_t
replay_room(const struct replay_map *map, uint64_t address)
{
	const struct replay_range *range = find_range(map, address);

	return range ? range->size - (address - range->address) : 0;
}

void
replay_words(const struct replay_map *map, void *bytes, size_t size, bool handles)
{
	if (!map->moved && !handles)
		return;
	for (size_t at = 0; at + 8 <= size; at += 8) {
		uint64_t value;
		memcpy(&value, (uint8_t *)bytes + at, 8);
		if (value >= HANDLE_LEAST && (replay_address(map, &value) || (handles && replay_handle(map, &value))))
			memcpy((uint8_t *)bytes + at, &value, 8);
	}
}

size_t
replay_compare(const struct replay_map *map, const uint8_t *recorded, const uint8_t *here, size_t size)
{
	for (size_t at = 0; at < size;) {
		size_t length = size - at < 4096 ? size - at : 4096;
		if (memcmp(recorded + at, here + at, length) == 0) {
			at += length;
			continue;
		}
		for (size_t end = at + length; at < end; at += 8) {
			size_t word = end - at < 8 ? end - at : 8;
			uint64_t then = 0, now = 0;
			memcpy(&then, recorded + at, word);
			memcpy(&now, here + at, word);
			if (then == now || (word == 8 && replay_address(map, &then) && then == now))
				continue;
			while (recorded[at] == here[at])
				at++;
			return at;
		}
	}
	return size;
}

void
replay_map_free(struct replay_map *map)
{
	free(map->handles);
	free(map->ranges);
}
