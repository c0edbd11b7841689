/* Surveys fat binaries (image/image.h) without taking them into memory: headers of fat binaries and of their entries, and one text for the compiler's version. */
#include "elf/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"

#define PEEK 4096
#define FATBIN_HEADER 16
#define EMPTY_SIZE ((uint64_t)64 << 10) /* bytes of machine code that is looked into, to see whether there is any */
#define SCAN 65536 /* bytes of a section with data that are searched at a time */
#define TOOLKIT_PACKED ((uint64_t)1 << 20) /* bytes of an entry that is decompressed for the compiler's name */
#define TOOLKIT_SIZE ((uint64_t)16 << 20)
#define TOOLKIT_TRIES 4

/* PTX ISA's version history: the first CUDA release with it. From 13.0 on both count alike: 13.4 has 9.4. */
static const struct {
	uint32_t isa, cuda;
} ptx_versions[] = {
	{ 60, 90 }, { 61, 91 }, { 62, 92 }, { 63, 100 }, { 64, 101 }, { 65, 102 }, { 70, 110 }, { 71, 111 }, { 72, 112 }, { 73, 113 }, { 74, 114 },
	{ 75, 115 }, { 76, 116 }, { 77, 117 }, { 78, 118 }, { 80, 120 }, { 81, 121 }, { 82, 122 }, { 83, 123 }, { 84, 124 }, { 85, 125 }, { 86, 127 },
	{ 87, 128 }, { 88, 129 }, { 90, 130 },
};
#define PTX_VERSIONS (sizeof(ptx_versions) / sizeof(ptx_versions[0]))

uint32_t
in_cuda_of_ptx(uint32_t isa)
{
	for (size_t n = 0; n < PTX_VERSIONS; n++)
		if (ptx_versions[n].isa >= isa)
			return ptx_versions[n].cuda;
	return isa < 100 ? 130 + isa - 90 : 0;
}

uint32_t
in_ptx_of_cuda(uint32_t cuda)
{
	uint32_t isa = 0;

	if (cuda >= 130)
		return cuda < 140 ? 90 + cuda - 130 : IN_ANY_PTX;
	for (size_t n = 0; n < PTX_VERSIONS && ptx_versions[n].cuda <= cuda; n++)
		isa = ptx_versions[n].isa;
	return isa;
}

bool
in_machine_code_fits(uint32_t arch, char suffix, uint32_t cc)
{
	return suffix == 'a' ? arch == cc : arch / 10 == cc / 10 && arch <= cc;
}

struct walk {
	struct in_kernels *kernels;
	struct in_source *source;
	const struct in_device *device;
	uint8_t bytes[PEEK]; /* a window of the source */
	uint64_t at;
	size_t size;
	int tries; /* left, for the compiler's version */
};

/* `size` bytes (at most PEEK) at a place before `end`; NULL if they are not all there. */
static const uint8_t *
peek(struct walk *w, uint64_t at, size_t size, uint64_t end)
{
	if (at > end || size > end - at)
		return NULL;
	if (at < w->at || at + size > w->at + w->size) {
		w->size = end - at < PEEK ? (size_t)(end - at) : PEEK;
		w->at = at;
		if (!in_read(w->source, at, w->bytes, w->size)) {
			w->size = 0;
			return NULL;
		}
	}
	return w->bytes + (at - w->at);
}

static struct in_arch *
arch_of(struct in_kernels *k, const struct img_entry *e)
{
	bool ptx = e->kind == IMG_ENTRY_PTX;

	for (size_t n = 0; n < k->arch_count; n++)
		if (k->archs[n].arch == e->arch && k->archs[n].suffix == e->suffix && k->archs[n].ptx == ptx)
			return &k->archs[n];
	if (k->arch_count == IN_MAX_ARCHS) {
		k->archs_full = true;
		return NULL;
	}
	k->archs[k->arch_count] = (struct in_arch){ .arch = e->arch, .suffix = e->suffix, .ptx = ptx, .oldest = e->version };
	return &k->archs[k->arch_count++];
}

static void
note_entry(struct in_kernels *k, const struct img_entry *e)
{
	if (e->kind != IMG_ENTRY_PTX && e->kind != IMG_ENTRY_ELF) {
		k->other++;
		return;
	}
	struct in_arch *a = arch_of(k, e);
	if (!a)
		return;
	a->count++;
	a->packed += e->payload_size;
	a->size += e->size;
	a->raw += e->compression == IMG_RAW;
	a->lz4 += e->compression == IMG_LZ4;
	a->zstd += e->compression == IMG_ZSTD;
	if (e->version < a->oldest)
		a->oldest = e->version;
	if (e->version > a->newest)
		a->newest = e->version;
}

