/*
 * Where this process has memory, told to a worker before it opens its device: what the program registers later lies there or nearby, and the
 * worker keeps those addresses free, so that it can have it there too (remote_host.c). It is a help and no promise.
 */
#include <stdio.h>
#include <string.h>

#include "client/remote.h"

#define NEAR ((uint64_t)32 << 30)    /* gaps up to this size are where memory of the future lies; so is that much around it all */
#define TOO_LARGE ((uint64_t)1 << 40) /* reservations of the kind that sanitizers make */
#define LOWEST ((uint64_t)1 << 44)   /* below, drivers have addresses that they insist on */
#define END ((uint64_t)1 << 47)

void
rm_layout(struct session_space used[SESSION_USED])
{
	unsigned count = 0;
	unsigned long low, high;
	char line[512], rights[8];
	FILE *maps = fopen("/proc/self/maps", "re");

	for (unsigned n = 0; n < SESSION_USED; n++)
		used[n] = (struct session_space){ 0 };
	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &low, &high, rights) != 3 || rights[0] != 'r' || low < LOWEST || high > END || high - low > TOO_LARGE)
			continue;
		uint64_t from = low > LOWEST + NEAR ? low - NEAR : LOWEST, to = high < END - NEAR ? high + NEAR : END;
		struct session_space *last = count ? &used[count - 1] : NULL;
		if (last && from <= last->base + last->size) {
			last->size = to - last->base;
			continue;
		}
		if (count == SESSION_USED) { /* the program's own is first, what is mapped last */
			memmove(&used[1], &used[2], (SESSION_USED - 2) * sizeof(*used));
			count--;
		}
		used[count++] = (struct session_space){ from, to - from };
	}
	if (maps)
		fclose(maps);
}
