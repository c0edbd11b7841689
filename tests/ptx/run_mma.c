/*
 * mma.sync, ldmatrix, stmatrix and movmatrix against a reference of its own: where each element of a fragment lies is written down shape
 * by shape from the figures of the PTX ISA (9.7.14.5), and what a product is from the formats' definitions (num.c).
 *
 * Inputs: small whole numbers, whose sums every accumulator holds exactly, and random bits, where integers have to be equal and floating
 * point within what the additions may round. --ptxas FILE asks the toolkit's assembler whether it takes each form.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"
#include "num.h"

enum type { F16, BF16, TF32, E4M3, E5M2, F64, S8, U8, S4, U4, B1, F32, S32 };

static const struct {
	const char *name;
	unsigned bits;
	int format; /* enum num_format, -1: an integer */
} types[] = {
	[F16] = { "f16", 16, N_F16 }, [BF16] = { "bf16", 16, N_BF16 }, [TF32] = { "tf32", 32, N_F32 }, [E4M3] = { "e4m3", 8, N_E4M3 },
	[E5M2] = { "e5m2", 8, N_E5M2 }, [F64] = { "f64", 64, N_F64 }, [S8] = { "s8", 8, -1 }, [U8] = { "u8", 8, -1 }, [S4] = { "s4", 4, -1 },
	[U4] = { "u4", 4, -1 }, [B1] = { "b1", 1, -1 }, [F32] = { "f32", 32, N_F32 }, [S32] = { "s32", 32, -1 },
};

/* A shape, and which figure its fragments follow: elements of A and B that lie side by side along k, and how many times that is repeated. */
struct shape {
	unsigned m, n, k;
	unsigned run; /* neighbours along k */
};

struct form {
	struct shape shape;
	enum type d, a, b, c;
	const char *extra; /* .satfinite behind the layouts, or .xor.popc at the end */
	unsigned sm, ptx;
	char suffix;       /* of the target */
};

#define FORMS_MAX 256
static struct form forms[FORMS_MAX];
static unsigned form_count;

static void
add(unsigned m, unsigned n, unsigned k, enum type d, enum type a, enum type b, enum type c, const char *extra, unsigned sm, unsigned ptx)
{
	forms[form_count++] = (struct form){ { m, n, k, a == TF32 || a == F64 ? 1 : 32 / types[a].bits }, d, a, b, c, extra, sm, ptx, 0 };
}

static void
list_forms(void)
{
	static const enum type bytes[] = { S8, U8 }, nibbles[] = { S4, U4 }, fp8[] = { E4M3, E5M2 }, halves[] = { F16, F32 };

	for (unsigned c = 0; c < 2; c++) {
		add(16, 8, 8, halves[c], F16, F16, halves[c], "", 75, 65);
		add(16, 8, 16, halves[c], F16, F16, halves[c], "", 80, 70);
	}
	add(16, 8, 8, F32, BF16, BF16, F32, "", 80, 70);
	add(16, 8, 16, F32, BF16, BF16, F32, "", 80, 70);
	add(16, 8, 4, F32, TF32, TF32, F32, "", 80, 70);
	add(16, 8, 8, F32, TF32, TF32, F32, "", 80, 70);
	add(8, 8, 4, F64, F64, F64, F64, "", 80, 70);
	add(16, 8, 4, F64, F64, F64, F64, "", 90, 78);
	add(16, 8, 8, F64, F64, F64, F64, "", 90, 78);
	add(16, 8, 16, F64, F64, F64, F64, "", 90, 78);
	for (unsigned a = 0; a < 2; a++)
		for (unsigned b = 0; b < 2; b++) {
			add(16, 8, 32, F32, fp8[a], fp8[b], F32, "", 89, 84);
			add(16, 8, 16, F32, fp8[a], fp8[b], F32, "", 89, 87);
			add(16, 8, 32, F16, fp8[a], fp8[b], F16, "", 89, 87);
			add(16, 8, 16, F16, fp8[a], fp8[b], F16, "", 89, 87);
			for (unsigned s = 0; s < 2; s++) {
				const char *sat = s ? ".satfinite" : "";
				add(8, 8, 16, S32, bytes[a], bytes[b], S32, sat, 75, 65);
				add(16, 8, 16, S32, bytes[a], bytes[b], S32, sat, 80, 70);
				add(16, 8, 32, S32, bytes[a], bytes[b], S32, sat, 80, 70);
				add(8, 8, 32, S32, nibbles[a], nibbles[b], S32, sat, 75, 65);
				add(16, 8, 32, S32, nibbles[a], nibbles[b], S32, sat, 80, 70);
				add(16, 8, 64, S32, nibbles[a], nibbles[b], S32, sat, 80, 70);
			}
		}
	for (unsigned s = 0; s < 2; s++) {
		const char *op = s ? ".and.popc" : ".xor.popc";
		add(8, 8, 128, S32, B1, B1, S32, op, s ? 80 : 75, s ? 71 : 70);
		add(16, 8, 128, S32, B1, B1, S32, op, 80, s ? 71 : 70);
		add(16, 8, 256, S32, B1, B1, S32, op, 80, s ? 71 : 70);
	}
}

