/*
 * Images: parsed modules linked together. Resolves names across modules, gives variables memory, initial values and places in the
 * shared window, describes kernels, and decodes what a kernel needs when it is first launched.
 */
#include "soft/exec/exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "soft/exec/run.h"

#define VARIABLE_ALIGN 256 /* of variables larger than this; smaller ones have their own alignment */
#define NONE UINT32_MAX

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* Open hash of names that other modules can see; values are indices into funcs or symbols. */
struct names {
	struct name { const char *text; uint32_t value; } *slots;
	size_t size;
};

static size_t
name_hash(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325u;
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 0x100000001b3u;
	return (size_t)(hash ^ hash >> 29);
}

static bool
names_init(struct names *names, size_t count)
{
	names->size = 64;
	while (names->size < count * 2)
		names->size *= 2;
	names->slots = calloc(names->size, sizeof(*names->slots));
	return names->slots != NULL;
}

/* The place of a name: the one that has it, or the empty one for it. */
static struct name *
names_at(const struct names *names, const char *text)
{
	size_t at = name_hash(text) & (names->size - 1);
	while (names->slots[at].text && strcmp(names->slots[at].text, text) != 0)
		at = (at + 1) & (names->size - 1);
	return &names->slots[at];
}

/* ---- small look-ups ---------------------------------------------------------------------------------------------- */

struct sx_func *
sx_image_func(const struct sx_image *image, uint32_t module, uint32_t index)
{
	if (module >= image->module_count || index >= image->modules[module]->func_count)
		return NULL;
	return image->func_resolved[image->func_base[module] + index];
}

struct sx_symbol *
sx_image_symbol(const struct sx_image *image, uint32_t module, uint32_t index)
{
	if (module >= image->module_count || index >= image->modules[module]->var_count)
		return NULL;
	return image->resolved[image->symbol_base[module] + index];
}

struct sx_func *
sx_image_func_at(const struct sx_image *image, uint64_t address)
{
	uint64_t offset = address - (uint64_t)(uintptr_t)image->funcs;
	if (offset % sizeof(struct sx_func) || offset / sizeof(struct sx_func) >= image->func_count)
		return NULL;
	return image->func_resolved[offset / sizeof(struct sx_func)];
}

uint64_t
sx_func_address(const struct sx_func *func)
{
	return (uint64_t)(uintptr_t)func;
}

size_t
sx_image_kernel_count(const struct sx_image *image)
{
	return image->kernel_count;
}

struct sx_func *
sx_image_kernel(const struct sx_image *image, size_t index)
{
	return index < image->kernel_count ? image->kernels[index] : NULL;
}

static int
name_to_kernel(const void *name, const void *at)
{
	return strcmp(name, (*(struct sx_func *const *)at)->info.name);
}

static int
kernels_by_name(const void *a, const void *b)
{
	return name_to_kernel((*(struct sx_func *const *)a)->info.name, b);
}

static int
name_to_var(const void *name, const void *at)
{
	return strcmp(name, (*(const struct sx_symbol *const *)at)->var.name);
}

static int
vars_by_name(const void *a, const void *b)
{
	return name_to_var((*(const struct sx_symbol *const *)a)->var.name, b);
}

struct sx_func *
sx_image_find_kernel(const struct sx_image *image, const char *name)
{
	struct sx_func *const *found = bsearch(name, image->kernels_by_name, image->kernel_count, sizeof(struct sx_func *), name_to_kernel);
	return found ? *found : NULL;
}

struct sx_func *
sx_image_find_func(const struct sx_image *image, const char *name)
{
	for (size_t n = 0; n < image->func_count; n++) {
		struct sx_func *func = image->func_resolved[n];
		if (func && func->ast->has_body && strcmp(func->ast->name, name) == 0 &&
		    (func->ast->entry || func->ast->linkage == PTX_LINK_VISIBLE || func->ast->linkage == PTX_LINK_WEAK))
			return func;
	}
	return NULL;
}

size_t
sx_image_var_count(const struct sx_image *image)
{
	return image->exported_count;
}

const struct sx_var *
sx_image_var(const struct sx_image *image, size_t index)
{
	return index < image->exported_count ? &image->exported[index]->var : NULL;
}

const struct sx_var *
sx_image_find_var(const struct sx_image *image, const char *name)
{
	const struct sx_symbol *const *found = bsearch(name, image->exported, image->exported_count, sizeof(struct sx_symbol *),
	                                               name_to_var);
	return found ? &(*found)->var : NULL;
}

