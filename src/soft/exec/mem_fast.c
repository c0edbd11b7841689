/*
 * The forms of ld and st that programs spend their time in. Included by mem.c.
 *
 * A warp is taken as two halves of 16 lanes. Lanes of a half mostly access a row (consecutive elements) or one place, which is found
 * by comparing their addresses; then one check and one vector access serve them all. Two-dimensional blocks of 16 x n give
 * two rows, hence halves. Anything else is gathered or scattered. Whatever is not plainly allowed here (also registered host
 * memory, cluster shared memory and every fault) goes to sx_ld_any or sx_st_any for the lanes that are left.
 */
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define SX_HALF_LANES 16
#define SX_INLINE static inline __attribute__((always_inline))

enum sx_pattern { SX_EACH, SX_ROW, SX_ONE };

/* What kernels may do in the granule of an offset in the space; the device changes it while kernels run. */
SX_INLINE uint8_t
sx_granule(uint64_t offset)
{
	return __atomic_load_n(&sw_space.granules[offset >> SW_GRANULE_BITS], __ATOMIC_RELAXED);
}

/* May all of a small range (at most a granule) be accessed so? False also where only the slow path can tell. */
SX_INLINE bool
sx_range_ok(uint64_t address, uint64_t bytes, uint8_t access)
{
	uint64_t offset = address - sw_space.base;

	if (__builtin_expect(offset >= sw_space.size || bytes > sw_space.size - offset, 0))
		return false;
	return (sx_granule(offset) & sx_granule(offset + bytes - 1) & access) == access;
}

/* ---- how the addresses of a half lie: m are its lanes, not none; *first is that of the lowest one --------------------- */

#ifdef __AVX512F__
SX_INLINE enum sx_pattern
sx_pattern64(const uint64_t *a, uint32_t m, unsigned stride, uint64_t *first)
{
	unsigned lane = (unsigned)__builtin_ctz(m);
	__m512i low = _mm512_loadu_si512(a), high = _mm512_loadu_si512(a + 8);
	const __m512i steps = _mm512_setr_epi64(0, stride, 2 * stride, 3 * stride, 4 * stride, 5 * stride, 6 * stride, 7 * stride);

	*first = a[lane];
	__m512i row = _mm512_add_epi64(_mm512_set1_epi64((long long)(*first - (uint64_t)lane * stride)), steps);
	__m512i row_high = _mm512_add_epi64(row, _mm512_set1_epi64(8 * stride));
	if (!(_mm512_mask_cmpneq_epi64_mask((__mmask8)m, low, row) | _mm512_mask_cmpneq_epi64_mask((__mmask8)(m >> 8), high, row_high)))
		return SX_ROW;
	__m512i one = _mm512_set1_epi64((long long)*first);
	if (!(_mm512_mask_cmpneq_epi64_mask((__mmask8)m, low, one) | _mm512_mask_cmpneq_epi64_mask((__mmask8)(m >> 8), high, one)))
		return SX_ONE;
	return SX_EACH;
}

SX_INLINE enum sx_pattern
sx_pattern32(const uint32_t *a, uint32_t m, unsigned stride, uint32_t *first)
{
	unsigned lane = (unsigned)__builtin_ctz(m);
	__m512i v = _mm512_loadu_si512(a);
	const __m512i steps = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
	                                         _mm512_set1_epi32((int)stride));

	*first = a[lane];
	if (!_mm512_mask_cmpneq_epi32_mask((__mmask16)m, v, _mm512_set1_epi32((int)*first)))
		return SX_ONE;
	__m512i row = _mm512_add_epi32(_mm512_set1_epi32((int)(*first - lane * stride)), steps);
	if (!_mm512_mask_cmpneq_epi32_mask((__mmask16)m, v, row))
		return SX_ROW;
	return SX_EACH;
}
#else
SX_INLINE enum sx_pattern
sx_pattern64(const uint64_t *a, uint32_t m, unsigned stride, uint64_t *first)
{
	unsigned lane = (unsigned)__builtin_ctz(m);
	uint64_t start, row = 0, one = 0;

	*first = a[lane];
	start = *first - (uint64_t)lane * stride;
	if (m == 0xffff) {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			row |= a[l] ^ (start + (uint64_t)l * stride);
		for (unsigned l = 0; row && l < SX_HALF_LANES; l++)
			one |= a[l] ^ *first;
	} else {
		for (unsigned l = 0; l < SX_HALF_LANES; l++) {
			uint64_t in = 0 - (uint64_t)(m >> l & 1);
			row |= (a[l] ^ (start + (uint64_t)l * stride)) & in;
			one |= (a[l] ^ *first) & in;
		}
	}
	return !row ? SX_ROW : !one ? SX_ONE : SX_EACH;
}

