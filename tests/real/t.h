/*
 * TAP for CUDA programs: ok() says how one test went, CU() ends the program when a call that must work fails, T_END() is main's last
 * line. Each program computes its own reference on the CPU. Not for what tests the driver API itself (tests/api).
 */
#ifndef TESTS_REAL_T_H
#define TESTS_REAL_T_H

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <cuda_runtime.h>

static int t_count, t_failed;

static bool
ok(bool good, const char *name, const char *reason = nullptr, ...)
{
	char text[512] = "";

	if (!good && reason) {
		va_list args;
		va_start(args, reason);
		vsnprintf(text, sizeof text, reason, args);
		va_end(args);
	}
	t_count++;
	t_failed += !good;
	printf("%sok %d - %s%s%s\n", good ? "" : "not ", t_count, name, text[0] ? ": " : "", text);
	fflush(stdout);
	return good;
}

static inline void
skip(const char *name, const char *reason)
{
	printf("ok %d - %s # SKIP %s\n", ++t_count, name, reason);
}

static inline int
t_end()
{
	printf("1..%d\n", t_count);
	fflush(stdout);
	return t_failed != 0;
}
#define T_END() return t_end()

/* A call that must work. */
#define CU(call) \
	do { \
		cudaError_t t_error = (call); \
		if (t_error != cudaSuccess) { \
			printf("Bail out! %s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorName(t_error)); \
			fflush(stdout); \
			exit(1); \
		} \
	} while (0)

/* A call that must end with an error. */
#define EXPECT(call, want) \
	do { \
		cudaError_t t_error = (call); \
		ok(t_error == (want), #call " gives " #want, "%s", cudaGetErrorName(t_error)); \
	} while (0)

/* Device memory that goes with the scope. */
template <class T> struct Device {
	T *p = nullptr;
	size_t n;
	explicit Device(size_t count) : n(count) { CU(cudaMalloc(&p, (count ? count : 1) * sizeof(T))); }
	explicit Device(const std::vector<T> &v) : n(v.size())
	{
		CU(cudaMalloc(&p, n * sizeof(T)));
		CU(cudaMemcpy(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice));
	}
	Device(const Device &) = delete;
	~Device() { cudaFree(p); }
	operator T *() { return p; }
	std::vector<T> get()
	{
		std::vector<T> v(n);
		CU(cudaMemcpy(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost));
		return v;
	}
	void zero() { CU(cudaMemset(p, 0, n * sizeof(T))); }
};

/* The same numbers every time. */
struct Random {
	uint64_t s;
	explicit Random(uint64_t seed = 1) : s(seed * 0x9e3779b97f4a7c15ull + 1) {}
	uint64_t next()
	{
		s ^= s << 13;
		s ^= s >> 7;
		s ^= s << 17;
		return s * 0x2545f4914f6cdd1dull;
	}
	uint32_t below(uint32_t n) { return (uint32_t)((next() >> 32) * n >> 32); }
	float unit() { return (float)(next() >> 40) * (1.0f / 16777216.0f); }
};

template <class T>
static bool
same(const char *name, const std::vector<T> &got, const std::vector<T> &want)
{
	for (size_t i = 0; i < want.size(); i++)
		if (got.size() != want.size() || memcmp(&got[i], &want[i], sizeof(T)) != 0)
			return ok(false, name, "element %zu of %zu is %.9g, not %.9g", i, want.size(), (double)got[i], (double)want[i]);
	return ok(true, name);
}

/* |got - want| <= absolute + relative * |want| */
template <class T>
static bool
near(const char *name, const std::vector<T> &got, const std::vector<T> &want, double relative, double absolute = 0)
{
	double worst = 0;
	size_t where = 0;
	for (size_t i = 0; i < want.size(); i++) {
		double e = fabs((double)got[i] - (double)want[i]) - absolute - relative * fabs((double)want[i]);
		if (!(e <= worst)) {
			worst = e;
			where = i;
			if (e != e)
				break;
		}
	}
	return ok(worst == 0, name, "element %zu is %.9g, not %.9g", where, (double)got[where], (double)want[where]);
}

#endif
