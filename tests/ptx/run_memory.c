/*
 * ld and st of every width, vector and space, with addresses that lie in every manner: rows, rows of half a warp, one place, strides,
 * backwards, at random, with lanes switched off in several ways and a warp that is not full. Each block of the grid has a pattern
 * of addresses and lanes; results are compared byte by byte with what the host computes. TAP on stdout.
 *
 *	run_memory          on the library that FARWARP_TEST_LIBCUDA names
 *	run_memory --print  writes the PTX of all forms
 */
#include "driver.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 88 /* two warps and 24 threads */
#define BYTES 4096 /* of memory that is read or written, a block */
#define LOCAL 256  /* of a thread's local array */
#define PATTERNS 11
#define MASKS 7
#define BLOCKS (PATTERNS * MASKS)
#define POISON 0x5a5a5a5a5a5a5a5aull

enum space { GLOBAL, GENERIC, SHARED, GENERIC_SHARED, LOCAL_ARRAY, SPACES };
static const char *const space_names[SPACES] = { ".global", "", ".shared", "", ".local" };
static const char *const space_titles[SPACES] = { "global", "generic", "shared", "generic to shared", "local" };

struct form {
	const char *mods; /* between the space and the vector */
	unsigned vector, bytes;
	const char *type;
	unsigned reg;     /* bits of the register */
	bool is_signed;
};
static const struct form forms[] = {
	{ "", 1, 1, "u8", 16, false }, { "", 1, 1, "s8", 16, true }, { "", 1, 1, "u8", 32, false }, { "", 1, 1, "s8", 32, true },
	{ "", 1, 1, "b8", 64, false }, { "", 1, 1, "s8", 64, true }, { "", 1, 2, "u16", 16, false }, { "", 1, 2, "s16", 16, true },
	{ "", 1, 2, "u16", 32, false }, { "", 1, 2, "s16", 32, true }, { "", 1, 2, "s16", 64, true }, { "", 1, 4, "b32", 32, false },
	{ "", 1, 4, "f32", 32, false }, { "", 1, 4, "u32", 64, false }, { "", 1, 4, "s32", 64, true }, { "", 1, 8, "b64", 64, false },
	{ "", 1, 8, "f64", 64, false }, { "", 2, 1, "u8", 16, false }, { "", 4, 1, "u8", 32, false }, { "", 4, 1, "s8", 16, true },
	{ "", 2, 2, "u16", 16, false }, { "", 4, 2, "s16", 32, true }, { "", 2, 4, "b32", 32, false }, { "", 4, 4, "u32", 32, false },
	{ "", 4, 4, "s32", 64, true }, { "", 2, 8, "b64", 64, false },
	{ ".volatile", 1, 4, "u32", 32, false }, { ".volatile", 4, 4, "u32", 32, false }, { ".volatile", 1, 1, "s8", 16, true },
};
#define FORMS (sizeof forms / sizeof *forms)

static unsigned random_state = 1;

static unsigned
random_number(void)
{
	random_state = random_state * 1664525 + 1013904223;
	return random_state >> 8;
}

/* ptxas: .volatile does not go with .local. */
static bool
exists(const struct form *form, enum space space)
{
	return !*form->mods || space != LOCAL_ARRAY;
}

/* ---- kernels --------------------------------------------------------------------------------------------------------------- */

static char text[1 << 20];
static size_t used;

static void __attribute__((format(printf, 1, 2)))
emit(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	used += (size_t)vsnprintf(text + used, sizeof text - used, format, args);
	va_end(args);
	if (used >= sizeof text)
		abort();
}