/* ---- where elements lie -------------------------------------------------------------------------------------------- */

/* Element i of a lane's A: the figures' "row =" and "col =" lines. */
static void
place_a(const struct shape *s, unsigned lane, unsigned i, unsigned *row, unsigned *col)
{
	unsigned group = lane >> 2, member = lane % 4, run = s->run;

	if (s->m == 8) { /* one row a group: m8n8k4 of f64, m8n8k16, m8n8k32, m8n8k128 */
		*row = group;
		*col = member * run + i;
	} else if (run == 1) { /* m16n8k4, k8, k16 of tf32 and f64: rows alternate, columns go on by four */
		*row = group + (i % 2 ? 8 : 0);
		*col = member + 4 * (i / 2);
	} else if (i < 2 * run) { /* first half along k: upper rows, then lower rows */
		*row = i < run ? group : group + 8;
		*col = member * run + i % run;
	} else { /* second half along k, behind the first one of all members */
		*row = i < 3 * run ? group : group + 8;
		*col = member * run + i % run + 4 * run;
	}
}

static void
place_b(const struct shape *s, unsigned lane, unsigned i, unsigned *row, unsigned *col)
{
	unsigned member = lane % 4;

	*col = lane >> 2;
	*row = s->run == 1 ? member + 4 * i : member * s->run + i % s->run + (i >= s->run ? 4 * s->run : 0);
}