const struct sx_func_info *
sx_func_info(const struct sx_func *func)
{
	return &func->info;
}

/* ---- linking: names ---------------------------------------------------------------------------------------------- */

static bool
link_fail(struct ptx_error *error, int line, const char *what, const char *name)
{
	error->line = line;
	snprintf(error->text, sizeof(error->text), "%s %.180s", what, name);
	return false;
}

/* How strongly a definition binds: a linker takes the strongest. 0: not visible outside. */
static int
strength(enum ptx_linkage linkage)
{
	switch (linkage) {
	case PTX_LINK_VISIBLE: return 3;
	case PTX_LINK_WEAK: return 2;
	case PTX_LINK_COMMON: return 1;
	default: return 0;
	}
}

/* Fills funcs and symbols from the modules. */
static bool
collect(struct sx_image *image)
{
	size_t funcs = 0, symbols = 0;

	for (size_t m = 0; m < image->module_count; m++) {
		image->func_base[m] = (uint32_t)funcs;
		image->symbol_base[m] = (uint32_t)symbols;
		funcs += image->modules[m]->func_count;
		symbols += image->modules[m]->var_count;
	}
	image->func_count = funcs;
	image->symbol_count = symbols;
	image->funcs = fw_arena_alloc(&image->arena, (funcs + 1) * sizeof(*image->funcs));
	image->func_resolved = fw_arena_alloc(&image->arena, (funcs + 1) * sizeof(*image->func_resolved));
	image->kernels = fw_arena_alloc(&image->arena, (funcs + 1) * sizeof(*image->kernels));
	image->kernels_by_name = fw_arena_alloc(&image->arena, (funcs + 1) * sizeof(*image->kernels));
	image->symbols = fw_arena_alloc(&image->arena, (symbols + 1) * sizeof(*image->symbols));
	image->resolved = fw_arena_alloc(&image->arena, (symbols + 1) * sizeof(*image->resolved));
	image->exported = fw_arena_alloc(&image->arena, (symbols + 1) * sizeof(*image->exported));
	if (!image->funcs || !image->func_resolved || !image->kernels || !image->kernels_by_name || !image->symbols || !image->resolved || !image->exported)
		return false;
	for (size_t m = 0; m < image->module_count; m++) {
		struct ptx_module *module = image->modules[m];
		for (uint32_t n = 0; n < module->func_count; n++)
			image->funcs[image->func_base[m] + n] = (struct sx_func){ .ast = &module->funcs[n], .image = image,
				.module = (uint32_t)m };
		for (uint32_t n = 0; n < module->var_count; n++)
			image->symbols[image->symbol_base[m] + n] = (struct sx_symbol){ .ast = &module->vars[n], .module = (uint32_t)m };
	}
	return true;
}

/* A definition with memory of its own? */
static bool
defines(const struct ptx_var *var)
{
	return var->linkage != PTX_LINK_EXTERN;
}

static bool
is_dynamic_shared(const struct ptx_var *var)
{
	return var->space == PTX_SPACE_SHARED && var->linkage == PTX_LINK_EXTERN && (var->unsized || var->size == 0);
}

/* Enters every visible definition, the strongest of each name. */
static bool
publish(struct sx_image *image, struct names *funcs, struct names *vars, struct ptx_error *error)
{
	for (uint32_t n = 0; n < image->func_count; n++) {
		const struct ptx_func *ast = image->funcs[n].ast;
		int strong = ast->entry && ast->has_body && ast->linkage == PTX_LINK_NONE ? 3 : strength(ast->linkage);
		if (!ast->has_body || !strong)
			continue;
		struct name *at = names_at(funcs, ast->name);
		const struct ptx_func *other = at->text ? image->funcs[at->value].ast : NULL;
		if (other && strength(other->linkage) == 3 && strong == 3)
			return link_fail(error, ast->line, "two definitions of function", ast->name);
		if (!other || strong > strength(other->linkage))
			*at = (struct name){ ast->name, n };
	}
	for (uint32_t n = 0; n < image->symbol_count; n++) {
		const struct ptx_var *ast = image->symbols[n].ast;
		int strong = strength(ast->linkage);
		if (!strong)
			continue;
		struct name *at = names_at(vars, ast->name);
		const struct ptx_var *other = at->text ? image->symbols[at->value].ast : NULL;
		if (other && strength(other->linkage) == 3 && strong == 3)
			return link_fail(error, ast->line, "two definitions of variable", ast->name);
		if (!other || strong > strength(other->linkage) ||
		    (strong == 1 && strength(other->linkage) == 1 && ast->size > other->size)) /* the largest common block */
			*at = (struct name){ ast->name, n };
	}
	return true;
}

