/* Files in memory: setting their size. See file.h. */
#include "file.h"

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

int
fw_file_resize(int fd, uint64_t size)
{
	struct rlimit limit;

	if (size > INT64_MAX || (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur)) {
		errno = EFBIG;
		return -1;
	}
	return ftruncate(fd, (off_t)size);
}
