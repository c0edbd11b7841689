/*
 * Names and texts of CUresult, from api/cuda.errors.
 */
#include "client.h"

#include "call/format.h"

CUresult
cl_cuGetErrorName(CUresult error, const char **name)
{
	*name = call_error_name((int)error);
	return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
cl_cuGetErrorString(CUresult error, const char **text)
{
	*text = call_error_text((int)error);
	return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
