/*
 * The parser's insides, shared by lex.c, names.c, expr.c, parse.c, vars.c and body.c; nobody else includes it.
 *
 * There is no token list: `at` points at the first character of the present token (blanks and comments skipped), every
 * function that consumes one leaves it at the next. The text ends with a NUL, which no character class but "end" holds, so
 * nothing reads past it. A failure leaves by longjmp: all memory is in the two arenas and the lists of struct ptx_parser,
 * which ptx_parse() frees; no function between holds a resource.
 */
#ifndef SW_PTX_PARSER_H
#define SW_PTX_PARSER_H

#include "ptx.h"

#include <setjmp.h>
#include <string.h>

#define PTX_MAX_DEPTH 100                       /* nested { }, parentheses, initialiser braces */
#define PTX_MAX_REGS ((uint64_t)1 << 22)        /* registers of a module, plus one a byte of its text */
#define PTX_MAX_PARAM ((uint64_t)1 << 24)       /* bytes of a parameter list */
#define PTX_MAX_VAR ((uint64_t)1 << 40)         /* bytes of a variable */
#define PTX_MAX_INIT ((uint64_t)1 << 30)        /* bytes of initialised variables of a module */
#define PTX_MAX_MEMORY ((size_t)24 << 30)        /* bytes of a module, and of what its parsing needs besides */
#define PTX_MAX_NAME 8192                       /* characters of a name */

/* A growing array; items move while it grows. */
#define PTX_LIST(type) struct { type *items; uint32_t count, room; }
#define ptx_push(p, list) \
	((list)->count < (list)->room ? 0 : ptx_list_grow((p), (void **)&(list)->items, &(list)->room, sizeof(*(list)->items)), \
	 memset(&(list)->items[(list)->count], 0, sizeof(*(list)->items)), &(list)->items[(list)->count++])
#define ptx_keep(p, list) ptx_copy((p), (list)->items, (list)->count * sizeof(*(list)->items))

/* What a name means inside a function or a module. */
enum ptx_bind { PTX_BIND_REG, PTX_BIND_VECTOR, PTX_BIND_RANGE, PTX_BIND_VAR, PTX_BIND_LOCAL, PTX_BIND_PARAM, PTX_BIND_RETURN,
	PTX_BIND_FUNC, PTX_BIND_TARGETS, PTX_BIND_LABEL };

struct ptx_binding {
	uint8_t kind;
	uint32_t depth;  /* of the scope that declares it: 0 module, 1 function, 2 ... nested blocks */
	uint32_t index;  /* first register, or position in the list of its kind */
	uint32_t count;  /* registers of a range or a vector */
	struct ptx_atom *atom;
	struct ptx_binding *shadowed;   /* what the name meant outside */
	struct ptx_binding *next;       /* in the scope's list */
};

/* A distinct name of the module's text. */
struct ptx_atom {
	const char *text;
	uint32_t length;
	bool numbered;                  /* something called <text><number> was declared by itself, not by a range */
	uint8_t special;                /* 1 + enum ptx_special */
	uint8_t special_number;         /* of %pm3, %envreg5 */
	struct ptx_binding *binding;    /* the innermost one */
	struct ptx_binding *range;      /* NAME<count>, of which this is NAME */
	struct ptx_binding *label;
};

struct ptx_slot { uint32_t hash; struct ptx_atom *atom; };

/* An identifier in the text. The split into prefix and number is what makes %r<1000> one binding. */
struct ptx_word {
	const char *text;
	uint32_t length, hash;
	uint32_t prefix_length, prefix_hash; /* prefix_length 0: it does not end in a plain decimal number */
	uint32_t number;
};

/* "add.rn.f32": parsed once a module. */
struct ptx_form {
	const char *text;
	uint32_t length, hash;
	const char *op;
	const char **mods;
	uint8_t mod_count, type_count, types[6];
	bool is_call, is_bra, takes_address;
};

struct ptx_scope {
	struct ptx_binding *bindings;
	uint32_t first_pending;
};

struct ptx_pending_label { uint32_t *where; struct ptx_atom *atom; uint32_t line; };
struct ptx_pending_symbol { struct ptx_operand *operand; struct ptx_atom *atom; uint32_t line; };

struct ptx_parser {
	const char *at;
	uint32_t line;
	uint32_t depth;        /* of recursion */
	struct ptx_module *module;
	struct ptx_error *error;
	jmp_buf fail;
	struct fw_arena scratch;

	struct ptx_slot *slots;
	uint32_t slot_count, slot_used;
	struct ptx_form **forms;
	uint32_t form_count, form_used;
	struct ptx_binding *free_bindings;
	struct ptx_scope scopes[PTX_MAX_DEPTH + 2];
	uint32_t scope;        /* index of the innermost */

	PTX_LIST(struct ptx_var) vars;
	PTX_LIST(struct ptx_func) funcs;
	PTX_LIST(struct ptx_loc) locs;
	PTX_LIST(struct ptx_file) files;

	/* of the function that is being parsed */
	PTX_LIST(struct ptx_reg) regs;
	PTX_LIST(const char *) reg_names;
	PTX_LIST(struct ptx_var) locals;
	PTX_LIST(struct ptx_label) labels;
	PTX_LIST(struct ptx_targets) targets;
	PTX_LIST(struct ptx_insn) insns;
	PTX_LIST(struct ptx_operand) stack; /* operands whose instruction is not complete */
	uint32_t loc;

	PTX_LIST(struct ptx_pending_label) pending_labels;
	PTX_LIST(struct ptx_pending_symbol) pending_symbols;
	PTX_LIST(struct ptx_reloc) relocs;
	PTX_LIST(uint8_t) bytes;
	PTX_LIST(struct ptx_param) params;
	bool insn_pending;     /* the present instruction has an operand that waits for its label or symbol */
	bool have_version, have_target;
	uint64_t regs_left, init_left;
};