/* The function with a body and this name in the same module. */
static struct sx_func *
own_body(struct sx_image *image, uint32_t module, const char *name)
{
	struct ptx_module *ast = image->modules[module];
	for (uint32_t n = 0; n < ast->func_count; n++)
		if (ast->funcs[n].has_body && strcmp(ast->funcs[n].name, name) == 0)
			return &image->funcs[image->func_base[module] + n];
	return NULL;
}

/* Decides for every declaration which definition it means. */
static bool
resolve(struct sx_image *image, const struct names *funcs, const struct names *vars, struct ptx_error *error)
{
	for (uint32_t n = 0; n < image->func_count; n++) {
		struct sx_func *func = &image->funcs[n];
		const struct name *global = names_at(funcs, func->ast->name);
		struct sx_func *chosen = func;
		if (func->ast->alias_of)
			chosen = own_body(image, func->module, func->ast->alias_of);
		else if (strength(func->ast->linkage) && func->ast->has_body && global->text)
			chosen = &image->funcs[global->value];
		else if (!func->ast->has_body) {
			chosen = own_body(image, func->module, func->ast->name);
			if (!chosen)
				chosen = global->text ? &image->funcs[global->value] : func;
		}
		/* What stays without a body is built in, or faults when it is called. */
		image->func_resolved[n] = chosen ? chosen : func;
	}
	for (uint32_t n = 0; n < image->symbol_count; n++) {
		struct sx_symbol *symbol = &image->symbols[n];
		const struct name *global = names_at(vars, symbol->ast->name);
		image->resolved[n] = symbol;
		if (is_dynamic_shared(symbol->ast))
			symbol->dynamic_shared = true;
		else if (symbol->ast->linkage != PTX_LINK_NONE && global->text)
			image->resolved[n] = &image->symbols[global->value];
		else if (!defines(symbol->ast))
			return link_fail(error, symbol->ast->line, "undefined symbol", symbol->ast->name);
	}
	return true;
}

/* ---- linking: memory --------------------------------------------------------------------------------------------- */

static bool
has_memory(const struct ptx_var *var)
{
	return var->space == PTX_SPACE_GLOBAL || var->space == PTX_SPACE_CONST || var->space == PTX_SPACE_TEX;
}

static uint64_t
align_up(uint64_t value, uint64_t align)
{
	return align > 1 ? (value + align - 1) / align * align : value;
}

/* Function-scope variables, as symbols. */
static bool
collect_locals(struct sx_image *image)
{
	for (uint32_t n = 0; n < image->func_count; n++) {
		struct sx_func *func = &image->funcs[n];
		const struct ptx_func *ast = func->ast;
		if (!ast->local_count)
			continue;
		func->locals = fw_arena_alloc(&image->arena, ast->local_count * sizeof(*func->locals));
		if (!func->locals)
			return false;
		for (uint32_t v = 0; v < ast->local_count; v++)
			func->locals[v] = (struct sx_symbol){ .ast = &ast->locals[v], .owner = func, .module = func->module,
				.dynamic_shared = is_dynamic_shared(&ast->locals[v]) };
	}
	return true;
}

/* Calls visit for each variable definition of the image, those inside functions too. */
static bool
each_symbol(struct sx_image *image, bool (*visit)(struct sx_image *, struct sx_symbol *, void *), void *user)
{
	for (uint32_t n = 0; n < image->symbol_count; n++)
		if (image->resolved[n] == &image->symbols[n] && !visit(image, &image->symbols[n], user))
			return false;
	for (uint32_t n = 0; n < image->func_count; n++)
		for (uint32_t v = 0; v < image->funcs[n].ast->local_count; v++)
			if (!visit(image, &image->funcs[n].locals[v], user))
				return false;
	return true;
}

struct placing {
	uint64_t total;
	bool constants; /* these are placed behind all others */
	bool managed;   /* some of them are */
};

static bool
place_symbol(struct sx_image *image, struct sx_symbol *symbol, void *user)
{
	const struct ptx_var *ast = symbol->ast;
	struct placing *placing = user;
	uint64_t *total = &placing->total, align = ast->align ? ast->align : 1;

	if (has_memory(ast) && (ast->space == PTX_SPACE_CONST) != placing->constants)
		return true;
	symbol->var = (struct sx_var){ .name = ast->name, .size = ast->size, .space = ast->space, .managed = ast->managed,
		.visible = strength(ast->linkage) > 0 };
	if (!has_memory(ast))
		return true;
	placing->managed |= ast->managed;
	if (ast->size >= VARIABLE_ALIGN && align < VARIABLE_ALIGN)
		align = VARIABLE_ALIGN;
	*total = align_up(*total, align);
	symbol->var.address = *total; /* an offset until the memory is there */
	if (ast->size > (uint64_t)1 << 40 || *total > (uint64_t)1 << 40)
		return false;
	*total += ast->size ? ast->size : 1;
	if (!symbol->owner)
		image->exported[image->exported_count++] = symbol;
	return true;
}

