/*
 * Handle map: opaque values for objects, checked on every use.
 *
 * A handle is never a pointer: it holds a kind, a slot and the slot's generation, so a stale, foreign or random value is
 * recognised and nothing is dereferenced. Values are above 2^47 (no user address on x86-64 or arm64) and never 0, 1 or 2.
 * Looking up takes no lock; creating and destroying take one. A lookup that races with the destruction of the same handle
 * is the caller's error, as it is in CUDA, and returns either the object or NULL.
 */
#ifndef FW_BASE_HANDLES_H
#define FW_BASE_HANDLES_H

#include <stdint.h>

/* Creates a handle of `kind` (1..127) for `object`; NULL when out of memory. */
void *fw_handle_new(unsigned kind, void *object);

/* The object of `handle`, or NULL when it is not a live handle of this kind. */
void *fw_handle_get(const void *handle, unsigned kind);

/* The kind of a live handle, 0 when it is none. */
unsigned fw_handle_kind(const void *handle);

/* Ends a handle and returns its object, or NULL when it was not live. Later lookups of the same value return NULL. */
void *fw_handle_end(void *handle, unsigned kind);

/* Calls `visit` for each live handle of `kind`; handles may be ended inside. */
void fw_handle_each(unsigned kind, void (*visit)(void *handle, void *object, void *user), void *user);

/* Number of live handles of a kind, for leak tests. */
unsigned fw_handle_count(unsigned kind);

#endif
