/*
 * The 637 exported names, all generated from api/cuda.api. Nothing is decided here.
 */
#include "client.h"

#include "client_exports.inc"
