#include "thread.h"

__thread struct fw_thread fw_thread;
