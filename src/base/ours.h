/*
 * How a library tells that it is farwarp's own libcuda.so.1 and not a driver: cuGetExportTable answers a table of this id. No driver knows
 * it, and nothing is exported for it.
 */
#ifndef FW_BASE_OURS_H
#define FW_BASE_OURS_H

#define FW_OURS_ID "farwarp library." /* 16 bytes, without the NUL */

#endif
