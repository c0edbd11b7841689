/*
 * The loader's cache (/etc/ld.so.cache): which files a library's name stands for. Bytes only; nothing is opened.
 */
#ifndef FW_BASE_LDCACHE_H
#define FW_BASE_LDCACHE_H

#include <stdbool.h>
#include <stddef.h>

#define FW_LDCACHE_MAX (16u << 20) /* bytes of a loader's cache that is read */

/* Calls `visit` with each name of the cache and a path that it stands for, until that answers true; then true. Bytes that are no cache: false. */
bool fw_ldcache_all(const void *bytes, size_t size, bool (*visit)(const char *name, const char *path, void *user), void *user);
/* Calls `visit` with each path that the cache gives for `name`, until that answers true; then true. Bytes that are no cache: false. */
bool fw_ldcache_each(const void *bytes, size_t size, const char *name, bool (*visit)(const char *path, void *user), void *user);

#endif
