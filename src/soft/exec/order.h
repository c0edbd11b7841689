/*
 * Two passes over a function's control-flow graph before it is decoded: the order of its blocks, and which registers can share memory.
 * They know blocks, edges and register numbers, not instructions.
 */
#ifndef SX_ORDER_H
#define SX_ORDER_H

#include <stdbool.h>
#include <stdint.h>

/* A graph: successors of block n are edges[first[n] .. first[n + 1]). Block 0 is the entry. */
struct sx_graph {
	uint32_t count;
	const uint32_t *first, *edges;
};

/*
 * Finds an order in which every loop is contiguous, its header first, and everything else comes after all that can lead to it, so that
 * running the lowest waiting place first brings diverged lanes together at the earliest point. Keeps the given order where that is
 * one. Blocks that cannot be reached come last. False when out of memory.
 */
bool sx_order_blocks(const struct sx_graph *graph, uint32_t *order);

/* A mention of a register: instructions in the order of their blocks. */
struct sx_ref {
	uint32_t reg;
	uint32_t place;    /* instruction, counted in layout order */
	uint32_t block;
	bool writes;
	bool kills;        /* writes it in all lanes that come by */
};

struct sx_slot_job {
	const struct sx_graph *graph;
	const uint32_t *order;      /* layout */
	const uint32_t *block_first, *block_last; /* places of each block's first and last instruction; last < first if it has none */
	const struct sx_ref *refs;  /* sorted by block, then place; of one instruction reads before writes */
	uint32_t ref_count;
	uint32_t reg_count;
	const uint8_t *size_class;  /* of each register, 0 to 3 */
	uint32_t *number;           /* out: each register's slot within its class, UINT32_MAX if it is never mentioned */
	uint32_t used[4];           /* out: slots of each class */
};

/* Gives registers slots so that no two that are live at one place share one, nor do a source and the destination of one instruction.
 * False when out of memory. */
bool sx_assign_slots(struct sx_slot_job *slots);

#endif
