/*
 * Runs the table of PTX forms on a device and compares every result, bit by bit, with the scalar references.
 *
 * Each form is a kernel with one thread a test vector, which executes the form four ways: plainly; under a guard predicate and inside
 * a divergent branch, where the lanes left out must keep a poison value; and with the result in an operand's own register. The
 * vectors do not fill the last warp. A batch of forms is a module; batches run in child processes, so a crash costs one form.
 *
 *	run_forms [GROUP-PREFIX ...]          on the library that FARWARP_TEST_LIBCUDA names
 *	run_forms --ptxas FILE [PREFIX ...]   asks the toolkit's assembler whether it accepts the texts; runs nothing
 *	run_forms --list
 */
#include "../slow.h"
#include "driver.h"
#include "forms.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define VECTORS_MAX 66000
#define VARIANTS 4
#define BATCH 48
#define SECONDS_PER_FORM 60

struct form *forms;
size_t form_count;
static size_t form_space;

enum status { UNTESTED, RUNNING, OK, FAILED, SKIPPED };
struct outcome {
	enum status status;
	char text[400];
};
static struct outcome *outcomes; /* shared with the children */

struct form *
form(const char *group, const char *types, ref_fn *ref, const int *k, unsigned sm, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (form_count == form_space) {
		form_space = form_space ? form_space * 2 : 1024;
		forms = realloc(forms, form_space * sizeof *forms);
		if (!forms)
			abort();
	}
	struct form *f = &forms[form_count++];
	*f = (struct form){ .group = group, .text = strdup(text), .types = types, .ref = ref, .sm = sm };
	if (k)
		memcpy(f->k, k, sizeof f->k);
	for (const char *t = types + 1; *t; t++)
		f->pair = f->pair || letter_packed(*t);
	return f;
}

/* ---- PTX text ---------------------------------------------------------------------------------------------------- */

struct text {
	char *at;
	size_t size, space;
};

static void __attribute__((format(printf, 2, 3)))
put(struct text *t, const char *format, ...)
{
	va_list args;

	if (t->space - t->size < 2048) {
		t->space = t->space ? t->space * 2 : 65536;
		t->at = realloc(t->at, t->space);
		if (!t->at)
			abort();
	}
	va_start(args, format);
	t->size += (size_t)vsnprintf(t->at + t->size, t->space - t->size, format, args);
	va_end(args);
}

/* The form's text with its operands replaced: $d by %d<variant>, $a by `first` ... */
static void
put_form(struct text *t, const struct form *f, int variant, const char *first)
{
	static const char names[] = "abce";

	for (const char *p = f->text; *p; p++) {
		if (*p != '$') {
			put(t, "%c", *p);
			continue;
		}
		p++;
		if (*p == 'd')
			put(t, "%%d%d", variant);
		else if (*p == 'a' && first)
			put(t, "%s", first);
		else if (strchr(names, *p))
			put(t, "%%%c", *p);
	}
}

static const char *
reg_type(unsigned bits)
{
	return bits == 1 ? ".pred" : bits == 16 ? ".b16" : bits == 32 ? ".b32" : ".b64";
}

static bool
has_variant(const struct form *f, int variant)
{
	bool block = f->text[0] == '{';

	if (variant == 1)
		return !block;
	if (variant == 3)
		return !block && f->types[1] && letter_bits(f->types[0]) == letter_bits(f->types[1]) && letter_bits(f->types[0]) > 1 &&
			!strchr(f->text, '|');
	return true;
}

