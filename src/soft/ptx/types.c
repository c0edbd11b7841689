/*
 * Tables of the PTX language: types, special registers, and the process-wide store of opcode and modifier words.
 */
#include "parser.h"

#include <pthread.h>
#include <stdlib.h>

const uint8_t ptx_type_bits[PTX_TYPE_COUNT] = {
#define X(name, bits) bits,
	PTX_TYPES(X)
#undef X
};
const char *const ptx_type_names[PTX_TYPE_COUNT] = {
#define X(name, bits) #name,
	PTX_TYPES(X)
#undef X
};
const char *const ptx_special_names[PTX_SR_COUNT] = {
#define X(name) #name,
	PTX_SPECIALS(X)
#undef X
};

enum ptx_type
ptx_type_find(const char *text, size_t length)
{
	for (int i = PTX_none + 1; i < PTX_TYPE_COUNT; i++)
		if (*text == *ptx_type_names[i] && strlen(ptx_type_names[i]) == length && memcmp(text, ptx_type_names[i], length) == 0)
			return (enum ptx_type)i;
	return PTX_none;
}

/* Families %NAME0, %NAME1, ...: the text before and after the number. */
static const struct { const char *before, *after; uint8_t special, count; } families[] = {
	{ "%pm", "", PTX_SR_pm, 8 }, { "%pm", "_64", PTX_SR_pm64, 8 }, { "%envreg", "", PTX_SR_envreg, 32 },
	{ "%reserved_smem_offset_", "", PTX_SR_reserved_smem_offset, 2 },
};

void
ptx_special_find(struct ptx_atom *atom)
{
	const char *name = atom->text;
	char *end;

	for (int i = 0; i < PTX_SR_COUNT; i++)
		if (strcmp(name + 1, ptx_special_names[i]) == 0)
			atom->special = (uint8_t)(i + 1);
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		size_t n = strlen(families[i].before);
		if (strncmp(name, families[i].before, n) != 0 || !ptx_is(name[n], PTX_C_DIGIT))
			continue;
		unsigned long number = strtoul(name + n, &end, 10);
		if (number < families[i].count && strcmp(end, families[i].after) == 0 && end - (name + n) <= 2) {
			atom->special = (uint8_t)(families[i].special + 1);
			atom->special_number = (uint8_t)number;
		}
	}
}

bool
ptx_has(const struct ptx_insn *insn, const char *modifier)
{
	for (unsigned i = 0; i < insn->mod_count; i++)
		if (insn->mods[i] == modifier || strcmp(insn->mods[i], modifier) == 0)
			return true;
	return false;
}

uint32_t
ptx_f32_bits(const struct ptx_operand *operand)
{
	uint64_t bits = (uint64_t)operand->imm;
	double wide;
	float value;
	uint32_t narrow;

	if ((bits & 0x7ff0000000000000) == 0x7ff0000000000000) {
		uint32_t fraction = (uint32_t)(bits >> 29) & 0x7fffff;
		if (!fraction && (bits & 0xfffffffffffff))
			fraction = 0x400000; /* a NaN stays one */
		return (uint32_t)(bits >> 63) << 31 | 0x7f800000 | fraction;
	}
	memcpy(&wide, &bits, sizeof(wide));
	value = (float)wide;
	memcpy(&narrow, &value, sizeof(narrow));
	return narrow;
}

/* ---- interned words --------------------------------------------------------------------------------------------- */

#define WORD_SLOTS (1u << 14) /* the language has some 1,500 words; foreign text may hold any */
#define WORD_LENGTH 64

static pthread_mutex_t word_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static const char *words[WORD_SLOTS];
static uint32_t word_count;

const char *
ptx_intern(const char *text, size_t length)
{
	uint32_t at = ptx_hash(text, length) % WORD_SLOTS;

	if (length == 0 || length > WORD_LENGTH)
		return NULL;
	pthread_mutex_lock(&word_lock);
	while (words[at] && (strncmp(words[at], text, length) != 0 || words[at][length] != 0))
		at = (at + 1) % WORD_SLOTS;
	if (!words[at] && word_count < WORD_SLOTS / 2 && (words[at] = strndup(text, length)))
		word_count++;
	const char *word = words[at];
	pthread_mutex_unlock(&word_lock);
	return word;
}
