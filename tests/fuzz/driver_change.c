/* How inputs are changed: by chance, by words, by parts of other inputs, and by what the code under test compared.
 *
 * Law of this room: everything that happens here follows from the seed, the corpus and the inputs that were run.
 */
#define _GNU_SOURCE
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS_MAX 256
#define PAIRS 256

uint64_t random_state;
static text words[WORDS_MAX];
static size_t words_count;
static struct {
    uint64_t one, other;
    unsigned size;
} pairs[PAIRS];
static unsigned pairs_count;

/* ---- what was compared with what: GCC calls these */

static void compared(uint64_t one, uint64_t other, unsigned size) {
    if (one == other) return;
    pairs[pairs_count % PAIRS].one = one;
    pairs[pairs_count % PAIRS].other = other;
    pairs[pairs_count++ % PAIRS].size = size;
}

#define COMPARED(name, type)                                                                                           \
    void name(type one, type other);                                                                                   \
    void name(type one, type other) { compared(one, other, sizeof(type)); }
COMPARED(__sanitizer_cov_trace_cmp1, uint8_t)
COMPARED(__sanitizer_cov_trace_cmp2, uint16_t)
COMPARED(__sanitizer_cov_trace_cmp4, uint32_t)
COMPARED(__sanitizer_cov_trace_cmp8, uint64_t)
COMPARED(__sanitizer_cov_trace_const_cmp1, uint8_t)
COMPARED(__sanitizer_cov_trace_const_cmp2, uint16_t)
COMPARED(__sanitizer_cov_trace_const_cmp4, uint32_t)
COMPARED(__sanitizer_cov_trace_const_cmp8, uint64_t)

/* "cases": how many there are, the bits of the value, and each of them. */
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases);
void __sanitizer_cov_trace_switch(uint64_t value, uint64_t *cases) {
    for (uint64_t i = 0; i < cases[0]; i++)
        compared(value, cases[2 + i], (unsigned)cases[1] / 8);
}

/* ---- changing inputs */

uint64_t draw(uint64_t below) {
    random_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t mixed = (random_state ^ random_state >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return below ? (mixed ^ mixed >> 31) % below : 0;
}

static size_t insert(uint8_t *data, size_t size, size_t size_max, const uint8_t *part, size_t length) {
    if (length > size_max - size) return size;
    const size_t at = draw(size + 1);
    memmove(data + at + length, data + at, size - at);
    memcpy(data + at, part, length);
    return size + length;
}

static size_t overwrite(uint8_t *data, size_t size, const uint8_t *part, size_t length) {
    if (length <= size) memcpy(data + draw(size - length + 1), part, length);
    return size;
}

static size_t put(uint8_t *data, size_t size, size_t size_max, const uint8_t *part, size_t length) {
    return draw(2) ? insert(data, size, size_max, part, length) : overwrite(data, size, part, length);
}

/* Replaces what was compared by what it was compared with, if it stands in the input; or else puts that somewhere. */
static size_t satisfy(uint8_t *data, size_t size, size_t size_max) {
    const size_t pair = draw(pairs_count < PAIRS ? pairs_count : PAIRS), length = pairs[pair].size;
    const uint64_t one = pairs[pair].one, other = pairs[pair].other + draw(3) - 1;
    const int swaps = draw(2) == 0;
    const uint8_t *from = (const uint8_t *)(swaps ? &one : &other), *to = (const uint8_t *)(swaps ? &other : &one);
    if (length > size) return insert(data, size, size_max, to, length);
    const uint8_t *start = data + draw(size - length + 1);
    uint8_t *found = memmem(start, size - (size_t)(start - data), from, length);
    if (found == NULL) return overwrite(data, size, to, length);
    memcpy(found, to, length);
    return size;
}

static size_t change_number(uint8_t *data, size_t size) {
    static const uint64_t interesting[] = {0,    1,     127,   128,       255,        256,       4095,
                                           4096, 65535, 65536, INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    const size_t length = (size_t)1 << draw(4);
    uint64_t value = 0;
    if (length > size) return size;
    const size_t at = draw(size - length + 1);
    memcpy(&value, data + at, length);
    value = draw(3) ? value + draw(70) - 35 : interesting[draw(sizeof interesting / sizeof *interesting)];
    memcpy(data + at, &value, length);
    return size;
}

static size_t change_range(uint8_t *data, size_t size, size_t size_max) {
    static uint8_t part[INPUT_MAX];
    const size_t at = draw(size), rest = size - at;
    size_t length = 1 + draw(draw(2) ? rest : rest < 16 ? rest : 16);
    if (draw(2)) {
        memmove(data + at, data + at + length, rest - length);
        return size - length;
    }
    memcpy(part, data + at, length);
    return put(data, size, size_max, part, length);
}

static size_t splice(uint8_t *data, size_t size, size_t size_max) {
    const text other = corpus[draw(corpus_count)];
    if (other.size == 0) return size;
    const size_t at = draw(other.size), length = 1 + draw(other.size - at);
    return put(data, size, size_max, other.bytes + at, length);
}

/* One change, as libFuzzer's function of that name does: targets with a mutator of their own call it. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max) {
    const uint64_t kind = size == 0 ? 7 : draw(10);
    uint8_t byte = (uint8_t)draw(256);
    if (kind < 2) data[draw(size)] ^= (uint8_t)(1u << draw(8));
    if (kind == 2) data[draw(size)] = byte;
    if (kind == 3) return change_number(data, size);
    if (kind == 4) return change_range(data, size, size_max);
    if (kind == 5 && corpus_count > 0) return splice(data, size, size_max);
    if (kind == 6 && words_count > 0) {
        const text word = words[draw(words_count)];
        return put(data, size, size_max, word.bytes, word.size);
    }
    if (kind == 7) return insert(data, size, size_max, &byte, 1);
    return kind > 7 && pairs_count > 0 ? satisfy(data, size, size_max) : size;
}

/* ---- words */

/* Lines of libFuzzer's form: "text", with \\, \" and \xNN in it. */
void read_words(const char *path) {
    char line[256], byte[3] = "";
    FILE *file = fopen(path, "r");
    if (file == NULL) perror(path), exit(2);
    while (words_count < WORDS_MAX && fgets(line, sizeof line, file)) {
        const char *at = line;
        text *word = &words[words_count];
        if (*at++ != '"') continue;
        word->bytes = malloc(sizeof line);
        for (word->size = 0; *at && *at != '"'; at++) {
            if (*at == '\\' && at[1] == 'x' && at[2] && at[3]) {
                byte[0] = at[2], byte[1] = at[3], at += 3;
                word->bytes[word->size++] = (uint8_t)strtoul(byte, NULL, 16);
            } else {
                at += *at == '\\' && at[1];
                word->bytes[word->size++] = (uint8_t)*at;
            }
        }
        words_count += word->size > 0;
    }
    fclose(file);
}
