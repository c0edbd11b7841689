/* What the files of farwarp replay share. */
#ifndef TOOLS_REPLAY_H
#define TOOLS_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* From what was recorded to what is here: handles by their values, addresses by the allocations that they lie in. */
struct replay_map {
	struct replay_handle {
		uint64_t recorded, here;
	} *handles; /* open addressing; recorded 0: empty */
	size_t handle_count, handle_room;
	struct replay_range {
		uint64_t address, size, here;
	} *ranges;  /* sorted by address, apart from each other */
	size_t range_count, range_room;
	bool moved; /* some allocation lies elsewhere than it did */
};

/* False: out of memory. */
bool replay_add_handle(struct replay_map *map, uint64_t recorded, uint64_t here);
/* What a range has in common with older ones is its own from now on. */
bool replay_add_range(struct replay_map *map, uint64_t address, uint64_t size, uint64_t here);
/* Replaces the value by what it is here. False: it is not known. 0, 1 and 2 (default streams) are what they are. */
bool replay_handle(const struct replay_map *map, uint64_t *value);
bool replay_address(const struct replay_map *map, uint64_t *value);
/* Bytes that can be reached from an address on, as it was recorded; 0: it is not known. */
uint64_t replay_room(const struct replay_map *map, uint64_t address);
/* Replaces each aligned word of `bytes` that is a known address, or, if `handles`, a known handle. */
void replay_words(const struct replay_map *map, void *bytes, size_t size, bool handles);
/* The first byte in which `here` is not what `recorded` says, with addresses replaced; `size`: none. */
size_t replay_compare(const struct replay_map *map, const uint8_t *recorded, const uint8_t *here, size_t size);
void replay_map_free(struct replay_map *map);

#endif
