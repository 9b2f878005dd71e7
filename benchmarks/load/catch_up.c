/* A long stream: written first, then read from its start to its tail on one connection. */
#include "connection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 1000003u /* a prime: bytes that are missing or come twice shift what follows */
#define APPEND_BYTES 65536u

struct content {
    char *block; /* what the stream repeats, and as much again as one append takes */
    uint64_t position;
};

static struct content content_make(void) {
    struct content content = {.block = malloc(BLOCK_BYTES + APPEND_BYTES)};
    if (content.block == NULL) fail("no memory for the content");
    uint32_t state = 1;
    for (size_t at = 0; at < BLOCK_BYTES; at++) {
        state = state * 1664525u + 1013904223u;
        content.block[at] = (char)(state >> 24);
    }
    memcpy(content.block + BLOCK_BYTES, content.block, APPEND_BYTES);
    return content;
}

void run_fill(const struct options *options) {
    struct content content = content_make();
    struct connection connection;
    char *request = malloc(HEAD_MAX + APPEND_BYTES);
    if (request == NULL) fail("no memory for a request");
    connection_open(&connection, 0, options->port);
    create_stream(&connection, options, 0, "application/octet-stream");
    for (uint64_t left = options->bytes; left > 0;) {
        const size_t length = left < APPEND_BYTES ? (size_t)left : APPEND_BYTES;
        const size_t head = write_head(request, HEAD_MAX, options, 0, "application/octet-stream", length);
        memcpy(request + head, content.block + content.position % BLOCK_BYTES, length);
        connection_exchange(&connection, request, head + length, 204, NULL, NULL);
        content.position += length;
        left -= length;
    }
    printf("{\"bytes\": %llu}\n", (unsigned long long)content.position);
}

_Noreturn static void fail_at_first(const char *found, const char *written, uint64_t position) {
    while (*found++ == *written++)
        position++;
    fail("byte %llu is not the one that was written", (unsigned long long)position);
}

static void take_content(void *to, const char *part, size_t length) {
    struct content *content = to;
    while (length > 0) {
        const size_t at = (size_t)(content->position % BLOCK_BYTES);
        const size_t same = length < BLOCK_BYTES - at ? length : BLOCK_BYTES - at;
        if (memcmp(part, content->block + at, same) != 0) fail_at_first(part, content->block + at, content->position);
        part += same;
        length -= same;
        content->position += same;
    }
}

void run_catch_up(const struct options *options) {
    struct content content = content_make();
    struct connection connection;
    connection_open(&connection, 0, options->port);
    const uint64_t start = now_ns();
    const double began = cpu_seconds();
    const unsigned pages = read_stream(&connection, options, 0, take_content, &content);
    const double seconds = (double)(now_ns() - start) / (double)SECOND;
    if (content.position != options->bytes) {
        fail("%llu of %llu bytes are there", (unsigned long long)content.position, (unsigned long long)options->bytes);
    }
    printf("{\"bytes\": %llu, \"pages\": %u, \"bytes_per_second\": %.0f, \"cpu_seconds\": %.3f}\n",
           (unsigned long long)content.position, pages, (double)content.position / seconds, cpu_seconds() - began);
}
