/*
 * Device printf. nvcc passes the format and a buffer in which each argument stands at a multiple of its own size: int 4 bytes,
 * long, long long, double and pointers 8. Formats and strings are foreign: every byte is read only after a check, widths
 * and precisions are capped, and a conversion that does not exist is printed as it stands. Not %n, not wide strings.
 */
#include "soft/exec/print.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "soft/space.h"

#define SX_FIELD_MAX 4096 /* width or precision */

/* Makes room for `size` more bytes. */
static bool
text_room(struct sx_text *text, size_t size)
{
	if (text->full || text->used + size > SX_TEXT_MAX) {
		text->full = true;
		return false;
	}
	if (text->used + size > text->size) {
		size_t want = text->size ? text->size * 2 : 256;
		while (want < text->used + size)
			want *= 2;
		char *bigger = realloc(text->data, want);
		if (!bigger) {
			text->full = true;
			return false;
		}
		text->data = bigger;
		text->size = want;
	}
	return true;
}

static void
text_add(struct sx_text *text, const char *bytes, size_t size)
{
	if (size == 0 || !text_room(text, size))
		return;
	memcpy(text->data + text->used, bytes, size);
	text->used += size;
}

static bool
device_byte(uint64_t address, char *byte)
{
	if (!sw_space_check(address, 1, SW_ACCESS_READ))
		return false;
	*byte = *(const volatile char *)(uintptr_t)address;
	return true;
}

bool
sx_device_string(uint64_t address, char *buffer, size_t size)
{
	size_t n = 0;

	buffer[0] = 0;
	for (; n + 1 < size; n++) {
		if (!device_byte(address + n, &buffer[n])) {
			buffer[0] = 0;
			return false;
		}
		if (!buffer[n])
			return true;
	}
	buffer[n] = 0;
	return true;
}

/* The next argument of 4 or 8 bytes; 0 and text->bad when it cannot be read. */
static uint64_t
next_arg(struct sx_text *text, uint64_t *args, unsigned bytes)
{
	uint64_t at = (*args + bytes - 1) & ~(uint64_t)(bytes - 1), value = 0;

	if (!sw_space_check(at, bytes, SW_ACCESS_READ)) {
		if (!text->bad)
			text->bad = at ? at : 1;
		return 0;
	}
	memcpy(&value, (const void *)(uintptr_t)at, bytes);
	*args = at + bytes;
	return value;
}

struct conversion {
	char flags[8];
	int width, precision; /* -1: not given */
	bool wide;            /* l, ll, j, z, t: 8 bytes */
	unsigned narrow;      /* hh 1, h 2, else 0 */
	char type;
};

static void
print_string(struct sx_text *text, const struct conversion *c, uint64_t address)
{
	size_t limit = c->precision >= 0 ? (size_t)c->precision : SX_TEXT_MAX, size = 0, pad;
	char byte = 0;

	if (!address) {
		text_add(text, "(null)", 6);
		return;
	}
	/* The length first: padding may come before. */
	for (; size < limit; size++) {
		if (!device_byte(address + size, &byte)) {
			text->bad = address + size;
			return;
		}
		if (!byte)
			break;
	}
	pad = c->width > 0 && (size_t)c->width > size ? (size_t)c->width - size : 0;
	bool left = strchr(c->flags, '-') != NULL;
	for (size_t n = 0; n < pad && !left; n++)
		text_add(text, " ", 1);
	for (size_t n = 0; n < size && device_byte(address + n, &byte); n++)
		text_add(text, &byte, 1);
	for (size_t n = 0; n < pad && left; n++)
		text_add(text, " ", 1);
}

/* An integer, character, pointer or number by the host's printf, from a specification built here. */
static void
print_number(struct sx_text *text, const struct conversion *c, uint64_t value)
{
	char spec[48], field[24] = "";
	char *out;
	size_t room = SX_FIELD_MAX * 2 + 512; /* %f of 1e308 with the greatest precision */
	int size;

	if (c->width >= 0 && c->precision >= 0)
		snprintf(field, sizeof field, "%d.%d", c->width, c->precision);
	else if (c->width >= 0)
		snprintf(field, sizeof field, "%d", c->width);
	else if (c->precision >= 0)
		snprintf(field, sizeof field, ".%d", c->precision);
	if (!text_room(text, room))
		return;
	out = text->data + text->used;
	switch (c->type) {
	case 'd':
	case 'i': {
		long long number = c->wide ? (long long)value : c->narrow == 1 ? (signed char)value : c->narrow == 2 ? (short)value : (int)value;
		snprintf(spec, sizeof spec, "%%%s%slld", c->flags, field);
		size = snprintf(out, room, spec, number);
		break;
	}
	case 'c':
		snprintf(spec, sizeof spec, "%%%s%sc", c->flags, field);
		size = snprintf(out, room, spec, (int)value);
		break;
	case 'p':
		snprintf(spec, sizeof spec, "%%%s%sp", c->flags, field);
		size = snprintf(out, room, spec, (void *)(uintptr_t)value);
		break;
	case 'o':
	case 'u':
	case 'x':
	case 'X': {
		unsigned long long number = c->wide ? value : c->narrow == 1 ? (uint8_t)value : c->narrow == 2 ? (uint16_t)value : (uint32_t)value;
		snprintf(spec, sizeof spec, "%%%s%sll%c", c->flags, field, c->type);
		size = snprintf(out, room, spec, number);
		break;
	}
	default: {
		double number;
		memcpy(&number, &value, sizeof number);
		snprintf(spec, sizeof spec, "%%%s%s%c", c->flags, field, c->type);
		size = snprintf(out, room, spec, number);
		break;
	}
	}
	if (size > 0 && (size_t)size < room)
		text->used += (size_t)size;
}

