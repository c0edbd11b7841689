/*
 * Which of an image's texts a device that runs PTX takes, and the words for why there is none.
 */
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What was seen in the image, for the refusal's text. */
struct survey {
	char machine[112], ptx[80]; /* " sm_80 sm_90a", " compute_120" */
	bool too_new;               /* PTX that fits but for its ISA version */
	uint32_t newest_version;
	uint32_t needs;             /* the lowest architecture of PTX that is too new for the device; 0: none */
};

bool
img_arch_fits(uint32_t arch, char suffix, uint32_t cc)
{
	if (suffix == 'a')
		return arch == cc;
	if (suffix == 'f')
		return arch / 10 == cc / 10 && arch <= cc;
	return arch <= cc;
}

/* Adds " sm_90a" unless it is there; a list that is full ends in " ...". */
static void
note(char *list, size_t size, const char *prefix, const struct img_entry *entry)
{
	char word[32], suffix[2] = { entry->suffix, 0 };
	size_t used = strlen(list);

	int length = snprintf(word, sizeof(word), " %s_%u%s", prefix, entry->arch, suffix);
	for (const char *at = strstr(list, word); at; at = strstr(at + 1, word))
		if (at[length] == 0 || at[length] == ' ')
			return;
	if (used + (size_t)length + 5 < size)
		memcpy(list + used, word, (size_t)length + 1);
	else if (used >= 4 && strcmp(list + used - 4, " ...") != 0 && used + 5 <= size)
		memcpy(list + used, " ...", 5);
}

static int
rank_suffix(char suffix)
{
	return suffix == 'a' ? 2 : suffix == 'f';
}

/* Newest architecture first, then what is made for exactly this device, then the newest ISA. */
static bool
better(const struct img_entry *a, const struct img_entry *b)
{
	if (a->arch != b->arch)
		return a->arch > b->arch;
	if (a->suffix != b->suffix)
		return rank_suffix(a->suffix) > rank_suffix(b->suffix);
	return a->version > b->version;
}

/* The best PTX of one fat binary: 1, 0 if it has none, -1 with *error. */
static int
choose_entry(const void *image, size_t size, const struct img_device *device, struct survey *survey, struct img_entry *best,
             struct img_error *error)
{
	struct img_fatbin fatbin;
	struct img_entry entry;
	bool found = false;
	int more;

	if (img_fatbin_open(&fatbin, image, size, error))
		return -1;
	while ((more = img_fatbin_next(&fatbin, &entry, error)) > 0) {
		if (entry.kind == IMG_ENTRY_ELF)
			note(survey->machine, sizeof(survey->machine), "sm", &entry);
		if (entry.kind != IMG_ENTRY_PTX)
			continue;
		note(survey->ptx, sizeof(survey->ptx), "compute", &entry);
		if (!img_arch_fits(entry.arch, entry.suffix, device->cc)) {
			if (entry.arch > device->cc && (!survey->needs || entry.arch < survey->needs))
				survey->needs = entry.arch;
			continue;
		}
		if (entry.version > device->max_ptx) {
			survey->too_new = true;
			if (entry.version > survey->newest_version)
				survey->newest_version = entry.version;
		} else if (!found || better(&entry, best)) {
			*best = entry;
			found = true;
		}
	}
	return more < 0 ? -1 : found;
}

static enum img_status
refuse(const struct survey *survey, const struct img_device *device, struct img_error *error)
{
	if (survey->too_new) {
		img_fail(error, "the image's PTX is of ISA %u.%u, newer than %u.%u", survey->newest_version / 10,
		         survey->newest_version % 10, device->max_ptx / 10, device->max_ptx % 10);
		return IMG_TOO_NEW;
	}
	char advice[96] = "";
	if (survey->needs)
		snprintf(advice, sizeof(advice), "; a device of compute capability %u.%u can (--cc %u.%u)", survey->needs / 10, survey->needs % 10,
		         survey->needs / 10, survey->needs % 10);
	img_fail(error, "no PTX that sm_%u can run; the image holds %s%s and %s%s%s", device->cc,
	         survey->machine[0] ? "machine code for" : "no machine code", survey->machine,
	         survey->ptx[0] ? "PTX for" : "no PTX at all", survey->ptx, advice);
	return IMG_NO_BINARY;
}

static enum img_status
choose_from(const void *const *fatbins, size_t fatbin_count, size_t size, const struct img_device *device,
            struct img_sources *sources, struct img_error *error)
{
	struct survey survey = { 0 };
	struct img_sources chosen = { .entries = calloc(fatbin_count ? fatbin_count : 1, sizeof(*chosen.entries)) };

