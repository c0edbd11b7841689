/*
 * Stream capture: streams that record into a graph instead of running (programming guide, "Creating a Graph Using Stream
 * Capture").
 *
 * A session is one capture: its graph, mode and origin stream. Each stream that takes part has a tail: the nodes that its next node
 * depends on. Recording an event keeps the tail with the event; waiting for that event adds it to the waiting stream's tail and
 * draws a stream that is not capturing into the session. What would break a capture invalidates it, and the error is returned
 * both there and by cuStreamEndCapture. Guarded by sw_graph_lock; stream->capture changes with the queue lock held as well.
 */
#include "soft/device/graph.h"

#include <stdlib.h>
#include <string.h>

#include "soft/device/ops.h"

struct session {
	uint64_t id;
	struct sw_graph *graph;
	bool owns_graph;               /* not cuStreamBeginCaptureToGraph */
	CUstreamCaptureMode mode;
	CUstreamCaptureStatus status;
	bool over;                     /* ended; events may still name it */
	pthread_t thread;              /* that began it */
	struct sw_stream *origin;
	uint32_t references;           /* tails of streams and events */
	struct session *next;
};

/* What hangs at stream->capture and event->capture. */
struct sw_capture {
	struct session *session;
	struct sw_stream *stream;      /* NULL: of an event */
	CUgraphNode *tail;
	CUgraphEdgeData *data;         /* of the edges from the tail to the next node */
	uint32_t count;
	struct sw_capture *next;       /* of all streams that capture */
};

static struct session *sessions;
static struct sw_capture *streams;
static uint64_t next_session;
static __thread CUstreamCaptureMode thread_mode __attribute__((tls_model("initial-exec"))); /* GLOBAL unless exchanged */

static void
session_unref(struct session *session)
{
	if (--session->references || !session->over)
		return;
	for (struct session **link = &sessions; *link; link = &(*link)->next)
		if (*link == session) {
			*link = session->next;
			break;
		}
	free(session);
}

static void
capture_free(struct sw_capture *capture)
{
	session_unref(capture->session);
	free(capture->tail);
	free(capture->data);
	free(capture);
}

static struct sw_capture *
capture_new(struct session *session, struct sw_stream *stream)
{
	struct sw_capture *capture = calloc(1, sizeof(*capture));

	if (!capture)
		return NULL;
	capture->session = session;
	capture->stream = stream;
	session->references++;
	if (stream) {
		capture->next = streams;
		streams = capture;
		sw_queue_lock();
		stream->capture = capture;
		stream->ctx->live_captures++;
		sw_queue_unlock();
	}
	return capture;
}

/* A stream leaves its capture. */
static void
leave(struct sw_capture *capture)
{
	for (struct sw_capture **link = &streams; *link; link = &(*link)->next)
		if (*link == capture) {
			*link = capture->next;
			break;
		}
	sw_queue_lock();
	capture->stream->capture = NULL;
	capture->stream->ctx->live_captures--;
	sw_queue_unlock();
	capture_free(capture);
}

static CUresult
invalidate(struct session *session, CUresult error)
{
	session->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
	return error;
}

static CUresult
tail_add(struct sw_capture *capture, CUgraphNode node, const CUgraphEdgeData *data)
{
	for (uint32_t i = 0; i < capture->count; i++)
		if (capture->tail[i] == node)
			return CUDA_SUCCESS;
	CUgraphNode *tail = realloc(capture->tail, (capture->count + 1) * sizeof(*tail));
	if (tail)
		capture->tail = tail;
	CUgraphEdgeData *edges = realloc(capture->data, (capture->count + 1) * sizeof(*edges));
	if (edges)
		capture->data = edges;
	if (!tail || !edges)
		return CUDA_ERROR_OUT_OF_MEMORY;
	tail[capture->count] = node;
	edges[capture->count++] = data ? *data : (CUgraphEdgeData){ 0 };
	return CUDA_SUCCESS;
}

