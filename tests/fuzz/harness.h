/* What the targets share: taking inputs apart, memory of exactly their size, and checksums computed another way.
 *
 * Law of this room: nothing here decides what is right; each target says that of its own decoder, with REQUIRE. A target
 * has no state between inputs, so that an input alone repeats what happened.
 */
#ifndef DURABLE_LOG_HARNESS_H
#define DURABLE_LOG_HARNESS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "durable_log.h"

#define REQUIRE(condition) ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);

static inline void fuzz_fail(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
    abort();
}

/* An array that a sanitizer guards on both sides; the caller frees it. */
static inline void *fuzz_new(size_t count, size_t size) {
    void *memory = calloc(count + !count, size);
    REQUIRE(memory != NULL);
    return memory;
}

static inline uint8_t *fuzz_copy(const uint8_t *bytes, size_t size) {
    uint8_t *copy = malloc(size + !size);
    REQUIRE(copy != NULL);
    memcpy(copy, bytes, size);
    return copy;
}

/* Stream bytes for targets to which only their checksums matter: always the same ones, however many. */
#define FUZZ_PAYLOAD_MAX (3 * DL_CHUNK + 5000)

static inline const uint8_t *fuzz_payload(void) {
    static uint8_t payload[FUZZ_PAYLOAD_MAX];
    for (uint32_t i = FUZZ_PAYLOAD_MAX; payload[0] == 0; i--)
        payload[i - 1] = (uint8_t)(i * 2654435761u >> 24) | 1;
    return payload;
}

/* The numbers at the start of an input, zero where it is too short; "at" and "left" are what follows them. */
typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline uint64_t fuzz_number(fuzz_input *input, size_t size) {
    uint64_t value = 0;
    const size_t there = size < input->left ? size : input->left;
    memcpy(&value, input->at, there);
    input->at += there;
    input->left -= there;
    return value;
}

static inline uint32_t fuzz_take32(fuzz_input *input) { return (uint32_t)fuzz_number(input, 4); }

static inline uint64_t fuzz_take64(fuzz_input *input) { return fuzz_number(input, 8); }

/* A number of 0 to "most", from one of 64 bits. */
static inline size_t fuzz_within(uint64_t number, uint64_t most) {
    return (size_t)(most == UINT64_MAX ? number : number % (most + 1));
}

static inline uint64_t fuzz_least(uint64_t one, uint64_t other) { return one < other ? one : other; }

/* Stores the checksum of what follows the first four bytes there. */
static inline void fuzz_seal(uint8_t *unit, size_t size, uint32_t seed) {
    dl_store32(unit, dl_crc32c(seed, unit + 4, size - 4));
}

/* The same, to check: by the portable way, which is not the one that the decoders take. */
static inline int fuzz_is_sealed(const uint8_t *unit, size_t size, uint32_t seed) {
    return dl_load32(unit) == dl_crc32c_portable(seed, unit + 4, size - 4);
}

#endif
