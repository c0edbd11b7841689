/*
 * What goes wrong, and what the program is told: each in a process of its own, for most errors are sticky.
 */
#include "t.h"

#include <cassert>
#include <csignal>
#include <string>
#include <sys/wait.h>
#include <unistd.h>

__global__ void fine(int *p) { *p = 1; }
__global__ void bad_store(int *p) { p[threadIdx.x] = 1; }
__global__ void traps() { asm volatile("trap;"); }
__global__ void asserts(int x) { assert(x < 3 && "x is small"); }
__global__ void __launch_bounds__(64) few(int *p) { *p = 2; }
__global__ void static_shared(int *p) { __shared__ int a[12000]; a[threadIdx.x] = 1; __syncthreads(); *p = a[0]; }
__global__ void endless(volatile int *p) { while (*p == 0) { } }
__device__ __noinline__ int deep(int n) { volatile int pad[64]; pad[n % 64] = n; return n == 0 ? 0 : deep(n - 1) + pad[n % 64]; }
__global__ void overflows(int *p) { *p = deep(1000000); }

/* Runs f in a child; its return value is the exit status; what it prints comes back. */
template <class F>
static std::pair<int, std::string>
child(F f)
{
	int p[2], status = -1;
	std::string text;
	char buffer[1024];
	fflush(stdout);
	if (pipe(p))
		return { -1, "" };
	pid_t pid = fork();
	if (pid == 0) {
		dup2(p[1], 1);
		dup2(p[1], 2);
		close(p[0]);
		close(p[1]);
		alarm(60);
		int result = f();
		fflush(stdout);
		_exit(result);
	}
	close(p[1]);
	for (ssize_t n; (n = read(p[0], buffer, sizeof buffer)) > 0;)
		text.append(buffer, (size_t)n);
	close(p[0]);
	waitpid(pid, &status, 0);
	return { WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), text };
}

