/*
 * The PTX parser: two texts that hold every construct against what they must become (all.ptx that the toolkit's assembler
 * takes, loose.ptx with what is taken beyond it), error texts with their lines, limits, and good text cut at every byte.
 *
 * PTX_PARSE_UPDATE=1 in the environment writes the expected files anew; read the difference before committing it.
 */
#include "soft/ptx/ptx.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>

#define TAP_SECONDS 300
#include "tests/tap.h"

/* ---- a module as text ------------------------------------------------------------------------------------------- */

static void
dump_relocs(FILE *out, const struct ptx_var *var)
{
	for (uint32_t i = 0; i < var->reloc_count; i++) {
		const struct ptx_reloc *r = &var->relocs[i];
		fprintf(out, "    at %" PRIu64 " size %u shift %u%s %s%+" PRId64 " line %d\n", r->offset, r->size, r->shift,
		        r->generic ? " generic" : "", r->symbol, r->addend, r->line);
	}
}

static void
dump_var(FILE *out, const struct ptx_var *var)
{
	static const char *const spaces[] = { "none", "reg", "const", "global", "local", "param", "shared", "tex" };
	static const char *const linkages[] = { "", "extern ", "visible ", "weak ", "common " };

	fprintf(out, "  %u: %s.%s v%u %s %s align %u size %" PRIu64 "%s%s line %d", var->index, linkages[var->linkage],
	        spaces[var->space], var->vector, ptx_type_names[var->type], var->name, var->align, var->size,
	        var->unsized ? " unsized" : "", var->managed ? " managed" : "", var->line);
	if (var->init) {
		fprintf(out, " =");
		for (uint64_t i = 0; i < var->size; i++)
			fprintf(out, "%s%02x", i % 4 ? "" : " ", var->init[i]);
	}
	fprintf(out, "\n");
	dump_relocs(out, var);
}

static void
dump_params(FILE *out, const char *title, const struct ptx_param *params, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct ptx_param *p = &params[i];
		fprintf(out, "  %s %s %s offset %u size %u align %u%s", title, p->name, ptx_type_names[p->type], p->offset, p->size,
		        p->align, p->is_array ? " array" : "");
		if (p->in_reg)
			fprintf(out, " register %u", p->reg);
		if (p->ptr_space)
			fprintf(out, " points to space %d", p->ptr_space);
		fprintf(out, "\n");
	}
}

static void
dump_targets(FILE *out, const struct ptx_targets *t)
{
	fprintf(out, "  targets %s kind %d:", t->name, t->kind);
	for (uint32_t i = 0; i < t->count; i++) {
		fprintf(out, " %s", t->names[i]);
		if (t->labels)
			fprintf(out, "=%u", t->labels[i]);
	}
	fprintf(out, "\n");
	dump_params(out, "prototype returns", t->returns, t->return_count);
	dump_params(out, "prototype takes", t->params, t->param_count);
}

/* What the text of an instruction does not show: which one of several names of the same spelling is meant. */
static void
dump_resolution(FILE *out, const struct ptx_func *f, const struct ptx_operand *o, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++, o++) {
		if (o->kind == PTX_OP_REG || (o->kind == PTX_OP_ADDRESS && o->base_is_reg))
			fprintf(out, " r%u:%s", o->reg, o->reg < f->reg_count ? ptx_type_names[f->regs[o->reg].type] : "?");
		else if (o->kind == PTX_OP_LABEL)
			fprintf(out, " l%u>%u", o->symbol, o->symbol < f->label_count ? f->labels[o->symbol].insn : 9999);
		else if (o->kind == PTX_OP_TARGETS)
			fprintf(out, " t%u", o->symbol);
		else if (o->name)
			fprintf(out, " s%u.%u", o->symbol_kind, o->symbol);
		if (o->elems)
			dump_resolution(out, f, o->elems, o->count);
		if (o->second)
			dump_resolution(out, f, o->second, 1);
	}
}