/* The value that a symbol's name has in an initialiser. */
static bool
symbol_value(struct sx_image *image, const struct sx_symbol *holder, const char *name, uint64_t *value)
{
	struct ptx_module *module = image->modules[holder->module];
	for (uint32_t n = 0; n < module->var_count; n++) {
		if (strcmp(module->vars[n].name, name) == 0) {
			*value = sx_image_symbol(image, holder->module, n)->var.address;
			return true;
		}
	}
	for (uint32_t n = 0; n < module->func_count; n++) {
		if (strcmp(module->funcs[n].name, name) == 0) {
			*value = sx_func_address(sx_image_func(image, holder->module, n));
			return true;
		}
	}
	for (uint32_t v = 0; holder->owner && v < holder->owner->ast->local_count; v++) {
		if (strcmp(holder->owner->ast->locals[v].name, name) == 0) {
			*value = holder->owner->locals[v].var.address;
			return true;
		}
	}
	return false;
}

static bool
initialise_symbol(struct sx_image *image, struct sx_symbol *symbol, void *user)
{
	const struct ptx_var *ast = symbol->ast;
	struct ptx_error *error = user;

	if (!has_memory(ast))
		return true;
	uint8_t *memory = (uint8_t *)(uintptr_t)symbol->var.address;
	if (ast->init)
		memcpy(memory, ast->init, ast->size);
	for (uint32_t n = 0; n < ast->reloc_count; n++) {
		const struct ptx_reloc *reloc = &ast->relocs[n];
		uint64_t value;
		if (!symbol_value(image, symbol, reloc->symbol, &value))
			return link_fail(error, reloc->line, "undefined symbol", reloc->symbol);
		value = (value + (uint64_t)reloc->addend) >> reloc->shift;
		if (reloc->size > sizeof(value) || reloc->offset > ast->size || ast->size - reloc->offset < reloc->size)
			return link_fail(error, reloc->line, "initialiser beyond the end of", ast->name);
		memcpy(memory + reloc->offset, &value, reloc->size);
	}
	return true;
}

static bool
move_symbol(struct sx_image *image, struct sx_symbol *symbol, void *user)
{
	if (has_memory(symbol->ast))
		symbol->var.address += (uint64_t)(uintptr_t)image->memory;
	return true;
}

static bool
allocate(struct sx_image *image, struct ptx_error *error)
{
	struct placing placing = { 0 };

	if (!collect_locals(image) || !each_symbol(image, place_symbol, &placing))
		return link_fail(error, 0, "out of memory for", "variables");
	placing.total = align_up(placing.total, VARIABLE_ALIGN);
	image->const_base = placing.total;
	placing.constants = true;
	if (!each_symbol(image, place_symbol, &placing))
		return link_fail(error, 0, "out of memory for", "variables");
	image->const_bytes = placing.total - image->const_base;
	if (placing.total) {
		image->memory = placing.managed ? sw_space_alloc_managed(placing.total, VARIABLE_ALIGN)
			: sw_space_alloc(placing.total, VARIABLE_ALIGN);
		if (!image->memory)
			return link_fail(error, 0, "out of memory for", "variables");
		image->const_base += (uint64_t)(uintptr_t)image->memory;
		each_symbol(image, move_symbol, NULL);
	}
	return each_symbol(image, initialise_symbol, error);
}

/* ---- linking: shared memory -------------------------------------------------------------------------------------- */

/* What a function names: edges of the call graph and shared variables. Built only if shared variables exist beyond kernels' own. */
struct reach {
	struct sx_func **callees;
	struct sx_symbol **shared;
	uint32_t callee_count, callee_capacity, shared_count, shared_capacity;
	bool indirect;
};

/* Adds a pointer to a growing list. False when out of memory. */
static bool
append(void *array, uint32_t *count, uint32_t *capacity, void *item)
{
	void ***list = array;
	if (*count == *capacity) {
		uint32_t more = *capacity ? *capacity * 2 : 8;
		void **bigger = realloc(*list, more * sizeof(*bigger));
		if (!bigger)
			return false;
		*list = bigger;
		*capacity = more;
	}
	(*list)[(*count)++] = item;
	return true;
}

