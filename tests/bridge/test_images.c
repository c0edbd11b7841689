/*
 * The cache of images, as a worker's client meets it: what is kept is loaded for who has it too, and for nobody else, whatever is asked and
 * whatever has become of the files.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "tests/bridge/serving.h"
#include "tests/tap.h"

#define SIZE (300u << 10)

static char folder[64];
static struct session_welcome welcome;
static uint8_t image[SIZE + 1];
static uint8_t record[SIZE + 4096];

static bool
open_cache(uint64_t room)
{
	struct sv_options options = { .images = folder, .images_size = room };

	welcome = (struct session_welcome){ 0 };
	sv_images_open(&options, &welcome);
	return welcome.flags & SESSION_WELCOME_IMAGES;
}

static void
begin(uint64_t room)
{
	snprintf(folder, sizeof(folder), "/tmp/farwarp-images-XXXXXX");
	CHECK(mkdtemp(folder) != NULL);
	strcat(folder, "/a/b"); /* made by the worker */
	CHECK(open_cache(room));
}

static void
end(void)
{
	char command[128];

	*strstr(folder, "/a/b") = 0;
	snprintf(command, sizeof(command), "rm -r %s", folder);
	CHECK_INT(system(command), 0);
}

/* PTX text, so that its length is known; `number` makes it another one. */
static void
make_image(unsigned number)
{
	memset(image, ' ', SIZE);
	int length = snprintf((char *)image, SIZE, ".version 7.0\n.target sm_75\n.address_size 64\n// %u\n", number);
	image[length] = ' ';
	image[SIZE - 1] = '\n';
	image[SIZE] = 0;
}

static struct session_image
name_image(void)
{
	struct session_image name = { .size = SIZE + 1 };
	uint8_t digest[FW_DIGEST];

	fw_digest(image, SIZE + 1, digest);
	memcpy(name.name, digest, 32);
	fw_blake2b(welcome.nonce, sizeof(welcome.nonce), digest + 32, 32, name.proof, sizeof(name.proof));
	return name;
}

/* The first number of the answer to a call: the handle, of which this device has only 0. */
static uint64_t
serve(enum cuda_call_id call, struct call_writer *out)
{
	const struct serving *serving = NULL;
	uint64_t none = 0;
	CUresult result;

	call_put_array(out, &none, 0, 4);
	call_put_array(out, &none, 0, 8);
	if (call == CALL_cuLibraryLoadData)
		call_put_u64(out, 0);
	for (size_t n = 0; n < SERVINGS; n++)
		if (servings[n].call == call)
			serving = &servings[n];
	CHECK(!out->bad && serving_run(serving, record, out->at, &result));
	CHECK_INT(result, CUDA_SUCCESS);
	return serving_handle;
}

static void
send_bytes(void)
{
	struct call_writer out = { .data = record, .size = sizeof(record) };

	call_put_u64(&out, 0);
	call_put_u64(&out, 1);
	call_put_array(&out, image, SIZE + 1, 1);
	CHECK_INT(serve(CALL_cuModuleLoadDataEx, &out), 0);
	sv_images_settle();
}

/* Whether a client that says this gets the module without sending it. */
static bool
gets(struct session_image name)
{
	struct call_writer out = { .data = record, .size = sizeof(record) };

	call_put_u64(&out, SESSION_IMAGE_NAMED);
	call_put_u64(&out, 1);
	call_put_array(&out, &name, 1, sizeof(name));
	uint64_t module = serve(CALL_cuModuleLoadDataEx, &out);
	out = (struct call_writer){ .data = record, .size = sizeof(record) };
	call_put_u64(&out, SESSION_IMAGE_NAMED | 1);
	call_put_u64(&out, 1);
	call_put_array(&out, &name, 1, sizeof(name));
	uint64_t library = serve(CALL_cuLibraryLoadData, &out);
	CHECK(module == library && (module == 0 || module == SESSION_IMAGE_WANTED));
	return module == 0;
}

/* The path of the image's file, or of any if there is no image. */
static unsigned
count_files(char path[512])
{
	DIR *list = opendir(folder);
	unsigned count = 0;

	for (struct dirent *entry; list && (entry = readdir(list));)
		if (entry->d_name[0] != '.') {
			count++;
			if (path)
				snprintf(path, 512, "%s/%s", folder, entry->d_name);
		}
	if (list)
		closedir(list);
	return count;
}

TEST(kept_for_who_has_it)
{
	char path[512];
	struct stat st;

	begin(64 << 20);
	make_image(1);
	CHECK(!gets(name_image()));
	send_bytes();
	CHECK_INT(count_files(path), 1);
	CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
	CHECK(gets(name_image()));
	send_bytes();
	CHECK_INT(count_files(path), 1);
	make_image(2);
	CHECK(!gets(name_image()));
	CHECK(open_cache(64 << 20)); /* another worker, later */
	make_image(1);
	CHECK(gets(name_image()));
	end();
}

