/*
 * A worker's serving of records, in process, fed with what no honest client sends: recorded conversations with mutations, and calls made of
 * the table's rows with values that other answers gave. Includes worker.c itself and stands in for the rings below it.
 *
 *	hostile MESSAGES SEED FILE...
 *
 * A child at a time serves a conversation and dies with it, as workers do. A child that ends by a signal or by a sanitizer is a finding: it
 * is told with its number, and
 *
 *	hostile -1 SEED NUMBER FILE...
 *
 * runs that one alone. hostile --addresses tries every call that takes an address with addresses of the worker's own. A child that hangs has been told to wait by a message (a value that nobody writes, a kernel that does not end):
 * that is its client's own affair, and it is counted.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((noreturn)) static void hostile_leave(int status);
#define _exit hostile_leave
#include "src/server/worker.c"
#undef _exit
#include "call/sizes.h"

#define HANG_S 3

/* ---- below the worker: one channel whose answers are kept ----------------------------------------------------------- */

/* Rings are only told apart. */
#define SESSION_RING ((struct wire_ring *)&channel_wire)
#define LINE_RING ((struct wire_ring *)&line_wire)

static struct wire_channel channel_wire, line_wire;
static uint64_t answer_space[(sizeof(struct wire_record) + WIRE_PAYLOAD_MAX) / 8 + 1];
static uint8_t last_answer[65536]; /* its beginning */
static size_t last_size;
static jmp_buf out_of_session;
static pthread_t session_thread;

struct wire_record *
wire_reserve(struct wire_ring *ring, uint32_t size)
{
	static __thread struct wire_record *space; /* what the device asks of the client: nobody reads it */

	if (size > WIRE_PAYLOAD_MAX)
		return NULL;
	if (ring == SESSION_RING)
		return (struct wire_record *)answer_space;
	if (!space)
		space = malloc(sizeof(answer_space));
	return space;
}

void
wire_publish(struct wire_ring *ring, struct wire_record *record)
{
	if (ring != SESSION_RING || record->flags & (SESSION_OUTPUT | SESSION_LOG))
		return;
	size_t size = record->size < sizeof(last_answer) - last_size ? record->size : sizeof(last_answer) - last_size;
	memcpy(last_answer + last_size, record->payload, size);
	last_size += size;
}

void
wire_publish_wake(struct wire_ring *ring, struct wire_record *record)
{
	wire_publish(ring, record);
}

const uint8_t *
wire_wait(struct wire_ring *ring, struct wire_record *header, int timeout_ms)
{
	static const uint8_t zeros[SESSION_CHUNK];

	(void)ring;
	(void)timeout_ms;
	*header = (struct wire_record){ .size = sizeof(zeros) };
	return zeros;
}

void
wire_release(struct wire_ring *ring)
{
	(void)ring;
}

bool
wire_alive(const struct wire_link *link)
{
	(void)link;
	return true;
}

/* Bytes beside the records: zeros come, nobody takes what goes. */
#define BULK_MAX (1u << 20)
#define BULK_PART 65536u

static bool
in_pieces(size_t size, wire_piece_fn piece, void *user)
{
	static __thread uint8_t part[BULK_PART];

	for (size_t at = 0; piece && at < size && at < BULK_MAX; at += sizeof(part)) {
		memset(part, 0, sizeof(part));
		piece(user, at, part, size - at < sizeof(part) ? size - at : sizeof(part));
	}
	return size <= BULK_MAX; /* else the connection breaks there */
}

bool
wire_bulk_begin(struct wire_link *link, uint64_t *number)
{
	(void)link;
	*number = 0;
	return true;
}

bool
wire_bulk_send(struct wire_link *link, const void *bytes, size_t size, wire_piece_fn piece, void *user)
{
	(void)link;
	(void)bytes;
	return in_pieces(size, piece, user);
}

bool
wire_bulk_receive(struct wire_link *link, uint64_t number, void *bytes, size_t size, wire_piece_fn piece, void *user)
{
	(void)link;
	(void)number;
	if (bytes)
		memset(bytes, 0, size < BULK_MAX ? size : BULK_MAX);
	return in_pieces(size, piece, user);
}

/* The session would end here: the next message begins with what is left of it. */
static void
hostile_leave(int status)
{
	(void)status;
	if (!pthread_equal(pthread_self(), session_thread))
		_exit(0);
	longjmp(out_of_session, 1);
}

/* ---- conversations --------------------------------------------------------------------------------------------------- */

/* As hostile.py writes them, padded to 8. */
struct entry {
	uint32_t is_answer, size; /* of an answer: all of its parts */
	uint16_t kind, flags;
	uint32_t reserved;
	uint64_t context, more;
	uint8_t payload[];
};

struct conversation {
	uint8_t *bytes;
	size_t size;
};

static struct conversation conversations[64];
static unsigned conversation_count;