/* Adds it unless the list has it; for short lists. */
static bool
push(void *array, uint32_t *count, uint32_t *capacity, void *item)
{
	void ***list = array;
	for (uint32_t n = 0; n < *count; n++)
		if ((*list)[n] == item)
			return true;
	return append(array, count, capacity, item);
}

static bool
scan_operand(struct sx_image *image, struct sx_func *func, const struct ptx_operand *operand, struct reach *reach)
{
	bool ok = true;

	if ((operand->kind == PTX_OP_SYMBOL || operand->kind == PTX_OP_ADDRESS) && operand->symbol_kind == PTX_SYM_FUNC) {
		struct sx_func *callee = sx_image_func(image, func->module, operand->symbol);
		if (callee)
			ok = push(&reach->callees, &reach->callee_count, &reach->callee_capacity, callee);
	} else if (operand->kind == PTX_OP_SYMBOL || (operand->kind == PTX_OP_ADDRESS && !operand->base_is_reg)) {
		struct sx_symbol *symbol = NULL;
		if (operand->symbol_kind == PTX_SYM_MODULE_VAR)
			symbol = sx_image_symbol(image, func->module, operand->symbol);
		else if (operand->symbol_kind == PTX_SYM_LOCAL_VAR && operand->symbol < func->ast->local_count)
			symbol = &func->locals[operand->symbol];
		if (symbol && symbol->ast->space == PTX_SPACE_SHARED && !symbol->dynamic_shared)
			ok = push(&reach->shared, &reach->shared_count, &reach->shared_capacity, symbol);
	}
	for (uint32_t n = 0; operand->elems && n < operand->count && ok; n++)
		ok = scan_operand(image, func, &operand->elems[n], reach);
	return ok;
}

static bool
scan_func(struct sx_image *image, struct sx_func *func, struct reach *reach)
{
	for (uint32_t n = 0; n < func->ast->insn_count; n++) {
		const struct ptx_insn *in = &func->ast->insns[n];
		bool call = strcmp(in->op, "call") == 0, direct = false;
		for (uint32_t o = 0; o < in->operand_count; o++) {
			direct |= in->operands[o].kind == PTX_OP_SYMBOL && in->operands[o].symbol_kind == PTX_SYM_FUNC;
			if (!scan_operand(image, func, &in->operands[o], reach))
				return false;
		}
		reach->indirect |= call && !direct;
	}
	return true;
}

/* Collects the shared variables that a kernel can reach into `all`. */
static bool
gather(struct sx_image *image, struct sx_func *kernel, const struct reach *reach, struct reach *all)
{
	uint32_t mark = ++image->mark;

	*all = (struct reach){ 0 };
	if (!append(&all->callees, &all->callee_count, &all->callee_capacity, kernel))
		return false;
	kernel->mark = mark;
	for (uint32_t n = 0; n < all->callee_count; n++) {
		const struct reach *r = &reach[all->callees[n] - image->funcs];
		for (uint32_t s = 0; s < r->shared_count; s++)
			if (!push(&all->shared, &all->shared_count, &all->shared_capacity, r->shared[s]))
				return false;
		for (uint32_t c = 0; c < r->callee_count; c++) {
			if (r->callees[c]->mark == mark)
				continue;
			r->callees[c]->mark = mark;
			if (!append(&all->callees, &all->callee_count, &all->callee_capacity, r->callees[c]))
				return false;
		}
		if (!r->indirect || all->indirect)
			continue;
		all->indirect = true; /* may call any device function */
		for (uint32_t f = 0; f < image->func_count; f++) {
			struct sx_func *func = &image->funcs[f];
			if (func->mark == mark || func->ast->entry || !func->ast->has_body)
				continue;
			func->mark = mark;
			if (!append(&all->callees, &all->callee_count, &all->callee_capacity, func))
				return false;
		}
	}
	return true;
}