/* The access itself: "[%a+16]" and registers in braces when there are several. */
static void
emit_access(const struct form *form, enum space space, bool load)
{
	char registers[64] = "";
	size_t n = 0;

	for (unsigned v = 0; v < form->vector; v++)
		n += (size_t)snprintf(registers + n, sizeof registers - n, "%s%%v%u%s", v ? ", " : form->vector > 1 ? "{" : "", v,
		                      v + 1 == form->vector && form->vector > 1 ? "}" : "");
	emit("\t@%%p %s%s%s", load ? "ld" : "st", form->mods, space_names[space]);
	if (form->vector > 1)
		emit(".v%u", form->vector);
	emit(load ? ".%s %s%s" : ".%s %s%s", form->type, load ? registers : "[%a+16], ", load ? ", [%a+16];\n" : registers);
	emit(load ? "" : ";\n");
}

/*
 * kernel(data, index, mask, values): thread t of block b accesses the byte index[b][t] (+ 16) of its memory if mask[b][t], and loads into
 * or stores from values[b][t][0..3]. Memory is data + b * BYTES, or a copy of it in shared memory; local memory holds the bytes
 * data[b][..LOCAL] xor t. Stores of shared and local memory are copied back to data, the latter summed over threads by xor.
 */
static void
emit_kernel(const struct form *form, enum space space, bool load, unsigned number)
{
	bool shared = space == SHARED || space == GENERIC_SHARED, local = space == LOCAL_ARRAY;

	emit(".visible .entry k%u(.param .u64 data, .param .u64 index, .param .u64 mask, .param .u64 values)\n{\n", number);
	emit("\t.reg .b64 %%d, %%i, %%m, %%x, %%a, %%o, %%y, %%l;\n\t.reg .b32 %%t, %%b, %%n, %%w, %%k;\n\t.reg .b%u %%v<4>;\n"
	     "\t.reg .pred %%p, %%q;\n\t.reg .b16 %%h;\n", form->reg);
	if (shared)
		emit("\t.shared .align 16 .b8 s[%u];\n", BYTES);
	if (local)
		emit("\t.local .align 16 .b8 s[%u];\n", LOCAL);
	emit("\tmov.u32 %%t, %%tid.x;\n\tmov.u32 %%b, %%ctaid.x;\n\tld.param.u64 %%d, [data];\n\tmul.wide.u32 %%o, %%b, %u;\n"
	     "\tadd.u64 %%d, %%d, %%o;\n\tmad.lo.u32 %%n, %%b, %u, %%t;\n\tmul.wide.u32 %%o, %%n, 4;\n", BYTES, THREADS);
	emit("\tld.param.u64 %%i, [index];\n\tadd.u64 %%i, %%i, %%o;\n\tld.global.u32 %%k, [%%i];\n");
	emit("\tld.param.u64 %%m, [mask];\n\tadd.u64 %%m, %%m, %%o;\n\tld.global.u32 %%w, [%%m];\n\tsetp.ne.u32 %%p, %%w, 0;\n");
	emit("\tld.param.u64 %%x, [values];\n\tmul.wide.u32 %%o, %%n, 32;\n\tadd.u64 %%x, %%x, %%o;\n");
	/* copy in */
	if (shared || local) {
		emit("\tmov.u32 %%n, %s;\nIN:\n\tcvt.u64.u32 %%o, %%n;\n\tadd.u64 %%o, %%o, %%d;\n\tld.global.u8 %%h, [%%o];\n", local ? "0" : "%t");
		if (local)
			emit("\tcvt.u16.u32 %%h, %%t;\n\tld.global.u8 %%w, [%%o];\n\txor.b32 %%w, %%w, %%t;\n\tcvt.u16.u32 %%h, %%w;\n"
			     "\tmov.u64 %%y, s;\n\tcvt.u64.u32 %%o, %%n;\n\tadd.u64 %%y, %%y, %%o;\n\tst.local.u8 [%%y], %%h;\n");
		else
			emit("\tmov.u32 %%w, s;\n\tadd.u32 %%w, %%w, %%n;\n\tst.shared.u8 [%%w], %%h;\n");
		emit("\tadd.u32 %%n, %%n, %s;\n\tsetp.lt.u32 %%q, %%n, %u;\n\t@%%q bra IN;\n\tbar.sync 0;\n", local ? "1" : "88", local ? LOCAL : BYTES);
	}
	/* the address, 16 bytes before the place */
	emit("\tcvt.u64.u32 %%o, %%k;\n");
	if (space == GLOBAL || space == GENERIC)
		emit("\tmov.u64 %%a, %%d;\n");
	else if (space == GENERIC_SHARED)
		emit("\tmov.u64 %%l, s;\n\tcvta.shared.u64 %%a, %%l;\n");
	else
		emit("\tmov.u64 %%a, s;\n");
	emit("\tadd.u64 %%a, %%a, %%o;\n\tsub.u64 %%a, %%a, 16;\n");
	for (unsigned v = 0; v < 4; v++) {
		if (load)
			emit("\tmov.b%u %%v%u, 0x%llx;\n", form->reg, v, (unsigned long long)(form->reg == 64 ? POISON : POISON & ((1ull << form->reg) - 1)));
		else
			emit("\tld.global.b%u %%v%u, [%%x+%u];\n", form->reg, v, 8 * v);
	}
	emit_access(form, space, load);
	if (load) {
		for (unsigned v = 0; v < form->vector; v++)
			emit("\tst.global.b%u [%%x+%u], %%v%u;\n", form->reg, 8 * v, v);
	} else if (shared) {
		emit("\tbar.sync 0;\n\tmov.u32 %%n, %%t;\nOUT:\n\tcvt.u64.u32 %%o, %%n;\n\tadd.u64 %%o, %%o, %%d;\n\tmov.u32 %%w, s;\n"
		     "\tadd.u32 %%w, %%w, %%n;\n\tld.shared.u8 %%h, [%%w];\n\tst.global.u8 [%%o], %%h;\n\tadd.u32 %%n, %%n, 88;\n"
		     "\tsetp.lt.u32 %%q, %%n, %u;\n\t@%%q bra OUT;\n", BYTES);
	} else if (local) {
		emit("\tmov.u32 %%n, 0;\nOUT:\n\tmov.u64 %%y, s;\n\tcvt.u64.u32 %%o, %%n;\n\tadd.u64 %%y, %%y, %%o;\n\tld.local.u32 %%w, [%%y];\n"
		     "\tadd.u64 %%o, %%o, %%d;\n\tred.global.xor.b32 [%%o+2048], %%w;\n\tadd.u32 %%n, %%n, 4;\n"
		     "\tsetp.lt.u32 %%q, %%n, %u;\n\t@%%q bra OUT;\n", LOCAL);
	}
	emit("\tret;\n}\n\n");
}

