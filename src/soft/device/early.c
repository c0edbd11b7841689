/* Parts that are not there yet answer as if nothing of theirs existed. */
#include "soft/device/device.h"
bool sw_mapping_find(uint64_t address, struct sw_mapping *out) { return false; }
bool sw_mapping_covers(uint64_t address, uint64_t size) { return false; }
void sw_pool_free_done(struct sw_op *op) { }
void sw_pool_trim_all(void) { }
uint64_t sw_pool_release_all(void) { return 0; }
CUresult sw_pool_free_now(struct sw_alloc *alloc) { return CUDA_ERROR_INVALID_VALUE; }
void sw_pool_forget(void) { }
void sw_pool_stream_gone(struct sw_stream *stream) { }
int sw_shared_event_open(struct sw_event *event) { return -1; }
void sw_shared_event_close(struct sw_event *event) { }
void sw_shared_event_complete(struct sw_event *event) { }
bool sw_shared_event_ready(struct sw_event *event) { return true; }
void sw_shared_event_wait(struct sw_event *event) { }
void sw_advice_free(struct sw_advice *advice) { }
uint32_t sw_format_bytes(CUarray_format format) { return 0; }