static int
by_users(const void *a, const void *b)
{
	const struct sx_symbol *x = *(struct sx_symbol *const *)a, *y = *(struct sx_symbol *const *)b;
	if (x->users != y->users)
		return x->users > y->users ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

/* Puts one variable behind all that share a kernel with it and have a place. */
static void
place_one_shared(struct sx_image *image, const struct reach *kernels, struct sx_symbol *symbol, bool *has)
{
	uint64_t at = 0, end;

	for (size_t k = 0; k < image->kernel_count; k++) {
		has[k] = false;
		for (uint32_t t = 0; t < kernels[k].shared_count && !has[k]; t++)
			has[k] = kernels[k].shared[t] == symbol;
		if (has[k] && image->kernels[k]->info.static_shared > at)
			at = image->kernels[k]->info.static_shared;
	}
	at = align_up(at, symbol->ast->align);
	end = at + symbol->ast->size > UINT32_MAX / 2 ? UINT32_MAX / 2 : at + symbol->ast->size;
	symbol->shared_offset = (uint32_t)at;
	for (size_t k = 0; k < image->kernel_count; k++)
		if (has[k])
			image->kernels[k]->info.static_shared = (uint32_t)end;
}

/*
 * Gives shared variables their window offsets, those that most kernels use first. Kernels therefore pay for little more than what they
 * reach, and a device function sees one offset whichever kernel called it.
 */
static bool
place_shared(struct sx_image *image, const struct reach *kernels)
{
	struct sx_symbol **list = NULL;
	uint32_t count = 0, total = 0;
	bool *has = calloc(image->kernel_count + 1, sizeof(*has));

	for (size_t k = 0; k < image->kernel_count; k++)
		total += kernels[k].shared_count;
	list = malloc((total + 1) * sizeof(struct sx_symbol *));
	if (!list || !has) {
		free(list);
		free(has);
		return false;
	}
	for (size_t k = 0; k < image->kernel_count; k++) {
		for (uint32_t s = 0; s < kernels[k].shared_count; s++) {
			struct sx_symbol *symbol = kernels[k].shared[s];
			if (!symbol->users++) {
				symbol->order = count;
				list[count++] = symbol;
			}
		}
	}
	qsort(list, count, sizeof(struct sx_symbol *), by_users);
	for (uint32_t n = 0; n < count; n++)
		place_one_shared(image, kernels, list[n], has);
	free(list);
	free(has);
	return true;
}

static bool
note_shared(struct sx_image *image, struct sx_symbol *symbol, void *user)
{
	bool *some = user;
	if (symbol->ast->space == PTX_SPACE_SHARED && !symbol->dynamic_shared) {
		symbol->shared_offset = NONE;
		*some |= !symbol->owner || !symbol->owner->ast->entry;
	}
	return true;
}

/* The simple case: only kernels' own variables. */
static void
place_own_shared(struct sx_image *image)
{
	for (size_t k = 0; k < image->kernel_count; k++) {
		struct sx_func *kernel = image->kernels[k];
		uint64_t at = 0;
		for (uint32_t v = 0; v < kernel->ast->local_count; v++) {
			struct sx_symbol *symbol = &kernel->locals[v];
			if (symbol->ast->space != PTX_SPACE_SHARED || symbol->dynamic_shared)
				continue;
			at = align_up(at, symbol->ast->align);
			symbol->shared_offset = (uint32_t)at;
			at = at + symbol->ast->size > UINT32_MAX / 2 ? UINT32_MAX / 2 : at + symbol->ast->size;
		}
		kernel->info.static_shared = (uint32_t)at;
	}
}

static bool
lay_out_shared(struct sx_image *image, struct ptx_error *error)
{
	bool some = false, ok = true;

	each_symbol(image, note_shared, &some);
	if (!some) {
		place_own_shared(image);
		return true;
	}
	struct reach *reach = calloc(image->func_count + 1, sizeof(*reach));
	struct reach *kernels = calloc(image->kernel_count + 1, sizeof(*kernels));
	ok = reach && kernels;
	for (uint32_t n = 0; ok && n < image->func_count; n++)
		ok = scan_func(image, &image->funcs[n], &reach[n]);
	for (size_t k = 0; ok && k < image->kernel_count; k++)
		ok = gather(image, image->kernels[k], reach, &kernels[k]);
	ok = ok && place_shared(image, kernels);
	for (uint32_t n = 0; reach && n < image->func_count; n++) {
		free(reach[n].callees);
		free(reach[n].shared);
	}
	for (size_t k = 0; kernels && k < image->kernel_count; k++) {
		free(kernels[k].callees);
		free(kernels[k].shared);
	}
	free(reach);
	free(kernels);
	return ok || link_fail(error, 0, "out of memory for", "shared variables");
}

/* ---- linking: kernels -------------------------------------------------------------------------------------------- */

static uint32_t
product(const uint32_t v[3])
{
	uint64_t p = (uint64_t)(v[0] ? v[0] : 1) * (v[1] ? v[1] : 1) * (v[2] ? v[2] : 1);
	return v[0] ? p > 1024 ? 1024 : (uint32_t)p : 0;
}

/* An estimate: what a register allocator would need is about a quarter of the virtual registers, and there are 64 K for a block. */
static uint32_t
estimate_registers(const struct ptx_func *ast, uint32_t max_threads)
{
	uint32_t used = 16 + ast->insn_count / 16, room = 65536 / (max_threads ? max_threads : 1) / 8 * 8;
	if (used > room)
		used = room;
	if (ast->maxnreg && used > ast->maxnreg)
		used = ast->maxnreg;
	return used < 16 ? 16 : used > 255 ? 255 : used;
}

static void
describe(struct sx_func *func)
{
	const struct ptx_func *ast = func->ast;
	const struct ptx_module *module = ast->module;
	struct sx_func_info *info = &func->info;

	info->name = ast->name;
	info->param_count = ast->param_count;
	info->param_bytes = ast->param_bytes;
	info->params = ast->params;
	info->ptx_version = module->version;
	info->target = module->target;
	uint32_t threads = product(ast->reqntid);
	if (!threads)
		threads = product(ast->maxntid);
	info->max_threads = threads ? threads : 1024;
	for (int n = 0; n < 3; n++) {
		info->reqntid[n] = ast->reqntid[0] && !ast->reqntid[n] ? 1 : ast->reqntid[n];
		info->cluster[n] = ast->reqnctapercluster[0] && !ast->reqnctapercluster[n] ? 1 : ast->reqnctapercluster[n];
	}
	info->uses_clusters = ast->explicitcluster || ast->reqnctapercluster[0] || ast->maxclusterrank;
	info->registers = estimate_registers(ast, threads);
	uint64_t local = 0;
	for (uint32_t n = 0; n < ast->local_count; n++)
		if (ast->locals[n].space == PTX_SPACE_LOCAL)
			local = align_up(local, ast->locals[n].align) + ast->locals[n].size;
	info->local_bytes = local > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)align_up(local, 8);
	uint64_t constant = 0;
	for (uint32_t n = 0; n < module->var_count; n++)
		if (module->vars[n].space == PTX_SPACE_CONST)
			constant = align_up(constant, module->vars[n].align) + module->vars[n].size;
	info->const_bytes = (uint32_t)constant;
}