static void
dump_insns(FILE *out, const struct ptx_func *f)
{
	char text[1000];

	for (uint32_t i = 0; i < f->insn_count; i++) {
		const struct ptx_insn *in = &f->insns[i];
		ptx_print_insn(f, in, text, sizeof(text));
		fprintf(out, "  %3u line %u loc %u: %s  //", i, in->line, in->loc, text);
		for (unsigned t = 0; t < in->type_count; t++)
			fprintf(out, " %s", ptx_type_names[in->types[t]]);
		fprintf(out, ";");
		if (in->guarded)
			fprintf(out, " guard r%u", in->guard);
		dump_resolution(out, f, in->operands, in->operand_count);
		fprintf(out, "\n");
	}
}

static void
dump_func(FILE *out, const struct ptx_func *f)
{
	fprintf(out, "%s %u %s linkage %d line %d%s%s\n", f->entry ? "entry" : "func", f->index, f->name, f->linkage, f->line,
	        f->has_body ? "" : " no body", f->noreturn ? " noreturn" : "");
	if (f->alias_of)
		fprintf(out, "  alias of %s\n", f->alias_of);
	fprintf(out, "  maxntid %u %u %u reqntid %u %u %u maxnreg %u minnctapersm %u maxnctapersm %u cluster %u %u %u rank %u%s%s\n",
	        f->maxntid[0], f->maxntid[1], f->maxntid[2], f->reqntid[0], f->reqntid[1], f->reqntid[2], f->maxnreg,
	        f->minnctapersm, f->maxnctapersm, f->reqnctapercluster[0], f->reqnctapercluster[1], f->reqnctapercluster[2],
	        f->maxclusterrank, f->explicitcluster ? " explicit" : "", f->blocksareclusters ? " blocks" : "");
	dump_params(out, "returns", f->returns, f->return_count);
	dump_params(out, "takes", f->params, f->param_count);
	fprintf(out, "  parameter bytes %u, registers %u\n", f->param_bytes, f->reg_count);
	for (uint32_t i = 0; i < f->local_count; i++)
		dump_var(out, &f->locals[i]);
	for (uint32_t i = 0; i < f->label_count; i++)
		fprintf(out, "  label %u %s at %u%s\n", i, f->labels[i].name, f->labels[i].insn, f->labels[i].used ? "" : " unused");
	for (uint32_t i = 0; i < f->target_count; i++)
		dump_targets(out, &f->targets[i]);
	dump_insns(out, f);
}

static void
dump(FILE *out, const struct ptx_module *m)
{
	fprintf(out, "version %u target %u suffix %c address size %u debug %d\n", m->version, m->target,
	        m->target_suffix ? m->target_suffix : '-', m->address_size, m->debug);
	for (uint32_t i = 0; i < m->file_count; i++)
		fprintf(out, "file %u %s\n", m->files[i].number, m->files[i].name);
	for (uint32_t i = 0; i < m->loc_count; i++)
		fprintf(out, "loc %u: %u %u %u\n", i + 1, m->locs[i].file, m->locs[i].line, m->locs[i].column);
	for (uint32_t i = 0; i < m->var_count; i++)
		dump_var(out, &m->vars[i]);
	for (uint32_t i = 0; i < m->func_count; i++)
		dump_func(out, &m->funcs[i]);
}

/* ---- helpers ---------------------------------------------------------------------------------------------------- */

static char *
read_file(const char *name, size_t *size)
{
	char path[500];
	char *text = malloc(1 << 20);

	snprintf(path, sizeof(path), "%s/%s", TEST_DIR, name);
	FILE *file = fopen(path, "rb");
	*size = file ? fread(text, 1, (1 << 20) - 1, file) : 0;
	if (file)
		fclose(file);
	text[*size] = 0;
	return text;
}

/* One difference is shown: the first line. */
static void
compare_lines(const char *name, const char *got, const char *want)
{
	for (int line = 1; *got || *want; line++) {
		size_t g = strcspn(got, "\n"), w = strcspn(want, "\n");
		if (g != w || memcmp(got, want, g) != 0) {
			tap_failures++;
			printf("# %s:%d: got  %.*s\n# %s:%d: want %.*s\n", name, line, (int)g, got, name, line, (int)w, want);
			return;
		}
		got += g + (got[g] != 0);
		want += w + (want[w] != 0);
	}
}

