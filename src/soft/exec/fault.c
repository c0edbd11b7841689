/*
 * Signals for bad memory accesses inside sx_grid_work: the thread leaves the handler by a jump and the grid gets a fault. All other
 * such signals go to whoever handled them before. Accesses are checked before they are made, so this is for what the checks cannot
 * know, such as mapped host memory that the program has unmapped.
 *
 * The handler is installed once and stays; it works on the alternate stack if the thread has one.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

#include "soft/exec/run.h"

struct guard {
	sigjmp_buf back;
	volatile uint64_t address;
	volatile int number;
};

static __thread struct guard *current __attribute__((tls_model("initial-exec")));
static struct sigaction before_segv, before_bus;

static void
on_signal(int number, siginfo_t *info, void *context)
{
	struct guard *guard = current;
	struct sigaction *before = number == SIGSEGV ? &before_segv : &before_bus;

	if (guard && info->si_code > 0) { /* an access of this thread, not a kill() */
		current = NULL;
		guard->address = (uint64_t)(uintptr_t)info->si_addr;
		guard->number = number;
		siglongjmp(guard->back, 1);
	}
	if (before->sa_flags & SA_SIGINFO) {
		before->sa_sigaction(number, info, context);
	} else if (before->sa_handler == SIG_DFL || (before->sa_handler == SIG_IGN && info->si_code > 0)) {
		signal(number, SIG_DFL); /* the access repeats, or the signal is sent again, and ends the process */
		if (info->si_code <= 0)
			raise(number);
	} else if (before->sa_handler != SIG_IGN) {
		before->sa_handler(number);
	}
}

static void
install(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };
	sigemptyset(&action.sa_mask);
	sigaction(SIGSEGV, &action, &before_segv);
	sigaction(SIGBUS, &action, &before_bus);
}

bool
sx_guarded(void (*body)(void *), void *argument, uint64_t *address, int *signal_number)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct guard guard;

	pthread_once(&once, install);
	if (sigsetjmp(guard.back, 0)) {
		*address = guard.address;
		*signal_number = guard.number;
		return false;
	}
	current = &guard;
	body(argument);
	current = NULL;
	return true;
}