SX_INLINE enum sx_pattern
sx_pattern32(const uint32_t *a, uint32_t m, unsigned stride, uint32_t *first)
{
	unsigned lane = (unsigned)__builtin_ctz(m);
	uint32_t start, row = 0, one = 0;

	*first = a[lane];
	start = *first - lane * stride;
	if (m == 0xffff) {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			one |= a[l] ^ *first;
		for (unsigned l = 0; one && l < SX_HALF_LANES; l++)
			row |= a[l] ^ (start + l * stride);
	} else {
		for (unsigned l = 0; l < SX_HALF_LANES; l++) {
			uint32_t in = 0 - (m >> l & 1);
			row |= (a[l] ^ (start + l * stride)) & in;
			one |= (a[l] ^ *first) & in;
		}
	}
	return !one ? SX_ONE : !row ? SX_ROW : SX_EACH;
}
#endif

/* ---- moving the elements of a half -------------------------------------------------------------------------------------- */

/* Registers of an instruction's elements at lane `from`: 32-bit slots, or 64-bit ones when log is 3. */
struct sx_slots {
	void *p[4];
};

SX_INLINE struct sx_slots
sx_slots(const struct sx_warp *w, const struct sx_insn *i, unsigned log, unsigned count, unsigned from)
{
	struct sx_slots s;

	for (unsigned n = 0; n < count; n++)
		s.p[n] = (uint8_t *)(uintptr_t)sx_src(w, sx_element(i, n)) + (log == 3 ? 8u : 4u) * from;
	return s;
}

/* Sign extension of what is loaded. */
#define SX_SIGN_NONE 0u
#define SX_SIGN_32 1u /* to 32 bits */
#define SX_SIGN_16 2u /* bytes to 16 bits */

SX_INLINE uint32_t
sx_extend(uint8_t byte, unsigned sign)
{
	uint32_t wide = (uint32_t)(int8_t)byte;

	return sign == SX_SIGN_NONE ? byte : sign == SX_SIGN_16 ? wide & 0xffff : wide;
}

/* One lane's elements from memory into registers, and back. */
SX_INLINE void
sx_lane_load(struct sx_slots s, unsigned lane, const uint8_t *at, unsigned log, unsigned count, unsigned sign)
{
	for (unsigned n = 0; n < count; n++) {
		const uint8_t *p = at + (n << log);
		if (log == 0)
			((uint32_t *)s.p[n])[lane] = sx_extend(*p, sign);
		else if (log == 1)
			((uint32_t *)s.p[n])[lane] = sign ? (uint32_t)*(const int16_t *)p : *(const uint16_t *)p;
		else if (log == 2)
			((uint32_t *)s.p[n])[lane] = *(const uint32_t *)p;
		else
			((uint64_t *)s.p[n])[lane] = *(const uint64_t *)p;
	}
}

SX_INLINE void
sx_lane_store(struct sx_slots s, unsigned lane, uint8_t *at, unsigned log, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		uint8_t *p = at + (n << log);
		if (log == 0)
			*p = (uint8_t)((const uint32_t *)s.p[n])[lane];
		else if (log == 1)
			*(uint16_t *)p = (uint16_t)((const uint32_t *)s.p[n])[lane];
		else if (log == 2)
			*(uint32_t *)p = ((const uint32_t *)s.p[n])[lane];
		else
			*(uint64_t *)p = ((const uint64_t *)s.p[n])[lane];
	}
}

#ifdef __AVX512F__
/* Rows of 16 lanes with 2 or 4 elements of 4 bytes each, all lanes: to and from a register an element. */
SX_INLINE void
sx_row_load_pairs(struct sx_slots s, const uint8_t *p)
{
	const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
	__m512i z0 = _mm512_loadu_si512(p), z1 = _mm512_loadu_si512(p + 64);

	_mm512_store_si512(s.p[0], _mm512_permutex2var_epi32(z0, even, z1));
	_mm512_store_si512(s.p[1], _mm512_permutex2var_epi32(z0, _mm512_add_epi32(even, _mm512_set1_epi32(1)), z1));
}

SX_INLINE void
sx_row_store_pairs(struct sx_slots s, uint8_t *p)
{
	const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
	__m512i d0 = _mm512_load_si512(s.p[0]), d1 = _mm512_load_si512(s.p[1]);

	_mm512_storeu_si512(p, _mm512_permutex2var_epi32(d0, low, d1));
	_mm512_storeu_si512(p + 64, _mm512_permutex2var_epi32(d0, _mm512_add_epi32(low, _mm512_set1_epi32(8)), d1));
}