static void
golden(const char *source, const char *expected)
{
	struct ptx_error error;
	size_t size, want_size, got_size;
	char path[500], *got, *text = read_file(source, &size);
	struct ptx_module *m = ptx_parse(text, size, &error);

	CHECK(size > 0);
	if (!m) {
		tap_failures++;
		printf("# %s:%d: %s\n", source, error.line, error.text);
		return;
	}
	FILE *out = open_memstream(&got, &got_size);
	dump(out, m);
	fclose(out);
	if (getenv("PTX_PARSE_UPDATE")) {
		snprintf(path, sizeof(path), "%s/%s", TEST_DIR, expected);
		FILE *file = fopen(path, "wb");
		fwrite(got, 1, got_size, file);
		fclose(file);
	}
	char *want = read_file(expected, &want_size);
	compare_lines(expected, got, want);
	ptx_free(m);
	free(want);
	free(got);
	free(text);
}

#define HEAD ".version 8.0\n.target sm_80\n.address_size 64\n"
#define BODY HEAD ".global .u32 x; .func f(.param .b32 a); .entry k(.param .u64 q) {\n" \
	".reg .pred %p<4>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .v2 .f32 %v;\n" /* what follows is line 6 */

static struct ptx_module *
parse(const char *text, struct ptx_error *error)
{
	return ptx_parse(text, strlen(text), error);
}

static bool
parses(const char *text)
{
	struct ptx_error error;
	struct ptx_module *m = parse(text, &error);

	if (!m)
		printf("# line %d: %s\n", error.line, error.text);
	ptx_free(m);
	return m != NULL;
}

/* ---- tests ------------------------------------------------------------------------------------------------------ */

TEST(every_construct) { golden("all.ptx", "all.txt"); }
TEST(beyond_the_assembler) { golden("loose.ptx", "loose.txt"); }

