/*
 * A random program for the driver API, and a model beside it that knows what memory must hold: what the files of test_model share.
 *
 * A world is what a program has: streams, events, buffers, modules, graphs. Each step draws from (seed, step) alone, so that a step can be
 * left out and the others stay what they are. Every call is a line of the trace: what was asked, by the names of slots instead of handles
 * and addresses, the CUresult, and what it gave. Two runs of a seed print the same lines, on whatever device: the few facts that time
 * decides (is it done yet?) are printed as "?".
 *
 * The model needs no device: because no two pieces of work that touch a buffer are unordered (model_order.c keeps vector clocks and adds
 * events, waits and synchronisation where they would be), doing them at the time of the call gives the values that any device has to give.
 */
#ifndef TESTS_BRIDGE_MODEL_H
#define TESTS_BRIDGE_MODEL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/api/lib.h"

#define THREADS 3
#define STREAMS 10  /* 0 legacy; 1..THREADS per-thread; the rest are made */
#define MADE_STREAMS (1 + THREADS)
#define EVENTS 6
#define MODULES 2
#define GRAPHS 3
#define LINES 40    /* orders of work: a made stream is one, and its slot's next stream another */
#define DEVICE_BUFFERS 8
#define BUFFERS 20
#define GRAPH_WORK 32

/* Buffer slots. A cell is a word that host functions alone change; a global is a module's variable. */
enum { FIRST_PINNED = DEVICE_BUFFERS, FIRST_PAGEABLE = 12, FIRST_CELL = 14, FIRST_GLOBAL = 18 };

enum buffer_kind { FREE, DEVICE, POOL, PINNED, PAGEABLE, CELL, GLOBAL };

struct buffer {
	enum buffer_kind kind;
	uint64_t address;
	size_t size, pitch;
	unsigned generation; /* of the slot: another buffer, another number */
	bool registered;     /* pinned by cuMemHostRegister */
	uint8_t *model;      /* what it must hold once all work is done */
};

struct clock {
	uint32_t at[LINES]; /* work of each line that is known to be done */
};

/* Who touched a buffer last. */
struct access {
	uint32_t read[LINES], write[LINES];
};

/* Clocks and accesses of what runs, or of what is being captured. */
struct order {
	struct clock line[LINES];
	struct access access[BUFFERS];
};

struct stream {
	CUstream handle;
	unsigned line, flags;
	bool alive, captured;
};

struct event {
	CUevent handle;
	unsigned flags;
	bool alive, recorded, in_capture;
	struct clock clock;
};

enum work_kind { FILL, COPY, MIX, BUMP, NOTE };

/* A piece of device work, as the call and the model need it. */
struct work {
	enum work_kind kind;
	unsigned dst, src;                     /* buffers; MIX reads src; FILL, BUMP and NOTE have dst alone */
	unsigned dst_generation, src_generation;
	size_t dst_at, src_at, dst_pitch, src_pitch, width, height; /* bytes; FILL: width in elements */
	uint32_t element, value, count, a, b;
	unsigned module, module_generation;
};

struct module {
	CUmodule handle;
	CUfunction mix, bump, poke, bounded, trap;
	bool alive;
	unsigned generation;
};

struct graph {
	CUgraph graph;
	CUgraphExec exec;
	bool alive, executable;
	unsigned count, exec_count;
	struct work work[GRAPH_WORK], exec_work[GRAPH_WORK];
};

enum feature { CAPTURE_COPIES = 1, MAPPED = 2 }; /* what not every transport has; the same in every run that is compared */

struct world {
	char name[32]; /* the seed's, and which of two worlds it is */
	uint64_t seed, random;
	unsigned step, thread, threads, steps, features;
	int aim;         /* the stream that pick_stream() gives; -1: any */
	bool concurrent; /* another world runs beside this one, on the same device */
	FILE *out;
	unsigned failures;
	bool may_poison; /* a kernel of this seed fails */
	bool poisoned;   /* the context has failed, and a call has said so */
	unsigned resets; /* of the primary context */

	CUdevice device;
	CUcontext context;
	struct buffer buffers[BUFFERS];
	struct stream streams[STREAMS];
	struct event events[EVENTS];
	struct module modules[MODULES];
	struct graph graphs[GRAPHS];
	unsigned lines;          /* used */
	struct clock host;       /* what the program knows to be done */
	struct order now;

	struct {
		bool active;
		unsigned origin, thread, left; /* slot of the stream; steps until it is ended */
		CUstreamCaptureMode mode;
		struct order order;
		unsigned count;
		struct work work[GRAPH_WORK];
	} capture;

	CUstream stale_stream;
	CUevent stale_event;
	CUmodule stale_module;
	CUfunction stale_function;
	CUgraph stale_graph;
	CUgraphExec stale_exec;
	CUcontext stale_context;
	int forbidden[BUFFERS]; /* what a call inside a host function gave; -1: none was made */
	CUdeviceptr stale_pointer; /* 0 when it may be somebody's again */
};