SX_INLINE void
sx_row_load_quads(struct sx_slots s, const uint8_t *p)
{
	/* elements 0 of eight lanes, then their elements 1; 2 more for elements 2 and 3 */
	const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
	const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
	__m512i z0 = _mm512_loadu_si512(p), z1 = _mm512_loadu_si512(p + 64);
	__m512i z2 = _mm512_loadu_si512(p + 128), z3 = _mm512_loadu_si512(p + 192);
	__m512i low = _mm512_permutex2var_epi32(z0, first, z1), high = _mm512_permutex2var_epi32(z2, first, z3);
	__m512i low2 = _mm512_permutex2var_epi32(z0, second, z1), high2 = _mm512_permutex2var_epi32(z2, second, z3);

	_mm512_store_si512(s.p[0], _mm512_shuffle_i64x2(low, high, 0x44));
	_mm512_store_si512(s.p[1], _mm512_shuffle_i64x2(low, high, 0xee));
	_mm512_store_si512(s.p[2], _mm512_shuffle_i64x2(low2, high2, 0x44));
	_mm512_store_si512(s.p[3], _mm512_shuffle_i64x2(low2, high2, 0xee));
}

SX_INLINE void
sx_row_store_quads(struct sx_slots s, uint8_t *p)
{
	const __m512i first = _mm512_setr_epi32(0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27);
	const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
	__m512i d0 = _mm512_load_si512(s.p[0]), d1 = _mm512_load_si512(s.p[1]);
	__m512i d2 = _mm512_load_si512(s.p[2]), d3 = _mm512_load_si512(s.p[3]);
	__m512i low = _mm512_shuffle_i64x2(d0, d1, 0x44), low2 = _mm512_shuffle_i64x2(d2, d3, 0x44);
	__m512i high = _mm512_shuffle_i64x2(d0, d1, 0xee), high2 = _mm512_shuffle_i64x2(d2, d3, 0xee);

	_mm512_storeu_si512(p, _mm512_permutex2var_epi32(low, first, low2));
	_mm512_storeu_si512(p + 64, _mm512_permutex2var_epi32(low, second, low2));
	_mm512_storeu_si512(p + 128, _mm512_permutex2var_epi32(high, first, high2));
	_mm512_storeu_si512(p + 192, _mm512_permutex2var_epi32(high, second, high2));
}
#endif

/* Consecutive elements; p is where lane 0 of the half would be. */
SX_INLINE void
sx_row_load(struct sx_slots s, uint32_t m, const uint8_t *p, unsigned log, unsigned count, unsigned sign)
{
#ifdef __AVX512F__
	if (count == 1) {
		if (log == 3) {
			__m512i low = _mm512_maskz_loadu_epi64((__mmask8)m, p), high = _mm512_maskz_loadu_epi64((__mmask8)(m >> 8), p + 64);
			if (m == 0xffff) {
				_mm512_store_si512(s.p[0], low);
				_mm512_store_si512((uint64_t *)s.p[0] + 8, high);
			} else {
				_mm512_mask_store_epi64(s.p[0], (__mmask8)m, low);
				_mm512_mask_store_epi64((uint64_t *)s.p[0] + 8, (__mmask8)(m >> 8), high);
			}
			return;
		}
		__m512i v;
		if (log == 2) {
			v = _mm512_maskz_loadu_epi32((__mmask16)m, p);
		} else if (log == 1) {
			__m256i half = _mm256_maskz_loadu_epi16((__mmask16)m, p);
			v = sign ? _mm512_cvtepi16_epi32(half) : _mm512_cvtepu16_epi32(half);
		} else {
			__m128i quarter = _mm_maskz_loadu_epi8((__mmask16)m, p);
			v = sign ? _mm512_cvtepi8_epi32(quarter) : _mm512_cvtepu8_epi32(quarter);
			if (sign == SX_SIGN_16)
				v = _mm512_and_si512(v, _mm512_set1_epi32(0xffff));
		}
		if (m == 0xffff)
			_mm512_store_si512(s.p[0], v);
		else
			_mm512_mask_store_epi32(s.p[0], (__mmask16)m, v);
		return;
	}
	if (m == 0xffff && log == 2) {
		if (count == 2)
			sx_row_load_pairs(s, p);
		else
			sx_row_load_quads(s, p);
		return;
	}
#endif
	if (m == 0xffff) {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			sx_lane_load(s, l, p + ((size_t)l * count << log), log, count, sign);
	} else {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			if (m >> l & 1)
				sx_lane_load(s, l, p + ((size_t)l * count << log), log, count, sign);
	}
}