static const struct { const char *text; int line; const char *says; } bad[] = {
	{ "", 1, "no .version" },
	{ "\n\nint main() {}", 3, "expected a directive, found 'int'" },
	{ "\x7f""ELF", 1, "expected a directive, found '?ELF'" },
	{ ".target sm_80", 1, "'.target' before .version" },
	{ ".version 8", 1, "expected '.', found the end of the text" },
	{ ".version 8.0", 1, "no .target" },
	{ ".version 8.0\n.global .u32 x;", 2, "'.global' before .target" },
	{ ".version 8.0\n.target gfx90a", 2, "target 'gfx90a' is not known" },
	{ ".version 8.0\n.target sm_", 2, "target 'sm_' is not known" },
	{ ".version 8.0\n.target sm_90ab", 2, "target 'sm_90ab' is not known" },
	{ HEAD ".address_size 16", 4, "address size 16" },
	{ HEAD ".frobnicate 5", 4, "directive '.frobnicate' is not known here" },
	{ HEAD "/* no end\n\n", 4, "comment without an end" },
	{ HEAD ".file 1 \"no end\n", 4, "string without an end" },
	{ HEAD ".section .debug_info {\n.b8 1\n", 4, "'{' without '}'" },
	{ HEAD ".global .u32 x\n.global .u32 y;", 5, "expected ';', found '.global'" },
	{ HEAD ".global .u32 x;\n.global .f32 x;", 5, "'x' is declared twice" },
	{ HEAD ".global .u32 x;\n.func x;", 5, "'x' is declared twice" },
	{ HEAD ".global .pred x;", 4, "a variable of type .pred" },
	{ HEAD ".global x;", 4, "expected a type, found 'x'" },
	{ HEAD ".global .u32 .f32 x;", 4, "two types, .u32 and .f32" },
	{ HEAD ".global .align 3 .u32 x;", 4, "the alignment 3 is not a power of two" },
	{ HEAD ".global .align 4 .frob x;", 4, "'.frob' in a declaration" },
	{ HEAD ".global .u32 x[-1];", 4, "the size of an array is not a number from 0 on" },
	{ HEAD ".global .u32 x[2][];", 4, "only the first dimension" },
	{ HEAD ".global .u32 x[2] = {1, 2, 3};", 4, "too many values for 'x'" },
	{ HEAD ".global .u32 x[2][2] = {{1, 2, 3}};", 4, "too many values for 'x'" },
	{ HEAD ".global .u32 x[2] = {{1}};", 4, "braces around a value of 'x'" },
	{ HEAD ".global .u32 x = 1.5;", 4, "a floating-point value for 'x' of type .u32" },
	{ HEAD ".global .u32 x = y;", 4, "'y', in the value of 'x', is not declared" },
	{ HEAD ".global .u16 x = x;", 4, "the address of 'x' in a variable of 2-byte elements" },
	{ HEAD ".global .u8 x = 0xf0(x);", 4, "a mask of an address" },
	{ HEAD ".global .u32 x = 1 / 0;", 4, "a division by zero" },
	{ HEAD ".global .u32 x = 0f3f8;", 4, "a 0f literal needs 8 hexadecimal digits" },
	{ HEAD ".global .u32 x = 0x;", 4, "expected a number, found '0x'" },
	{ HEAD ".global .u32 x = 12ab;", 4, "expected a number, found '12ab'" },
	{ HEAD ".global .u32 x = 99999999999999999999;", 4, "does not fit into 64 bits" },
	{ HEAD ".global .f32 x = 1.5.5;", 4, "expected a number, found '1'" },
	{ HEAD ".func f { ret; }\n.func f { ret; }", 5, "'f' is defined twice" },
	{ HEAD ".func f;\n.entry f { ret; }", 5, "'f' is declared as .entry and as .func" },
	{ HEAD ".func f (.param .b32 a, .param .b32 a) { ret; }", 4, "'a' is declared twice" },
	{ HEAD ".func f (.shared .b32 a);", 4, "expected .param or .reg, found '.shared'" },
	{ HEAD ".func f (.reg .b32 a[2]) { ret; }", 4, "register parameter 'a' is no scalar" },
	{ HEAD ".func f\n.func g;", 5, "expected '{' or ';', found 'g'" },
	{ HEAD ".entry k { ret;\n\n", 4, "the body of 'k' has no end" },
	{ HEAD ".alias a, b;", 4, "alias 'a' is not declared as a function" },
	{ HEAD ".func f { ret; } .func g { ret; } .alias f, g;", 4, "alias 'f' has a body of its own" },
	{ BODY "add.s32 %r1, %r2, 3\nret; }", 7, "expected ';', found 'ret'" },
	{ BODY "add.s32 %r1 %r2, 3; }", 6, "expected ';', found '%r2'" },
	{ BODY "add.s32 %r1, %r2, %r9; }", 6, "register '%r9' is not declared" },
	{ BODY "add.s32 %r1, %r2, ; }", 6, "expected a constant, found ';'" },
	{ BODY "mov.u32 %r1, y; }", 6, "'y' is not declared" },
	{ BODY "\n\nbra nowhere; }", 8, "label 'nowhere' is not defined" },
	{ BODY "bra inner; { inner: ret; } }", 6, "label 'inner' is not defined" },
	{ BODY "L: ret;\nL: ret; }", 7, "label 'L' is defined twice" },
	{ BODY "t: .branchtargets L; }", 6, "label 'L' is not defined" },
	{ BODY ".reg .b32 %r3; }", 6, "'%r3' is declared twice" },
	{ BODY ".reg .b32 %r<3>; }", 6, "'%r<...>' is declared twice" },
	{ BODY ".reg .b32 z, z; }", 6, "'z' is declared twice" },
	{ BODY "{ .reg .b32 z; } mov.b32 z, 1; }", 6, "'z' is not declared" },
	{ BODY "@%r1 bra L; L: }", 6, "the guard is no predicate" },
	{ BODY "@x bra L; L: }", 6, "the guard is no predicate" },
	{ BODY "ld.u32 %r1, [%tid.x]; }", 6, "an address that is neither a register nor a variable" },
	{ BODY "ld.u32 %r1, [%rd1; }", 6, "expected ']', found ';'" },
	{ BODY "ld.u32 %r1, [%rd1+1.5]; }", 6, "a floating-point offset" },
	{ BODY "mov.u32 %r1, %tid.q; }", 6, "'.q' is no component" },
	{ BODY "mov.f32 %v.z, 0f00000000; }", 6, "'%v' has 2 components" },
	{ BODY "vadd.s32.s32.s32 %r1.q, %r2, %r3; }", 6, "'.q' is no selector" },
	{ BODY "setp.eq.s32 %p1|x, %r1, %r2; }", 6, "the second destination is no register" },
	{ BODY "mov.b32 %r1, -x; }", 6, "'-' before something that is no register" },
	{ BODY ".frob %r1; }", 6, "'.frob' in a function" },
	{ BODY "mov.b32 %r1, {%r1, %r2; }", 6, "expected '}', found ';'" },
	{ BODY "call f, (5; }", 6, "expected ')', found ';'" },
	{ BODY "call f (5); }", 6, "expected ';', found '(5'" },
	{ BODY ".loc 1 2 3, elsewhere x\nret; }", 6, "'elsewhere' after .loc" },
	{ BODY "op.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17; }", 6, "more than 16 modifiers" },
	{ BODY "op 1,2,3,4,5,6,7,8,9,10,11,12,13; }", 6, "more than 12 operands" },
	{ BODY "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz; }", 6, "is too long" },
	{ BODY "5; }", 6, "expected an instruction, found '5'" },
	{ BODY "} }", 6, "expected a directive, found '}'" },
};