/* ---- lex.c ------------------------------------------------------------------------------------------------------ */

enum { PTX_C_IDENT = 1, PTX_C_START = 2, PTX_C_DIGIT = 4, PTX_C_HEX = 8, PTX_C_OPERATOR = 16 };
extern const uint8_t ptx_chars[256];

static inline bool
ptx_is(char c, unsigned classes)
{
	return (ptx_chars[(uint8_t)c] & classes) != 0;
}

void ptx_fail(struct ptx_parser *p, const char *format, ...) __attribute__((noreturn, format(printf, 2, 3)));
/* "expected WHAT, found 'TOKEN'" */
void ptx_fail_token(struct ptx_parser *p, const char *expected) __attribute__((noreturn));
void ptx_skip(struct ptx_parser *p);                   /* blanks and comments */
struct ptx_word ptx_word(struct ptx_parser *p);        /* the identifier at `at` */
struct ptx_word ptx_text_word(const char *text, size_t length);
struct ptx_word ptx_directive(struct ptx_parser *p);   /* ".name" at `at`, without its dot */
bool ptx_word_is(const struct ptx_word *word, const char *text);
bool ptx_accept(struct ptx_parser *p, char c);
void ptx_expect(struct ptx_parser *p, char c);
void ptx_skip_string(struct ptx_parser *p);
void ptx_skip_block(struct ptx_parser *p);             /* { ... } with everything in it */
void *ptx_alloc(struct ptx_parser *p, size_t size);    /* in the module; zeroed */
void *ptx_copy(struct ptx_parser *p, const void *data, size_t size);
const char *ptx_copy_text(struct ptx_parser *p, const char *text, size_t length);
int ptx_list_grow(struct ptx_parser *p, void **items, uint32_t *room, size_t item);
uint32_t ptx_hash(const char *text, size_t length);

/* ---- expr.c ----------------------------------------------------------------------------------------------------- */

struct ptx_value {
	bool is_float, is_f32, is_unsigned;
	int64_t bits; /* the integer, or the double's pattern */
};
struct ptx_value ptx_expr(struct ptx_parser *p);        /* a constant expression */
struct ptx_value ptx_number(struct ptx_parser *p);      /* a literal alone */
int64_t ptx_offset(struct ptx_parser *p);               /* [+ term] [- term] ..., 0 if there is none */
uint64_t ptx_uint(struct ptx_parser *p, const char *what, uint64_t limit); /* an expression in 0..limit */
uint64_t ptx_range_count(struct ptx_parser *p, const char *what, uint64_t limit); /* <N>; no comparisons inside */

/* ---- names.c ---------------------------------------------------------------------------------------------------- */

struct ptx_atom *ptx_atom(struct ptx_parser *p, const struct ptx_word *word); /* finds or makes */
/* Declares a name in the innermost scope; fails if it is declared there already. */
struct ptx_binding *ptx_declare(struct ptx_parser *p, const struct ptx_word *word, enum ptx_bind kind, uint32_t index);
void ptx_declare_range(struct ptx_parser *p, const struct ptx_word *word, uint32_t index, uint32_t count);
struct ptx_binding *ptx_declare_label(struct ptx_parser *p, const struct ptx_word *word, uint32_t index);
/* What the name means here, or NULL. *number is the register's position in a range. *atom is set if there was a need for it. */
struct ptx_binding *ptx_lookup(struct ptx_parser *p, const struct ptx_word *word, uint32_t *number, struct ptx_atom **atom);
void ptx_scope_enter(struct ptx_parser *p);
void ptx_scope_leave(struct ptx_parser *p); /* resolves the labels of the scope */
const struct ptx_form *ptx_form(struct ptx_parser *p); /* opcode and modifiers at `at` */
void ptx_special_find(struct ptx_atom *atom);

/* ---- vars.c ----------------------------------------------------------------------------------------------------- */

/* What stands before the names of a declaration. */
struct ptx_decl {
	enum ptx_linkage linkage;
	enum ptx_space space;
	enum ptx_type type;
	uint32_t vector, align;
	bool managed, is_ptr;
	enum ptx_space ptr_space;
};
bool ptx_space_word(const struct ptx_word *word, enum ptx_space *space);
bool ptx_linkage_word(const struct ptx_word *word, enum ptx_linkage *linkage);
enum ptx_type ptx_type_find(const char *text, size_t length);
void ptx_attributes(struct ptx_parser *p, struct ptx_decl *decl); /* ( ... ) after .attribute */
void ptx_vars(struct ptx_parser *p, struct ptx_decl *decl);       /* after the state space, to the ';' */
void ptx_regs(struct ptx_parser *p);                              /* after .reg, to the ';' */
uint32_t ptx_new_reg(struct ptx_parser *p, const struct ptx_word *word, enum ptx_type type);
/* "( params )": into the module. With `bind` their names are declared as that kind. */
struct ptx_param *ptx_param_list(struct ptx_parser *p, uint32_t *count, uint32_t *bytes, int bind);

/* ---- body.c, parse.c -------------------------------------------------------------------------------------------- */

void ptx_body(struct ptx_parser *p, struct ptx_func *func); /* from '{' to '}'; fills func's lists */
void ptx_loc(struct ptx_parser *p);
void ptx_file(struct ptx_parser *p);
void ptx_pragma(struct ptx_parser *p);
void ptx_section(struct ptx_parser *p);
/* Performance directives between a function's head and its body. */
void ptx_func_directives(struct ptx_parser *p, struct ptx_func *func);

#endif