static void
collect_kernels(struct sx_image *image)
{
	for (uint32_t n = 0; n < image->func_count; n++) {
		struct sx_func *func = &image->funcs[n];
		describe(func);
		if (func->ast->entry && func->ast->has_body && image->func_resolved[n] == func)
			image->kernels[image->kernel_count++] = func;
	}
	memcpy(image->kernels_by_name, image->kernels, image->kernel_count * sizeof(*image->kernels));
	qsort(image->kernels_by_name, image->kernel_count, sizeof(*image->kernels), kernels_by_name);
}

static bool
link_modules(struct sx_image *image, struct ptx_error *error)
{
	struct names funcs = { .slots = NULL }, vars = { .slots = NULL };
	bool ok;

	image->func_base = fw_arena_alloc(&image->arena, (image->module_count + 1) * sizeof(*image->func_base));
	image->symbol_base = fw_arena_alloc(&image->arena, (image->module_count + 1) * sizeof(*image->symbol_base));
	ok = (image->func_base && image->symbol_base && collect(image) && names_init(&funcs, image->func_count) &&
	      names_init(&vars, image->symbol_count)) || link_fail(error, 0, "out of memory for", "the image");
	ok = ok && publish(image, &funcs, &vars, error) && resolve(image, &funcs, &vars, error);
	free(funcs.slots);
	free(vars.slots);
	if (!ok)
		return false;
	collect_kernels(image);
	if (!allocate(image, error) || !lay_out_shared(image, error))
		return false;
	qsort(image->exported, image->exported_count, sizeof(struct sx_symbol *), vars_by_name);
	return true;
}

struct sx_image *
sx_image_link(struct ptx_module **modules, size_t count, const struct sx_target *target, struct ptx_error *error)
{
	struct sx_image *image = calloc(1, sizeof(*image));
	struct ptx_module **kept = malloc((count + 1) * sizeof(*kept));

	if (!image || !kept) {
		for (size_t n = 0; n < count; n++)
			ptx_free(modules[n]);
		free(image);
		free(kept);
		link_fail(error, 0, "out of memory for", "the image");
		return NULL;
	}
	memcpy(kept, modules, count * sizeof(*kept));
	image->modules = kept;
	image->module_count = count;
	image->target = *target;
	pthread_mutex_init(&image->lock, NULL);
	if (!link_modules(image, error)) {
		sx_image_free(image);
		return NULL;
	}
	return image;
}