TEST(errors)
{
	struct ptx_error error;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct ptx_module *m = parse(bad[i].text, &error);
		if (m) {
			tap_failures++;
			printf("# no error: %s\n", bad[i].says);
		} else if (error.line != bad[i].line || !strstr(error.text, bad[i].says)) {
			tap_failures++;
			printf("# got %d: %s\n# not %d: %s\n", error.line, error.text, bad[i].line, bad[i].says);
		}
		ptx_free(m);
	}
}

/* A good text, cut: never a crash, always a reason. Once with an end that is not marked, once with a NUL. */
static void
cut(const char *name)
{
	struct ptx_error error;
	size_t size, good = 0;
	char *text = read_file(name, &size);

	CHECK(size > 1000);
	for (size_t n = 0; n <= size; n++) {
		char *part = malloc(n + 1);
		memcpy(part, text, n);
		part[n] = 0;
		char *exact = malloc(n ? n : 1);
		memcpy(exact, text, n);
		struct ptx_module *a = ptx_parse(part, n + 1, &error);
		CHECK(a || (error.text[0] && error.line >= 1));
		struct ptx_module *b = ptx_parse(exact, n, &error);
		CHECK((a == NULL) == (b == NULL));
		good += a != NULL;
		ptx_free(a);
		ptx_free(b);
		free(exact);
		free(part);
	}
	CHECK(good > 10 && good < size / 2);
	free(text);
}

TEST(cut_at_every_byte) { cut("all.ptx"); }
TEST(cut_loose_at_every_byte) { cut("loose.ptx"); }

/* Each byte replaced by some others: the same promise. */
TEST(changed_bytes)
{
	static const char others[] = { 0, ' ', '{', '}', '(', ')', '[', '<', '%', '0', '.', ';', ',', 'a', '"', '-', (char)0xff };
	struct ptx_error error;
	size_t size;
	char *text = read_file("all.ptx", &size);

	for (size_t n = 0; n < size; n++) {
		char kept = text[n];
		for (size_t i = n % 7; i < sizeof(others); i += 7) {
			text[n] = others[i];
			struct ptx_module *m = ptx_parse(text, size, &error);
			CHECK(m || error.text[0]);
			ptx_free(m);
		}
		text[n] = kept;
	}
	free(text);
}