SX_INLINE void
sx_row_store(struct sx_slots s, uint32_t m, uint8_t *p, unsigned log, unsigned count)
{
#ifdef __AVX512F__
	if (count == 1) {
		if (log == 3) {
			_mm512_mask_storeu_epi64(p, (__mmask8)m, _mm512_load_si512(s.p[0]));
			_mm512_mask_storeu_epi64(p + 64, (__mmask8)(m >> 8), _mm512_load_si512((uint64_t *)s.p[0] + 8));
			return;
		}
		__m512i v = _mm512_load_si512(s.p[0]);
		if (log == 2 && m == 0xffff)
			_mm512_storeu_si512(p, v);
		else if (log == 2)
			_mm512_mask_storeu_epi32(p, (__mmask16)m, v);
		else if (log == 1)
			_mm512_mask_cvtepi32_storeu_epi16(p, (__mmask16)m, v);
		else
			_mm512_mask_cvtepi32_storeu_epi8(p, (__mmask16)m, v);
		return;
	}
	if (m == 0xffff && log == 2) {
		if (count == 2)
			sx_row_store_pairs(s, p);
		else
			sx_row_store_quads(s, p);
		return;
	}
#endif
	if (m == 0xffff) {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			sx_lane_store(s, l, p + ((size_t)l * count << log), log, count);
	} else {
		for (unsigned l = 0; l < SX_HALF_LANES; l++)
			if (m >> l & 1)
				sx_lane_store(s, l, p + ((size_t)l * count << log), log, count);
	}
}

/* All lanes of the half load the same place. */
SX_INLINE void
sx_one_load(struct sx_slots s, uint32_t m, const uint8_t *p, unsigned log, unsigned count, unsigned sign)
{
	for (unsigned n = 0; n < count; n++) {
		if (log == 3) {
			uint64_t value = ((const uint64_t *)p)[n], *d = s.p[n];
			for (unsigned l = 0; l < SX_HALF_LANES; l++)
				d[l] = m == 0xffff || (m >> l & 1) ? value : d[l];
			continue;
		}
		uint32_t value, *d = s.p[n];
		if (log == 0)
			value = sx_extend(p[n], sign);
		else if (log == 1)
			value = sign ? (uint32_t)((const int16_t *)p)[n] : ((const uint16_t *)p)[n];
		else
			value = ((const uint32_t *)p)[n];
#ifdef __AVX512F__
		__m512i v = _mm512_set1_epi32((int)value);
		if (m == 0xffff)
			_mm512_store_si512(d, v);
		else
			_mm512_mask_store_epi32(d, (__mmask16)m, v);
#else
		if (m == 0xffff) {
			for (unsigned l = 0; l < SX_HALF_LANES; l++)
				d[l] = value;
		} else {
			for (unsigned l = 0; l < SX_HALF_LANES; l++)
				d[l] = m >> l & 1 ? value : d[l];
		}
#endif
	}
}

/* ---- lanes that point anywhere -------------------------------------------------------------------------------------------- */

/* Are all of these global accesses plainly allowed? */
SX_INLINE bool
sx_each_ok(const uint64_t *a, uint32_t m, uint64_t offset, unsigned bytes, uint8_t access)
{
	uint64_t wrong = 0, granule = (a[__builtin_ctz(m)] + offset - sw_space.base) >> SW_GRANULE_BITS, differ = 0;

	for (unsigned l = 0; l < SX_HALF_LANES; l++) {
		uint64_t in = 0 - (uint64_t)(m >> l & 1), address = a[l] + offset;
		wrong |= (address & (bytes - 1)) & in; /* aligned, so each lies in one granule */
		differ |= (((address - sw_space.base) >> SW_GRANULE_BITS) ^ granule) & in;
	}
	if (wrong)
		return false;
	if (!differ)
		return granule < sw_space.size >> SW_GRANULE_BITS && (sx_granule(granule << SW_GRANULE_BITS) & access) == access;
	uint8_t common = access;
	for (; m; m &= m - 1) {
		uint64_t at = a[__builtin_ctz(m)] + offset - sw_space.base;
		if (at >= sw_space.size)
			return false;
		common &= sx_granule(at);
	}
	return common == access;
}

SX_INLINE bool
sx_each_ok_shared(const uint32_t *a, uint32_t m, uint32_t offset, unsigned bytes, uint32_t limit)
{
	uint32_t wrong = 0;

	if (limit < bytes)
		return false;
	limit -= bytes;
	for (unsigned l = 0; l < SX_HALF_LANES; l++) {
		uint32_t in = 0 - (m >> l & 1), at = a[l] + offset;
		wrong |= ((at & (bytes - 1)) | (at > limit)) & in;
	}
	return !wrong;
}

SX_INLINE void
sx_each_load(struct sx_slots s, uint32_t m, const uint64_t *a, uint64_t offset, unsigned log, unsigned count, unsigned sign)
{
#ifdef __AVX512F__
	if (count == 1 && log >= 2) {
		__m512i low = _mm512_loadu_si512(a), high = _mm512_loadu_si512(a + 8), zero = _mm512_setzero_si512();
		const void *base = (const void *)(uintptr_t)offset;
		if (log == 3) {
			low = _mm512_mask_i64gather_epi64(zero, (__mmask8)m, low, base, 1);
			high = _mm512_mask_i64gather_epi64(zero, (__mmask8)(m >> 8), high, base, 1);
			_mm512_mask_store_epi64(s.p[0], (__mmask8)m, low);
			_mm512_mask_store_epi64((uint64_t *)s.p[0] + 8, (__mmask8)(m >> 8), high);
			return;
		}
		__m256i none = _mm256_setzero_si256();
		__m256i first = _mm512_mask_i64gather_epi32(none, (__mmask8)m, low, base, 1);
		__m256i second = _mm512_mask_i64gather_epi32(none, (__mmask8)(m >> 8), high, base, 1);
		_mm512_mask_store_epi32(s.p[0], (__mmask16)m, _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1));
		return;
	}