static void
put_kernel(struct text *t, const struct form *f, size_t number)
{
	static const char names[] = "abce";
	unsigned bits = letter_bits(f->types[0]), size = bits == 1 ? 32 : bits;

	put(t, "// %s\n.visible .entry f%zu(.param .u64 in, .param .u64 out, .param .u32 count)\n{\n", f->text, number);
	put(t, "\t.reg .pred %%pe, %%pg;\n\t.reg .b32 %%i, %%n, %%t, %%r<4>;\n\t.reg .b64 %%pa, %%po, %%st, %%of;\n");
	put(t, "\t.reg %s %%d<4>;\n", reg_type(bits));
	for (int o = 0; f->types[o + 1]; o++)
		put(t, "\t.reg %s %%%c;\n", reg_type(letter_bits(f->types[o + 1])), names[o]);
	put(t, "\tmov.u32 %%i, %%ctaid.x;\n\tmov.u32 %%n, %%ntid.x;\n\tmov.u32 %%t, %%tid.x;\n\tmad.lo.u32 %%i, %%i, %%n, %%t;\n"
	    "\tld.param.u32 %%n, [count];\n\tsetp.ge.u32 %%pe, %%i, %%n;\n\t@%%pe bra DONE;\n"
	    "\tmul.wide.u32 %%of, %%i, 8;\n\tmul.wide.u32 %%st, %%n, 8;\n"
	    "\tld.param.u64 %%pa, [in];\n\tadd.u64 %%pa, %%pa, %%of;\n\tld.param.u64 %%po, [out];\n\tadd.u64 %%po, %%po, %%of;\n");
	for (int o = 0; f->types[o + 1]; o++) {
		unsigned b = letter_bits(f->types[o + 1]);
		if (b == 1)
			put(t, "\tld.global.b32 %%t, [%%pa];\n\tsetp.ne.u32 %%%c, %%t, 0;\n", names[o]);
		else
			put(t, "\tld.global.b%u %%%c, [%%pa];\n", b, names[o]);
		put(t, "\tadd.u64 %%pa, %%pa, %%st;\n");
	}
	put(t, "\tmul.lo.u32 %%t, %%i, 0x9e3779b1;\n\tshr.u32 %%t, %%t, 15;\n\tand.b32 %%t, %%t, 1;\n\tsetp.ne.u32 %%pg, %%t, 0;\n");
	for (int v = 0; v < VARIANTS; v++) {
		if (!has_variant(f, v))
			continue;
		if (v == 1 || v == 2) { /* poison */
			if (bits == 1)
				put(t, "\tand.b32 %%t, %%i, 2;\n\tsetp.ne.u32 %%d%d, %%t, 0;\n", v);
			else
				put(t, "\tmov.b%u %%d%d, %s;\n", bits, v,
				    bits == 16 ? "0xbeef" : bits == 32 ? "0xdeadbeef" : "0xdeadbeefcafef00d");
		}
		if (v == 2)
			put(t, "\t@%%pg bra SKIP;\n");
		if (v == 3)
			put(t, "\tmov.b%u %%d3, %%a;\n", bits);
		put(t, v == 1 ? "\t@%%pg " : "\t");
		put_form(t, f, v, v == 3 ? "%d3" : NULL);
		put(t, v == 2 ? "\nSKIP:\n" : "\n");
	}
	for (int v = 0; v < VARIANTS; v++) {
		if (has_variant(f, v)) {
			if (bits == 1)
				put(t, "\tselp.b32 %%r%d, 1, 0, %%d%d;\n\tst.global.b32 [%%po], %%r%d;\n", v, v, v);
			else
				put(t, "\tst.global.b%u [%%po], %%d%d;\n", size, v);
		}
		put(t, "\tadd.u64 %%po, %%po, %%st;\n");
	}
	put(t, "DONE:\n\tret;\n}\n");
}

/* Rows with a target of 1000 and more need exactly that architecture: 1200 is sm_120a. */
static const char *
target_name(unsigned sm)
{
	static char name[16];

	snprintf(name, sizeof name, sm >= 1000 ? "sm_%ua" : "sm_%u", sm >= 1000 ? sm / 10 : sm);
	return name;
}

static bool
device_has(unsigned sm)
{
	return sm >= 1000 ? sm / 10 == (unsigned)cu_cc : sm <= (unsigned)cu_cc;
}

