/*
 * The cache of images: what clients sent over a network is kept in a folder, so that it travels once to a server and not once to a client.
 *
 * A file is named by the first half of the digest of its image's bytes; it holds the other half, then the bytes. A client that has the bytes names
 * them and proves that it has them: by a keyed hash of the other half, whose key the worker drew for this session. Who only knows a name learns
 * nothing, not even whether it is there: the answer is the same, send the bytes. The digest is the worker's own, over bytes that it received
 * or read into its memory, so that neither a client nor another client's worker can put anything else in a name's place.
 *
 * This file keeps within a size and a folder; it does not know what an image is.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/log.h"
#include "server/server.h"

#define MAGIC "farwarp image 1\n"
#define HALF 32 /* bytes of a digest's half */
#define NAME (2 * HALF + 1)
#define KEEPINGS_MAX 8   /* at a time; others are not kept */
#define SETTLE_MS 10000 /* how long the end of a session waits for them */
#define FILES_MAX 65536 /* that are looked at when room is made */

struct header {
	char magic[16];
	uint8_t witness[HALF]; /* the half of the digest that is no file's name */
};

static int folder = -1;
static uint64_t room;
static uint8_t nonce[SESSION_NONCE];

/* ---- the folder ---------------------------------------------------------------------------------------------------------- */

/* Where images are kept if nobody says where: a service manager's folder, else the user's. */
static bool
default_folder(char path[PATH_MAX])
{
	const char *given = getenv("CACHE_DIRECTORY"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	const struct {
		const char *place, *below;
	} places[] = { { given, "/images" }, { cache, "/farwarp/images" }, { home, "/.cache/farwarp/images" } };

	for (size_t n = 0; n < sizeof(places) / sizeof(places[0]); n++)
		if (places[n].place && *places[n].place == '/')
			return snprintf(path, PATH_MAX, "%s%s", places[n].place, places[n].below) < PATH_MAX;
	return false;
}

/* The folder and those above it that are not there. */
static void
make_folders(char *path)
{
	for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
		*at = 0;
		mkdir(path, 0700);
		*at = '/';
	}
	mkdir(path, 0700);
}

void
sv_images_open(const struct sv_options *options, struct session_welcome *welcome)
{
	char path[PATH_MAX];
	struct stat st;

	if (!options->images_size)
		return;
	if (options->images ? snprintf(path, sizeof(path), "%s", options->images) >= (int)sizeof(path) : !default_folder(path)) {
		fw_info("images", "no folder for a cache of images; --image-cache DIR names one");
		return;
	}
	make_folders(path);
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0) {
		fw_info("images", "no cache of images in %s: %s", path, strerror(errno));
	} else if (st.st_uid != geteuid() || st.st_mode & 022) {
		fw_warn("images", "no cache of images in %s: others than this user may write there", path);
	} else if (getrandom(nonce, sizeof(nonce), 0) == sizeof(nonce)) {
		folder = fd;
		room = options->images_size;
		memcpy(welcome->nonce, nonce, sizeof(nonce));
		welcome->flags |= SESSION_WELCOME_IMAGES;
		return;
	}
	if (fd >= 0)
		close(fd);
}

static void
file_name(const uint8_t name[HALF], char text[NAME])
{
	for (unsigned n = 0; n < HALF; n++)
		snprintf(text + 2 * n, 3, "%02x", name[n]);
}

/* ---- finding --------------------------------------------------------------------------------------------------------------- */

static bool
read_all(int fd, void *bytes, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = read(fd, (char *)bytes + at, size - at);
		if (got <= 0)
			return false;
		at += (size_t)got;
	}
	return true;
}

/* Whether the file is that image and the client has shown that it has it too; nothing but the header is read. */
static bool
is_proven(int fd, const struct session_image *image, struct header *header)
{
	uint8_t proof[sizeof(image->proof)], differs = 0;
	struct stat st;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != sizeof(*header) + image->size ||
	    !read_all(fd, header, sizeof(*header)) || memcmp(header->magic, MAGIC, sizeof(header->magic)) != 0)
		return false;
	fw_blake2b(nonce, sizeof(nonce), header->witness, sizeof(header->witness), proof, sizeof(proof));
	for (unsigned n = 0; n < sizeof(proof); n++)
		differs |= proof[n] ^ image->proof[n];
	return !differs;
}

