/* CRC-32C (Castagnoli): the portable way, and the processor's own where it has one.
 *
 * Law of this room: every way gives the same sum for the same bytes, so a file moves freely between machines. The
 * choice is made at each call, from what the processor says of itself; there is nothing to initialise.
 *
 * "crc" is a finished sum (inverted at both ends, as everyone exchanges them); inside, "state" is the bare register.
 */
#include "bytes.h"
#include "crc32c_table.h"
#include "durable_log.h"

#define POLYNOMIAL 0x82f63b78u /* reflected */

static inline uint32_t table_byte(uint32_t state, uint8_t byte) {
    return dl_crc32c_table[0][(state ^ byte) & 0xff] ^ state >> 8;
}

static inline uint32_t table_word(uint32_t state, uint64_t word) {
    word ^= state;
    return dl_crc32c_table[7][word & 0xff] ^ dl_crc32c_table[6][word >> 8 & 0xff] ^
           dl_crc32c_table[5][word >> 16 & 0xff] ^ dl_crc32c_table[4][word >> 24 & 0xff] ^
           dl_crc32c_table[3][word >> 32 & 0xff] ^ dl_crc32c_table[2][word >> 40 & 0xff] ^
           dl_crc32c_table[1][word >> 48 & 0xff] ^ dl_crc32c_table[0][word >> 56];
}

uint32_t dl_crc32c_portable(uint32_t crc, const uint8_t *data, size_t length) {
    uint32_t state = ~crc;
    for (; length >= 8; data += 8, length -= 8)
        state = table_word(state, dl_load64(data));
    for (; length; data++, length--)
        state = table_byte(state, *data);
    return ~state;
}

#if defined(__x86_64__)

#include <immintrin.h>

#define HARDWARE __attribute__((target("sse4.2,pclmul")))

/* The instruction takes three cycles but one can start in each: three lanes side by side keep it busy. Afterwards the
 * first two lanes' registers are moved past the bytes that follow them, which is a multiplication by x^(8 * bytes)
 * modulo the polynomial. The carry-less product of two reflected registers stands one power too low, and the crc32 of
 * a word multiplies by x^32: hence the 33 in the factors. */
struct lanes {
    size_t bytes;      /* of one lane: a multiple of 8 */
    uint32_t past_two; /* x^(16 * bytes - 33) */
    uint32_t past_one; /* x^(8 * bytes - 33) */
};
static const struct lanes LANES_LONG = {1360, 0x5aa1f3cf, 0x3f70cc6f}; /* three are just short of a page */
static const struct lanes LANES_SHORT = {128, 0xb9e02b86, 0x0d3b6092};

HARDWARE static inline uint64_t times(uint64_t state, uint32_t factor) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)state), _mm_cvtsi32_si128((int)factor), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

HARDWARE static inline uint32_t three_lanes(uint32_t state, const uint8_t *data, struct lanes lanes) {
    uint64_t first = state, second = 0, third = 0;
    const uint8_t *end = data + lanes.bytes - 8;
    for (; data < end; data += 8) {
        first = _mm_crc32_u64(first, dl_load64(data));
        second = _mm_crc32_u64(second, dl_load64(data + lanes.bytes));
        third = _mm_crc32_u64(third, dl_load64(data + 2 * lanes.bytes));
    }
    first = _mm_crc32_u64(first, dl_load64(data));
    second = _mm_crc32_u64(second, dl_load64(data + lanes.bytes));
    uint64_t moved = times(first, lanes.past_two) ^ times(second, lanes.past_one);
    return (uint32_t)_mm_crc32_u64(third, dl_load64(data + 2 * lanes.bytes) ^ moved);
}

