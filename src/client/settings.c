/*
 * CUDA_VISIBLE_DEVICES, which is the driver's job. CUDA_DEVICE_ORDER has no say while there is one device.
 */
#include "client.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A decimal number that is the whole text. */
static bool
read_number(const char *text, unsigned long max, unsigned long *number)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*number = strtoul(text, &end, 10);
	return errno == 0 && *end == 0 && *number <= max;
}

/* Hexadecimal digits of `uuid` as GPU-8-4-4-4-12. */
static void
write_uuid(const uint8_t uuid[16], char text[41])
{
	int used = snprintf(text, 41, "GPU-");

	for (int i = 0; i < 16; i++)
		used += snprintf(text + used, (size_t)(41 - used), "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

/* The device that one word of the list names, or -1. A UUID may be cut where it still names one device only. */
static int
named_device(const char *word, size_t length, int count, const uint8_t *(*uuid)(int, void *), void *user)
{
	char text[64];

	if (length == 0 || length >= sizeof(text))
		return -1;
	memcpy(text, word, length);
	text[length] = 0;
	unsigned long number;
	if (read_number(text, 1u << 30, &number))
		return number < (unsigned long)count ? (int)number : -1;
	if (strncasecmp(text, "GPU-", 4) != 0)
		return -1; /* "-1", "NoDevFiles", MIG names: no such device here */
	int found = -1;
	for (int i = 0; i < count; i++) {
		char name[41];
		const uint8_t *bytes = uuid(i, user);
		if (!bytes)
			continue;
		write_uuid(bytes, name);
		if (strncasecmp(name, text, length) == 0) {
			if (found >= 0)
				return -1;
			found = i;
		}
	}
	return found;
}

int
cl_settings_visible(const char *list, int count, const uint8_t *(*uuid)(int, void *), void *user, int *visible)
{
	int shown = 0;

	if (!list) {
		for (int i = 0; i < count; i++)
			visible[i] = i;
		return count;
	}
	for (const char *word = list;;) {
		size_t blank = strspn(word, " \t");
		word += blank;
		size_t length = strcspn(word, ",");
		size_t end = length;
		while (end > 0 && isspace((unsigned char)word[end - 1]))
			end--;
		int device = named_device(word, end, count, uuid, user);
		if (device < 0)
			return shown; /* the first word that names no device ends the list */
		for (int i = 0; i < shown; i++)
			if (visible[i] == device)
				return 0; /* a device named twice hides all */
		visible[shown++] = device;
		if (word[length] == 0)
			return shown;
		word += length + 1;
	}
}