int
sv_image_find(const struct session_image *image)
{
	struct header header;
	char name[NAME];

	if (folder < 0 || image->size > SESSION_BLOB_MAX)
		return -1;
	file_name(image->name, name);
	int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && !is_proven(fd, image, &header)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

bool
sv_image_read(int fd, const struct session_image *image, uint8_t *bytes)
{
	uint8_t digest[FW_DIGEST];
	struct header header;

	/* Into memory that nobody else can change, and only then looked at. */
	bool read = lseek(fd, 0, SEEK_SET) == 0 && read_all(fd, &header, sizeof(header)) && read_all(fd, bytes, image->size);
	if (read)
		fw_digest(bytes, image->size, digest);
	bool good = read && memcmp(digest, image->name, HALF) == 0 && memcmp(digest + HALF, header.witness, HALF) == 0;
	if (good)
		futimens(fd, NULL); /* what was not used for longest goes first */
	else
		fw_warn("images", "a kept image does not hold what its name says: its bytes are asked for");
	close(fd);
	return good;
}

/* ---- keeping --------------------------------------------------------------------------------------------------------------- */

struct kept {
	time_t used;
	uint64_t size;
	char name[NAME + 16];
};

static int
longest_unused_first(const void *a, const void *b)
{
	const struct kept *x = a, *y = b;

	return x->used < y->used ? -1 : x->used > y->used;
}

/* Removes what was not used for longest, until `size` bytes more are within the limit. */
static void
make_room(uint64_t size)
{
	struct kept *files = NULL;
	size_t count = 0, capacity = 0;
	uint64_t total = size;
	int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;

	for (struct dirent *entry; list && (entry = readdir(list)) && count < FILES_MAX;) {
		struct stat st;
		if (strlen(entry->d_name) >= sizeof(files->name) || fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
			continue;
		if (count == capacity) {
			capacity = capacity ? 2 * capacity : 256;
			struct kept *more = realloc(files, capacity * sizeof(*files));
			if (!more)
				break;
			files = more;
		}
		files[count] = (struct kept){ .used = st.st_mtime, .size = (uint64_t)st.st_size };
		snprintf(files[count].name, sizeof(files[count].name), "%s", entry->d_name);
		total += files[count++].size;
	}
	if (list)
		closedir(list);
	else if (fd >= 0)
		close(fd);
	if (count && total > room)
		qsort(files, count, sizeof(*files), longest_unused_first);
	for (size_t n = 0; n < count && total > room; n++)
		if (unlinkat(folder, files[n].name, 0) == 0)
			total -= files[n].size;
	free(files);
}

static bool
write_all(int fd, const void *bytes, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t put = write(fd, (const char *)bytes + at, size - at);
		if (put <= 0)
			return false;
		at += (size_t)put;
	}
	return true;
}

struct keeping {
	void *bytes;
	uint64_t size;
};
static unsigned keepings; /* atomic: that are under way */

static void
keep(const void *bytes, uint64_t size)
{
	static unsigned number; /* atomic */
	struct header header = { .magic = { 0 } };
	uint8_t digest[FW_DIGEST];
	char name[NAME], fresh[NAME];

	make_room(sizeof(header) + size);
	fw_digest(bytes, size, digest);
	file_name(digest, name);
	memcpy(header.magic, MAGIC, sizeof(header.magic));
	memcpy(header.witness, digest + HALF, HALF);
	/* One that a worker which was killed leaves behind is the oldest some day. */
	snprintf(fresh, sizeof(fresh), "new-%d-%u", (int)getpid(), __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED));
	int fd = openat(folder, fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool good = fd >= 0 && write_all(fd, &header, sizeof(header)) && write_all(fd, bytes, size);
	if (fd >= 0 && close(fd) != 0)
		good = false;
	good = good && renameat(folder, fresh, folder, name) == 0;
	if (!good) {
		fw_warn_once("images", "an image is not kept: %s", strerror(errno));
		if (fd >= 0)
			unlinkat(folder, fresh, 0);
	}
}

static void *
keep_thread(void *argument)
{
	struct keeping *keeping = argument;

	keep(keeping->bytes, keeping->size);
	free(keeping->bytes);
	free(keeping);
	__atomic_sub_fetch(&keepings, 1, __ATOMIC_RELEASE);
	return NULL;
}

bool
sv_image_keep(void *bytes, uint64_t size)
{
	pthread_t thread;

	if (folder < 0 || size < SESSION_IMAGE_MIN || size > room / 4)
		return false;
	struct keeping *keeping = malloc(sizeof(*keeping));
	bool begun = false;
	if (keeping && __atomic_add_fetch(&keepings, 1, __ATOMIC_RELAXED) <= KEEPINGS_MAX) {
		*keeping = (struct keeping){ bytes, size };
		begun = pthread_create(&thread, NULL, keep_thread, keeping) == 0;
	}
	if (begun) {
		pthread_detach(thread);
		return true;
	}
	if (keeping)
		__atomic_sub_fetch(&keepings, 1, __ATOMIC_RELAXED);
	free(keeping);
	return false;
}

void
sv_images_settle(void)
{
	for (unsigned ms = 0; __atomic_load_n(&keepings, __ATOMIC_ACQUIRE) && ms < SETTLE_MS; ms++)
		usleep(1000);
}
