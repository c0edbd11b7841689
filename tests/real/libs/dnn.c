/*
 * cuDNN: the handle, then pointwise and softmax operations against loops on the CPU. Where the library has no PTX for the
 * device, calls say so with the library's own errors.
 */
#include "libs.h"

#include <cuda_runtime_api.h>
#include <cudnn.h>

#define IMAGES 2
#define CHANNELS 10
#define HEIGHT 6
#define WIDTH 7
#define COUNT (IMAGES * CHANNELS * HEIGHT * WIDTH)
#define PLANE (HEIGHT * WIDTH)

static float x[COUNT], y[COUNT];
static int missing;

static int
served(const char *what, cudnnStatus_t status)
{
	char why[400] = "";

	if (status == CUDNN_STATUS_SUCCESS)
		return 1;
	cudnnGetLastErrorString(why, sizeof(why));
	for (char *c = why; *c; c++)
		*c = *c == '\n' ? ' ' : *c;
	printf("# %s answered %d (%s) %s\n", what, (int)status, cudnnGetErrorString(status), why);
	missing++;
	return 0;
}

static void
softmax(cudnnHandle_t dnn, cudnnTensorDescriptor_t shape, const float *dx, float *dy)
{
	float one = 1, zero = 0;

	if (!served("softmax", cudnnSoftmaxForward(dnn, CUDNN_SOFTMAX_ACCURATE, CUDNN_SOFTMAX_MODE_CHANNEL, &one, shape, dx, &zero, shape, dy)))
		return;
	MUST(cudaMemcpy(y, dy, sizeof(y), cudaMemcpyDeviceToHost));
	for (int image = 0; image < IMAGES; image++)
		for (int at = 0; at < PLANE; at++) {
			const float *in = x + image * CHANNELS * PLANE + at, *out = y + image * CHANNELS * PLANE + at;
			double sum = 0;
			for (int c = 0; c < CHANNELS; c++)
				sum += exp(in[c * PLANE]);
			for (int c = 0; c < CHANNELS; c++)
				CHECK(fabs(out[c * PLANE] - exp(in[c * PLANE]) / sum) < 1e-5, "softmax: %g", out[c * PLANE]);
		}
}

static void
activation(cudnnHandle_t dnn, cudnnTensorDescriptor_t shape, const float *dx, float *dy)
{
	cudnnActivationDescriptor_t tanh_of;
	float one = 1, zero = 0;

	MUST(cudnnCreateActivationDescriptor(&tanh_of));
	MUST(cudnnSetActivationDescriptor(tanh_of, CUDNN_ACTIVATION_TANH, CUDNN_PROPAGATE_NAN, 0));
	if (served("activation", cudnnActivationForward(dnn, tanh_of, &one, shape, dx, &zero, shape, dy))) {
		MUST(cudaMemcpy(y, dy, sizeof(y), cudaMemcpyDeviceToHost));
		for (int i = 0; i < COUNT; i++)
			CHECK(fabs(y[i] - tanh(x[i])) < 1e-5, "tanh: %g", y[i]);
	}
	MUST(cudnnDestroyActivationDescriptor(tanh_of));
}

int
main(void)
{
	cudnnHandle_t dnn;
	uint32_t seed = 23;

	printf("# cuDNN %zu\n", cudnnGetVersion());
	for (int i = 0; i < COUNT; i++)
		x[i] = (float)(3 * noise(&seed));
	if (served("create", cudnnCreate(&dnn))) {
		cudnnTensorDescriptor_t shape;
		float *dx, *dy;
		MUST(cudaMalloc((void **)&dx, sizeof(x)));
		MUST(cudaMalloc((void **)&dy, sizeof(y)));
		MUST(cudaMemcpy(dx, x, sizeof(x), cudaMemcpyHostToDevice));
		MUST(cudnnCreateTensorDescriptor(&shape));
		MUST(cudnnSetTensor4dDescriptor(shape, CUDNN_TENSOR_NCHW, CUDNN_DATA_FLOAT, IMAGES, CHANNELS, HEIGHT, WIDTH));
		softmax(dnn, shape, dx, dy);
		activation(dnn, shape, dx, dy);
		MUST(cudnnDestroyTensorDescriptor(shape));
		MUST(cudnnDestroy(dnn));
	}
	int sticky = cudaDeviceSynchronize();
	CHECK(sticky == 0, "the context holds error %d (%s)", sticky, cudaGetErrorName(sticky));
	if (missing && !failures) {
		printf("# skip the library has no PTX for this device in %d calls\n", missing);
		return EXIT_SKIP;
	}
	return failures != 0;
}
