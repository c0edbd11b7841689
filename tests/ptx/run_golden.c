/*
 * Runs kernels kept as PTX text files whose first comments say how to launch them and what memory must hold afterwards.
 *
 *	// test TEXT                         begins a test; the lines up to the next one belong to it
 *	// sm 90                             it needs that capability
 *	// buffer NAME TYPE COUNT = EXPR     memory, filled; its address is the next kernel parameter
 *	// value TYPE EXPR                   the next kernel parameter
 *	// launch KERNEL grid X,Y,Z block X,Y,Z [shared N] [optin] [cluster N] [cooperative]
 *	// expect NAME[FROM..TO] = EXPR      what the buffer holds; without a range all of it
 *	// expect NAME[FROM..TO] in EXPR, EXPR   each element lies between the two
 *	// error NAME ...                    launch or synchronisation ends with it, or one of them (the last line of a test)
 *
 * TYPE is u8 u16 u32 u64 f32 f64. EXPR is C's integer expressions over i, the element's index (f32 and f64: the value is converted).
 * With --ptxas FILE the toolkit's assembler is asked whether it accepts the texts; nothing runs.
 */
#include "../slow.h"
#include "driver.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS_PER_TEST 60
#define BUFFERS_MAX 16

/* ---- expressions -------------------------------------------------------------------------------------------------- */

static const char *at;
static int64_t index_i;
static jmp_buf bad_file;

static void __attribute__((noreturn, format(printf, 1, 2)))
fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	longjmp(bad_file, 1);
}

static void
blank(void)
{
	while (*at == ' ' || *at == '\t')
		at++;
}

static bool
take(const char *token)
{
	size_t n = strlen(token);

	blank();
	if (strncmp(at, token, n) != 0)
		return false;
	/* not the beginning of a longer operator */
	if (n == 1 && strchr("<>=&|", *token) && (at[1] == *token || at[1] == '='))
		return false;
	at += n;
	return true;
}

static int64_t expression(void);

static int64_t
primary(void)
{
	blank();
	if (take("(")) {
		int64_t v = expression();
		if (!take(")"))
			fail("no ) at: %s", at);
		return v;
	}
	if (take("-"))
		return -primary();
	if (take("~"))
		return ~primary();
	if (take("!"))
		return !primary();
	if (*at == 'i' && !isalnum((unsigned char)at[1])) {
		at++;
		return index_i;
	}
	if (!isdigit((unsigned char)*at))
		fail("not an expression: %s", at);
	char *end;
	int64_t v = (int64_t)strtoull(at, &end, 0);
	at = end;
	return v;
}

static int64_t
binary(int level)
{
	static const char *const operators[][5] = { { "||" }, { "&&" }, { "|" }, { "^" }, { "&" }, { "==", "!=" },
		{ "<=", ">=", "<", ">" }, { "<<", ">>" }, { "+", "-" }, { "*", "/", "%" } };

	if (level == 10)
		return primary();
	int64_t a = binary(level + 1);
	for (;;) {
		const char *op = NULL;
		for (int i = 0; i < 5 && operators[level][i] && !op; i++)
			if (take(operators[level][i]))
				op = operators[level][i];
		if (!op)
			return a;
		int64_t b = binary(level + 1);
		if ((*op == '/' || *op == '%') && b == 0)
			b = 1; /* in the branch of a ?: that is not taken */
		switch (op[0] << 8 | op[1]) {
		case '|' << 8 | '|': a = a || b; break;
		case '&' << 8 | '&': a = a && b; break;
		case '|' << 8: a |= b; break;
		case '^' << 8: a ^= b; break;
		case '&' << 8: a &= b; break;
		case '=' << 8 | '=': a = a == b; break;
		case '!' << 8 | '=': a = a != b; break;
		case '<' << 8 | '=': a = a <= b; break;
		case '>' << 8 | '=': a = a >= b; break;
		case '<' << 8: a = a < b; break;
		case '>' << 8: a = a > b; break;
		case '<' << 8 | '<': a = (int64_t)((uint64_t)a << (b & 63)); break;
		case '>' << 8 | '>': a = (int64_t)((uint64_t)a >> (b & 63)); break;
		case '+' << 8: a += b; break;
		case '-' << 8: a -= b; break;
		case '*' << 8: a *= b; break;
		case '/' << 8: a /= b; break;
		case '%' << 8: a %= b; break;
		}
	}
}