static void
place_c(const struct shape *s, unsigned lane, unsigned i, unsigned *row, unsigned *col)
{
	(void)s;
	*row = (lane >> 2) + (i >= 2 ? 8 : 0);
	*col = lane % 4 * 2 + i % 2;
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

static uint64_t random_state = 88172645463325252u;

static uint64_t
next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static double
value_of(enum type type, uint64_t bits)
{
	switch (type) {
	case S8:
		return (int8_t)bits;
	case U8:
		return (uint8_t)bits;
	case S4:
		return (bits & 8) ? (double)(bits & 15) - 16 : (double)(bits & 15);
	case U4:
		return (double)(bits & 15);
	case S32:
		return (int32_t)bits;
	case B1:
		return (double)(bits & 1);
	case TF32:
		return num_double(num_unpack(N_F32, bits & ~0x1fffull));
	default:
		return num_double(num_unpack((enum num_format)types[type].format, bits));
	}
}

/* Bits of a whole number from -2 to 2 (0 or 1 where there is no more), or of a random value without the very large ones. */
static uint64_t
make(enum type type, bool small)
{
	int whole = (int)(next_random() % 5) - 2;

	if (types[type].format < 0) {
		uint64_t mask = type == S32 || type == U8 || type == S8 ? 0xffffffff : type == B1 ? 1 : 15;
		if (type == S8 || type == U8)
			mask = 0xff;
		if (!small)
			return next_random() & mask;
		return (uint64_t)(type == U8 || type == U4 || type == B1 ? (type == B1 ? whole & 1 : abs(whole)) : whole) & mask;
	}
	enum num_format format = (enum num_format)types[type].format;
	if (small)
		return num_pack(format, num_from_uint((unsigned __int128)abs(whole), whole < 0), N_RN, false);
	for (;;) { /* no NaN, no infinity, nothing so large that f16 sums overflow */
		uint64_t bits = next_random() & (types[type].bits == 64 ? ~0ull : (1ull << types[type].bits) - 1);
		double v = value_of(type, bits);
		if (isfinite(v) && fabs(v) < 16 && (v == 0 || fabs(v) > 1e-5))
			return bits;
	}
}

/* ---- one form ------------------------------------------------------------------------------------------------------ */

struct counts {
	unsigned elements[4], registers[4], width[4]; /* d, a, b, c: of a lane */
};

static struct counts
count(const struct form *f)
{
	const enum type type[4] = { f->d, f->a, f->b, f->c };
	unsigned total[4] = { f->shape.m * f->shape.n, f->shape.m * f->shape.k, f->shape.k * f->shape.n, f->shape.m * f->shape.n };
	struct counts c;

	for (unsigned o = 0; o < 4; o++) {
		c.elements[o] = total[o] / 32;
		c.width[o] = type[o] == F64 ? 64 : 32;
		c.registers[o] = total[o] / 32 * types[type[o]].bits / c.width[o];
	}
	return c;
}

static void
describe(const struct form *f, char *text, size_t size)
{
	bool tail = f->a == B1;

	snprintf(text, size, "mma.sync.aligned.m%un%uk%u.row.col%s.%s.%s.%s.%s%s", f->shape.m, f->shape.n, f->shape.k, tail ? "" : f->extra,
	         types[f->d].name, types[f->a].name, types[f->b].name, types[f->c].name, tail ? f->extra : "");
}

/* in: for each lane 32 words of 64 bits, A then B then C, a register each; out: D. */
static void
write_kernel(const struct form *f, char *text, size_t size)
{
	static const char names[] = "dabc";
	struct counts c = count(f);
	char name[128];
	size_t used = (size_t)snprintf(text, size, ".version %u.%u\n.target sm_%u\n.address_size 64\n.visible .entry k(.param .u64 in, .param .u64 out)\n{\n"
		"	.reg .u32 %%t; .reg .u64 %%p, %%q, %%o;\n", f->ptx / 10, f->ptx % 10, f->sm);
	unsigned word = 0;

	for (unsigned o = 0; o < 4; o++) /* accumulators of s32 and f16 alike are .b32; f32 ones .f32 */
		used += (size_t)snprintf(text + used, size - used, "	.reg .%s %%%c<16>;\n", c.width[o] == 64 ? "f64" :
			(o == 0 && f->d == F32) || (o == 3 && f->c == F32) ? "f32" : "b32", names[o]);
	used += (size_t)snprintf(text + used, size - used, "	mov.u32 %%t, %%tid.x; mul.wide.u32 %%o, %%t, 256; ld.param.u64 %%p, [in]; add.u64 %%p, %%p, %%o;\n"
		"	mul.wide.u32 %%o, %%t, 64; ld.param.u64 %%q, [out]; add.u64 %%q, %%q, %%o;\n");
	for (unsigned o = 1; o < 4; o++)
		for (unsigned r = 0; r < c.registers[o]; r++, word++)
			used += (size_t)snprintf(text + used, size - used, "	ld.global.b%u %%%c%u, [%%p+%u];\n", c.width[o], names[o], r, word * 8);
	describe(f, name, sizeof(name));
	used += (size_t)snprintf(text + used, size - used, "	%s ", name);
	for (unsigned o = 0; o < 4; o++) {
		used += (size_t)snprintf(text + used, size - used, "{");
		for (unsigned r = 0; r < c.registers[o]; r++)
			used += (size_t)snprintf(text + used, size - used, "%s%%%c%u", r ? ", " : "", names[o], r);
		used += (size_t)snprintf(text + used, size - used, "}%s", o < 3 ? ", " : ";\n");
	}
	for (unsigned r = 0; r < c.registers[0]; r++)
		used += (size_t)snprintf(text + used, size - used, "	st.global.b%u [%%q+%u], %%d%u;\n", c.width[0], r * 8, r);
	snprintf(text + used, size - used, "	ret;\n}\n");
}

/* Element i of an operand that lies in a lane's registers. */
static uint64_t
element(const uint64_t *registers, unsigned bits, unsigned width, unsigned i)
{
	unsigned per = width / bits;
	uint64_t word = registers[i / per] >> (i % per * bits);

	return bits == 64 ? word : word & ((1ull << bits) - 1);
}

static uint64_t input[32][32], output[32][8];
static uint64_t matrix_a[16][256], matrix_b[256][8], matrix_c[16][8];

static void
fill(const struct form *f, const struct counts *c, bool small)
{
	const enum type type[4] = { f->d, f->a, f->b, f->c };

	memset(input, 0, sizeof(input));
	for (unsigned lane = 0; lane < 32; lane++) {
		unsigned base = 0;
		for (unsigned o = 1; o < 4; o++) {
			unsigned bits = types[type[o]].bits, per = c->width[o] / bits;
			for (unsigned i = 0; i < c->elements[o]; i++) {
				uint64_t value = make(type[o], small);
				unsigned row, col;
				input[lane][base + i / per] |= value << (i % per * bits);
				if (o == 1)
					place_a(&f->shape, lane, i, &row, &col), matrix_a[row][col] = value;
				else if (o == 2)
					place_b(&f->shape, lane, i, &row, &col), matrix_b[row][col] = value;
				else
					place_c(&f->shape, lane, i, &row, &col), matrix_c[row][col] = value;
			}
			base += c->registers[o];
		}
	}
}

/* Compares one element of D; false with *why. */
static bool
compare(const struct form *f, unsigned row, unsigned col, uint64_t got, bool small, char *why, size_t size)
{
	double sum = value_of(f->c, matrix_c[row][col]), weight = fabs(sum);
	__int128 whole = (int32_t)matrix_c[row][col];

	for (unsigned k = 0; k < f->shape.k; k++) {
		uint64_t x = matrix_a[row][k], y = matrix_b[k][col];
		if (f->a == B1) {
			whole += f->extra[1] == 'a' ? (int)(x & y) : (int)(x ^ y);
		} else if (types[f->a].format < 0) {
			whole += (__int128)value_of(f->a, x) * (__int128)value_of(f->b, y);
		} else {
			double product = value_of(f->a, x) * value_of(f->b, y);
			sum += product;
			weight += fabs(product);
		}
	}
	if (types[f->a].format < 0) {
		if (f->extra[0] && f->extra[1] == 's')
			whole = whole > INT32_MAX ? INT32_MAX : whole < INT32_MIN ? INT32_MIN : whole;
		if ((uint32_t)got == (uint32_t)whole)
			return true;
		snprintf(why, size, "D[%u][%u] is %d, not %d", row, col, (int)(uint32_t)got, (int)(uint32_t)whole);
		return false;
	}
	double value = value_of(f->d, got);
	/* What one addition may lose, for as many as there are; the order of the additions is not said. */
	double step = (f->d == F64 ? 0x1p-52 : f->d == F32 ? 0x1p-23 : 0x1p-11) * (f->d == F16 ? 2 : f->shape.k);
	if (small ? value == sum : fabs(value - sum) <= step * weight + (f->d == F16 ? 1e-7 : 0))
		return true;
	snprintf(why, size, "D[%u][%u] is %.9g, not %.9g", row, col, value, sum);
	return false;
}

static bool
run_form(const struct form *f, char *why, size_t size)
{
	static char text[16384];
	struct counts c = count(f);
	char log[1024];
	void *module, *kernel;
	dptr in = 0, out = 0;
	bool good = true;

	write_kernel(f, text, sizeof(text));
	int error = cu_load(&module, text, log, sizeof(log));
	if (error || (error = cu.ModuleGetFunction(&kernel, module, "k"))) {
		snprintf(why, size, "does not load: %s %s", cu_name(error), log);
		return false;
	}
	if (cu.MemAlloc(&in, sizeof(input)) || cu.MemAlloc(&out, sizeof(output))) {
		snprintf(why, size, "no memory");
		return false;
	}
	for (unsigned round = 0; good && round < 8; round++) {
		bool small = round < 3;
		void *params[] = { &in, &out };
		fill(f, &c, small);
		error = cu.MemcpyHtoD(in, input, sizeof(input));
		error = error ? error : cu.LaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, NULL, params, NULL);
		error = error ? error : cu.MemcpyDtoH(output, out, sizeof(output));
		if (error) {
			snprintf(why, size, "%s", cu_name(error));
			good = false;
		}
		for (unsigned lane = 0; good && lane < 32; lane++)
			for (unsigned i = 0; good && i < c.elements[0]; i++) {
				unsigned row, col;
				place_c(&f->shape, lane, i, &row, &col);
				good = compare(f, row, col, element(output[lane], types[f->d].bits, c.width[0], i), small, why, size);
			}
	}
	cu.MemFree(in);
	cu.MemFree(out);
	cu.ModuleUnload(module);
	return good;
}

