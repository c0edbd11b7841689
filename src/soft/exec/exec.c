/*
 * The choice of the CPU level, once a process. FARWARP_ISA names one (generic, x86-64-v3, x86-64-v4), for tests; one that this CPU
 * cannot run is refused with a line on the log.
 */
#include "soft/exec/exec.h"

#include <stdlib.h>

#include "base/log.h"
#include "soft/exec/run.h"

static bool
level_generic(void)
{
	return true;
}

#ifdef SX_LEVELS
static bool
level_v3(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
	       __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("lzcnt");
}

static bool
level_v4(void)
{
	return level_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

static const struct { const struct sx_backend *backend; bool (*supported)(void); } levels[] = {
#ifdef SX_LEVELS
	{ &sx_backend_v4, level_v4 },
	{ &sx_backend_v3, level_v3 },
#endif
	{ &sx_backend_generic, level_generic },
};
#define LEVEL_COUNT (sizeof(levels) / sizeof(levels[0]))

static const struct sx_backend *
choose(void)
{
	const char *wanted = getenv("FARWARP_ISA");

	for (size_t n = 0; wanted && n < LEVEL_COUNT; n++)
		if (strcmp(levels[n].backend->name, wanted) == 0 && levels[n].supported())
			return levels[n].backend;
	if (wanted)
		fw_warn("soft", "FARWARP_ISA %s: this CPU or build has no such level", wanted);
	for (size_t n = 0; n < LEVEL_COUNT; n++)
		if (levels[n].supported())
			return levels[n].backend;
	return &sx_backend_generic;
}

const struct sx_backend *
sx_backend(void)
{
	static const struct sx_backend *chosen; /* atomic; choosing twice gives the same */
	const struct sx_backend *backend = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);

	if (!backend) {
		backend = choose();
		__atomic_store_n(&chosen, backend, __ATOMIC_RELEASE);
	}
	return backend;
}

const char *
sx_isa_name(void)
{
	return sx_backend()->name;
}
