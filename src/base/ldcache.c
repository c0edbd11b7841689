/*
 * Reads the loader's cache (/etc/ld.so.cache, glibc's sysdeps/generic/dl-cache.h): which files a library's name stands for. It is read and
 * not asked of the loader, because LD_LIBRARY_PATH may put our own library in front.
 */
#include "base/ldcache.h"

#include <stdint.h>
#include <string.h>

#include "base/cursor.h"

#define OLD_MAGIC "ld.so-1.7.0"
#define NEW_MAGIC "glibc-ld.so.cache1.1"
#define OLD_HEADER 16 /* bytes: magic, padding, number of entries */
#define OLD_ENTRY 12
#define NEW_HEADER 48
#define NEW_ENTRY 24

/* The NUL-terminated text at an offset; NULL if it does not end within the cache. */
static const char *
text_at(const struct fw_cursor *cache, uint32_t offset)
{
	if (offset >= cache->size || !memchr(cache->data + offset, 0, cache->size - offset))
		return NULL;
	return (const char *)cache->data + offset;
}

bool
fw_ldcache_all(const void *bytes, size_t size, bool (*visit)(const char *name, const char *path, void *user), void *user)
{
	struct fw_cursor cache = fw_cursor(bytes, size);

	if (size >= OLD_HEADER && memcmp(bytes, OLD_MAGIC, strlen(OLD_MAGIC)) == 0) {
		/* An old cache may stand in front; offsets count from the new one. */
		fw_cursor_seek(&cache, 12);
		uint64_t at = (OLD_HEADER + (uint64_t)fw_cursor_u32(&cache) * OLD_ENTRY + 7) & ~7ull;
		cache = fw_cursor_sub(&cache, at, at <= size ? size - at : 0);
	}
	const void *magic = fw_cursor_bytes(&cache, strlen(NEW_MAGIC));
	if (!magic || memcmp(magic, NEW_MAGIC, strlen(NEW_MAGIC)) != 0)
		return false;
	uint32_t count = fw_cursor_u32(&cache);
	fw_cursor_seek(&cache, NEW_HEADER);
	for (uint32_t n = 0; n < count && !cache.bad; n++) {
		struct fw_cursor entry = fw_cursor_sub(&cache, NEW_HEADER + (uint64_t)n * NEW_ENTRY, NEW_ENTRY);
		fw_cursor_u32(&entry); /* flags: which kind of machine; a file for another one does not load */
		uint32_t key = fw_cursor_u32(&entry), value = fw_cursor_u32(&entry);
		if (entry.bad)
			return false;
		const char *found = text_at(&cache, key), *path = text_at(&cache, value);
		if (found && path && visit(found, path, user))
			return true;
	}
	return false;
}

struct wanted {
	const char *name;
	bool (*visit)(const char *path, void *user);
	void *user;
};

static bool
visit_wanted(const char *name, const char *path, void *user)
{
	const struct wanted *w = user;

	return strcmp(name, w->name) == 0 && w->visit(path, w->user);
}

bool
fw_ldcache_each(const void *bytes, size_t size, const char *name, bool (*visit)(const char *path, void *user), void *user)
{
	struct wanted wanted = { name, visit, user };

	return fw_ldcache_all(bytes, size, visit_wanted, &wanted);
}