/* A decimal number of the format, capped. */
static int
format_number(const char **p)
{
	int value = 0;

	for (; **p >= '0' && **p <= '9'; (*p)++)
		value = value < SX_FIELD_MAX ? value * 10 + (**p - '0') : value;
	return value < SX_FIELD_MAX ? value : SX_FIELD_MAX;
}

static int
star(struct sx_text *text, uint64_t *args, int *count)
{
	int value = (int)(uint32_t)next_arg(text, args, 4);

	(*count)++;
	return value > SX_FIELD_MAX ? SX_FIELD_MAX : value < -SX_FIELD_MAX ? -SX_FIELD_MAX : value;
}

/* Parses what follows a '%' at *p. False if it is no conversion. */
static bool
parse_conversion(struct sx_text *text, const char **p, struct conversion *c, uint64_t *args, int *count)
{
	*c = (struct conversion){ .width = -1, .precision = -1 };
	for (size_t n = 0; **p && strchr("-+ #0", **p); (*p)++)
		if (n < sizeof c->flags - 2 && !strchr(c->flags, **p))
			c->flags[n++] = **p;
	if (**p == '*') {
		(*p)++;
		c->width = star(text, args, count);
		if (c->width < 0) {
			c->width = -c->width;
			if (!strchr(c->flags, '-') && strlen(c->flags) < sizeof c->flags - 1)
				c->flags[strlen(c->flags)] = '-';
		}
	} else if (**p >= '1' && **p <= '9') {
		c->width = format_number(p);
	}
	if (**p == '.') {
		(*p)++;
		c->precision = **p == '*' ? ((*p)++, star(text, args, count)) : format_number(p);
		if (c->precision < 0)
			c->precision = -1;
	}
	for (; **p && strchr("hljztLq", **p); (*p)++) {
		if (**p == 'h')
			c->narrow = c->narrow == 2 ? 1 : 2;
		else
			c->wide = true;
	}
	c->type = **p;
	if (!c->type || !strchr("diouxXcspeEfFgGaA", c->type))
		return false;
	(*p)++;
	return true;
}

static int
print_format(struct sx_text *text, const char *format, uint64_t args)
{
	int count = 0;

	for (const char *p = format; *p && !text->bad;) {
		const char *percent = strchr(p, '%');
		if (!percent) {
			text_add(text, p, strlen(p));
			break;
		}
		text_add(text, p, (size_t)(percent - p));
		p = percent + 1;
		if (*p == '%') {
			text_add(text, "%", 1);
			p++;
			continue;
		}
		struct conversion c;
		if (!parse_conversion(text, &p, &c, &args, &count)) {
			text_add(text, percent, (size_t)(p - percent));
			continue;
		}
		bool wide = strchr("speEfFgGaA", c.type) != NULL || (c.wide && c.type != 'c');
		uint64_t value = next_arg(text, &args, wide ? 8 : 4);
		count++;
		if (text->bad)
			break;
		if (c.type == 's')
			print_string(text, &c, value);
		else
			print_number(text, &c, value);
	}
	return count;
}

int
sx_print(struct sx_text *text, uint64_t format, uint64_t args)
{
	size_t size = 0;
	char byte, *copy;
	int count;

	if (!format)
		return -1;
	for (; size < SX_TEXT_MAX; size++) {
		if (!device_byte(format + size, &byte)) {
			text->bad = format + size;
			return 0;
		}
		if (!byte)
			break;
	}
	copy = malloc(size + 1);
	if (!copy) {
		text->full = true;
		return -2;
	}
	memcpy(copy, (const void *)(uintptr_t)format, size);
	copy[size] = 0;
	count = print_format(text, copy, args);
	free(copy);
	return count;
}