HARDWARE static uint32_t by_lanes(uint32_t state, const uint8_t *data, size_t length) {
    for (; length >= 3 * LANES_LONG.bytes; data += 3 * LANES_LONG.bytes, length -= 3 * LANES_LONG.bytes)
        state = three_lanes(state, data, LANES_LONG);
    for (; length >= 3 * LANES_SHORT.bytes; data += 3 * LANES_SHORT.bytes, length -= 3 * LANES_SHORT.bytes)
        state = three_lanes(state, data, LANES_SHORT);
    for (; length >= 8; data += 8, length -= 8)
        state = (uint32_t)_mm_crc32_u64(state, dl_load64(data));
    for (; length; data++, length--)
        state = _mm_crc32_u8(state, *data);
    return state;
}

/* begin: folding
 *
 * Where there are wide carry-less products, whole blocks are moved onto what follows them, 16 bytes in
 * each of 16 lanes, twice as fast as the instruction takes bytes. A product of reflected words stands one power too low
 * here as well: to move 16 bytes by n bits, their first half is multiplied by x^(n + 63), the second by x^(n - 1). */
#define FOLDING __attribute__((target("avx512f,vpclmulqdq,sse4.2,pclmul")))
#define FOLDED ((size_t)256)

struct move {
    uint32_t first, second;
};
static const struct move MOVE_2048 = {0xe9a5d8be, 0x1426a815};
static const struct move MOVE_512 = {0x1c19243b, 0x75bba45b};
static const struct move MOVE_128 = {0x3743f7bd, 0x3171d430};

FOLDING static inline __m128i factors(struct move by) { return _mm_set_epi32((int)by.second, 0, (int)by.first, 0); }

FOLDING static inline __m512i fold_four(__m512i lanes, struct move by, __m512i onto) {
    const __m512i factor = _mm512_broadcast_i32x4(factors(by));
    const __m512i first = _mm512_clmulepi64_epi128(lanes, factor, 0x00);
    return _mm512_xor_si512(_mm512_xor_si512(first, onto), _mm512_clmulepi64_epi128(lanes, factor, 0x11));
}

FOLDING static inline __m128i fold_one(__m128i lane, struct move by, __m128i onto) {
    const __m128i first = _mm_clmulepi64_si128(lane, factors(by), 0x00);
    return _mm_xor_si128(_mm_xor_si128(first, onto), _mm_clmulepi64_si128(lane, factors(by), 0x11));
}

/* "length" is a multiple of FOLDED, and not 0. */
FOLDING static uint32_t by_folding(uint32_t state, const uint8_t *data, size_t length) {
    const uint8_t *end = data + length;
    __m512i lanes[4];
    for (int i = 0; i < 4; i++)
        lanes[i] = _mm512_loadu_si512(data + 64 * i);
    lanes[0] = _mm512_xor_si512(lanes[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    for (data += FOLDED; data < end; data += FOLDED)
        for (int i = 0; i < 4; i++)
            lanes[i] = fold_four(lanes[i], MOVE_2048, _mm512_loadu_si512(data + 64 * i));
    for (int i = 1; i < 4; i++)
        lanes[i] = fold_four(lanes[i - 1], MOVE_512, lanes[i]);
    __m128i lane = _mm512_extracti32x4_epi32(lanes[3], 0);
    lane = fold_one(lane, MOVE_128, _mm512_extracti32x4_epi32(lanes[3], 1));
    lane = fold_one(lane, MOVE_128, _mm512_extracti32x4_epi32(lanes[3], 2));
    lane = fold_one(lane, MOVE_128, _mm512_extracti32x4_epi32(lanes[3], 3));
    const uint64_t half = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(lane));
    return (uint32_t)_mm_crc32_u64(half, (uint64_t)_mm_extract_epi64(lane, 1));
}
static int folds(void) { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"); }

static uint32_t hardware(uint32_t state, const uint8_t *data, size_t length) {
    const size_t folded = length / FOLDED * FOLDED;
    if (folded == 0 || !folds()) return by_lanes(state, data, length);
    return by_lanes(by_folding(state, data, folded), data + folded, length - folded);
}

int dl_crc32c_hardware(void) {
    if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul")) return 0;
    return folds() ? 2 : 1;
}
/* end: folding */

#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))

#if defined(__linux__)
#include <sys/auxv.h>
#endif

#define HWCAP_CRC 128 /* HWCAP_CRC32 of <asm/hwcap.h>, part of Linux's stable interface */

#if defined(__clang__)
#define HARDWARE __attribute__((target("crc")))
#else
#define HARDWARE __attribute__((target("+crc")))
#endif

int dl_crc32c_hardware(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_CRC) != 0;
#else
    return 1; /* every Apple processor of this architecture has the instructions */
#endif
}

HARDWARE static uint32_t hardware(uint32_t state, const uint8_t *data, size_t length) {
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word = dl_load64(data);
        __asm__("crc32cx %w0, %w0, %x1" : "+r"(state) : "r"(word));
    }
    for (; length; data++, length--)
        __asm__("crc32cb %w0, %w0, %w1" : "+r"(state) : "r"((uint32_t)*data));
    return state;
}