/* ---- patterns -------------------------------------------------------------------------------------------------------------- */

/* Where thread t accesses, in units of the access. */
static unsigned
pattern_unit(unsigned pattern, unsigned t, unsigned units)
{
	switch (pattern) {
	case 0: return t % units;                      /* row */
	case 1: return t % 16 % units;                 /* two equal rows */
	case 2: return (t % 16 + t / 16 * 3) % units;  /* two rows */
	case 3: return 5 % units;                      /* one place */
	case 4: return t / 16 % units;                 /* a place for each half */
	case 5: return (THREADS - t) % units;          /* backwards */
	case 6: return t * 3 % units;                  /* stride */
	case 7: return random_number() % units;
	case 8: return (t / 8 * 5 + t % 8) % units;    /* short rows */
	case 9: return (t ^ 1) % units;                /* pairs swapped */
	default: return (t + (t % 32 == 17 ? 1 : 0)) % units; /* a row with one lane out of line */
	}
}

static bool
mask_lane(unsigned mask, unsigned t)
{
	switch (mask) {
	case 0: return true;
	case 1: return t % 2 == 0;
	case 2: return t % 32 >= 16;
	case 3: return t % 32 == 21;
	case 4: return t % 32 > 2 && t % 32 < 29;
	case 5: return random_number() & 1;
	default: return false;
	}
}