static void
load(const char *path)
{
	FILE *file = fopen(path, "rb");
	struct conversation *c = &conversations[conversation_count++];

	if (!file || conversation_count >= 64)
		exit(1);
	fseek(file, 0, SEEK_END);
	c->size = (size_t)ftell(file);
	c->bytes = malloc(c->size + 8);
	rewind(file);
	if (!c->bytes || fread(c->bytes, 1, c->size, file) != c->size)
		exit(1);
	fclose(file);
}

static const struct entry *
entry_at(const struct conversation *c, size_t at)
{
	const struct entry *e = (const struct entry *)(c->bytes + at);

	return at + sizeof(*e) <= c->size && at + sizeof(*e) + e->size <= c->size ? e : NULL;
}

static size_t
after(const struct entry *e, size_t at)
{
	return at + ((sizeof(*e) + e->size + 7) & ~7ul);
}

/* ---- values that mean something here ---------------------------------------------------------------------------------- */

#define KNOWN 4096

static struct {
	uint64_t then, now; /* in the recorded session, in this one */
} known[KNOWN];
static unsigned known_count;

static uint64_t random_state;

static uint64_t
rnd(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state >> 8;
}

static bool
is_value(uint64_t word)
{
	return word > 1ull << 32 && word < 1ull << 63;
}

static void
learn(const struct entry *recorded)
{
	size_t words = (last_size < recorded->size ? last_size : recorded->size) / 8;

	for (size_t n = 1; n < words && n < 512; n++) {
		uint64_t then, now;
		memcpy(&then, recorded->payload + 8 * n, 8);
		memcpy(&now, last_answer + 8 * n, 8);
		if (!is_value(then) || !is_value(now))
			continue;
		known[known_count % KNOWN].then = then;
		known[known_count % KNOWN].now = now;
		known_count++;
	}
}

/* What a call gave that was not recorded means something from now on. */
static void
learn_new(void)
{
	uint64_t word = 0;

	if (last_size > 8)
		memcpy(&word, last_answer + last_size - 8, 8);
	if (!is_value(word))
		return;
	known[known_count % KNOWN].then = known[known_count % KNOWN].now = word;
	known_count++;
}

static uint64_t
translate(uint64_t word)
{
	unsigned count = known_count < KNOWN ? known_count : KNOWN;
	uint64_t near = 64 << 20, found = word;

	if (!is_value(word))
		return word;
	for (unsigned n = 0; n < count; n++)
		if (word - known[n].then < near) {
			near = word - known[n].then;
			found = known[n].now + near;
		}
	return found;
}

static uint64_t
some_value(void)
{
	static const uint64_t edges[] = { 0, 1, 2, 3, 8, 31, 32, 255, 4095, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32,
		1ull << 40, 0x7fffffffffff, 1ull << 62, INT64_MAX, 1ull << 63, UINT64_MAX - 7, UINT64_MAX };
	unsigned count = known_count < KNOWN ? known_count : KNOWN;

	switch (rnd() % 8) {
	case 0: return edges[rnd() % (sizeof(edges) / sizeof(edges[0]))];
	case 1: return rnd() % 16;
	case 2: return rnd() << (rnd() % 56);
	case 3: return (uint64_t)(uintptr_t)&channel_wire; /* an address of the worker's own */
	default: break;
	}
	if (!count)
		return 0;
	/* Mostly recent ones: others have ended. */
	unsigned back = (unsigned)(rnd() % 3 ? rnd() % (count < 48 ? count : 48) : rnd() % count);
	uint64_t value = known[(known_count - 1 - back) % KNOWN].now;
	return rnd() % 8 ? value : value + (rnd() % 2 ? rnd() % 4096 : 1 + (rnd() & 3) * (1ull << 31));
}

/* ---- messages --------------------------------------------------------------------------------------------------------- */

static struct {
	struct wire_record header;
	uint8_t payload[WIRE_PAYLOAD_MAX] __attribute__((aligned(64)));
} message;

static void
put(const void *bytes, size_t size)
{
	size_t padded = (size + 7) & ~7ul;

	if (message.header.size + padded > WIRE_PAYLOAD_MAX)
		return;
	memset(message.payload + message.header.size, 0, padded);
	memcpy(message.payload + message.header.size, bytes, size);
	message.header.size += (uint32_t)padded;
}

static void
put_value(size_t size)
{
	uint64_t words[64];

	for (size_t n = 0; n < 64; n++)
		words[n] = some_value();
	put(words, size < sizeof(words) ? size : sizeof(words));
}