static char *
repeated(const char *before, const char *open, int count, const char *middle, const char *close, const char *after)
{
	size_t size = strlen(before) + strlen(middle) + strlen(after) + (size_t)count * (strlen(open) + strlen(close)) + 1;
	char *text = malloc(size), *at = text;

	at = stpcpy(at, before);
	for (int i = 0; i < count; i++)
		at = stpcpy(at, open);
	at = stpcpy(at, middle);
	for (int i = 0; i < count; i++)
		at = stpcpy(at, close);
	stpcpy(at, after);
	return text;
}

TEST(nesting)
{
	static const struct { const char *before, *open, *middle, *close, *after; } nests[] = {
		{ HEAD ".entry k {", "{ ", "ret;", " }", "}" },
		{ HEAD ".global .u32 x = ", "(", "1", ")", ";" },
		{ HEAD ".global .u32 x = ", "-", "1", "", ";" },
		{ HEAD ".global .u32 x = ", "1 ? 2 : ", "1", "", ";" },
		{ BODY "op ", "{", "%r1", "}", "; }" },
		{ BODY "op ", "[%r1, ", "%r1", "]", "; }" },
	};
	struct ptx_error error;

	for (size_t i = 0; i < sizeof(nests) / sizeof(nests[0]); i++) {
		char *text = repeated(nests[i].before, nests[i].open, 40, nests[i].middle, nests[i].close, nests[i].after);
		CHECK(parses(text));
		free(text);
		text = repeated(nests[i].before, nests[i].open, 200000, nests[i].middle, nests[i].close, nests[i].after);
		struct ptx_module *m = parse(text, &error);
		CHECK(!m && strstr(error.text, "nested deeper"));
		ptx_free(m);
		free(text);
	}
}

TEST(huge_counts)
{
	static const char *const texts[] = {
		BODY ".reg .b32 %h<4000000000>; }",
		BODY ".reg .b32 %h<18446744073709551615>; }",
		BODY ".reg .b32 %h1<4000000>; .reg .b32 %i<4000000>; }",
		BODY ".reg .b32 %h<4000000>; .reg .b32 %i<4000000>; }",
		HEAD ".global .b8 x<100000>;",
		HEAD ".global .b64 x[1099511627777];",
		HEAD ".global .b64 x[1000000][1000000][1000000];",
		HEAD ".global .b64 x[4294967296][4294967296] = {1};",
		HEAD ".global .b8 x[20000000000] = {1};",
		HEAD ".global .b8 x[][1000000000] = {{1}, {1}};",
		HEAD ".global .align 4194304 .b8 x;",
		HEAD ".func f (.param .b8 a[100000000]);",
		HEAD ".func f (.param .b8 a[9000000], .param .b8 b[9000000]);",
		HEAD ".global .b8 x[1][1][1][1][1][1][1][1][1];",
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct ptx_error error;
		struct ptx_module *m = parse(texts[i], &error);
		CHECK(m == NULL);
		if (m)
			printf("# taken: %s\n", strrchr(texts[i], '\n'));
		ptx_free(m);
	}
	/* what may be large is: no memory is taken for what nothing initialises */
	CHECK(parses(HEAD ".global .b8 x[1099511627776];"));
	CHECK(parses(BODY ".reg .b32 %h<100000>; mov.b32 %h99999, 1; }"));
}

/* Registers of a nested block hide those outside by number, and come back after it. */
TEST(scopes)
{
	struct ptx_error error;
	struct ptx_module *m = parse(HEAD ".entry k { .reg .b32 %r<4>, a1; { .reg .b64 %r<2>, a<3>; mov.b64 %r1, a1; mov.b32 %r2, 0;\n"
		"{ .reg .f32 %r1; mov.b32 %r1, %r0; } mov.b64 %r1, a2; } mov.b32 %r1, a1; }", &error);
	static const int want[][2] = { { 6, 8 }, { 2, -1 }, { 10, 5 }, { 6, 9 }, { 1, 4 } };

	CHECK(m != NULL);
	for (uint32_t i = 0; m && i < 5; i++) {
		CHECK_INT(m->funcs[0].insns[i].operands[0].reg, want[i][0]);
		if (want[i][1] >= 0)
			CHECK_INT(m->funcs[0].insns[i].operands[1].reg, want[i][1]);
	}
	ptx_free(m);
}