/* ---- the comparison ----------------------------------------------------------------------------------------------------------- */

static uint8_t data[BLOCKS][BYTES], result[BLOCKS][BYTES], want[BLOCKS][BYTES];
static uint32_t indices[BLOCKS][THREADS], masks[BLOCKS][THREADS];
static uint64_t values[BLOCKS][THREADS][4], got[BLOCKS][THREADS][4];

static void
fill(const struct form *form, enum space space)
{
	unsigned size = form->vector * form->bytes, units = (space == LOCAL_ARRAY ? LOCAL : BYTES / 2) / size;

	for (unsigned b = 0; b < BLOCKS; b++) {
		for (unsigned n = 0; n < BYTES; n++)
			data[b][n] = (uint8_t)random_number();
		if (space == LOCAL_ARRAY)
			memset(data[b] + 2048, 0, LOCAL);
		for (unsigned t = 0; t < THREADS; t++) {
			indices[b][t] = pattern_unit(b / MASKS, t, units) * size;
			masks[b][t] = mask_lane(b % MASKS, t);
			for (unsigned v = 0; v < 4; v++)
				values[b][t][v] = (uint64_t)random_number() << 40 ^ (uint64_t)random_number() << 20 ^ random_number();
		}
	}
}

/* The value that a load leaves in the low bits of its register. */
static uint64_t
loaded(const struct form *form, const uint8_t *at, uint8_t flip)
{
	uint64_t value = 0;

	for (unsigned n = 0; n < form->bytes; n++)
		value |= (uint64_t)(uint8_t)(at[n] ^ flip) << 8 * n;
	if (form->is_signed && form->bytes < 8 && value >> (8 * form->bytes - 1))
		value |= ~0ull << 8 * form->bytes;
	return value;
}

static bool
check_load(const struct form *form, enum space space, char *why, size_t size)
{
	uint64_t mask = form->reg == 64 ? ~0ull : (1ull << form->reg) - 1;

	for (unsigned b = 0; b < BLOCKS; b++) {
		for (unsigned t = 0; t < THREADS; t++) {
			for (unsigned v = 0; v < 4; v++) {
				const uint8_t *at = data[b] + indices[b][t] + v * form->bytes;
				uint64_t expect = values[b][t][v];
				if (v < form->vector)
					expect = (expect & ~mask) | (mask & (masks[b][t] ? loaded(form, at, space == LOCAL_ARRAY ? (uint8_t)t : 0) : POISON));
				if (got[b][t][v] == expect)
					continue;
				snprintf(why, size, "pattern %u, mask %u, thread %u, element %u: 0x%llx, not 0x%llx", b / MASKS, b % MASKS, t, v,
				         (unsigned long long)got[b][t][v], (unsigned long long)expect);
				return false;
			}
		}
	}
	return true;
}

static bool
store_bytes(const struct form *form, uint8_t *at, unsigned b, unsigned t)
{
	for (unsigned v = 0; v < form->vector; v++)
		for (unsigned n = 0; n < form->bytes; n++)
			at[v * form->bytes + n] = (uint8_t)(values[b][t][v] >> 8 * n);
	return true;
}