void
sx_image_free(struct sx_image *image)
{
	if (!image)
		return;
	for (size_t n = 0; n < image->module_count; n++)
		ptx_free(image->modules[n]);
	if (image->memory)
		sw_space_free(image->memory);
	pthread_mutex_destroy(&image->lock);
	fw_arena_free(&image->arena);
	free(image->modules);
	free(image);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* With the image's lock held. */
static const struct sx_code *
decode_locked(struct sx_func *func)
{
	struct sx_decoded out;

	if (func->code || func->failed || !func->ast->has_body)
		return func->code;
	if (!sx_backend()->decode(func, &out, &func->error)) {
		func->failed = true;
		return NULL;
	}
	func->callees = out.callees;
	func->callee_count = out.callee_count;
	func->indirect = out.indirect;
	__atomic_store_n(&func->code, out.code, __ATOMIC_RELEASE);
	return func->code;
}

const struct sx_code *
sx_func_code(struct sx_func *func)
{
	pthread_mutex_lock(&func->image->lock);
	const struct sx_code *code = decode_locked(func);
	pthread_mutex_unlock(&func->image->lock);
	return code;
}

/* Decodes all that the kernel can call directly; reports the list, kernel first. NULL with *error, or when out of memory. */
static struct sx_func **
decode_graph(struct sx_func *kernel, uint32_t *count, struct ptx_error *error)
{
	uint32_t capacity = 0, mark = ++kernel->image->mark;
	struct sx_func **list = NULL;

	*count = 0;
	*error = (struct ptx_error){ .text = "out of memory" };
	if (!append(&list, count, &capacity, kernel))
		return NULL;
	kernel->mark = mark;
	for (uint32_t n = 0; n < *count; n++) {
		if (!decode_locked(list[n]) && list[n]->failed) {
			*error = list[n]->error;
			free(list);
			return NULL;
		}
		for (uint32_t c = 0; c < list[n]->callee_count; c++) {
			struct sx_func *callee = list[n]->callees[c];
			if (callee->mark == mark)
				continue;
			callee->mark = mark;
			if (!append(&list, count, &capacity, callee)) {
				free(list);
				return NULL;
			}
		}
	}
	return list;
}

/* Is there a cycle among these functions? Takes away functions that nobody left calls until none is left or none can go. */
static bool
is_recursive(struct sx_func **list, uint32_t count)
{
	uint32_t gone = 0;
	bool progress = true;

	for (uint32_t n = 0; n < count; n++)
		list[n]->mark = 0;
	for (uint32_t n = 0; n < count; n++)
		for (uint32_t c = 0; c < list[n]->callee_count; c++)
			list[n]->callees[c]->mark++; /* callers */
	bool *left = malloc(count);
	if (!left)
		return true;
	memset(left, true, count);
	while (progress) {
		progress = false;
		for (uint32_t n = 0; n < count; n++) {
			if (!left[n] || list[n]->mark)
				continue;
			left[n] = false;
			gone++;
			progress = true;
			for (uint32_t c = 0; c < list[n]->callee_count; c++)
				list[n]->callees[c]->mark--;
		}
	}
	free(left);
	for (uint32_t n = 0; n < count; n++)
		list[n]->mark = 0;
	return gone < count;
}

static int
prepare_locked(struct sx_func *func, struct ptx_error *error)
{
	uint32_t count;
	uint64_t bytes = 0;
	struct sx_func **list = decode_graph(func, &count, error);

	if (!list)
		return -1;
	for (uint32_t n = 0; n < count; n++) {
		if (list[n]->code)
			bytes += list[n]->code->local_bytes;
		func->needs_stack |= list[n]->indirect;
	}
	if (count > 1 && is_recursive(list, count))
		func->needs_stack = true;
	free(list);
	if (bytes > 16 << 20) {
		*error = (struct ptx_error){ .line = func->ast->line, .text = "more than 16 MiB of local memory a thread" };
		return -1;
	}
	func->lane_bytes = (uint32_t)bytes;
	return 0;
}

int
sx_func_prepare(struct sx_func *func, struct ptx_error *error)
{
	if (__atomic_load_n(&func->prepared, __ATOMIC_ACQUIRE) == 1)
		return 0;
	pthread_mutex_lock(&func->image->lock);
	int result = func->prepared == 1 ? 0 : prepare_locked(func, error);
	if (!result)
		__atomic_store_n(&func->prepared, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&func->image->lock);
	return result;
}
