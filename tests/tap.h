/*
 * TAP for C tests: TEST(name) { ... } registers itself; each test runs in a child with a time limit.
 *
 *	TEST(adds) { CHECK(1 + 1 == 2); CHECK_INT(1 + 1, 2); }
 *	TEST_MAIN()
 *
 * SKIP(reason) leaves a test as skipped. A crash, a time-out (TAP_SECONDS, 60 unless defined) or a failed check is "not ok".
 * With TAP_NO_FORK in the environment tests run in this process, for a debugger. Arguments select tests by name.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "slow.h"

#ifndef TAP_SECONDS
#define TAP_SECONDS 60
#endif

struct tap_test {
	const char *name;
	void (*run)(void);
	struct tap_test *next;
};
static struct tap_test *tap_first, **tap_last = &tap_first;
static int tap_failures __attribute__((unused));

#define TEST(id) \
	static void tap_run_##id(void); \
	__attribute__((constructor)) static void tap_add_##id(void) \
	{ \
		static struct tap_test test = { #id, tap_run_##id, NULL }; \
		*tap_last = &test; \
		tap_last = &test.next; \
	} \
	static void tap_run_##id(void)

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			tap_failures++; \
			printf("# %s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
		} \
	} while (0)
#define CHECK_INT(got, want) \
	do { \
		long long got_ = (long long)(got), want_ = (long long)(want); \
		if (got_ != want_) { \
			tap_failures++; \
			printf("# %s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_, want_); \
		} \
	} while (0)
#define CHECK_STR(got, want) \
	do { \
		const char *got_ = (got), *want_ = (want); \
		if (!got_ || strcmp(got_, want_) != 0) { \
			tap_failures++; \
			printf("# %s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #got, got_ ? got_ : "(null)", want_); \
		} \
	} while (0)
#define SKIP(reason) \
	do { \
		printf("# skip: %s\n", reason); \
		fflush(stdout); \
		_exit(77); \
	} while (0)

static inline int
tap_run_one(struct tap_test *test, int number)
{
	int status = 0;

	fflush(stdout);
	if (getenv("TAP_NO_FORK")) {
		tap_failures = 0;
		test->run();
		status = tap_failures ? 1 << 8 : 0;
	} else {
		pid_t child = fork();
		if (child == 0) {
			alarm(TAP_SECONDS * TIMES_SLOWER);
			test->run();
			fflush(stdout);
			exit(tap_failures ? 1 : 0);
		}
		if (child < 0 || waitpid(child, &status, 0) < 0)
			status = 1 << 8;
	}
	if (WIFSIGNALED(status))
		printf("# %s: ended by signal %d (%s)\n", test->name, WTERMSIG(status), strsignal(WTERMSIG(status)));
	int skipped = WIFEXITED(status) && WEXITSTATUS(status) == 77;
	printf("%sok %d - %s%s\n", status && !skipped ? "not " : "", number, test->name, skipped ? " # SKIP" : "");
	return status && !skipped;
}

static inline int
tap_main(int argc, char **argv)
{
	int count = 0, number = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (struct tap_test *test = tap_first; test; test = test->next)
		for (int i = argc > 1 ? 1 : 0; i < (argc > 1 ? argc : 1); i++)
			count += argc == 1 || strcmp(argv[i], test->name) == 0;
	printf("1..%d\n", count);
	for (struct tap_test *test = tap_first; test; test = test->next)
		for (int i = argc > 1 ? 1 : 0; i < (argc > 1 ? argc : 1); i++)
			if (argc == 1 || strcmp(argv[i], test->name) == 0)
				tap_run_one(test, ++number);
	return 0; /* Meson counts failures from the TAP lines; a non-zero exit would be an error of the harness */
}

#define TEST_MAIN() \
	int main(int argc, char **argv); \
	int main(int argc, char **argv) { return tap_main(argc, argv); }

#endif