static void
put_elements(const struct call_param *p, uint64_t count)
{
	static const char *const names[] = { "add", "say", "text", "", "fill", "wait_for", "no such thing" };
	const char *name = names[rnd() % 7];

	if (rnd() % 16 == 0 && p->dir != CALL_DIR_INOUT) {
		put(&(uint64_t){ UINT64_MAX }, 8); /* NULL */
		return;
	}
	if (p->shape == CALL_SHAPE_STRING)
		count = strlen(name) + 1;
	put(&count, 8);
	if (p->dir != CALL_DIR_IN && p->dir != CALL_DIR_INOUT)
		return;
	if (p->shape == CALL_SHAPE_STRING) {
		put(name, count);
		return;
	}
	size_t bytes = (size_t)(count * p->size);
	if (bytes > 512)
		bytes = 512;
	uint64_t words[64];
	for (size_t n = 0; n < 64; n++)
		words[n] = some_value();
	put(words, bytes);
}

/* A call that its rows describe: shaped as it should be, with values that may mean something. */
static void
make_call(void)
{
	enum cuda_call_id call;
	uint64_t count = rnd() % 4;
	bool counts[24] = { false };

	do
		call = (enum cuda_call_id)(rnd() % CALL_COUNT);
	while (!call_packs(call));
	const struct call_desc *desc = &call_descs[call];
	message.header = (struct wire_record){ .kind = (uint16_t)call, .flags = rnd() % 4 ? SESSION_ANSWER : 0 };
	for (unsigned n = 0; n < desc->param_count; n++)
		if (desc->params[n].shape == CALL_SHAPE_ARRAY || desc->params[n].shape == CALL_SHAPE_ARRAY_AT)
			counts[desc->params[n].other] = true;
	for (unsigned n = 0; n < desc->param_count; n++) {
		const struct call_param *p = &desc->params[n];
		if (counts[n] && p->shape == CALL_SHAPE_VALUE) {
			put(&count, 8);
		} else if (counts[n]) {
			put(&(uint64_t){ 1 }, 8);
			put(&count, 8);
		} else if (p->shape == CALL_SHAPE_VALUE) {
			put_value(p->size);
		} else if (p->shape == CALL_SHAPE_ARRAY) {
			put_elements(p, count + (uint64_t)(int64_t)p->more);
		} else if (p->shape == CALL_SHAPE_SIZED) {
			put_elements(p, p->size == 8 ? 1 : rnd() % 2 ? 4 : 8);
		} else {
			put_elements(p, p->shape == CALL_SHAPE_ARRAY_AT ? count : 1);
		}
	}
}

static void
take_entry(const struct entry *e)
{
	message.header = (struct wire_record){ .kind = e->kind, .flags = e->flags, .context = translate(e->context), .more = e->more };
	put(e->payload, e->size);
	message.header.size = e->size;
	size_t words = e->size / 8 < 512 ? e->size / 8 : 512;
	for (size_t n = 0; n < words; n++) {
		uint64_t word;
		memcpy(&word, message.payload + 8 * n, 8);
		word = translate(word);
		memcpy(message.payload + 8 * n, &word, 8);
	}
}

static void
mutate(const struct conversation *c, size_t size)
{
	struct wire_record *h = &message.header;
	uint64_t value = some_value();
	/* Mostly its beginning: what follows is bytes of copies and images. */
	uint32_t at = h->size ? (uint32_t)(rnd() % (rnd() % 4 && h->size > 256 ? 256 : h->size)) : 0;

	switch (rnd() % 12) {
	case 0: case 1:
		message.payload[at] ^= (uint8_t)(1u << rnd() % 8);
		break;
	case 2:
		message.payload[at] = (uint8_t)rnd();
		break;
	case 3: case 4: case 5: case 6:
		if (h->size >= 8)
			memcpy(message.payload + (at & ~7u), &value, at + 8 <= h->size ? 8 : 1);
		break;
	case 7:
		h->size = at;
		break;
	case 8:
		put_value(8 + rnd() % 256);
		break;
	case 9:
		h->kind = (uint16_t)(rnd() % (SESSION_KINDS + 1));
		break;
	case 10:
		h->flags ^= (uint16_t)(1u << rnd() % 6);
		h->context = rnd() % 2 ? h->context : some_value();
		h->more = rnd() % 2 ? h->more : value;
		break;
	default: { /* the end of another one */
		size_t other = rnd() % (c->size ? c->size : 1), bytes = rnd() % 512;
		if (other + bytes <= size && at + bytes <= WIRE_PAYLOAD_MAX) {
			memcpy(message.payload + at, c->bytes + other, bytes);
			h->size = h->size > at + bytes ? h->size : (uint32_t)(at + bytes);
		}
	}
	}
}