/* The node depends on the stream's tail and becomes it. */
static CUresult
append(struct sw_capture *capture, struct sw_node *node)
{
	CUresult result = CUDA_SUCCESS;

	for (uint32_t i = 0; i < capture->count && result == CUDA_SUCCESS; i++) {
		struct sw_node *from = sw_node_get(capture->tail[i]);
		if (from)
			result = sw_node_add_dep(node, from, &capture->data[i]);
	}
	capture->count = 0;
	return result == CUDA_SUCCESS ? tail_add(capture, node->handle, NULL) : result;
}

static CUresult
copy_tail(struct sw_capture *to, const struct sw_capture *from)
{
	CUresult result = CUDA_SUCCESS;

	for (uint32_t i = 0; i < from->count && result == CUDA_SUCCESS; i++)
		result = tail_add(to, from->tail[i], &from->data[i]);
	return result;
}

void
sw_event_forget_capture(struct sw_event *event)
{
	pthread_mutex_lock(&sw_graph_lock);
	if (event->capture)
		capture_free(event->capture);
	event->capture = NULL;
	pthread_mutex_unlock(&sw_graph_lock);
}

/* ---- what streams do while capturing ------------------------------------------------------------------------------------- */

static CUresult
record_event(struct sw_capture *capture, struct sw_event *event)
{
	struct sw_capture *kept = capture_new(capture->session, NULL);

	if (!kept || copy_tail(kept, capture) != CUDA_SUCCESS) {
		if (kept)
			capture_free(kept);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	struct sw_capture *old = event->capture;
	sw_queue_lock();
	event->capture = kept;
	sw_queue_unlock();
	if (old)
		capture_free(old);
	return CUDA_SUCCESS;
}

static CUresult
capture_op_locked(struct sw_stream *stream, const struct sw_op *op)
{
	struct sw_capture *capture = stream->capture;
	struct sw_node *node;

	if (!capture)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED; /* ended between the check and here */
	if (capture->session->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (op->kind == SW_OP_RECORD && !(op->event.flags & CU_EVENT_RECORD_EXTERNAL))
		return record_event(capture, op->event.event);
	if (op->kind == SW_OP_WAIT && !(op->event.flags & CU_EVENT_WAIT_EXTERNAL))
		return invalidate(capture->session, CUDA_ERROR_STREAM_CAPTURE_ISOLATION); /* uncaptured work: sw_capture_wait took the rest */
	CUresult result = sw_node_from_op(capture->session->graph, stream->ctx, op, &node);
	if (result == CUDA_SUCCESS)
		result = append(capture, node);
	return result == CUDA_SUCCESS ? result : invalidate(capture->session, result);
}

static CUresult
capture_op(struct sw_stream *stream, const struct sw_op *op)
{
	pthread_mutex_lock(&sw_graph_lock);
	CUresult result = capture_op_locked(stream, op);
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

bool
sw_capture_wait(struct sw_stream *stream, struct sw_event *event, CUresult *result)
{
	if (!event->capture) /* racing with a record is the program's error; a plain read keeps the common case free */
		return false;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *kept = event->capture, *capture = stream->capture;
	bool mine = kept != NULL;
	if (!mine) {
		/* nothing */
	} else if (kept->session->over) {
		/* As after a real capture: the event has nothing to wait for outside it. */
		*result = CUDA_ERROR_CAPTURED_EVENT;
		if (capture)
			invalidate(capture->session, *result);
	} else if (kept->session->status != CU_STREAM_CAPTURE_STATUS_ACTIVE) {
		*result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	} else if (capture && capture->session != kept->session) {
		*result = invalidate(capture->session, CUDA_ERROR_STREAM_CAPTURE_MERGE);
		invalidate(kept->session, CUDA_ERROR_STREAM_CAPTURE_MERGE);
	} else if (stream == stream->ctx->legacy) {
		*result = invalidate(kept->session, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
	} else {
		if (!capture)
			capture = capture_new(kept->session, stream);
		*result = capture ? copy_tail(capture, kept) : CUDA_ERROR_OUT_OF_MEMORY;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return mine;
}

bool
sw_capture_alloc(struct sw_stream *stream, uint64_t size, CUdeviceptr *out, CUresult *result)
{
	if (!stream->capture)
		return false;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_MEM_ALLOC };
	params.alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
	params.alloc.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
	params.alloc.bytesize = size;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *capture = stream->capture;
	*result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	if (capture && capture->session->status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
		struct sw_node *node = sw_node_new(capture->session->graph, CU_GRAPH_NODE_TYPE_MEM_ALLOC, stream->ctx);
		*result = node ? sw_node_set_params(node, &params) : CUDA_ERROR_OUT_OF_MEMORY;
		if (*result == CUDA_SUCCESS)
			*result = append(capture, node);
		else if (node)
			sw_node_free(node);
		if (*result == CUDA_SUCCESS)
			*out = params.alloc.dptr;
		else
			invalidate(capture->session, *result);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return true;
}

CUresult
sw_capture_child(struct sw_stream *stream, const struct sw_graph *graph)
{
	struct sw_capture *capture = stream->capture;

	if (!capture || capture->session->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
	CUgraphNodeParams params = { .type = CU_GRAPH_NODE_TYPE_GRAPH, .graph = { graph->handle, CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE } };
	struct sw_node *node = sw_node_new(capture->session->graph, CU_GRAPH_NODE_TYPE_GRAPH, stream->ctx);
	CUresult result = node ? sw_node_set_params(node, &params) : CUDA_ERROR_OUT_OF_MEMORY;
	if (result == CUDA_SUCCESS)
		result = append(capture, node);
	else if (node)
		sw_node_free(node);
	return result == CUDA_SUCCESS ? result : invalidate(capture->session, result);
}

/*
 * May this go on while something captures? `stream` NULL: a call that is unsafe during capture (it may wait for, or be waited for by,
 * work that is only being recorded). A capturing stream: the call may not touch it. The legacy stream: it would depend on blocking
 * streams that capture.
 */
static CUresult
capture_check(struct sw_context *ctx, struct sw_stream *stream)
{
	CUresult result = CUDA_SUCCESS;

	pthread_mutex_lock(&sw_graph_lock);
	if (stream && stream->capture) {
		result = invalidate(stream->capture->session, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
	} else if (stream && stream == ctx->legacy) {
		for (struct sw_capture *c = streams; c; c = c->next)
			if (c->stream->ctx == ctx && !(c->stream->flags & CU_STREAM_NON_BLOCKING))
				result = invalidate(c->session, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
	} else if (!stream && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
		for (struct session *s = sessions; s; s = s->next) {
			bool own = pthread_equal(s->thread, pthread_self());
			bool counts = s->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ? own || thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL
			                                                       : s->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && own;
			if (counts && !s->over && s->status == CU_STREAM_CAPTURE_STATUS_ACTIVE)
				result = invalidate(s, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
		}
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

void
sw_capture_drop_stream(struct sw_stream *stream)
{
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *capture = stream->capture;
	if (capture) {
		struct session *session = capture->session;
		if (session->origin == stream && !session->over) {
			session->over = true;
			session->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
			if (session->owns_graph)
				sw_graph_free(session->graph);
		}
		leave(capture);
	}
	pthread_mutex_unlock(&sw_graph_lock);
}

void
sw_capture_install(void)
{
	sw_capture_op = capture_op;
	sw_capture_check = capture_check;
}

/* ---- the calls ----------------------------------------------------------------------------------------------------------------- */

#define STREAM(stream, handle) \
	SW_CTX(ctx); \
	struct sw_stream *stream = NULL; \
	do { \
		CUresult found_ = sw_stream_get(ctx, handle, &stream); \
		if (found_ != CUDA_SUCCESS) \
			return found_; \
	} while (0)

CUresult
sw_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
	CUstreamCaptureMode old = thread_mode;

	if ((unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
		return CUDA_ERROR_INVALID_VALUE;
	thread_mode = *mode;
	*mode = old;
	return CUDA_SUCCESS;
}

static CUresult
begin(struct sw_stream *stream, CUgraph hGraph, const CUgraphNode *deps, const CUgraphEdgeData *data, size_t count,
      CUstreamCaptureMode mode)
{
	CUresult result = CUDA_SUCCESS;

	if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED || (count && !deps))
		return CUDA_ERROR_INVALID_VALUE;
	if (stream == stream->ctx->legacy)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_graph *graph = hGraph ? sw_graph_get(hGraph) : NULL;
	if (stream->capture)
		result = CUDA_ERROR_ILLEGAL_STATE;
	else if (hGraph && !graph)
		result = CUDA_ERROR_INVALID_VALUE;
	struct session *session = result == CUDA_SUCCESS ? calloc(1, sizeof(*session)) : NULL;
	if (result == CUDA_SUCCESS) {
		result = CUDA_ERROR_OUT_OF_MEMORY;
		if (session)
			session->graph = graph ? graph : sw_graph_new(NULL);
		if (session && session->graph) {
			*session = (struct session){ .id = ++next_session, .graph = session->graph, .owns_graph = !graph, .mode = mode,
				.status = CU_STREAM_CAPTURE_STATUS_ACTIVE, .thread = pthread_self(), .origin = stream, .next = sessions };
			sessions = session;
			struct sw_capture *capture = capture_new(session, stream);
			result = capture ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
			for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++)
				result = sw_node_get(deps[i]) ? tail_add(capture, deps[i], data ? &data[i] : NULL) : CUDA_ERROR_INVALID_VALUE;
			if (result != CUDA_SUCCESS) {
				session->over = true;
				if (session->owns_graph)
					sw_graph_free(session->graph);
				if (capture) {
					leave(capture);
				} else {
					session->references++;
					session_unref(session);
				}
			}
		} else {
			free(session);
		}
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode)
{
	STREAM(stream, handle);
	return begin(stream, NULL, NULL, NULL, 0, mode);
}

CUresult
sw_cuStreamBeginCapture(CUstream handle)
{
	return sw_cuStreamBeginCapture_v2(handle, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult
sw_cuStreamBeginCaptureToGraph(CUstream handle, CUgraph graph, const CUgraphNode *deps, const CUgraphEdgeData *data, size_t count,
                               CUstreamCaptureMode mode)
{
	STREAM(stream, handle);
	return graph ? begin(stream, graph, deps, data, count, mode) : CUDA_ERROR_INVALID_VALUE;
}

/* Is each stream's tail reached from the origin's, that is, joined? Marks with `order`. */
static bool
all_joined(struct session *session)
{
	struct sw_graph *graph = session->graph;
	const struct sw_capture *origin = session->origin->capture;

	if (!sw_graph_sort(graph, NULL))
		return false;
	struct sw_node **nodes = calloc(graph->node_count + 1, sizeof(*nodes));
	bool *reached = calloc(graph->node_count + 1, sizeof(*reached)), joined = nodes && reached;
	if (joined) {
		for (struct sw_node *node = graph->first; node; node = node->next)
			nodes[node->order] = node;
		for (uint32_t i = 0; i < origin->count; i++) {
			struct sw_node *node = sw_node_get(origin->tail[i]);
			if (node && node->graph == graph)
				reached[node->order] = true;
		}
		for (uint32_t i = graph->node_count; i--;)
			for (uint32_t e = 0; reached[i] && e < nodes[i]->dep_count; e++)
				reached[nodes[i]->deps[e].from->order] = true;
		for (struct sw_capture *c = streams; c; c = c->next)
			for (uint32_t i = 0; c->session == session && i < c->count; i++) {
				struct sw_node *node = sw_node_get(c->tail[i]);
				joined = joined && (!node || reached[node->order]);
			}
	}
	free(nodes);
	free(reached);
	return joined;
}

CUresult
sw_cuStreamEndCapture(CUstream handle, CUgraph *out)
{
	CUresult result = CUDA_SUCCESS;
	STREAM(stream, handle);

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *capture = stream->capture;
	struct session *session = capture ? capture->session : NULL;
	if (!capture)
		result = CUDA_ERROR_ILLEGAL_STATE;
	else if (session->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(session->thread, pthread_self()))
		result = CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
	else if (session->origin != stream)
		result = invalidate(session, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
	if (result == CUDA_SUCCESS) {
		if (session->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
			result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
		else if (!all_joined(session))
			result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
		*out = result == CUDA_SUCCESS ? session->graph->handle : NULL;
		if (result != CUDA_SUCCESS && session->owns_graph)
			sw_graph_free(session->graph);
		session->over = true;
		for (struct sw_capture *c = streams, *next; c; c = next) {
			next = c->next;
			if (c->session == session && c != capture)
				leave(c);
		}
		leave(capture);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
	CUresult result = CUDA_SUCCESS;
	STREAM(stream, handle);

	pthread_mutex_lock(&sw_graph_lock);
	*status = stream->capture ? stream->capture->session->status : CU_STREAM_CAPTURE_STATUS_NONE;
	if (stream == ctx->legacy)
		for (struct sw_capture *c = streams; c; c = c->next)
			if (c->stream->ctx == ctx && !(c->stream->flags & CU_STREAM_NON_BLOCKING))
				result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph, const CUgraphNode **deps,
                             const CUgraphEdgeData **data, size_t *count)
{
	CUresult result = sw_cuStreamIsCapturing(handle, status);
	if (result != CUDA_SUCCESS)
		return result;
	STREAM(stream, handle);

	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *capture = stream->capture;
	if (capture && *status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
		static const CUgraphEdgeData plain;
		if (id)
			*id = capture->session->id;
		if (graph)
			*graph = capture->session->graph->handle;
		if (deps)
			*deps = capture->tail;
		if (data)
			*data = capture->data;
		if (count)
			*count = capture->count;
		for (uint32_t i = 0; deps && !data && i < capture->count; i++)
			if (memcmp(&capture->data[i], &plain, sizeof(plain)) != 0)
				result = CUDA_ERROR_LOSSY_QUERY;
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus *status, uint64_t *id, CUgraph *graph, const CUgraphNode **deps,
                             size_t *count)
{
	return sw_cuStreamGetCaptureInfo_v3(handle, status, id, graph, deps, NULL, count);
}

CUresult
sw_cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus *status, uint64_t *id)
{
	return sw_cuStreamGetCaptureInfo_v3(handle, status, id, NULL, NULL, NULL, NULL);
}

CUresult
sw_cuStreamUpdateCaptureDependencies_v2(CUstream handle, CUgraphNode *deps, const CUgraphEdgeData *data, size_t count, unsigned flags)
{
	CUresult result = CUDA_SUCCESS;
	STREAM(stream, handle);

	if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (count && !deps))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&sw_graph_lock);
	struct sw_capture *capture = stream->capture;
	if (!capture || capture->session->status != CU_STREAM_CAPTURE_STATUS_ACTIVE)
		result = CUDA_ERROR_ILLEGAL_STATE;
	for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++) {
		struct sw_node *node = sw_node_get(deps[i]);
		if (!node || node->graph != capture->session->graph)
			result = CUDA_ERROR_INVALID_VALUE;
	}
	if (result == CUDA_SUCCESS) {
		if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES)
			capture->count = 0;
		for (size_t i = 0; result == CUDA_SUCCESS && i < count; i++)
			result = tail_add(capture, deps[i], data ? &data[i] : NULL);
	}
	pthread_mutex_unlock(&sw_graph_lock);
	return result;
}

CUresult
sw_cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *deps, size_t count, unsigned flags)
{
	return sw_cuStreamUpdateCaptureDependencies_v2(stream, deps, NULL, count, flags);
}
