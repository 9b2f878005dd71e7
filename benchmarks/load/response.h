/* Responses of HTTP/1.1, as they come: the head's few words that matter here, and the body in parts. */
#ifndef RESPONSE_H
#define RESPONSE_H

#include "load.h"

#define HEAD_MAX 4096

enum response_state { IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK, BEHIND_CHUNK, IN_TRAILER, WHOLE };

struct response {
    enum response_state state;
    int status;
    bool chunked, up_to_date;
    uint64_t left; /* of the body, or of the chunk */
    char next_offset[64];
    char line[HEAD_MAX]; /* the head, or the line of a chunk's size */
    size_t length;
};

/* Takes a part of a body. */
typedef void take_part(void *to, const char *part, size_t length);

void response_begin(struct response *);

/* Takes bytes and gives on those of the body; returns how many were this response's. */
size_t response_feed(struct response *, const char *bytes, size_t length, take_part *take, void *to);

#endif