/* test_model.c */
void begin_world(struct world *w); /* the first objects, in a context without any */
unsigned draw(struct world *w, unsigned n); /* 0 .. n-1 */
bool chance(struct world *w, unsigned percent);
__attribute__((format(printf, 2, 3))) void say(struct world *w, const char *format, ...);   /* to the trace */
__attribute__((format(printf, 2, 3))) void wrong(struct world *w, const char *format, ...); /* what the model does not allow */
uint32_t checksum(const void *bytes, size_t size);
extern const char model_ptx[];

/* The result of a call, after its line was said. The call comes first, so that the text may show what it gave. */
#define RUN(w, call, ...) \
	({ \
		CUresult result_ = (call); \
		say_call(w, #call, result_, " " __VA_ARGS__); \
		result_; \
	})
__attribute__((format(printf, 4, 5))) void say_call(struct world *w, const char *call, CUresult result, const char *format, ...);
/* A call that must succeed. */
#define MUST(w, call, ...) \
	({ \
		CUresult must_ = RUN(w, call, __VA_ARGS__); \
		if (must_ != CUDA_SUCCESS && !(w)->poisoned && !(w)->capture.active) \
			wrong(w, "%.40s must succeed", #call); \
		must_; \
	})
/* A call that must not. */
#define MUST_FAIL(w, call, ...) \
	({ \
		CUresult fail_ = RUN(w, call, __VA_ARGS__); \
		if (fail_ == CUDA_SUCCESS && !(w)->poisoned) \
			wrong(w, "%.60s must fail", #call); \
		fail_; \
	})

/* A question whose answer time decides, unless the model knows that what it asks about is done. */
#define QUERY(w, known, call, ...) \
	({ \
		CUresult query_ = (call); \
		bool open_ = !(known) && (query_ == CUDA_SUCCESS || query_ == CUDA_ERROR_NOT_READY); \
		say_call(w, #call, open_ ? (CUresult)-1 : query_, " " __VA_ARGS__); \
		if ((known) && query_ == CUDA_ERROR_NOT_READY) \
			wrong(w, "%.40s: it is done", #call); \
		query_; \
	})

/* A call that must fail with this. */
#define FAILS(w, error, call, ...) \
	({ \
		CUresult fails_ = RUN(w, call, __VA_ARGS__); \
		if (fails_ != (error) && !(w)->poisoned && !(w)->capture.active) \
			wrong(w, "%.60s must give %d", #call, error); \
		fails_; \
	})

/* model_order.c */
struct use {
	unsigned buffer;
	bool write;
};
/* The work's uses, at most two. */
unsigned work_uses(const struct work *work, struct use uses[2]);
/* Makes work on stream `s` that uses these buffers ordered behind what it conflicts with; false: leave it. */
bool order_before(struct world *w, unsigned s, const struct use *uses, unsigned count);
/* The work was issued. */
void order_issued(struct world *w, unsigned s, const struct use *uses, unsigned count);
/* The clock of a stream's next work. */
struct clock order_clock(struct world *w, unsigned s);
void order_join(struct clock *to, const struct clock *from);
/* All work was waited for. */
void order_all_done(struct world *w);
/* Whether all that touched the buffer (writes alone, if `for_reading`) is known to be done. */
bool order_is_done(const struct world *w, unsigned buffer, bool for_reading);
bool order_clock_is_done(const struct world *w, const struct clock *clock);
void order_forget(struct world *w, unsigned buffer); /* the slot has another buffer */
unsigned order_new_line(struct world *w);            /* LINES: none is left */
/* Records an event in the model. */
void order_record(struct world *w, unsigned s, struct event *e);
void order_wait(struct world *w, unsigned s, struct event *e);

/* model_memory.c */
void memory_step(struct world *w);
void copy_step(struct world *w);
void fill_step(struct world *w);
void check_step(struct world *w);
void check_all(struct world *w);
void info_step(struct world *w);
unsigned find_buffer(struct world *w, unsigned first, unsigned end, unsigned kinds); /* mask of 1 << kind; BUFFERS: none */
void occupy(struct world *w, unsigned b, enum buffer_kind kind, uint64_t address, size_t size);
void vacate(struct world *w, unsigned b);
CUresult synchronize(struct world *w); /* everything */
void check(struct world *w, unsigned b);
void drop_memory(struct world *w); /* the program forgets it */
/* Issues work on a stream, by one of the calls that do it; on success the model does it too, or notes it for the graph. */
bool issue(struct world *w, unsigned s, struct work *work, bool sync);
void apply(struct world *w, const struct work *work);
CUstream pick_handle(struct world *w, unsigned s); /* of stream s: NULL also names the legacy one */

/* model_stream.c */
void stream_step(struct world *w);
void event_step(struct world *w);
void poll_step(struct world *w);
void launch_step(struct world *w);
void callback_step(struct world *w);
void gate_step(struct world *w);
void module_step(struct world *w);
void capture_step(struct world *w);
void graph_step(struct world *w);
void end_capture(struct world *w);
unsigned pick_stream(struct world *w);
CUresult launch_work(struct world *w, unsigned s, const struct work *work);
void note_work(struct world *w, unsigned s, const struct work *work, CUresult *result);
void load_module(struct world *w, unsigned m);

/* model_wrong.c */
void wrong_step(struct world *w);
void context_step(struct world *w);
void poison_step(struct world *w);

#endif