/* The driver says "invalid value" to a block that is too large; some runtimes make "invalid configuration" of it. */
#define STEP_GEOMETRY(n, call) \
	do { \
		cudaError_t e_ = (call); \
		if (e_ != cudaErrorInvalidConfiguration && e_ != cudaErrorInvalidValue) { \
			printf("step %d: %s: %s\n", n, #call, cudaGetErrorName(e_)); \
			return n; \
		} \
	} while (0)

/* Each step that does not give what it should ends the child with its number. */
#define STEP(n, call, want) \
	do { \
		cudaError_t e_ = (call); \
		if (e_ != (want)) { \
			printf("step %d: %s: %s, not " #want "\n", n, #call, cudaGetErrorName(e_)); \
			return n; \
		} \
	} while (0)

static void
report(const char *name, std::pair<int, std::string> r)
{
	size_t end = r.second.find_last_not_of("\n");
	std::string text = r.second.substr(0, end == std::string::npos ? 0 : end + 1);
	for (char &c : text)
		c = c == '\n' ? ' ' : c;
	ok(r.first == 0, name, "ended with %d: %s", r.first, text.c_str());
}

int
main()
{
	report("an illegal address is sticky", child([] {
		int *p;
		STEP(1, cudaMalloc(&p, 4), cudaSuccess);
		bad_store<<<1, 32>>>((int *)0x10);
		STEP(2, cudaGetLastError(), cudaSuccess);
		STEP(3, cudaDeviceSynchronize(), cudaErrorIllegalAddress);
		STEP(4, cudaGetLastError(), cudaErrorIllegalAddress);
		STEP(5, cudaMalloc(&p, 4), cudaErrorIllegalAddress);
		fine<<<1, 1>>>(p);
		STEP(6, cudaGetLastError(), cudaErrorIllegalAddress);
		STEP(7, cudaDeviceSynchronize(), cudaErrorIllegalAddress);
		return 0;
	}));
	report("an illegal address surfaces at a copy", child([] {
		int *p, x;
		STEP(1, cudaMalloc(&p, 4), cudaSuccess);
		bad_store<<<1, 1>>>((int *)0xdead000000000);
		STEP(2, cudaMemcpy(&x, p, 4, cudaMemcpyDeviceToHost), cudaErrorIllegalAddress);
		return 0;
	}));
	report("reading the null pointer", child([] {
		bad_store<<<1, 1>>>(nullptr);
		STEP(1, cudaDeviceSynchronize(), cudaErrorIllegalAddress);
		return 0;
	}));
	report("a misaligned address", child([] {
		char *p;
		STEP(1, cudaMalloc(&p, 64), cudaSuccess);
		bad_store<<<1, 1>>>((int *)(p + 1));
		STEP(2, cudaDeviceSynchronize(), cudaErrorMisalignedAddress);
		return 0;
	}));
	report("trap", child([] {
		traps<<<1, 1>>>();
		STEP(1, cudaDeviceSynchronize(), cudaErrorLaunchFailure);
		return 0;
	}));
	{
		auto r = child([] {
			asserts<<<1, 2>>>(2);
			STEP(1, cudaDeviceSynchronize(), cudaSuccess);
			asserts<<<1, 2>>>(5);
			STEP(2, cudaDeviceSynchronize(), cudaErrorAssert);
			STEP(3, cudaDeviceSynchronize(), cudaErrorAssert);
			return 0;
		});
		report("a failed assertion", r);
		ok(r.second.find("Assertion `x < 3 && \"x is small\"` failed.") != std::string::npos && r.second.find("errors.cu:") != std::string::npos &&
		   r.second.find("block: [0,0,0], thread: [0,0,0]") != std::string::npos, "says which one", "%s", r.second.c_str());
	}
	report("launches that cannot be are not sticky", child([] {
		int *p, x = 0;
		STEP(1, cudaMalloc(&p, 4), cudaSuccess);
		fine<<<1, 2000>>>(p);
		STEP_GEOMETRY(2, cudaGetLastError());
		fine<<<0, 1>>>(p);
		STEP_GEOMETRY(3, cudaGetLastError());
		fine<<<dim3(1, 70000), 1>>>(p);
		STEP_GEOMETRY(4, cudaGetLastError());
		fine<<<1, 1, 1 << 20>>>(p);
		STEP(5, cudaGetLastError(), cudaErrorInvalidValue);
		fine<<<1, dim3(1, 1, 65)>>>(p);
		STEP_GEOMETRY(6, cudaGetLastError());
		static_shared<<<1, 32, 4096>>>(p);
		STEP(7, cudaGetLastError(), cudaErrorInvalidValue);
		fine<<<1, 1>>>(p);
		STEP(8, cudaGetLastError(), cudaSuccess);
		STEP(9, cudaMemcpy(&x, p, 4, cudaMemcpyDeviceToHost), cudaSuccess);
		return x == 1 ? 0 : 10;
	}));
	report("more threads than the launch bounds", child([] {
		int *p;
		STEP(1, cudaMalloc(&p, 4), cudaSuccess);
		few<<<1, 65>>>(p);
		cudaError_t e = cudaGetLastError();
		if (e != cudaErrorInvalidValue && e != cudaErrorLaunchOutOfResources) {
			printf("%s\n", cudaGetErrorName(e));
			return 2;
		}
		few<<<1, 64>>>(p);
		STEP(3, cudaDeviceSynchronize(), cudaSuccess);
		return 0;
	}));
	report("the device starts anew after a reset", child([] {
		int *p, x = 0;
		STEP(1, cudaFree(0), cudaSuccess);
		bad_store<<<1, 1>>>(nullptr);
		STEP(2, cudaDeviceSynchronize(), cudaErrorIllegalAddress);
		/* the reset of a faulty context reports its error, or none; afterwards all is new */
		cudaDeviceReset();
		cudaGetLastError();
		STEP(3, cudaMalloc(&p, 4), cudaSuccess);
		fine<<<1, 1>>>(p);
		STEP(4, cudaMemcpy(&x, p, 4, cudaMemcpyDeviceToHost), cudaSuccess);
		return x == 1 ? 0 : 5;
	}));
	report("a stack too small", child([] {
		int *p;
		STEP(1, cudaMalloc(&p, 4), cudaSuccess);
		overflows<<<1, 1>>>(p);
		cudaError_t e = cudaDeviceSynchronize();
		if (e != cudaErrorIllegalAddress && e != cudaErrorHardwareStackError && e != cudaErrorLaunchFailure) {
			printf("%s\n", cudaGetErrorName(e));
			return 2;
		}
		return 0;
	}));
	{
		/* an endless kernel does not keep the process from ending by a signal */
		int p[2];
		if (pipe(p))
			return 1;
		fflush(stdout);
		pid_t pid = fork();
		if (pid == 0) {
			int *flag;
			char ready = 1;
			cudaMalloc(&flag, 4);
			cudaMemset(flag, 0, 4);
			endless<<<1, 32>>>(flag);
			if (write(p[1], &ready, 1) != 1)
				_exit(1);
			cudaDeviceSynchronize();
			_exit(0);
		}
		char ready;
		int status = 0;
		if (read(p[0], &ready, 1) != 1)
			return 1;
		kill(pid, SIGTERM);
		waitpid(pid, &status, 0);
		ok(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "an endless kernel ends with its process", "status %x", status);
	}
	ok(strcmp(cudaGetErrorName(cudaErrorIllegalAddress), "cudaErrorIllegalAddress") == 0 &&
	   strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory") == 0, "names of errors");
	EXPECT(cudaSetDevice(99), cudaErrorInvalidDevice);
	EXPECT(cudaGetLastError(), cudaErrorInvalidDevice);
	T_END();
}
