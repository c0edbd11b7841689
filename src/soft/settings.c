/*
 * What shapes the software GPU, from the environment: FARWARP_SOFT_CC, _MEM, _SMS and _THREADS.
 */
#include "soft/soft.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

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

unsigned
sw_settings_capability(const char *text)
{
	unsigned major = 0, minor = 0;
	int used = 0;

	if (!isdigit((unsigned char)text[0]))
		return 0;
	if (sscanf(text, "%2u.%1u%n", &major, &minor, &used) == 2 && text[used] == 0)
		return major * 10 + minor;
	unsigned long both;
	return read_number(text, 999, &both) && both >= 10 ? (unsigned)both : 0;
}

bool
sw_settings_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	double value = strtod(text, &end);
	if (errno != 0)
		return false;
	const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		for (long i = unit - units; i >= 0; i--)
			value *= 1024;
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B' || *end == 'b')
		end++;
	if (*end != 0 || !(value >= 1) || value > (double)(1ull << 60))
		return false;
	*bytes = (uint64_t)value;
	return true;
}

static bool
read_count(const char *name, uint32_t max, uint32_t *count)
{
	const char *text = getenv(name);
	unsigned long number;

	if (!text || !*text)
		return true;
	if (!read_number(text, max, &number) || number == 0) {
		fw_error("soft", "%s is \"%.40s\", not a number from 1 to %u", name, text, max);
		return false;
	}
	*count = (uint32_t)number;
	return true;
}

bool
sw_settings(struct sw_config *config)
{
	const char *cc = getenv("FARWARP_SOFT_CC"), *mem = getenv("FARWARP_SOFT_MEM");

	if (cc && *cc) {
		config->cc = sw_settings_capability(cc);
		if (config->cc < 75 || config->cc > 121) {
			fw_error("soft", "FARWARP_SOFT_CC is \"%.40s\", not a compute capability from 7.5 to 12.1", cc);
			return false;
		}
	}
	if (mem && *mem && !sw_settings_size(mem, &config->mem_bytes)) {
		fw_error("soft", "FARWARP_SOFT_MEM is \"%.40s\", not a size as 512M or 8G", mem);
		return false;
	}
	return read_count("FARWARP_SOFT_SMS", 1024, &config->sm_count) &&
	       read_count("FARWARP_SOFT_THREADS", 1024, &config->threads);
}