/* Where several lanes store to one place any of them may win, so the value that is there is one of theirs. */
static bool
check_store(const struct form *form, enum space space, char *why, size_t size)
{
	unsigned bytes = form->vector * form->bytes;

	memcpy(want, data, sizeof want);
	for (unsigned b = 0; b < BLOCKS; b++) {
		bool written[BYTES] = { false };
		for (unsigned t = 0; t < THREADS; t++) {
			uint8_t mine[LOCAL];
			if (space == LOCAL_ARRAY) {
				for (unsigned n = 0; n < LOCAL; n++)
					mine[n] = (uint8_t)(data[b][n] ^ t);
				if (masks[b][t])
					store_bytes(form, mine + indices[b][t], b, t);
				for (unsigned n = 0; n < LOCAL; n++)
					want[b][2048 + n] ^= mine[n];
			} else if (masks[b][t]) {
				uint8_t one[64];
				store_bytes(form, one, b, t);
				bool wins = memcmp(one, result[b] + indices[b][t], bytes) == 0;
				if (wins || !written[indices[b][t]])
					memcpy(want[b] + indices[b][t], one, bytes);
				written[indices[b][t]] = true;
			}
		}
		for (unsigned n = 0; n < BYTES; n++) {
			if (want[b][n] == result[b][n])
				continue;
			snprintf(why, size, "pattern %u, mask %u, byte %u: 0x%x, not 0x%x", b / MASKS, b % MASKS, n, result[b][n], want[b][n]);
			return false;
		}
	}
	return true;
}

static bool
run(void *module, const struct form *form, enum space space, bool load, unsigned number, char *why, size_t size)
{
	dptr memory[4];
	const void *host[4] = { data, indices, masks, values };
	size_t sizes[4] = { sizeof data, sizeof indices, sizeof masks, sizeof values };
	void *params[4], *function;
	char name[16];
	int error = 0;

	fill(form, space);
	snprintf(name, sizeof name, "k%u", number);
	error = cu.ModuleGetFunction(&function, module, name);
	for (int n = 0; n < 4 && !error; n++) {
		error = cu.MemAlloc(&memory[n], sizes[n]);
		error = error ? error : cu.MemcpyHtoD(memory[n], host[n], sizes[n]);
		params[n] = &memory[n];
	}
	error = error ? error : cu.LaunchKernel(function, BLOCKS, 1, 1, THREADS, 1, 1, 0, NULL, params, NULL);
	error = error ? error : cu.CtxSynchronize();
	error = error ? error : cu.MemcpyDtoH(result, memory[0], sizeof result);
	error = error ? error : cu.MemcpyDtoH(got, memory[3], sizeof got);
	if (error) {
		snprintf(why, size, "%s", cu_name(error));
		return false;
	}
	for (int n = 0; n < 4; n++)
		cu.MemFree(memory[n]);
	return load ? check_load(form, space, why, size) : check_store(form, space, why, size);
}

int
main(int argc, char **argv)
{
	unsigned number = 0;

	cu_need_level();
	emit(".version 7.0\n.target sm_75\n.address_size 64\n\n");
	for (unsigned f = 0; f < FORMS; f++)
		for (unsigned s = 0; s < SPACES; s++)
			for (int load = 0; load < 2; load++)
				if (exists(&forms[f], (enum space)s))
					emit_kernel(&forms[f], (enum space)s, load, number++);
	if (argc > 1 && strcmp(argv[1], "--print") == 0) {
		fputs(text, stdout);
		return 0;
	}
	const char *reason = cu_open();
	if (reason) {
		printf("1..0 # SKIP %s\n", reason);
		return 0;
	}
	char log[4096] = "";
	void *module;
	int error = cu_load(&module, text, log, sizeof log);
	printf("1..%u\n", number);
	number = 0;
	for (unsigned f = 0; f < FORMS; f++) {
		for (unsigned s = 0; s < SPACES; s++) {
			for (int load = 0; load < 2; load++) {
				char why[200] = "the module does not load";
				if (!exists(&forms[f], (enum space)s))
					continue;
				bool good = !error && run(module, &forms[f], (enum space)s, load, number, why, sizeof why);
				if (!good)
					printf("# %s %s\n", why, log);
				printf("%sok %u - %s%s v%u %s, %u-bit register, %s\n", good ? "" : "not ", ++number, load ? "ld" : "st", forms[f].mods,
				       forms[f].vector, forms[f].type, forms[f].reg, space_titles[s]);
				fflush(stdout);
			}
		}
	}
	return 0;
}