	if (!chosen.entries) {
		img_fail(error, "out of memory for %zu fat binaries", fatbin_count);
		return IMG_NO_MEMORY;
	}
	for (size_t i = 0; i < fatbin_count; i++) {
		bool too_new = survey.too_new;
		int found = choose_entry(fatbins[i], size, device, &survey, &chosen.entries[chosen.count], error);
		if (found < 0) {
			free(chosen.entries);
			return IMG_INVALID;
		}
		if (found)
			survey.too_new = too_new; /* there was an older one to take */
		chosen.count += (size_t)found;
	}
	/* A part without any PTX may be one that nothing refers to; if not, the linker names what is missing. */
	if (!chosen.count || survey.too_new) {
		free(chosen.entries);
		return refuse(&survey, device, error);
	}
	*sources = chosen;
	return IMG_OK;
}

static enum img_status
choose_wrapper(const void *image, const struct img_device *device, struct img_sources *sources, struct img_error *error)
{
	struct img_wrapper wrapper;

	if (img_wrapper_read(image, &wrapper, error))
		return IMG_INVALID;
	if (wrapper.part_count)
		return choose_from(wrapper.parts, wrapper.part_count, IMG_SIZE_UNKNOWN, device, sources, error);
	return choose_from(&wrapper.fatbin, 1, IMG_SIZE_UNKNOWN, device, sources, error);
}

static enum img_status
choose_elf(const void *image, size_t size, const struct img_device *device, struct img_sources *sources,
           struct img_error *error)
{
	struct img_elf elf;

	if (img_elf_open(&elf, image, size, error))
		return IMG_INVALID;
	int texts = img_linked_read(&elf, sources, error);
	if (texts > 0)
		return IMG_OK;
	if (texts < 0)
		return IMG_NO_MEMORY;
	struct survey survey = { 0 };
	note(survey.machine, sizeof(survey.machine), "sm", &(struct img_entry){ .arch = elf.sm, .suffix = elf.suffix });
	return refuse(&survey, device, error);
}

static enum img_status
choose_text(const void *image, size_t size, struct img_sources *sources, struct img_error *error)
{
	size_t length;

	if (img_length(image, size, &length, error))
		return IMG_INVALID;
	struct img_entry *entry = calloc(1, sizeof(*entry));
	if (!entry) {
		img_fail(error, "out of memory");
		return IMG_NO_MEMORY;
	}
	*entry = (struct img_entry){ .kind = IMG_ENTRY_PTX, .payload = image, .payload_size = length, .size = length };
	*sources = (struct img_sources){ .entries = entry, .count = 1 };
	return IMG_OK;
}

enum img_status
img_choose(const void *image, size_t size, const struct img_device *device, struct img_sources *sources,
           struct img_error *error)
{
	switch (img_recognise(image, size)) {
	case IMG_WRAPPER:
		if (size == IMG_SIZE_UNKNOWN)
			return choose_wrapper(image, device, sources, error);
		img_fail(error, "a fat binary wrapper outside of a program");
		return IMG_INVALID;
	case IMG_FATBIN:
		return choose_from(&image, 1, size, device, sources, error);
	case IMG_ELF:
		return choose_elf(image, size, device, sources, error);
	case IMG_PTX:
		return choose_text(image, size, sources, error);
	case IMG_UNKNOWN:
		break;
	}
	img_fail(error, "neither a fat binary nor an ELF file nor PTX text");
	return IMG_INVALID;
}

bool
img_sources_keep(struct img_sources *sources)
{
	size_t total = 0;

	if (sources->copy)
		return true;
	for (size_t i = 0; i < sources->count; i++)
		total += sources->entries[i].payload_size;
	uint8_t *copy = malloc(total + 1), *at = copy;
	if (!copy)
		return false;
	for (size_t i = 0; i < sources->count; i++) {
		struct img_entry *entry = &sources->entries[i];
		if (entry->payload_size)
			memcpy(at, entry->payload, entry->payload_size);
		entry->payload = at;
		at += entry->payload_size;
		entry->name = entry->options = NULL;
		entry->name_size = entry->options_size = 0;
	}
	sources->copy = copy;
	return true;
}

void
img_sources_free(struct img_sources *sources)
{
	free(sources->entries);
	free(sources->copy);
	*sources = (struct img_sources){ 0 };
}