TEST(peek)
{
	uint32_t version = 0, target = 0;
	char suffix = 'x', *text;

	CHECK_INT(ptx_peek(HEAD, strlen(HEAD), &version, &target, &suffix), 0);
	CHECK_INT(version, 80);
	CHECK_INT(target, 80);
	CHECK_INT(suffix, 0);
	const char *late = "// c\n/* d */ .version 9.1 .address_size 64 .target sm_120f, debug junk follows";
	CHECK_INT(ptx_peek(late, strlen(late), &version, &target, &suffix), 0);
	CHECK_INT(version, 91);
	CHECK_INT(target, 120);
	CHECK_INT(suffix, 'f');
	CHECK_INT(ptx_peek("", 0, &version, &target, &suffix), -1);
	CHECK_INT(ptx_peek("\x7f" "ELF", 4, &version, &target, &suffix), -1);
	CHECK_INT(ptx_peek(".version 8.0\n.target", 20, &version, &target, &suffix), -1);
	CHECK_INT(version, 91); /* written on success only */
	text = repeated("", "// a long comment\n", 5000, HEAD, "", "");
	CHECK_INT(ptx_peek(text, strlen(text), &version, &target, &suffix), -1); /* beyond what is read */
	free(text);
}

TEST(print_into_any_size)
{
	struct ptx_error error;
	size_t size;
	char *source = read_file("all.ptx", &size), whole[1000];
	struct ptx_module *m = ptx_parse(source, size, &error);

	for (uint32_t f = 0; m && f < m->func_count; f++)
		for (uint32_t i = 0; i < m->funcs[f].insn_count; i++) {
			ptx_print_insn(&m->funcs[f], &m->funcs[f].insns[i], whole, sizeof(whole));
			for (size_t n = 0; n < 40; n++) {
				char *small = malloc(n ? n : 1);
				ptx_print_insn(&m->funcs[f], &m->funcs[f].insns[i], small, n);
				CHECK(n == 0 || (strlen(small) < n && strncmp(small, whole, strlen(small)) == 0));
				free(small);
			}
		}
	CHECK(m != NULL);
	ptx_free(m);
	free(source);
}

TEST(float_patterns)
{
	static const uint32_t patterns[] = { 0, 0x80000000, 1, 0x007fffff, 0x00800000, 0x3f800000, 0x7f7fffff, 0x7f800000, 0xff800000,
		0x7f800001, 0x7fc00000, 0xffffffff, 0x7fbfffff };
	char text[300];

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		struct ptx_error error;
		snprintf(text, sizeof(text), HEAD ".entry k { .reg .f32 a; mov.f32 a, 0f%08X; }", patterns[i]);
		struct ptx_module *m = parse(text, &error);
		CHECK(m != NULL);
		if (m)
			CHECK_INT(ptx_f32_bits(&m->funcs[0].insns[0].operands[1]), patterns[i]);
		ptx_free(m);
	}
}

TEST(words_are_interned)
{
	char copy[] = "shared::cta";

	CHECK(ptx_intern("add", 3) == ptx_intern("addc", 3));
	CHECK(ptx_intern(copy, 11) == ptx_intern("shared::cta", 11));
	CHECK(ptx_intern("", 0) == NULL);
	CHECK(ptx_intern("shared::ctashared::ctashared::ctashared::ctashared::ctashared::cta", 66) == NULL);
}

static void *
parse_in_thread(void *failed)
{
	for (int i = 0; i < 50; i++)
		if (!parses(BODY "add.s32 %r1, %r2, 1.5e3; new.form.of.thread %r1; }"))
			__atomic_store_n((int *)failed, 1, __ATOMIC_RELAXED);
	return NULL;
}

TEST(threads)
{
	pthread_t threads[4];
	int failed = 0;

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, parse_in_thread, &failed);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	CHECK(!failed);
}

TEST_MAIN()