/* "Cuda compilation tools, release 12.4, V12.4.131" stands in PTX as a comment and in machine code in a note. */
static void
find_toolkit(struct walk *w, struct img_entry entry, uint64_t payload)
{
	static const char words[] = "ompilation tools, release ";
	struct img_payload text;
	struct fw_cursor copy;

	if (w->tries <= 0 || entry.payload_size > TOOLKIT_PACKED || entry.size > TOOLKIT_SIZE)
		return;
	w->tries--;
	if (!in_load(w->source, payload, entry.payload_size, &copy))
		return;
	entry.payload = copy.data;
	if (img_entry_read(&entry, &text, NULL) == IMG_OK) {
		const char *found = memmem(text.data, text.size, words, sizeof(words) - 1), *end = text.data + text.size;
		size_t length = 0;
		for (found = found ? found + sizeof(words) - 1 : end; found + length < end && length < 12; length++)
			if (!memchr("0123456789.", found[length], 11))
				break;
		if (length) {
			snprintf(w->kernels->toolkit, sizeof(w->kernels->toolkit), "%.*s", (int)length, found);
			w->tries = 0;
		}
		img_payload_free(&text);
	}
	in_unload(&copy);
}

/* What of one fat binary fits the device. */
struct fit {
	bool machine, ptx, ptx_too_new, any;
	uint32_t oldest_too_new, isa;
};

static void
note_fit(struct fit *fit, const struct img_entry *e, const struct in_device *device)
{
	if (e->kind == IMG_ENTRY_ELF) {
		fit->any = true;
		fit->machine |= in_machine_code_fits(e->arch, e->suffix, device->cc);
	} else if (e->kind == IMG_ENTRY_PTX) {
		fit->any = true;
		if (!img_arch_fits(e->arch, e->suffix, device->cc))
			return;
		if (!device->max_ptx || e->version <= device->max_ptx) {
			fit->ptx = true;
			fit->isa = e->version > fit->isa ? e->version : fit->isa;
		} else if (!fit->ptx_too_new || e->version < fit->oldest_too_new) {
			fit->ptx_too_new = true;
			fit->oldest_too_new = e->version;
		}
	}
}

static void
count_fit(struct in_kernels *k, const struct fit *fit)
{
	uint32_t isa = 0;

	if (fit->machine) {
		k->native++;
	} else if (fit->ptx) {
		k->jit++;
		isa = fit->isa;
	} else if (fit->ptx_too_new) {
		k->too_new++;
		isa = fit->oldest_too_new;
	} else {
		k->uncovered++;
	}
	if (isa > k->newest_ptx)
		k->newest_ptx = isa;
}

/* Is this machine code without a kernel, a function or a variable in it? Compilers make such for files without device code. */
static bool
is_empty(struct walk *w, struct img_entry entry, uint64_t payload)
{
	struct img_payload cubin;
	struct img_elf elf;
	struct fw_cursor copy;
	bool empty = false;

	if (!payload || entry.size > EMPTY_SIZE || entry.payload_size > EMPTY_SIZE || !in_load(w->source, payload, entry.payload_size, &copy))
		return false;
	entry.payload = copy.data;
	if (img_entry_read(&entry, &cubin, NULL) == IMG_OK) {
		empty = img_elf_open(&elf, cubin.data, cubin.size, NULL) == 0;
		for (uint32_t n = 0; empty && n < img_elf_symbol_count(&elf); n++) {
			struct img_symbol symbol;
			empty = img_elf_symbol(&elf, n, &symbol) == 0 && symbol.kind == IMG_SYMBOL_OTHER;
		}
		img_payload_free(&cubin);
	}
	in_unload(&copy);
	return empty;
}