#endif
	for (; m; m &= m - 1) {
		unsigned l = (unsigned)__builtin_ctz(m);
		sx_lane_load(s, l, (const uint8_t *)(uintptr_t)(a[l] + offset), log, count, sign);
	}
}

SX_INLINE void
sx_each_load_shared(struct sx_slots s, uint32_t m, const uint32_t *a, uint32_t offset, const uint8_t *window, unsigned log,
                    unsigned count, unsigned sign)
{
#ifdef __AVX512F__
	if (count == 1 && log == 2) {
		__m512i at = _mm512_add_epi32(_mm512_loadu_si512(a), _mm512_set1_epi32((int)offset));
		__m512i v = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), (__mmask16)m, at, window, 1);
		_mm512_mask_store_epi32(s.p[0], (__mmask16)m, v);
		return;
	}
#endif
	for (; m; m &= m - 1) {
		unsigned l = (unsigned)__builtin_ctz(m);
		sx_lane_load(s, l, window + (uint32_t)(a[l] + offset), log, count, sign);
	}
}

/* ---- the instructions ------------------------------------------------------------------------------------------------------ */

/* Runs the lanes `m` by the general handler. */
static __attribute__((noinline)) const struct sx_insn *
sx_slow_lanes(struct sx_warp *w, const struct sx_insn *i, sx_fn fn, uint32_t m)
{
	uint32_t exec = w->exec;
	bool all = w->all;

	w->exec = m;
	w->all = false;
	const struct sx_insn *next = fn(w, i);
	w->exec = exec;
	w->all = all;
	return next;
}

/* The lanes m of the half that begins at `from`. False: not plainly allowed, nothing done. */
SX_INLINE bool
sx_global_half(struct sx_warp *w, const struct sx_insn *i, bool store, unsigned log, unsigned count, unsigned sign, unsigned from,
               uint32_t m)
{
	const unsigned bytes = count << log;
	const uint8_t access = store ? SW_ACCESS_WRITE : SW_ACCESS_READ;
	const uint64_t *a = SX_S64(w, i->a) + from;
	uint64_t first, offset = (uint64_t)i->imm;
	struct sx_slots s = sx_slots(w, i, log, count, from);
	enum sx_pattern pattern = sx_pattern64(a, m, bytes, &first);
	unsigned lane = (unsigned)__builtin_ctz(m), last = 31 - (unsigned)__builtin_clz(m);

	first += offset;
	if (pattern == SX_EACH) {
		if (!sx_each_ok(a, m, offset, bytes, access))
			return false;
		if (!store)
			sx_each_load(s, m, a, offset, log, count, sign);
		for (; store && m; m &= m - 1) {
			unsigned l = (unsigned)__builtin_ctz(m);
			sx_lane_store(s, l, (uint8_t *)(uintptr_t)(a[l] + offset), log, count);
		}
		return true;
	}
	if ((first & (bytes - 1)) || !sx_range_ok(first, pattern == SX_ROW ? (last - lane + 1) * bytes : bytes, access))
		return false;
	uint8_t *p = (uint8_t *)(uintptr_t)first;
	if (pattern == SX_ROW && store)
		sx_row_store(s, m, p - lane * bytes, log, count);
	else if (pattern == SX_ROW)
		sx_row_load(s, m, p - lane * bytes, log, count, sign);
	else if (store)
		sx_lane_store(s, last, p, log, count);
	else
		sx_one_load(s, m, p, log, count, sign);
	return true;
}

