/*
 * What device code calls: printf, malloc, new, recursion, function pointers, virtual functions, lambdas.
 */
#include "t.h"

#include <string>
#include <unistd.h>

__global__ void
talk(int base, const char *word)
{
	if (threadIdx.x < 3)
		printf("thread %d of block %d says %d\n", threadIdx.x, blockIdx.x, base + (int)threadIdx.x);
	if (threadIdx.x == 0)
		printf("%5.2f|%-6d|%06x|%c|%s|%lld|%%|%e|%u|%+d|%p\n", 3.14159, 42, 0xbeef, 'q', "text", -5000000000ll, 12345.678, 4000000000u, 7, (void *)0);
}

__global__ void
much(int lines)
{
	for (int i = 0; i < lines; i++)
		printf("line %d\n", i);
}

/* What the kernel printed. */
template <class F>
static std::string
captured(F f)
{
	char path[] = "/tmp/farwarp-real-XXXXXX", buffer[4096];
	std::string text;
	int file = mkstemp(path), saved = dup(1);
	fflush(stdout);
	dup2(file, 1);
	f();
	CU(cudaDeviceSynchronize());
	fflush(stdout);
	dup2(saved, 1);
	close(saved);
	lseek(file, 0, SEEK_SET);
	for (ssize_t n; (n = read(file, buffer, sizeof buffer)) > 0;)
		text.append(buffer, (size_t)n);
	close(file);
	unlink(path);
	return text;
}

__global__ void
heap(int *out, int n)
{
	int t = threadIdx.x;
	int *mine = (int *)malloc(n * sizeof(int));
	if (!mine) {
		out[t] = -1;
		return;
	}
	for (int i = 0; i < n; i++)
		mine[i] = t + i;
	__syncthreads();
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += mine[i];
	free(mine);
	struct Pair { int a, b; };
	Pair *p = new Pair{ t, 2 * t };
	sum += p->b - 2 * p->a;
	delete p;
	out[t] = sum;
}

__device__ int *kept;
__global__ void keep() { kept = (int *)malloc(100 * sizeof(int)); for (int i = 0; i < 100; i++) kept[i] = i * 3; }
__global__ void use(int *sum) { for (int i = 0; i < 100; i++) *sum += kept[i]; free(kept); }
__global__ void exhaust(int *got) { void *p = malloc((size_t)1 << 40); *got = p == nullptr; }

