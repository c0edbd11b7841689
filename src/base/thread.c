/* The one thread-local of the library (thread.h). */
#include "thread.h"

__thread struct fw_thread fw_thread;