SX_INLINE bool
sx_shared_half(struct sx_warp *w, const struct sx_insn *i, bool store, unsigned log, unsigned count, unsigned sign, unsigned from,
               uint32_t m)
{
	const unsigned bytes = count << log;
	const struct sx_block_view *view = sx_view(w);
	uint8_t *window = (uint8_t *)(uintptr_t)view->shared_base;
	const uint32_t *a = SX_S32(w, i->a) + from;
	uint32_t first, offset = (uint32_t)i->imm;
	struct sx_slots s = sx_slots(w, i, log, count, from);
	enum sx_pattern pattern = sx_pattern32(a, m, bytes, &first);
	unsigned lane = (unsigned)__builtin_ctz(m), last = 31 - (unsigned)__builtin_clz(m);

	first += offset;
	if (pattern == SX_EACH) {
		if (!sx_each_ok_shared(a, m, offset, bytes, view->shared_bytes))
			return false;
		if (!store)
			sx_each_load_shared(s, m, a, offset, window, log, count, sign);
		for (; store && m; m &= m - 1) {
			unsigned l = (unsigned)__builtin_ctz(m);
			sx_lane_store(s, l, window + (uint32_t)(a[l] + offset), log, count);
		}
		return true;
	}
	if ((first & (bytes - 1)) || (uint64_t)first + (pattern == SX_ROW ? (last - lane + 1) * bytes : bytes) > view->shared_bytes)
		return false;
	uint8_t *p = window + first;
	if (pattern == SX_ROW && store)
		sx_row_store(s, m, p - lane * bytes, log, count);
	else if (pattern == SX_ROW)
		sx_row_load(s, m, p - lane * bytes, log, count, sign);
	else if (store)
		sx_lane_store(s, last, p, log, count);
	else
		sx_one_load(s, m, p, log, count, sign);
	return true;
}

/* Both halves with whatever lanes they have. */
#define SX_HALVES(space) \
	SX_INLINE const struct sx_insn * \
	sx_##space(struct sx_warp *w, const struct sx_insn *i, bool store, unsigned log, unsigned count, unsigned sign) \
	{ \
		if (store) \
			sx_mem_order(i->aux, w); \
		for (unsigned from = 0; from < SX_LANES; from += SX_HALF_LANES) { \
			uint32_t m = w->exec >> from & 0xffff; \
			if (m && !sx_##space##_half(w, i, store, log, count, sign, from, m) && \
			    !sx_slow_lanes(w, i, store ? sx_st_any : sx_ld_any, m << from)) \
				return NULL; \
		} \
		if (!store) \
			sx_mem_order(i->aux, w); \
		return i + 1; \
	}
SX_HALVES(global)
SX_HALVES(shared)

/* How a load into registers of at most 32 bits extends. */
static inline unsigned
sx_load_sign(uint32_t aux)
{
	unsigned log = SX_MEM_LOG(aux), bits = SX_MEM_BITS(aux);

	if (!(aux & SX_MEM_SIGNED) || bits <= 8u << log || log > 1)
		return SX_SIGN_NONE;
	return bits == 16 ? SX_SIGN_16 : SX_SIGN_32;
}

/* Is the place that the instruction names, the same for all lanes, plainly allowed? Its host address then. */
static inline bool
sx_fixed_place(const struct sx_warp *w, const struct sx_insn *i, unsigned bytes, uint8_t access, uint64_t *at)
{
	const struct sx_block_view *view = sx_view(w);
	uint64_t offset = (uint64_t)i->imm, limit = view->shared_bytes;

	if (!w->exec || (offset & (bytes - 1)))
		return false;
	if (SX_MEM_KIND(i->aux) == SX_AT_FIXED) {
		*at = offset;
		return sx_range_ok(offset, bytes, access);
	}
	*at = view->shared_base + offset;
	if (SX_MEM_KIND(i->aux) == SX_AT_PARAM) {
		if (access != SW_ACCESS_READ)
			return false;
		*at = (uint64_t)(uintptr_t)view->params + offset;
		limit = view->launch->param_bytes;
	}
	return offset <= limit && bytes <= limit - offset;
}

/* Loads of parameters, constants and variables by name: one value an element. */
static const struct sx_insn *
sx_ld_fixed(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux), count = SX_MEM_COUNT(i->aux), sign = sx_load_sign(i->aux);
	uint32_t m = w->all ? ~0u : w->exec;
	uint64_t at;

	if (!sx_fixed_place(w, i, count << log, SW_ACCESS_READ, &at))
		return sx_ld_any(w, i);
	for (unsigned n = 0; n < count; n++) {
		uint64_t value = sx_peek(at + (n << log), log);
		uint32_t *d32 = SX_D32(w, sx_element(i, n));
		uint64_t *d64 = SX_D64(w, sx_element(i, n));
		if (sign && log < 2)
			value = log ? (uint64_t)(int16_t)value : sx_extend((uint8_t)value, sign);
		if (log == 3) {
			for (int l = 0; l < SX_LANES; l++)
				d64[l] = m >> l & 1 ? value : d64[l];
		} else {
			for (int l = 0; l < SX_LANES; l++)
				d32[l] = m >> l & 1 ? (uint32_t)value : d32[l];
		}
	}
	sx_mem_order(i->aux, w);
	return i + 1;
}