__device__ __noinline__ unsigned
ackermann(unsigned m, unsigned n)
{
	if (m == 0)
		return n + 1;
	return n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

__device__ void
quicksort(int *v, int low, int high)
{
	int i = low, j = high, pivot = v[(low + high) / 2];
	while (i <= j) {
		while (v[i] < pivot)
			i++;
		while (v[j] > pivot)
			j--;
		if (i <= j) {
			int t = v[i];
			v[i++] = v[j];
			v[j--] = t;
		}
	}
	if (low < j)
		quicksort(v, low, j);
	if (i < high)
		quicksort(v, i, high);
}

__global__ void recursive(unsigned *out) { out[threadIdx.x] = ackermann(threadIdx.x % 3, threadIdx.x); }
__global__ void sort_rows(int *v, int n) { quicksort(v + threadIdx.x * n, 0, n - 1); }

typedef int (*operation)(int, int);
__device__ int op_add(int a, int b) { return a + b; }
__device__ int op_sub(int a, int b) { return a - b; }
__device__ int op_mul(int a, int b) { return a * b; }
__device__ operation table[3] = { op_add, op_sub, op_mul };
__device__ operation chosen = op_mul;

__global__ void pointers(int *out) { int t = threadIdx.x; out[t] = table[t % 3](t, 7); }
__global__ void passed(operation op, int *out) { out[threadIdx.x] = op(threadIdx.x, 5); }

struct Shape {
	__device__ virtual float area() const = 0;
	__device__ virtual int corners() const { return 0; }
	__device__ virtual ~Shape() {}
};
struct Square : Shape {
	float a;
	__device__ Square(float s) : a(s) {}
	__device__ float area() const override { return a * a; }
	__device__ int corners() const override { return 4; }
};
struct Circle : Shape {
	float r;
	__device__ Circle(float s) : r(s) {}
	__device__ float area() const override { return 3 * r * r; }
};
__global__ void
shapes(float *out)
{
	int t = threadIdx.x;
	Shape *s = t % 2 ? (Shape *)new Square((float)t) : (Shape *)new Circle((float)t);
	out[t] = s->area() + 1000 * s->corners();
	delete s;
}

template <class F> __global__ void apply(F f, int *out) { out[threadIdx.x] = f(threadIdx.x); }

int
main()
{
	std::string text = captured([] { talk<<<1, 32>>>(100, nullptr); });
	std::string want = "thread 0 of block 0 says 100\nthread 1 of block 0 says 101\nthread 2 of block 0 says 102\n"
		" 3.14|42    |00beef|q|text|-5000000000|%|1.234568e+04|4000000000|+7|(nil)\n";
	ok(text == want, "device printf", "\"%s\"", text.c_str());
	text = captured([] { talk<<<4, 32>>>(0, nullptr); });
	size_t lines = 0;
	for (char c : text)
		lines += c == '\n';
	ok(lines == 16, "device printf from four blocks", "%zu lines", lines);
	text = captured([] { much<<<1, 1>>>(500); });
	ok(text.size() == 10 * 7 + 90 * 8 + 400 * 9 && text.find("line 499\n") != text.npos, "many lines", "%zu bytes", text.size());
	size_t fifo = 0;
	CU(cudaDeviceGetLimit(&fifo, cudaLimitPrintfFifoSize));
	ok(fifo >= 4096, "printf FIFO limit", "%zu", fifo);

	{
		const int n = 50;
		std::vector<int> want_sums(128);
		for (int t = 0; t < 128; t++)
			want_sums[t] = n * t + n * (n - 1) / 2;
		Device<int> out(128);
		heap<<<1, 128>>>(out, n);
		same("device malloc, free, new, delete", out.get(), want_sums);
		Device<int> sum(1);
		sum.zero();
		keep<<<1, 1>>>();
		use<<<1, 1>>>(sum);
		same("device memory lives from kernel to kernel", sum.get(), { 3 * 4950 });
		exhaust<<<1, 1>>>(out);
		ok(out.get()[0] == 1, "device malloc of too much gives null");
	}
	{
		std::vector<unsigned> want_a(12);
		for (unsigned t = 0; t < 12; t++)
			want_a[t] = t % 3 == 0 ? t + 1 : t % 3 == 1 ? t + 2 : 2 * t + 3;
		Device<unsigned> out(12);
		recursive<<<1, 12>>>(out);
		same("recursion", out.get(), want_a);
		Random r;
		const int n = 40, rows = 32;
		std::vector<int> v(n * rows), sorted;
		for (int &x : v)
			x = (int)r.below(1000);
		sorted = v;
		for (int i = 0; i < rows; i++)
			qsort(&sorted[i * n], n, 4, [](const void *a, const void *b) { return *(const int *)a - *(const int *)b; });
		Device<int> d(v);
		sort_rows<<<1, rows>>>(d, n);
		same("recursive quicksort, each lane its own row", d.get(), sorted);
	}
	{
		std::vector<int> w(64), w5(32);
		for (int t = 0; t < 64; t++)
			w[t] = t % 3 == 0 ? t + 7 : t % 3 == 1 ? t - 7 : t * 7;
		for (int t = 0; t < 32; t++)
			w5[t] = t * 5;
		Device<int> out(64), out2(32);
		pointers<<<1, 64>>>(out);
		same("function pointers in a table", out.get(), w);
		operation host;
		CU(cudaMemcpyFromSymbol(&host, chosen, sizeof host));
		passed<<<1, 32>>>(host, out2);
		same("a function pointer from the host", out2.get(), w5);
		int factor = 6;
		for (int t = 0; t < 32; t++)
			w5[t] = t * factor + 1;
		apply<<<1, 32>>>([=] __device__(int t) { return t * factor + 1; }, out2.p);
		same("a lambda with captures", out2.get(), w5);
	}
	{
		std::vector<float> w(64);
		for (int t = 0; t < 64; t++)
			w[t] = t % 2 ? (float)(t * t) + 4000 : 3.0f * t * t;
		Device<float> out(64);
		shapes<<<1, 64>>>(out);
		same("virtual functions", out.get(), w);
	}
	CU(cudaDeviceSynchronize());
	T_END();
}
