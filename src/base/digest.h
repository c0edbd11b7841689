/*
 * BLAKE2b (RFC 7693), and a digest of much data made of it.
 *
 * fw_digest() cuts data into stripes of four blocks of 128 bytes, the last one filled up with zeros. Four BLAKE2b-512 take the first, second,
 * third and fourth block of each stripe, side by side in one vector; the digest is the BLAKE2b-512 of the size (8 bytes, little-endian) and
 * their four results. Two inputs with one digest would be a collision of BLAKE2b.
 */
#ifndef FW_BASE_DIGEST_H
#define FW_BASE_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define FW_DIGEST 64 /* bytes */

void fw_digest(const void *data, size_t size, uint8_t digest[FW_DIGEST]);

/* BLAKE2b of data with a key of up to 64 bytes (NULL: none); digest_size: 1 to 64. */
void fw_blake2b(const void *key, size_t key_size, const void *data, size_t size, uint8_t *digest, size_t digest_size);

#endif