/* All lanes store to one place: the last one's value stays. */
static const struct sx_insn *
sx_st_fixed(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux), count = SX_MEM_COUNT(i->aux);
	uint64_t at;

	if (!sx_fixed_place(w, i, count << log, SW_ACCESS_WRITE, &at))
		return sx_st_any(w, i);
	sx_mem_order(i->aux, w);
	for (unsigned n = 0; n < count; n++)
		sx_poke(at + (n << log), log, sx_source_lane(w, sx_element(i, n), log == 3, 31 - (unsigned)__builtin_clz(w->exec)));
	return i + 1;
}

/* Offsets into the lanes' stacks: where lane 0's would be if all had this lane's. False: not plainly allowed. */
static inline bool
sx_local_places(const struct sx_warp *w, const struct sx_insn *i, unsigned bytes, uint64_t at[SX_LANES])
{
	bool reg = SX_MEM_KIND(i->aux) == SX_AT_LOCAL;
	uint32_t base = (uint32_t)i->imm + (reg ? 0 : w->frame->local_offset), stride = w->local_stride, wrong = 0;

	if (stride < bytes)
		return false;
	for (uint32_t l = 0; l < SX_LANES; l++) {
		uint32_t offset = base + (reg ? SX_S32(w, i->a)[l] : 0);
		wrong |= ((offset & (bytes - 1)) | (offset > stride - bytes)) & (0 - (w->exec >> l & 1));
		at[l] = w->local_base + (uint64_t)l * stride + offset;
	}
	return !wrong;
}

static const struct sx_insn *
sx_ld_local(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux), count = SX_MEM_COUNT(i->aux), sign = sx_load_sign(i->aux);
	uint64_t at[SX_LANES];

	if (!sx_local_places(w, i, count << log, at))
		return sx_ld_any(w, i);
	struct sx_slots s = sx_slots(w, i, log, count, 0);
	for (unsigned n = 0; n < count; n++) {
		struct sx_slots one = { { s.p[n] } };
		for (uint32_t m = w->exec; m;) {
			unsigned l = sx_next_lane(&m);
			sx_lane_load(one, l, (const uint8_t *)(uintptr_t)at[l] + (n << log), log, 1, sign);
		}
	}
	sx_mem_order(i->aux, w);
	return i + 1;
}

static const struct sx_insn *
sx_st_local(struct sx_warp *w, const struct sx_insn *i)
{
	unsigned log = SX_MEM_LOG(i->aux), count = SX_MEM_COUNT(i->aux);
	uint64_t at[SX_LANES];

	if (!sx_local_places(w, i, count << log, at))
		return sx_st_any(w, i);
	sx_mem_order(i->aux, w);
	struct sx_slots s = sx_slots(w, i, log, count, 0);
	for (unsigned n = 0; n < count; n++) {
		struct sx_slots one = { { s.p[n] } };
		for (uint32_t m = w->exec; m;) {
			unsigned l = sx_next_lane(&m);
			sx_lane_store(one, l, (uint8_t *)(uintptr_t)at[l] + (n << log), log, 1);
		}
	}
	return i + 1;
}

/* The forms by halves. name, log2 of the element's bytes, elements, signed. HOT ones have a version for whole warps in front. */
#define SX_HOT_FORMS(X) X(b32, 2, 1, SX_SIGN_NONE) X(b64, 3, 1, SX_SIGN_NONE) X(v4b32, 2, 4, SX_SIGN_NONE)
#define SX_COOL_FORMS(X) \
	X(b8, 0, 1, SX_SIGN_NONE) X(b16, 1, 1, SX_SIGN_NONE) X(v2b32, 2, 2, SX_SIGN_NONE) X(v2b64, 3, 2, SX_SIGN_NONE) X(v2b8, 0, 2, SX_SIGN_NONE) X(v4b8, 0, 4, SX_SIGN_NONE) \
	X(v2b16, 1, 2, SX_SIGN_NONE) X(v4b16, 1, 4, SX_SIGN_NONE)
#define SX_SIGNED_FORMS(X) X(s8, 0, 1, SX_SIGN_32) X(s8h, 0, 1, SX_SIGN_16) X(s16, 1, 1, SX_SIGN_32)

#define SX_FAST_ONE(verb, space, store, name, log, count, sign) \
	static __attribute__((noinline)) const struct sx_insn * \
	sx_##verb##_##space##_##name(struct sx_warp *w, const struct sx_insn *i) \
	{ \
		return sx_##space(w, i, store, log, count, sign); \
	}