static int64_t
expression(void)
{
	int64_t c = binary(0);

	if (!take("?"))
		return c;
	int64_t a = expression();
	if (!take(":"))
		fail("no : at: %s", at);
	int64_t b = expression();
	return c ? a : b;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

struct type {
	char name[4];
	unsigned size;
	bool is_float;
};
static const struct type types[] = { { "u8", 1, false }, { "u16", 2, false }, { "u32", 4, false }, { "u64", 8, false },
	{ "f32", 4, true }, { "f64", 8, true } };

struct buffer {
	char name[32];
	const struct type *type;
	size_t count;
	dptr device;
};

static const struct type *
take_type(void)
{
	blank();
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
		if (strncmp(at, types[i].name, strlen(types[i].name)) == 0 && !isalnum((unsigned char)at[strlen(types[i].name)])) {
			at += strlen(types[i].name);
			return &types[i];
		}
	fail("not a type: %s", at);
}

static void
take_name(char *name, size_t size)
{
	size_t n = 0;

	blank();
	while ((isalnum((unsigned char)*at) || *at == '_') && n + 1 < size)
		name[n++] = *at++;
	name[n] = 0;
	if (n == 0)
		fail("no name at: %s", at);
}

static void
store(const struct type *type, void *p, int64_t value)
{
	if (type->is_float && type->size == 4)
		*(float *)p = (float)value;
	else if (type->is_float)
		*(double *)p = (double)value;
	else
		memcpy(p, &value, type->size); /* little endian, as every host of CUDA */
}

static void
check(int error, const char *what)
{
	if (error)
		fail("%s: %s", what, cu_name(error));
}

/* ---- one test ----------------------------------------------------------------------------------------------------- */

struct state {
	struct buffer buffers[BUFFERS_MAX];
	size_t buffer_count;
	uint64_t values[BUFFERS_MAX];
	void *params[BUFFERS_MAX];
	size_t param_count;
	void *module;
	int error; /* of the last launch */
	unsigned wrong;
};

static void
do_buffer(struct state *s)
{
	if (s->buffer_count == BUFFERS_MAX || s->param_count == BUFFERS_MAX)
		fail("too many buffers");
	struct buffer *b = &s->buffers[s->buffer_count++];
	take_name(b->name, sizeof b->name);
	b->type = take_type();
	b->count = (size_t)primary();
	if (!take("="))
		fail("no = at: %s", at);
	const char *text = at;
	char *data = calloc(b->count, b->type->size);
	for (size_t i = 0; i < b->count; i++) {
		at = text;
		index_i = (int64_t)i;
		store(b->type, data + i * b->type->size, expression());
	}
	check(cu.MemAlloc(&b->device, b->count * b->type->size), "cuMemAlloc");
	check(cu.MemcpyHtoD(b->device, data, b->count * b->type->size), "cuMemcpyHtoD");
	free(data);
	s->values[s->param_count] = b->device;
	s->params[s->param_count] = &s->values[s->param_count];
	s->param_count++;
}

static void
do_launch(struct state *s)
{
	unsigned grid[3] = { 1, 1, 1 }, block[3] = { 1, 1, 1 }, shared = 0, cluster = 0;
	bool cooperative = false, optin = false;
	char kernel[128];
	void *function;

	take_name(kernel, sizeof kernel);
	for (blank(); *at; blank()) {
		unsigned *dim = take("grid") ? grid : take("block") ? block : NULL;
		if (dim) {
			int n = 0;
			do
				dim[n++] = (unsigned)primary();
			while (n < 3 && take(","));
		} else if (take("shared")) {
			shared = (unsigned)primary();
		} else if (take("cluster")) {
			cluster = (unsigned)primary();
		} else if (take("optin")) { /* the kernel may have more than the default 48 KiB */
			optin = true;
		} else if (take("cooperative")) {
			cooperative = true;
		} else {
			fail("not a launch option: %s", at);
		}
	}
	check(cu.ModuleGetFunction(&function, s->module, kernel), "cuModuleGetFunction");
	if (optin)
		check(cu.FuncSetAttribute(function, 8, (int)shared), "cuFuncSetAttribute");
	if (cluster && cu.LaunchKernelEx) {
		/* CUlaunchConfig with one CUlaunchAttribute: id 4 is the cluster dimension */
		struct {
			int id;
			char pad[4];
			unsigned value[16];
		} attribute = { .id = 4, .value = { cluster, 1, 1 } };
		struct {
			unsigned grid[3], block[3], shared;
			void *stream, *attributes;
			unsigned count;
		} config = { { grid[0], grid[1], grid[2] }, { block[0], block[1], block[2] }, shared, NULL, &attribute, 1 };
		s->error = cu.LaunchKernelEx(&config, function, s->params, NULL);
	} else if (cooperative) {
		s->error = cu.LaunchCooperativeKernel(function, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared, NULL, s->params);
	} else {
		s->error = cu.LaunchKernel(function, grid[0], grid[1], grid[2], block[0], block[1], block[2], shared, NULL, s->params, NULL);
	}
	if (!s->error)
		s->error = cu.CtxSynchronize();
}

static void
do_expect(struct state *s)
{
	char name[32];
	struct buffer *b = NULL;
	int64_t first = 0, last, high = 0;

	check(s->error, "launch");
	take_name(name, sizeof name);
	for (size_t i = 0; i < s->buffer_count; i++)
		if (strcmp(s->buffers[i].name, name) == 0)
			b = &s->buffers[i];
	if (!b)
		fail("no buffer %s", name);
	last = (int64_t)b->count - 1;
	if (take("[")) {
		first = last = primary();
		if (take(".."))
			last = primary();
		if (!take("]") || first < 0 || last >= (int64_t)b->count)
			fail("bad range of %s", name);
	}
	bool between = take("in ");
	if (!between && !take("="))
		fail("no = at: %s", at);
	const char *text = at;
	char *data = calloc(b->count, b->type->size);
	check(cu.MemcpyDtoH(data, b->device, b->count * b->type->size), "cuMemcpyDtoH");
	for (int64_t i = first; i <= last; i++) {
		uint64_t got = 0, want = 0;
		at = text;
		index_i = i;
		int64_t value = expression();
		store(b->type, &want, value);
		if (between && take(","))
			high = expression();
		memcpy(&got, data + i * b->type->size, b->type->size);
		bool right = between ? got >= want && got <= (uint64_t)high : got == want;
		if (!right && s->wrong++ < 4)
			printf("# %s[%lld] is 0x%llx, not 0x%llx\n", name, (long long)i, (unsigned long long)got, (unsigned long long)want);
	}
	free(data);
}

/* 0 right, 1 wrong, 77 skipped. The lines of one test, in a process of its own. */
static int
run_test(char **lines, size_t count, const char *ptx)
{
	struct state s = { 0 };
	char log[1024];
	const char *why = cu_open();
	int error;

	if (why) {
		printf("# %s\n", why);
		return 1;
	}
	if (setjmp(bad_file))
		return 1;
	for (size_t i = 0; i < count; i++) {
		at = lines[i];
		if (take("sm ")) {
			int sm = (int)primary();
			if (sm > cu_cc) {
				printf("# needs sm_%d\n", sm);
				return 77;
			}
			continue;
		}
		if (!s.module && (error = cu_load(&s.module, ptx, log, sizeof log))) {
			printf("# not loaded: %s: %.400s\n", cu_name(error), log);
			return 1;
		}
		if (take("buffer "))
			do_buffer(&s);
		else if (take("launch "))
			do_launch(&s);
		else if (take("expect "))
			do_expect(&s);
		else if (take("value ")) {
			const struct type *type = take_type();
			index_i = 0;
			store(type, &s.values[s.param_count], expression());
			s.params[s.param_count] = &s.values[s.param_count];
			s.param_count++;
		} else if (take("error ")) {
			blank();
			const char *name = cu_name(s.error), *found = strstr(at, name);
			if (!found || (found[strlen(name)] && found[strlen(name)] != ' '))
				fail("ended with %s, not %s", cu_name(s.error), at);
			s.error = 0;
		} else {
			fail("not a line of a test: %s", at);
		}
	}
	check(s.error, "launch");
	if (s.wrong > 4)
		printf("# and %u more\n", s.wrong - 4);
	return s.wrong != 0;
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static char *
read_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char *text;
	long size;

	if (!file)
		return NULL;
	fseek(file, 0, SEEK_END);
	size = ftell(file);
	rewind(file);
	text = calloc(1, (size_t)size + 1);
	if (text && fread(text, 1, (size_t)size, file) != (size_t)size) {
		free(text);
		text = NULL;
	}
	fclose(file);
	return text;
}

static int
ask_ptxas(const char *ptxas, const char *path, const char *text)
{
	const char *target = strstr(text, "\n.target ");
	char command[1024], arch[32] = "";

	if (!target || sscanf(target, "\n.target %31[a-z0-9_]", arch) != 1)
		return 1;
	if (atoi(arch + 3) < 75)
		snprintf(arch, sizeof arch, "sm_75");
	snprintf(command, sizeof command, "'%s' -O0 -arch=%s -o /dev/null '%s' 2>&1 | sed 's/^/# /'", ptxas, arch, path);
	FILE *pipe = popen(command, "r");
	char line[512];
	int bad = 0;
	while (pipe && fgets(line, sizeof line, pipe)) {
		if (strstr(line, "error") || strstr(line, "fatal")) {
			fputs(line, stdout);
			bad = 1;
		}
	}
	if (pipe)
		pclose(pipe);
	return bad;
}

int
main(int argc, char **argv)
{
	const char *ptxas = NULL;
	int first = 1, number = 0;

	cu_need_level();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && strcmp(argv[1], "--ptxas") == 0) {
		ptxas = argv[2];
		first = 3;
	}
	for (int a = first; a < argc; a++) {
		const char *base = strrchr(argv[a], '/') ? strrchr(argv[a], '/') + 1 : argv[a];
		char *text = read_file(argv[a]), *header, *save = NULL, *lines[256], title[256] = "";
		size_t count = 0;
		if (!text) {
			printf("not ok %d - %s: cannot be read\n", ++number, base);
			continue;
		}
		if (ptxas) {
			printf("%sok %d - %s\n", ask_ptxas(ptxas, argv[a], text) ? "not " : "", ++number, base);
			free(text);
			continue;
		}
		header = strdup(text);
		for (char *line = strtok_r(header, "\n", &save);; line = strtok_r(NULL, "\n", &save)) {
			bool ours = line && strncmp(line, "// ", 3) == 0;
			bool starts = ours && strncmp(line, "// test ", 8) == 0;
			if ((!ours || starts) && title[0]) { /* a test is complete */
				int status = 1;
				fflush(stdout);
				pid_t child = fork();
				if (child == 0) {
					alarm(SECONDS_PER_TEST * TIMES_SLOWER);
					int result = run_test(lines, count, text);
					fflush(stdout);
					_exit(result);
				}
				waitpid(child, &status, 0);
				bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == 77;
				if (WIFSIGNALED(status))
					printf("# ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
				printf("%sok %d - %s: %s%s\n", status && !skipped ? "not " : "", ++number, base, title, skipped ? " # SKIP" : "");
				count = 0;
			}
			if (!ours)
				break;
			if (starts)
				snprintf(title, sizeof title, "%s", line + 8);
			else if (title[0] && count < 256)
				lines[count++] = line + 3;
		}
		free(header);
		free(text);
	}
	printf("1..%d\n", number);
	return 0;
}