/* One fat binary at `at`; its length, or 0 when it is damaged. */
static uint64_t
read_fatbin(struct walk *w, uint64_t at, uint64_t end, bool relocatable)
{
	struct in_kernels *k = w->kernels;
	struct fit fit = { 0 };
	struct img_entry first = { 0 }; /* machine code */
	uint64_t first_payload = 0;
	struct img_error error = { "" };
	const uint8_t *bytes = peek(w, at, FATBIN_HEADER, end);
	if (!bytes) {
		in_fail(&k->damage, "a fat binary at byte %llu is cut short", (unsigned long long)at);
		return 0;
	}
	struct fw_cursor c = fw_cursor(bytes, FATBIN_HEADER);

	fw_cursor_u32(&c);
	uint32_t version = fw_cursor_u16(&c), header = fw_cursor_u16(&c);
	uint64_t body = fw_cursor_u64(&c);
	if (version != 1 || header < FATBIN_HEADER || header > end - at || body > end - at - header) {
		in_fail(&k->damage, "a fat binary (version %u) at byte %llu claims %llu bytes where %llu are left", version, (unsigned long long)at,
		        (unsigned long long)body, (unsigned long long)(end - at));
		return 0;
	}
	uint64_t entry_at = at + header, stop = at + header + body;
	for (uint32_t n = 0; entry_at < stop; n++) {
		struct img_entry entry;
		uint64_t header_size, length;
		bytes = peek(w, entry_at, IMG_ENTRY_HEADER, stop);
		if (n == IMG_MAX_ENTRIES || !bytes ||
		    img_entry_header(bytes, IMG_ENTRY_HEADER, stop - entry_at, &entry, &header_size, &length, &error)) {
			in_fail(&k->damage, "a fat binary at byte %llu is damaged: %s", (unsigned long long)at, error.text[0] ? error.text : "cut short");
			return 0;
		}
		note_entry(k, &entry);
		note_fit(&fit, &entry, w->device);
		if (entry.kind == IMG_ENTRY_ELF && !first_payload) {
			first = entry;
			first_payload = entry_at + header_size;
		}
		if (entry.kind == IMG_ENTRY_PTX || entry.kind == IMG_ENTRY_ELF)
			find_toolkit(w, entry, entry_at + header_size);
		entry_at += length;
	}
	if (!relocatable && !fit.machine && !fit.ptx && !fit.ptx_too_new && is_empty(w, first, first_payload)) {
		k->empty++;
		return header + body;
	}
	if (relocatable)
		k->relocatable++;
	else if (fit.any)
		k->modules++;
	if (!relocatable && fit.any && w->device->cc)
		count_fit(k, &fit);
	return header + body;
}

/* A section of the compiler's: fat binaries one behind the other, padded. */
static void
read_section(struct walk *w, struct in_range range, bool relocatable)
{
	uint64_t at = range.at, end = range.at + range.size;
	const uint8_t *bytes;

	while ((bytes = peek(w, at, FATBIN_HEADER, end))) {
		if (img_recognise(bytes, 4) != IMG_FATBIN) {
			at += 8; /* padding */
			continue;
		}
		uint64_t length = read_fatbin(w, at, end, relocatable);
		if (!length)
			return;
		at += length;
		at += -(at - range.at) & 7;
	}
}

/* The next place in a section with data that begins as a fat binary does, at a multiple of 8; `end` if there is none. */
static uint64_t
find_fatbin(struct walk *w, uint8_t *buffer, uint64_t at, uint64_t end)
{
	static const uint8_t begin[8] = { 0x50, 0xed, 0x55, 0xba, 1, 0, FATBIN_HEADER, 0 };

	while (at < end && end - at >= FATBIN_HEADER) {
		size_t size = end - at < SCAN ? (size_t)(end - at) : SCAN;
		if (!in_read(w->source, at, buffer, size))
			return end;
		for (const uint8_t *found = buffer; (found = memmem(found, size - (size_t)(found - buffer), begin, sizeof(begin))); found++)
			if ((at + (uint64_t)(found - buffer)) % 8 == 0)
				return at + (uint64_t)(found - buffer);
		at += size - size % 8;
		if (size % 8)
			return end;
	}
	return end;
}

/* What only looks like a fat binary there is none, not a damaged one: the search goes on. */
static void
search_section(struct walk *w, struct in_range range)
{
	uint64_t at = (range.at + 7) & ~7ull, end = range.at + range.size;
	uint8_t *buffer = malloc(SCAN);

	while (buffer && (at = find_fatbin(w, buffer, at, end)) < end) {
		struct in_error damage = w->kernels->damage;
		uint32_t modules = w->kernels->modules;
		uint64_t length = read_fatbin(w, at, end, false);
		w->kernels->damage = damage;
		w->kernels->embedded += w->kernels->modules - modules;
		at += length ? (length + 7) & ~7ull : 8;
	}
	free(buffer);
}

static int
by_arch(const void *a, const void *b)
{
	const struct in_arch *x = a, *y = b;

	if (x->ptx != y->ptx)
		return x->ptx - y->ptx;
	return x->arch != y->arch ? (x->arch > y->arch) - (x->arch < y->arch) : x->suffix - y->suffix;
}

void
in_kernels_read(struct in_kernels *k, const struct in_elf *elf, struct in_source *source, const struct in_device *device)
{
	struct walk w = { .kernels = k, .source = source, .device = device, .tries = TOOLKIT_TRIES };

	*k = (struct in_kernels){ 0 };
	for (size_t n = 0; n < elf->fatbin_count && !k->damage.text[0]; n++)
		read_section(&w, elf->fatbins[n], elf->relocatable[n]);
	for (size_t n = 0; n < elf->data_count; n++)
		search_section(&w, elf->data[n]);
	qsort(k->archs, k->arch_count, sizeof(k->archs[0]), by_arch);
}