#else

int dl_crc32c_hardware(void) { return 0; }

static uint32_t hardware(uint32_t state, const uint8_t *data, size_t length) {
    return ~dl_crc32c_portable(~state, data, length);
}

#endif

uint32_t dl_crc32c(uint32_t crc, const uint8_t *data, size_t length) {
    return dl_crc32c_hardware() ? ~hardware(~crc, data, length) : dl_crc32c_portable(crc, data, length);
}

/* ---- sums of ranges ---- */

/* x^(8 * 2^k) modulo the polynomial: a register times that is what becomes of it past 2^k zero bytes. The powers of x
 * repeat after 2^31 - 1, so that the next of these is the first one again. */
#define PAST_COUNT 31
static const uint32_t PAST[PAST_COUNT] = {
    0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18, 0x510ac59a, 0xb82be955, 0xb8fdb1e7,
    0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269, 0xe2ea32dc,
    0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915, 0x734d5309, 0xbc1ac763, 0x7d0722cc,
    0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42, 0x40000000, 0x20000000, 0x08000000,
};

/* Reflected, as registers are: the highest bit stands for 1. */
static uint32_t product(uint32_t one, uint32_t other) {
    uint32_t sum = 0;
    for (; one; one <<= 1) {
        sum ^= one >> 31 ? other : 0;
        other = other >> 1 ^ (other & 1 ? POLYNOMIAL : 0);
    }
    return sum;
}

static uint32_t past(uint32_t state, size_t bytes) {
    for (size_t k = 0; bytes; bytes >>= 1, k++)
        if (bytes & 1) state = product(state, PAST[k % PAST_COUNT]);
    return state;
}

/* The registers, from 0, at the start of each whole page and behind the last: length / DL_PAGE + 1 of them. */
void dl_crc32c_marks(const uint8_t *data, size_t length, uint32_t *marks) {
    marks[0] = 0;
    for (size_t page = 0; page < length / DL_PAGE; page++)
        marks[page + 1] = ~dl_crc32c(~marks[page], data + page * DL_PAGE, DL_PAGE);
}

static uint32_t register_at(const uint8_t *data, const uint32_t *marks, size_t at) {
    const size_t page = at / DL_PAGE;
    return ~dl_crc32c(~marks[page], data + page * DL_PAGE, at % DL_PAGE);
}

/* The sum of the bytes "from" to "to", by the marks of all of them: however many these are, less than two pages are
 * read. A register is linear, so what stands before the range can be taken out of it. */
uint32_t dl_crc32c_range(uint32_t crc, const uint8_t *data, const uint32_t *marks, size_t from, size_t to) {
    if (to - from <= DL_PAGE) return dl_crc32c(crc, data + from, to - from);
    return ~(register_at(data, marks, to) ^ past(register_at(data, marks, from) ^ ~crc, to - from));
}