/* -1: there is none. */
static int
sealed_file(uint64_t size)
{
	int fd = size <= 1ull << 50 ? memfd_create("pinned", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;

	if (fd >= 0 && (ftruncate(fd, (off_t)size) != 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) != 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Memory that a message names and nobody sent is waited for: mostly it comes here. */
static void
send_memory(void)
{
	struct session_memory memory;

	if (message.header.kind != SESSION_MEMORY || message.header.size < sizeof(memory) || rnd() % 64 == 0)
		return;
	memcpy(&memory, message.payload, sizeof(memory));
	if (memory.action != SESSION_MEMORY_FILE)
		return;
	int fd = sealed_file(memory.size);
	if (fd >= 0)
		sv_memory_arrived(fd, memory.size, memory.value);
	else
		message.header.kind = SESSION_FLUSH;
}

/* Grids that only take time. */
static void
make_small(void)
{
	struct session_launch *l = (struct session_launch *)message.payload;

	if (message.header.kind != CALL_cuLaunchKernel || message.header.size < sizeof(*l) || rnd() % 64 == 0)
		return;
	for (unsigned n = 0; n < 3; n++)
		l->grid[n] = l->grid[n] > 64 ? l->grid[n] % 64 : l->grid[n];
}

/* ---- a session -------------------------------------------------------------------------------------------------------- */

static struct shared {
	uint64_t messages, ended, calls;     /* of all children */
	uint64_t answers, alike;             /* that were recorded too, and with the same result */
	uint64_t current;                            /* what is being served: kind */
} *shared;

static void
serve_one(struct sv_channel *channel)
{
	struct wire_record header = message.header;

	last_size = 0;
	shared->messages++;
	shared->current = header.kind;
	/* On an exact copy, so that a checker sees a byte too many. */
	static uint8_t *volatile copy;
	copy = malloc(header.size ? header.size : 1);
	if (!copy)
		return;
	memcpy(copy, message.payload, header.size);
	header.ticket = turn;
	if (setjmp(out_of_session) == 0) {
		if (header.kind == SESSION_CALLBACKS)
			; /* there is one already */
		else if (header.kind == SESSION_BLOB_PART)
			take_blob_part(channel, &header, copy);
		else if (header.kind < SESSION_KINDS)
			take_record(channel, &header, copy);
		else
			broken("a record");
		shared->calls++;
	} else { /* what the process's end would have freed */
		shared->ended++;
		free(channel->blob);
		channel->blob = NULL;
		turn = header.ticket + 1;
	}
	free(copy);
}

static void
session(uint64_t seed, uint64_t number)
{
	random_state = (seed * 0x9e3779b97f4a7c15u) ^ ((number + 1) * 0xc2b2ae3d27d4eb4fu);
	for (unsigned n = 0; n < 8; n++)
		rnd();
	const struct conversation *c = &conversations[rnd() % conversation_count];
	static const unsigned rates[] = { 0, 2, 10, 50, 100, 300, 500 }; /* of mutated messages, in 1000 */
	unsigned rate = rates[rnd() % 7], made = rates[rnd() % 7];
	struct sv_channel channel = { .wire = &channel_wire, .inputs = malloc(WIRE_PAYLOAD_MAX), .scratch = malloc(SV_SCRATCH) };
	struct sv_options options = { .backend = SV_BACKEND_SOFT };
	struct session_hello hello = { .flags = 0 };
	struct session_welcome welcome = { .result = 0 };
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	session_thread = pthread_self();
	setenv("FARWARP_SOFT_MEM", "256M", 1);
	setenv("FARWARP_SOFT_THREADS", "1", 1);
	if (!channel.inputs || !channel.scratch || sv_device_open(&options, &hello, &welcome, &device) != CUDA_SUCCESS)
		_exit(1);
	channel.ops = device;
	channel_wire.to = SESSION_RING;
	line_wire.to = LINE_RING;
	for (uint64_t line = 0; line < SESSION_LINES; line++)
		sv_line_take(&line_wire, line);
	unsigned sick = 0, more = 300;
	uint64_t context = 0;
	for (size_t at = 0; at < c->size || (made && more--);) {
		if (at >= c->size) { /* all was said: more of what nobody said */
			make_call();
			message.header.context = context;
			alarm(HANG_S);
			serve_one(&channel);
			learn_new();
			continue;
		}
		const struct entry *e = entry_at(c, at);
		if (!e)
			break;
		at = after(e, at);
		if (e->is_answer)
			continue;
		/* What was recorded behind it, for what it tells of the values of then. */
		const struct entry *reply = entry_at(c, at);
		take_entry(e);
		context = message.header.context ? message.header.context : context;
		if (rnd() % 1000 < rate)
			for (unsigned n = 0; n == 0 || (n < 4 && rnd() % 2); n++)
				mutate(c, c->size);
		make_small();
		send_memory();
		alarm(HANG_S);
		serve_one(&channel);
		int64_t result = 0;
		if (last_size >= 8)
			memcpy(&result, last_answer, 8);
		if (reply && reply->is_answer && reply->size >= 8) {
			shared->answers++;
			shared->alike += memcmp(reply->payload, &result, 8) == 0;
			if (result == 0)
				learn(reply);
		}
		for (unsigned n = 0; n < 4 && rnd() % 1000 < made; n++) {
			make_call();
			message.header.context = context;
			if (rnd() % 4 == 0)
				mutate(c, c->size);
			serve_one(&channel);
			learn_new();
		}
		/* A context that has failed answers nothing new. */
		sick = result >= 700 && result < 720 ? sick + 1 : 0;
		if (sick > 20)
			break;
	}
	_exit(0);
}

/* ---- addresses of the worker's own ------------------------------------------------------------------------------------- */

static const char reach_ptx[] =
	".version 7.0\n.target sm_75\n.address_size 64\n"
	".visible .entry load(.param .u64 p, .param .u64 q)\n{\n"
	"	.reg .u64 %d<4>;\n	ld.param.u64 %d1, [p]; ld.param.u64 %d2, [q];\n"
	"	ld.u64 %d3, [%d1]; st.global.u64 [%d2], %d3; ret;\n}\n"
	".visible .entry store(.param .u64 p, .param .u64 q)\n{\n"
	"	.reg .u64 %d<4>;\n	ld.param.u64 %d1, [p]; mov.u64 %d3, 77;\n	st.u64 [%d1], %d3; ret;\n}\n"
	".visible .entry swap(.param .u64 p, .param .u64 q)\n{\n"
	"	.reg .u64 %d<4>;\n	ld.param.u64 %d1, [p]; mov.u64 %d3, 77;\n	atom.exch.b64 %d2, [%d1], %d3; ret;\n}\n"
	".visible .entry jump(.param .u64 p, .param .u64 q)\n{\n"
	"	.reg .u64 %d<2>;\n	ld.param.u64 %d1, [p];\n	P: .callprototype _ ();\n	call %d1, P; ret;\n}\n";

static FILE *told;
static struct sv_channel reach_channel;
static uint64_t reach_memory; /* of the device */
static CUcontext reach_context;

/* Makes the call that stands in `message`, and says its result: CUDA_ERROR_UNKNOWN if it ended the session. */
static CUresult
reach_serve(uint16_t kind)
{
	int64_t result = CUDA_ERROR_UNKNOWN;

	message.header.kind = kind;
	message.header.flags = SESSION_ANSWER;
	message.header.context = (uint64_t)(uintptr_t)reach_context;
	serve_one(&reach_channel);
	if (last_size >= 8)
		memcpy(&result, last_answer + (kind == CALL_cuMemcpyDtoH_v2 || kind == CALL_cuMemcpyDtoHAsync_v2 ? last_size - 8 : 0), 8);
	message.header.size = 0;
	return (CUresult)result;
}

static void
put_word(uint64_t word)
{
	put(&word, 8);
}

static CUresult
reach_launch(const char *kernel, CUmodule module, uint64_t address)
{
	CUfunction function = NULL;
	struct session_launch launch = { .grid = { 1, 1, 1 }, .block = { 1, 1, 1 }, .param_bytes = 16 };

	device->cuModuleGetFunction(&function, module, kernel);
	launch.function = (uint64_t)(uintptr_t)function;
	put(&launch, sizeof(launch));
	put_word(address);
	put_word(reach_memory);
	CUresult result = reach_serve(CALL_cuLaunchKernel);
	return result == CUDA_SUCCESS ? reach_serve(CALL_cuCtxSynchronize) : result;
}

/* A box of 8 bytes between `address` as this sort of memory, with these offsets, and the device's own. */
static CUresult
reach_box(uint16_t call, uint64_t address, CUmemorytype type, bool there, size_t x, size_t y, size_t pitch, size_t rows_in, size_t rows_out)
{
	CUDA_MEMCPY3D c = { .WidthInBytes = 8, .Height = 1, .Depth = 1 };

	if (there) {
		c.srcMemoryType = CU_MEMORYTYPE_DEVICE;
		c.srcDevice = reach_memory;
		c.dstMemoryType = type;
		c.dstHost = (void *)(uintptr_t)address;
		c.dstDevice = address;
		c.dstXInBytes = x;
		c.dstY = y;
		c.dstPitch = pitch;
	} else {
		c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
		c.dstDevice = reach_memory;
		c.srcMemoryType = type;
		c.srcHost = (void *)(uintptr_t)address;
		c.srcDevice = address;
		c.srcXInBytes = x;
		c.srcY = y;
		c.srcPitch = pitch;
	}
	put(&c, sizeof(c));
	put_word(0);
	put_word(rows_in);
	put_word(rows_out);
	if (rows_in)
		put("rowsrows", 8);
	return reach_serve(call);
}

static unsigned tried, reached;
static bool trying_own;     /* with an address that the client may use: that these calls can do something */
static unsigned succeeded;

static void
expect_error(const char *what, CUresult result, const volatile uint64_t *canary)
{
	if (trying_own) {
		succeeded += result == CUDA_SUCCESS;
		return;
	}
	tried++;
	if (result != CUDA_SUCCESS && (!canary || *canary == 0x5ec2e75ec2e7u))
		return;
	fprintf(told, "# reached: %s (%d)\n", what, (int)result);
	reached++;
}

/* A device of its own for what ends a context. */
static void
reach_one(uint64_t address, bool kernels, const volatile uint64_t *canary)
{
	static const uint16_t boxes[] = { CALL_cuMemcpy2D_v2, CALL_cuMemcpy2DUnaligned_v2, CALL_cuMemcpy2DAsync_v2, CALL_cuMemcpy3D_v2,
		CALL_cuMemcpy3DAsync_v2 };
	CUmodule module = NULL;
	CUstreamBatchMemOpParams op = { .writeValue = { .operation = CU_STREAM_MEM_OP_WRITE_VALUE_64, .address = address, .value64 = 77 } };
	CUDA_MEMSET_NODE_PARAMS fill = { .dst = address, .value = 77, .elementSize = 4, .width = 2, .height = 1, .pitch = 8 };
	CUgraph graph = NULL;

	if (kernels) {
		static const char *const names[] = { "load", "store", "swap", "jump" };
		if (device->cuModuleLoadData(&module, reach_ptx) != CUDA_SUCCESS) {
			expect_error("the kernels did not load", CUDA_SUCCESS, NULL);
			return;
		}
		CUresult control = reach_launch("load", module, reach_memory);
		expect_error("no kernel runs", control == CUDA_SUCCESS ? CUDA_ERROR_UNKNOWN : CUDA_SUCCESS, NULL);
		expect_error("kernel", reach_launch(names[rnd() % 4], module, address), canary);
		return;
	}
	put_word(address), put_word(8), put_word(0);
	expect_error("cuMemcpyDtoH", reach_serve(CALL_cuMemcpyDtoH_v2), canary);
	put_word(address), put_word(8), put_word(0);
	expect_error("cuMemcpyDtoHAsync", reach_serve(CALL_cuMemcpyDtoHAsync_v2), canary);
	put_word(address), put_word(8), put_word(0), put_word(77);
	expect_error("cuMemcpyHtoD", reach_serve(CALL_cuMemcpyHtoD_v2), canary);
	put_word(address), put_word(8), put_word(0), put_word(77);
	expect_error("cuMemcpyHtoDAsync", reach_serve(CALL_cuMemcpyHtoDAsync_v2), canary);
	for (unsigned there = 0; there < 2; there++) {
		uint64_t a = there ? address : reach_memory, b = there ? reach_memory : address;
		put_word(a), put_word(b), put_word(8);
		expect_error("cuMemcpyDtoD", reach_serve(CALL_cuMemcpyDtoD_v2), canary);
		put_word(a), put_word(b), put_word(8), put_word(0);
		expect_error("cuMemcpyDtoDAsync", reach_serve(CALL_cuMemcpyDtoDAsync_v2), canary);
		put_word(a), put_word(b), put_word(8), put_word(0);
		expect_error("cuMemcpy", reach_serve(CALL_cuMemcpy), canary);
		put_word(a), put_word(b), put_word(8), put_word(0);
		expect_error("cuMemcpyAsync", reach_serve(CALL_cuMemcpyAsync), canary);
		for (unsigned n = 0; n < sizeof(boxes) / sizeof(boxes[0]); n++)
			for (CUmemorytype type = CU_MEMORYTYPE_HOST; type <= CU_MEMORYTYPE_UNIFIED; type++)
				expect_error(call_descs[boxes[n]].name, reach_box(boxes[n], address, type, there, 0, 0, 8, 0, 0), canary);
	}
	put_word(address), put_word(77), put_word(8);
	expect_error("cuMemsetD8", reach_serve(CALL_cuMemsetD8_v2), canary);
	put_word(address), put_word(8), put_word(77), put_word(1), put_word(1);
	expect_error("cuMemsetD2D32", reach_serve(CALL_cuMemsetD2D32_v2), canary);
	put_word(0), put_word(1), put_word(1), put(&op, sizeof(op)), put_word(0);
	expect_error("cuStreamBatchMemOp", reach_serve(CALL_cuStreamBatchMemOp_v2), canary);
	put_word(0), put_word(address), put_word(77), put_word(0);
	expect_error("cuStreamWriteValue64", reach_serve(CALL_cuStreamWriteValue64_v2), canary);
	put_word(address);
	expect_error("cuMemFree", reach_serve(CALL_cuMemFree_v2), canary);
	put_word(address), put_word(0);
	expect_error("cuMemFreeAsync", reach_serve(CALL_cuMemFreeAsync), canary);
	device->cuGraphCreate(&graph, 0);
	put_word(1), put_word((uint64_t)(uintptr_t)graph), put_word(UINT64_MAX), put_word(0), put_word(1), put(&fill, sizeof(fill));
	put_word((uint64_t)(uintptr_t)reach_context);
	expect_error("cuGraphAddMemsetNode", reach_serve(CALL_cuGraphAddMemsetNode), canary);
	device->cuGraphDestroy(graph);
}

/* What lies around memory that is the client's for a moment: packed rows, and what it shares. */
static void
reach_around(void)
{
	struct session_memory file = { .action = SESSION_MEMORY_FILE, .size = 4096, .value = 5 };
	struct session_memory memory = { .action = SESSION_MEMORY_MAP, .address = 0x210000000000, .size = 4096 };
	int fd = sealed_file(file.size), other = open("/dev/zero", O_RDWR | O_CLOEXEC);

	sv_memory_arrived(other, file.size, 4);
	put(&(struct session_memory){ .action = SESSION_MEMORY_FILE, .size = 0, .value = 4 }, sizeof(file));
	expect_error("a file without seals", reach_serve(SESSION_MEMORY), NULL);
	sv_memory_arrived(fd, file.size, file.value);
	put(&file, sizeof(file));
	if (reach_serve(SESSION_MEMORY) != CUDA_SUCCESS)
		expect_error("a file was not shared", CUDA_SUCCESS, NULL);
	put(&memory, sizeof(memory));
	if (reach_serve(SESSION_MEMORY) != CUDA_SUCCESS)
		expect_error("memory was not shared", CUDA_SUCCESS, NULL);
	uint64_t far_off = (uint64_t)(uintptr_t)&channel_wire - memory.address;
	for (unsigned there = 0; there < 2; there++) {
		for (CUmemorytype type = CU_MEMORYTYPE_HOST; type <= CU_MEMORYTYPE_UNIFIED; type++) {
			expect_error("beyond shared memory", reach_box(CALL_cuMemcpy3D_v2, memory.address, type, there, far_off, 0, far_off + 8, 0, 0), NULL);
			expect_error("beyond shared memory, rows", reach_box(CALL_cuMemcpy2D_v2, memory.address, type, there, 0, far_off / 16, 16, 0, 0), NULL);
		}
		/* Offsets of packed rows do not count: the copy is made, of the rows alone. */
		tried++;
		if (reach_box(CALL_cuMemcpy3D_v2, 0, CU_MEMORYTYPE_HOST, there, 1 << 20, 1 << 10, 2 << 20, there ? 0 : 8, there ? 8 : 0) != CUDA_SUCCESS ||
		    (there && memcmp(last_answer + 8, "rowsrows", 8) != 0)) {
			fprintf(told, "# packed rows were not copied\n");
			reached++;
		}
	}
	put_word(memory.address + 4092), put_word(reach_memory), put_word(8), put_word(0);
	expect_error("over the end of shared memory", reach_serve(CALL_cuMemcpy), NULL);
	put_word(SESSION_FAR | 0x1000), put_word(reach_memory), put_word(1ull << 60), put_word(0);
	expect_error("all of the client's memory", reach_serve(CALL_cuMemcpy), NULL);
}

static int
addresses(void)
{
	struct sv_options options = { .backend = SV_BACKEND_SOFT };
	struct session_hello hello = { .flags = 0 };
	struct session_welcome welcome = { .result = 0 };
	static volatile uint64_t in_data = 0x5ec2e75ec2e7;
	volatile uint64_t on_stack = 0x5ec2e75ec2e7;
	volatile uint64_t *in_heap = malloc(8);
	CUdeviceptr memory = 0;

	session_thread = pthread_self();
	told = fdopen(dup(STDOUT_FILENO), "w"); /* the worker takes stdout for what kernels print */
	if (!told)
		return 1;
	setenv("FARWARP_LOG", "error:/dev/null", 0);
	reach_channel = (struct sv_channel){ .wire = &channel_wire, .inputs = malloc(WIRE_PAYLOAD_MAX), .scratch = malloc(SV_SCRATCH) };
	channel_wire.to = SESSION_RING;
	if (!in_heap || !reach_channel.inputs || !reach_channel.scratch || sv_device_open(&options, &hello, &welcome, &device) != CUDA_SUCCESS)
		return 1;
	reach_channel.ops = device;
	*in_heap = 0x5ec2e75ec2e7;
	if (device->primary_context(&reach_context, 0) != CUDA_SUCCESS || device->cuDevicePrimaryCtxRetain(&reach_context, 0) != CUDA_SUCCESS)
		return 1;
	fw_thread.ctx = reach_context;
	if (device->cuMemAlloc_v2(&memory, 4096) != CUDA_SUCCESS)
		return 1;
	reach_memory = memory;
	const volatile void *own[] = { in_heap, &on_stack, &in_data, (const void *)(uintptr_t)memcpy, &device, reach_channel.scratch, (const void *)1 };
	for (unsigned n = 0; n < sizeof(own) / sizeof(own[0]); n++)
		reach_one((uint64_t)(uintptr_t)own[n], false, n < 3 ? own[n] : NULL);
	reach_around();
	trying_own = true;
	reach_one(reach_memory + 1024, false, NULL);
	trying_own = false;
	fprintf(told, "# %u calls do something with an address of the client's\n", succeeded);
	if (succeeded < 35)
		reached++;
	/* A kernel that faults ends its context: a process for each. */
	for (unsigned n = 0; n < 24; n++) {
		fflush(told);
		pid_t pid = fork();
		int status;
		if (pid == 0) {
			char number[16], address[24];
			snprintf(number, sizeof(number), "%u", n);
			snprintf(address, sizeof(address), "%u", n % 6);
			execl("/proc/self/exe", "hostile", "--kernel", number, address, (char *)NULL);
			_exit(9);
		}
		waitpid(pid, &status, 0);
		tried++;
		if (status != 0) {
			fprintf(told, "# a kernel: status %x\n", (unsigned)status);
			reached++;
		}
	}
	fprintf(told, "%u tries, %u reached\n", tried, reached);
	fclose(told);
	return reached != 0;
}

/* One kernel with one address, in a process of its own. */
static int
one_kernel(unsigned number, unsigned which)
{
	struct sv_options options = { .backend = SV_BACKEND_SOFT };
	struct session_hello hello = { .flags = 0 };
	struct session_welcome welcome = { .result = 0 };
	static volatile uint64_t in_data = 0x5ec2e75ec2e7;
	volatile uint64_t on_stack = 0x5ec2e75ec2e7;
	volatile uint64_t *in_heap = malloc(8);
	CUdeviceptr memory = 0;

	session_thread = pthread_self();
	told = fdopen(dup(STDOUT_FILENO), "w"); /* the worker takes stdout for what kernels print */
	if (!told)
		return 1;
	random_state = number * 0x9e3779b97f4a7c15u + 1;
	reach_channel = (struct sv_channel){ .wire = &channel_wire, .inputs = malloc(WIRE_PAYLOAD_MAX), .scratch = malloc(SV_SCRATCH) };
	channel_wire.to = SESSION_RING;
	if (!in_heap || sv_device_open(&options, &hello, &welcome, &device) != CUDA_SUCCESS)
		return 1;
	reach_channel.ops = device;
	*in_heap = 0x5ec2e75ec2e7;
	if (device->cuDevicePrimaryCtxRetain(&reach_context, 0) != CUDA_SUCCESS)
		return 1;
	fw_thread.ctx = reach_context;
	if (device->cuMemAlloc_v2(&memory, 4096) != CUDA_SUCCESS)
		return 1;
	reach_memory = memory;
	const volatile void *own[] = { in_heap, &on_stack, &in_data, (const void *)(uintptr_t)memcpy, &device, reach_channel.scratch };
	reach_one((uint64_t)(uintptr_t)own[which % 6], true, which < 3 ? own[which] : NULL);
	fclose(told);
	return reached != 0;
}

int
main(int argc, char **argv)
{
	long wanted = argc > 2 ? atol(argv[1]) : 0;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	unsigned findings = 0, hung = 0, children = 0;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	if (argc == 2 && strcmp(argv[1], "--addresses") == 0)
		return addresses();
	if (argc == 4 && strcmp(argv[1], "--kernel") == 0)
		return one_kernel((unsigned)atoi(argv[2]), (unsigned)atoi(argv[3]));
	if (argc < 4) {
		fprintf(stderr, "hostile MESSAGES SEED FILE...\n");
		return 64;
	}
	for (int n = wanted < 0 ? 4 : 3; n < argc; n++)
		load(argv[n]);
	setenv("FARWARP_LOG", wanted < 0 ? "info" : "error:/dev/null", 0);
	if (wanted < 0)
		session(seed, strtoull(argv[3], NULL, 10));
	for (uint64_t number = 0; shared->messages < (uint64_t)wanted && findings < 10; number++, children++) {
		int status;
		fflush(stdout);
		pid_t pid = fork();
		if (pid == 0)
			session(seed, number);
		waitpid(pid, &status, 0);
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
			hung++;
		} else if (status != 0) {
			printf("# session %llu of seed %llu: %s %d while it served %s\n", (unsigned long long)number, (unsigned long long)seed,
			       WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
			       shared->current < CALL_COUNT ? call_descs[shared->current].name : "a record");
			findings++;
		}
	}
	printf("# %llu messages in %u sessions: %llu ended theirs, %llu were served; of %llu recorded answers %llu were alike; %u sessions were told to wait\n",
	       (unsigned long long)shared->messages, children, (unsigned long long)shared->ended, (unsigned long long)shared->calls,
	       (unsigned long long)shared->answers, (unsigned long long)shared->alike, hung);
	printf("%d findings\n", (int)findings);
	return findings != 0;
}