/* ---- the assembler's opinion --------------------------------------------------------------------------------------- */

static bool
assembles(const char *ptxas, const struct form *f, char *why, size_t size)
{
	static char text[16384];
	char path[] = "/tmp/farwarp-mma-XXXXXX", command[512];
	int fd = mkstemp(path);

	write_kernel(f, text, sizeof(text));
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		return false;
	close(fd);
	snprintf(command, sizeof(command), "'%s' -arch sm_%u -o /dev/null %s 2>&1", ptxas, f->sm < 75 ? 75 : f->sm, path);
	FILE *pipe = popen(command, "r");
	char line[300] = "";
	if (pipe && !fgets(line, sizeof(line), pipe))
		line[0] = 0;
	int status = pipe ? pclose(pipe) : 1;
	unlink(path);
	snprintf(why, size, "%.200s", line);
	return status == 0;
}

int
main(int argc, char **argv)
{
	const char *ptxas = argc > 2 && strcmp(argv[1], "--ptxas") == 0 ? argv[2] : NULL, *reason = NULL;
	unsigned failed = 0;

	cu_need_level();
	list_forms();
	if (!ptxas && (reason = cu_open())) {
		printf("1..0 # SKIP %s\n", reason);
		return 0;
	}
	printf("1..%u\n", form_count);
	for (unsigned n = 0; n < form_count; n++) {
		char why[1400] = "", name[128];
		describe(&forms[n], name, sizeof(name));
		if (!ptxas && (unsigned)cu_cc < forms[n].sm) {
			printf("ok %u - %s # SKIP needs %u\n", n + 1, name, forms[n].sm);
			continue;
		}
		bool good = ptxas ? assembles(ptxas, &forms[n], why, sizeof(why)) : run_form(&forms[n], why, sizeof(why));
		if (!good)
			printf("# %s\n", why);
		printf("%sok %u - %s\n", good ? "" : "not ", n + 1, name);
		failed += !good;
	}
	return failed != 0;
}