TEST(nobody_gets_what_he_has_not)
{
	begin(64 << 20);
	make_image(1);
	send_bytes();
	struct session_image right = name_image(), wrong;
	CHECK(gets(right));
	for (unsigned bit = 0; bit < 256; bit++) {
		wrong = right;
		wrong.proof[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(!gets(wrong));
		wrong = right;
		wrong.name[bit / 8] ^= (uint8_t)(1u << bit % 8);
		CHECK(!gets(wrong));
	}
	/* The name alone, and what can be made of it without the bytes. */
	wrong = right;
	memset(wrong.proof, 0, sizeof(wrong.proof));
	CHECK(!gets(wrong));
	memcpy(wrong.proof, right.name, sizeof(wrong.proof));
	CHECK(!gets(wrong));
	fw_blake2b(welcome.nonce, sizeof(welcome.nonce), right.name, sizeof(right.name), wrong.proof, sizeof(wrong.proof));
	CHECK(!gets(wrong));
	for (int more = -1; more <= 1; more += 2) {
		wrong = right;
		wrong.size += (uint64_t)more;
		CHECK(!gets(wrong));
	}
	wrong.size = UINT64_MAX;
	CHECK(!gets(wrong));
	/* What was heard of another session. */
	CHECK(open_cache(64 << 20));
	CHECK(!gets(right));
	CHECK(gets(name_image()));
	end();
}

TEST(files_that_are_not_what_they_say)
{
	char path[512];
	struct stat st;

	begin(64 << 20);
	make_image(1);
	for (unsigned way = 0; way < 6; way++) {
		send_bytes();
		CHECK(gets(name_image()));
		CHECK_INT(count_files(path), 1);
		CHECK(stat(path, &st) == 0);
		if (way < 3) { /* another byte at the end, in the middle, in the header */
			int fd = open(path, O_WRONLY);
			CHECK(fd >= 0 && pwrite(fd, "!", 1, way == 0 ? st.st_size - 2 : way == 1 ? st.st_size / 2 : 20) == 1);
			close(fd);
		} else if (way == 3) {
			CHECK(truncate(path, st.st_size - 1) == 0);
		} else {
			char other[600];
			snprintf(other, sizeof(other), "%s/../kept", folder);
			CHECK(rename(path, other) == 0);
			CHECK((way == 4 ? symlink(other, path) : mkfifo(path, 0600)) == 0);
		}
		CHECK(!gets(name_image()));
	}
	CHECK(unlink(path) == 0);
	send_bytes();
	CHECK(gets(name_image()));
	end();
}

/* A record that is cut is no call; one that names two images, or none, neither. */
TEST(cut_names)
{
	struct call_writer out = { .data = record, .size = sizeof(record) };
	struct session_image names[2] = { { .size = 1 } };
	CUresult result;

	begin(64 << 20);
	call_put_u64(&out, SESSION_IMAGE_NAMED);
	call_put_u64(&out, 1);
	call_put_array(&out, names, 1, sizeof(names[0]));
	CHECK_INT(serve(CALL_cuModuleLoadDataEx, &out), SESSION_IMAGE_WANTED);
	for (size_t size = 0; size < out.at; size++)
		for (size_t n = 0; n < SERVINGS; n++)
			if (servings[n].call == CALL_cuModuleLoadDataEx)
				CHECK(!serving_run(&servings[n], record, size, &result));
	for (unsigned count = 0; count <= 2; count += 2) {
		out = (struct call_writer){ .data = record, .size = sizeof(record) };
		call_put_u64(&out, SESSION_IMAGE_NAMED);
		call_put_u64(&out, 1);
		call_put_array(&out, names, count, sizeof(names[0]));
		call_put_array(&out, names, 0, 4);
		call_put_array(&out, names, 0, 8);
		for (size_t n = 0; n < SERVINGS; n++)
			if (servings[n].call == CALL_cuModuleLoadDataEx)
				CHECK(!serving_run(&servings[n], record, out.at, &result));
	}
	end();
}

/* Bytes that are announced and cannot come, as the link of these tests is dead, and sizes that nobody would take. */
TEST(announced)
{
	static const uint64_t sizes[] = { 0, 1, SIZE, SESSION_BLOB_MAX + 1, UINT64_MAX };
	CUresult result;

	for (size_t way = 0; way < sizeof(sizes) / sizeof(sizes[0]); way++) {
		struct call_writer out = { .data = record, .size = sizeof(record) };
		struct session_beside beside = { .size = sizes[way] };
		call_put_u64(&out, SESSION_IMAGE_BESIDE);
		call_put_u64(&out, 1);
		call_put_array(&out, &beside, 1, sizeof(beside));
		call_put_array(&out, &beside, 0, 4);
		call_put_array(&out, &beside, 0, 8);
		for (size_t n = 0; n < SERVINGS; n++)
			if (servings[n].call == CALL_cuModuleLoadDataEx)
				CHECK(!serving_run(&servings[n], record, out.at, &result));
	}
}

TEST(within_its_size)
{
	begin(4 * (SIZE + 100));
	for (unsigned number = 0; number < 9; number++) {
		struct timespec old[2] = { { .tv_sec = 1000 + number }, { .tv_sec = 1000 + number } };
		char path[512];
		make_image(number);
		send_bytes();
		CHECK(gets(name_image()));
		struct session_image name = name_image();
		int length = snprintf(path, sizeof(path), "%s/", folder);
		for (unsigned n = 0; n < 32; n++)
			length += snprintf(path + length, sizeof(path) - (size_t)length, "%02x", name.name[n]);
		CHECK(utimensat(AT_FDCWD, path, old, 0) == 0);
		CHECK(count_files(NULL) <= 4);
	}
	CHECK_INT(count_files(NULL), 4);
	for (unsigned number = 0; number < 9; number++) {
		make_image(number);
		CHECK(gets(name_image()) == (number >= 5));
	}
	end();
}

TEST(no_cache)
{
	begin(64 << 20);
	CHECK(chmod(folder, 0777) == 0);
	CHECK(!open_cache(64 << 20));
	end();
	snprintf(folder, sizeof(folder), "/proc/nowhere");
	CHECK(!open_cache(64 << 20));
	CHECK(!open_cache(0));
}

TEST_MAIN()