static void
put_module(struct text *t, const size_t *numbers, size_t count)
{
	unsigned sm = 75;

	t->size = 0;
	for (size_t i = 0; i < count; i++)
		if (forms[numbers[i]].sm > sm)
			sm = forms[numbers[i]].sm;
	put(t, ".version 8.8\n.target %s\n.address_size 64\n", target_name(sm));
	for (size_t i = 0; i < count; i++)
		put_kernel(t, &forms[numbers[i]], numbers[i]);
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static bool
is_right(const struct answer *r, uint64_t got, unsigned bits, int format)
{
	uint64_t mask = bits >= 64 ? ~0ull : (1ull << bits) - 1;

	got &= mask;
	if (r->any)
		return true;
	if (r->toleranced) {
		double want, have;
		memcpy(&want, &r->bits, 8);
		struct num x = num_unpack((enum num_format)format, got);
		if (isnan(want))
			return x.kind == N_NAN;
		if (isinf(want))
			return x.kind == N_INF && x.neg == (want < 0);
		if (want == 0 && r->error == 0)
			return x.kind == N_ZERO && x.neg == (signbit(want) != 0);
		have = num_double(x);
		return x.kind != N_NAN && fabs(have - want) <= r->error;
	}
	if (r->any_nan && format >= 0 && num_bits_nan((enum num_format)format, r->bits & mask))
		return num_bits_nan((enum num_format)format, got);
	return ((got ^ r->bits) & mask & ~r->ignore) == 0 || (r->has_also && got == (r->also & mask));
}

static bool
compare(const struct form *f, const uint64_t *v, uint64_t got, struct answer *r)
{
	unsigned bits = letter_bits(f->types[0]);
	int format = letter_format(f->types[0]);

	*r = (struct answer){ 0 };
	if (!f->pair) {
		f->ref(r, v, f->k);
		return is_right(r, got, bits, format);
	}
	bool right = true;
	uint64_t both = 0;
	for (int half = 0; half < 2; half++) {
		uint64_t part[FORM_OPERANDS] = { 0 };
		for (int o = 0; f->types[o + 1]; o++)
			part[o] = letter_packed(f->types[o + 1]) ? v[o] >> (16 * half) & 0xffff : v[o];
		*r = (struct answer){ 0 };
		f->ref(r, part, f->k);
		right = is_right(r, got >> (16 * half), 16, format) && right;
		both |= (r->bits & 0xffff) << (16 * half);
	}
	if (!r->toleranced)
		r->bits = both;
	return right;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

static uint64_t *operand_data, *result_data;
static dptr device_in, device_out;

static void __attribute__((format(printf, 3, 4)))
say(size_t number, enum status status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(outcomes[number].text, sizeof outcomes[number].text, format, args);
	va_end(args);
	outcomes[number].status = status;
}

static int
check_form(size_t number, void *module)
{
	static const char *const variant_names[VARIANTS] = { "plain", "guarded", "divergent", "in place" };
	const struct form *f = &forms[number];
	uint64_t *in[FORM_OPERANDS];
	unsigned bits = letter_bits(f->types[0]), wrong = 0;
	size_t operands = strlen(f->types) - 1;
	char name[32];
	void *function;
	int error;

	for (int o = 0; o < FORM_OPERANDS; o++)
		in[o] = operand_data + (size_t)o * VECTORS_MAX;
	size_t count = form_vectors(f, in, VECTORS_MAX);
	for (size_t o = 1; o < operands; o++)
		memmove(operand_data + o * count, in[o], count * 8);
	for (size_t o = 0; o < operands; o++)
		in[o] = operand_data + o * count;

	unsigned n = (unsigned)count;
	void *params[] = { &device_in, &device_out, &n };
	snprintf(name, sizeof name, "f%zu", number);
	if ((error = cu.ModuleGetFunction(&function, module, name)) ||
	    (operands && (error = cu.MemcpyHtoD(device_in, operand_data, operands * count * 8))) ||
	    (error = cu.MemsetD8(device_out, 0x5a, VARIANTS * count * 8)) ||
	    (error = cu.LaunchKernel(function, (n + 127) / 128, 1, 1, 128, 1, 1, 0, NULL, params, NULL)) ||
	    (error = cu.CtxSynchronize()) || (error = cu.MemcpyDtoH(result_data, device_out, VARIANTS * count * 8))) {
		say(number, FAILED, "%s", cu_name(error));
		return error;
	}
	for (int variant = 0; variant < VARIANTS; variant++)
		for (size_t i = 0; i < count && has_variant(f, variant); i++) {
			uint64_t got = result_data[(size_t)variant * count + i], v[FORM_OPERANDS] = { 0 };
			bool guard = ((uint32_t)i * 0x9e3779b1u) >> 15 & 1, right;
			unsigned stored = bits == 1 ? 32 : bits;
			struct answer r = { 0 };
			for (size_t o = 0; o < operands; o++)
				v[o] = in[o][i];
			if ((variant == 1 && !guard) || (variant == 2 && guard)) {
				r.bits = bits == 1 ? i >> 1 & 1 : 0xdeadbeefcafef00d;
				if (bits == 16)
					r.bits = 0xbeef;
				if (bits == 32)
					r.bits = 0xdeadbeef;
				right = ((got ^ r.bits) & (stored == 64 ? ~0ull : (1ull << stored) - 1)) == 0;
			} else {
				right = compare(f, v, stored == 64 ? got : got & ((1ull << stored) - 1), &r);
			}
			if (stored < 64 && got >> stored != 0x5a5a5a5a5a5a5a5aull >> stored)
				right = false;
			if (!right && wrong++ == 0) {
				char values[160] = "";
				for (size_t o = 0; o < operands; o++)
					snprintf(values + strlen(values), sizeof values - strlen(values), " %llx", (unsigned long long)v[o]);
				if (r.toleranced) {
					double want;
					memcpy(&want, &r.bits, 8);
					snprintf(outcomes[number].text, sizeof outcomes[number].text, "%s:%s: %llx, want %.9g +- %.3g",
					         variant_names[variant], values, (unsigned long long)got, want, r.error);
				} else {
					snprintf(outcomes[number].text, sizeof outcomes[number].text, "%s:%s: %llx, want %llx",
					         variant_names[variant], values, (unsigned long long)got, (unsigned long long)r.bits);
				}
			}
		}
	if (wrong) {
		size_t length = strlen(outcomes[number].text);
		snprintf(outcomes[number].text + length, sizeof outcomes[number].text - length, " (%u of %zu wrong)", wrong,
		         count * VARIANTS);
		outcomes[number].status = FAILED;
	} else {
		outcomes[number].status = OK;
	}
	return 0;
}

/* In a child: runs what is untested of the batch. */
static void
run_batch(const size_t *numbers, size_t count)
{
	static struct text text;
	size_t left[BATCH], n = 0;
	char log[1024];
	void *module;
	const char *why = cu_open();

	if (why) {
		printf("Bail out! %s\n", why);
		exit(2);
	}
	operand_data = malloc((size_t)FORM_OPERANDS * VECTORS_MAX * 8);
	result_data = malloc((size_t)VARIANTS * VECTORS_MAX * 8);
	if (!operand_data || !result_data || cu.MemAlloc(&device_in, (size_t)FORM_OPERANDS * VECTORS_MAX * 8) ||
	    cu.MemAlloc(&device_out, (size_t)VARIANTS * VECTORS_MAX * 8)) {
		printf("Bail out! no memory\n");
		exit(2);
	}
	for (size_t i = 0; i < count; i++) {
		if (outcomes[numbers[i]].status != UNTESTED)
			continue;
		if (!device_has(forms[numbers[i]].sm))
			say(numbers[i], SKIPPED, "needs %s", target_name(forms[numbers[i]].sm));
		else
			left[n++] = numbers[i];
	}
	if (n == 0)
		return;
	put_module(&text, left, n);
	int error = cu_load(&module, text.at, log, sizeof log);
	for (size_t i = 0; i < n; i++) {
		void *own = module;
		outcomes[left[i]].status = RUNNING;
		alarm(SECONDS_PER_FORM * TIMES_SLOWER);
		if (error) { /* one of them is not accepted: load each by itself */
			put_module(&text, &left[i], 1);
			int one = cu_load(&own, text.at, log, sizeof log);
			if (one) {
				log[strcspn(log, "\n")] = 0;
				say(left[i], FAILED, "not loaded: %s: %s", cu_name(one), log);
				continue;
			}
		}
		if (check_form(left[i], own) && cu.CtxSynchronize())
			return; /* a sticky error: the rest runs in a fresh process */
	}
}

static int
run_all(size_t *numbers, size_t count)
{
	for (size_t at = 0; at < count; at += BATCH) {
		size_t n = count - at < BATCH ? count - at : BATCH, untested;
		do {
			int status;
			fflush(stdout);
			pid_t child = fork();
			if (child < 0)
				return 1;
			if (child == 0) {
				run_batch(numbers + at, n);
				fflush(stdout);
				_exit(0);
			}
			waitpid(child, &status, 0);
			if (WIFEXITED(status) && WEXITSTATUS(status) == 2)
				return 1;
			untested = 0;
			bool blamed = false;
			for (size_t i = 0; i < n; i++) {
				struct outcome *o = &outcomes[numbers[at + i]];
				if (o->status == RUNNING) {
					say(numbers[at + i], FAILED, "the process ended: %s",
					    WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit");
					blamed = true;
				}
				untested += o->status == UNTESTED;
			}
			if (WIFSIGNALED(status) && !blamed) { /* died while loading the batch */
				for (size_t i = 0; i < n; i++)
					if (outcomes[numbers[at + i]].status == UNTESTED)
						say(numbers[at + i], FAILED, "the process ended while its module was loaded: %s", strsignal(WTERMSIG(status)));
				untested = 0;
			}
		} while (untested);
	}
	return 0;
}

/* ---- the toolkit's assembler ------------------------------------------------------------------------------------- */

static int
ask_ptxas(const char *ptxas, const size_t *numbers, size_t count)
{
	static struct text text;
	char path[] = "/tmp/farwarp-forms-XXXXXX", command[1024], line[1024];
	int fd = mkstemp(path);
	FILE *file, *pipe;
	int rejected = 0;
	char last[160] = "";

	if (fd < 0)
		return 1;
	close(fd);
	for (size_t at = 0; at < count;) {
		/* one target a module */
		size_t n = 1;
		while (at + n < count && forms[numbers[at + n]].sm == forms[numbers[at]].sm)
			n++;
		put_module(&text, numbers + at, n);
		file = fopen(path, "w");
		if (!file)
			return 1;
		fwrite(text.at, 1, text.size, file);
		fclose(file);
		snprintf(command, sizeof command, "'%s' -O0 -arch=%s -o /dev/null %s 2>&1", ptxas,
		         target_name(forms[numbers[at]].sm < 75 ? 75 : forms[numbers[at]].sm), path);
		pipe = popen(command, "r");
		if (!pipe)
			return 1;
		while (fgets(line, sizeof line, pipe)) {
			char *number = strstr(line, ", line ");
			line[strcspn(line, "\n")] = 0;
			if (!number) {
				printf("# %s\n", line);
				continue;
			}
			/* the source line it means, and the form it stands in */
			unsigned long want = strtoul(number + 7, NULL, 10), now = 1;
			const char *p = text.at, *comment = NULL;
			for (; *p && now < want; p++) {
				if (p[0] == '/' && p[1] == '/')
					comment = p;
				now += *p == '\n';
			}
			if (comment && strncmp(last, comment, strcspn(comment, "\n")) == 0)
				continue;
			snprintf(last, sizeof last, "%.*s", comment ? (int)strcspn(comment, "\n") : 0, comment ? comment : "");
			printf("# %.*s | %.*s | %s\n", comment ? (int)strcspn(comment, "\n") : 0, comment ? comment : "", (int)strcspn(p, "\n"), p,
			       strchr(number, ';') ? strchr(number, ';') + 1 : number);
			rejected++;
		}
		rejected += pclose(pipe) != 0 && rejected == 0;
		at += n;
	}
	unlink(path);
	return rejected;
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static int
by_target(const void *a, const void *b)
{
	const struct form *x = &forms[*(const size_t *)a], *y = &forms[*(const size_t *)b];

	if (x->sm != y->sm)
		return x->sm < y->sm ? -1 : 1;
	return x < y ? -1 : x > y;
}

int
main(int argc, char **argv)
{
	const char *ptxas = NULL;
	size_t *numbers, count = 0, groups = 0, failed = 0;
	int first = 1;

	cu_need_level();
	setvbuf(stdout, NULL, _IOLBF, 0);
	forms_integer();
	forms_logic();
	forms_float();
	forms_half();
	forms_convert();
	forms_compare();
	forms_approx();
	forms_move();
	forms_video();
	if (argc > 2 && strcmp(argv[1], "--ptxas") == 0) {
		ptxas = argv[2];
		first = 3;
	}
	if (argc > 1 && strcmp(argv[1], "--list") == 0) {
		for (size_t i = 0; i < form_count; i++)
			printf("%-16s sm_%-3u %-6s %s\n", forms[i].group, forms[i].sm, forms[i].types, forms[i].text);
		return 0;
	}
	outcomes = mmap(NULL, form_count * sizeof *outcomes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	numbers = malloc(form_count * sizeof *numbers);
	if (outcomes == MAP_FAILED || !numbers)
		return 1;
	for (size_t i = 0; i < form_count; i++) {
		bool wanted = first >= argc;
		for (int a = first; a < argc; a++)
			wanted = wanted || strncmp(forms[i].group, argv[a], strlen(argv[a])) == 0;
		if (wanted)
			numbers[count++] = i;
	}
	qsort(numbers, count, sizeof *numbers, by_target);

	int wrong = num_selftest();
	printf("%sok 1 - scalar reference arithmetic agrees with the host\n", wrong ? "not " : "");
	if (ptxas) {
		int rejected = ask_ptxas(ptxas, numbers, count);
		printf("%sok 2 - the assembler accepts %zu forms\n1..2\n", rejected ? "not " : "", count);
		return 0;
	}
	if (run_all(numbers, count))
		return 1;
	groups = 1;
	/* one line a group, in the order of the table */
	for (size_t i = 0; i < form_count; i++) {
		size_t size = 0, bad = 0, skipped = 0;
		for (size_t j = 0; j < form_count; j++) {
			if (strcmp(forms[j].group, forms[i].group) != 0)
				continue;
			if (j < i) /* said already */
				break;
			size += outcomes[j].status != UNTESTED;
			skipped += outcomes[j].status == SKIPPED;
			if (outcomes[j].status == FAILED) {
				bad++;
				printf("# %s: %s\n", forms[j].text, outcomes[j].text);
			}
		}
		if (!size)
			continue;
		failed += bad;
		printf("%sok %zu - %s: %zu forms", bad ? "not " : "", ++groups, forms[i].group, size);
		if (bad)
			printf(", %zu wrong", bad);
		if (skipped && skipped != size)
			printf(", %zu beyond the device's capability", skipped);
		printf("%s\n", skipped == size ? " # SKIP capability" : "");
	}
	printf("1..%zu\n# %zu forms, %zu wrong\n", groups, count, failed);
	return 0;
}