#define SX_FAST_WHOLE(verb, space, store, name, log, count, sign) \
	SX_FAST_ONE(verb, space, store, part_##name, log, count, sign) \
	static const struct sx_insn * \
	sx_##verb##_##space##_##name(struct sx_warp *w, const struct sx_insn *i) \
	{ \
		if (__builtin_expect(w->exec != ~0u || (i->aux & (SX_MEM_SPIN | SX_MEM_ORDERED)), 0)) \
			return sx_##verb##_##space##_part_##name(w, i); \
		if (__builtin_expect(!sx_##space##_half(w, i, store, log, count, sign, 0, 0xffff), 0)) \
			return sx_##verb##_##space##_part_##name(w, i); \
		if (__builtin_expect(!sx_##space##_half(w, i, store, log, count, sign, SX_HALF_LANES, 0xffff), 0)) \
			return sx_slow_lanes(w, i, store ? sx_st_any : sx_ld_any, 0xffff0000) ? i + 1 : NULL; \
		return i + 1; \
	}
#define X(name, log, count, sign) \
	SX_FAST_WHOLE(ld, global, false, name, log, count, sign) SX_FAST_WHOLE(ld, shared, false, name, log, count, sign) \
	SX_FAST_WHOLE(st, global, true, name, log, count, sign) SX_FAST_WHOLE(st, shared, true, name, log, count, sign)
SX_HOT_FORMS(X)
#undef X
#define X(name, log, count, sign) \
	SX_FAST_ONE(ld, global, false, name, log, count, sign) SX_FAST_ONE(ld, shared, false, name, log, count, sign) \
	SX_FAST_ONE(st, global, true, name, log, count, sign) SX_FAST_ONE(st, shared, true, name, log, count, sign)
SX_COOL_FORMS(X)
#undef X
#define X(name, log, count, sign) \
	SX_FAST_ONE(ld, global, false, name, log, count, sign) SX_FAST_ONE(ld, shared, false, name, log, count, sign)
SX_SIGNED_FORMS(X)
#undef X

struct sx_fast_row {
	uint8_t log, count;
	uint8_t sign;
	sx_fn load_global, load_shared, store_global, store_shared;
};

static const struct sx_fast_row sx_fast_rows[] = {
#define X(name, log, count, sign) \
	{ log, count, sign, sx_ld_global_##name, sx_ld_shared_##name, sx_st_global_##name, sx_st_shared_##name },
	SX_HOT_FORMS(X) SX_COOL_FORMS(X)
#undef X
#define X(name, log, count, sign) { log, count, sign, sx_ld_global_##name, sx_ld_shared_##name, NULL, NULL },
	SX_SIGNED_FORMS(X)
#undef X
};

static sx_fn
sx_pick_fast(uint32_t aux, bool store, unsigned sign)
{
	switch (SX_MEM_KIND(aux)) {
	case SX_AT_FIXED:
	case SX_AT_SHARED_FIXED:
	case SX_AT_PARAM:
		return store ? sx_st_fixed : sx_ld_fixed;
	case SX_AT_LOCAL:
	case SX_AT_LOCAL_VAR:
		return store ? sx_st_local : sx_ld_local;
	default:
		break;
	}
	for (size_t n = 0; n < sizeof sx_fast_rows / sizeof *sx_fast_rows; n++) {
		const struct sx_fast_row *row = &sx_fast_rows[n];
		if (row->log != SX_MEM_LOG(aux) || row->count != SX_MEM_COUNT(aux) || row->sign != sign)
			continue;
		if (SX_MEM_KIND(aux) == SX_AT_GLOBAL)
			return store ? row->store_global : row->load_global;
		return store ? row->store_shared : row->load_shared;
	}
	return NULL;
}

/* A vector that another thread may be waiting for: see sx_copy_whole(). */
static bool
sx_must_be_whole(uint32_t aux)
{
	return SX_MEM_COUNT(aux) > 1 && (aux & (SX_MEM_SPIN | SX_MEM_ORDERED));
}

/* The handler for a load: a fast one when the registers have just the element's slot. */
static sx_fn
sx_pick_ld(uint32_t aux)
{
	unsigned log = SX_MEM_LOG(aux), bits = SX_MEM_BITS(aux);
	unsigned sign = (aux & SX_MEM_SIGNED) && log < 2;
	bool fits = log == 3 ? bits == 64 : sign ? bits == 32 : log < 3 && bits <= 32;
	sx_fn fn = NULL;

	if (fits && !sx_must_be_whole(aux) && SX_MEM_ALIGN(aux) == SX_MEM_COUNT(aux) << log)
		fn = sx_pick_fast(aux, false, sx_load_sign(aux));
	return fn ? fn : sx_ld_any;
}

static sx_fn
sx_pick_st(uint32_t aux)
{
	unsigned log = SX_MEM_LOG(aux);
	bool fits = log <= 3 && !sx_must_be_whole(aux) && SX_MEM_ALIGN(aux) == SX_MEM_COUNT(aux) << log;
	sx_fn fn = NULL;

	for (unsigned n = 0; n < SX_MEM_COUNT(aux); n++)
		fits &= SX_MEM_WIDE(aux, n) == (log == 3);
	if (fits)
		fn = sx_pick_fast(aux, true, SX_SIGN_NONE);
	return fn ? fn : sx_st_any;
}
