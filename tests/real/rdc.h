/* What the files of the separate-compilation test share. */
struct Base {
	int x;
	__device__ Base(int v) : x(v) {}
	__device__ virtual int value() { return x * 2; }
	__device__ virtual ~Base() {}
};
extern __device__ Base *make(int x);
