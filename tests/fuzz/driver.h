/* What the two units of the driver share. */
#ifndef DURABLE_LOG_FUZZ_DRIVER_H
#define DURABLE_LOG_FUZZ_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#define INPUT_MAX (1u << 20)
#define CORPUS_MAX 8192

typedef struct {
    uint8_t *bytes;
    size_t size;
} text;

extern text corpus[CORPUS_MAX];
extern size_t corpus_count;
extern uint64_t random_state;

/* driver_change.c */
uint64_t draw(uint64_t below);
void read_words(const char *path);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);

#endif
