/* Files in memory: their size, where a limit on files of this process counts for them too. */
#ifndef FW_BASE_FILE_H
#define FW_BASE_FILE_H

#include <stdint.h>

/* ftruncate(), but EFBIG beyond RLIMIT_FSIZE instead of a signal that ends the program (setrlimit(2), SIGXFSZ). */
int fw_file_resize(int fd, uint64_t size);

#endif
