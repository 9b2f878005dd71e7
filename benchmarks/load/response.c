#define _GNU_SOURCE
#include "response.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void response_begin(struct response *response) {
    response->state = IN_HEAD;
    response->status = 0;
    response->chunked = response->up_to_date = false;
    response->left = 0;
    response->next_offset[0] = '\0';
    response->length = 0;
}

static bool is_named(const char *line, const char *name) { return strncasecmp(line, name, strlen(name)) == 0; }

static const char *value_of(const char *line) {
    line = strchr(line, ':') + 1;
    return line + strspn(line, " \t");
}

static void read_header(struct response *response, const char *line) {
    if (is_named(line, "content-length:")) {
        response->left = strtoull(value_of(line), NULL, 10);
    } else if (is_named(line, "transfer-encoding:")) {
        response->chunked = strncasecmp(value_of(line), "chunked", 7) == 0;
    } else if (is_named(line, "stream-up-to-date:")) {
        response->up_to_date = strncasecmp(value_of(line), "true", 4) == 0;
    } else if (is_named(line, "stream-next-offset:")) {
        const char *value = value_of(line);
        const size_t length = strcspn(value, " \t");
        if (length >= sizeof response->next_offset) fail("an offset of %zu bytes", length);
        memcpy(response->next_offset, value, length);
        response->next_offset[length] = '\0';
    }
}

static void read_head(struct response *response) {
    char *line = response->line;
    if (strncmp(line, "HTTP/1.1 ", 9) != 0) fail("no response of HTTP/1.1: %.40s", line);
    response->status = atoi(line + 9);
    for (char *end; (end = strstr(line, "\r\n")) != NULL; line = end + 2) {
        *end = '\0';
        if (line != response->line && line != end) read_header(response, line);
    }
    response->length = 0;
    if (response->status == 204 || response->status == 304) {
        response->state = WHOLE;
    } else if (response->chunked) {
        response->state = IN_CHUNK_SIZE;
    } else {
        response->state = response->left > 0 ? IN_BODY : WHOLE;
    }
}

/* Gathers bytes up to and with "end"; returns how many were taken. */
static size_t gather(struct response *response, const char *bytes, size_t length, const char *end, bool *found) {
    const size_t before = response->length, end_length = strlen(end);
    const size_t room = HEAD_MAX - 1 - before, most = length < room ? length : room;
    memcpy(response->line + before, bytes, most);
    const size_t from = before < end_length ? 0 : before - end_length + 1;
    const char *at = memmem(response->line + from, before + most - from, end, end_length);
    *found = at != NULL;
    if (at == NULL && most == room) fail("a head of more than %d bytes", HEAD_MAX);
    response->length = at == NULL ? before + most : (size_t)(at - response->line) + end_length;
    response->line[response->length] = '\0';
    return response->length - before;
}

static void read_chunk_size(struct response *response) {
    char *end;
    response->left = strtoull(response->line, &end, 16);
    if (end == response->line) fail("no size of a chunk: %.40s", response->line);
    response->length = 0;
    response->state = response->left > 0 ? IN_CHUNK : IN_TRAILER;
}

static void read_trailer(struct response *response) {
    response->state = response->length == 2 ? WHOLE : IN_TRAILER;
    response->length = 0;
}

static size_t feed_line(struct response *response, const char *bytes, size_t length) {
    bool found;
    const size_t taken = gather(response, bytes, length, response->state == IN_HEAD ? "\r\n\r\n" : "\r\n", &found);
    if (!found) return taken;
    switch (response->state) {
    case IN_HEAD: read_head(response); break;
    case IN_CHUNK_SIZE: read_chunk_size(response); break;
    case BEHIND_CHUNK:
        response->length = 0;
        response->state = IN_CHUNK_SIZE;
        break;
    default: read_trailer(response);
    }
    return taken;
}

size_t response_feed(struct response *response, const char *bytes, size_t length, take_part *take, void *to) {
    size_t fed = 0;
    while (fed < length && response->state != WHOLE) {
        if (response->state != IN_BODY && response->state != IN_CHUNK) {
            fed += feed_line(response, bytes + fed, length - fed);
            continue;
        }
        const size_t part = response->left < length - fed ? (size_t)response->left : length - fed;
        if (take != NULL) take(to, bytes + fed, part);
        fed += part;
        response->left -= part;
        if (response->left == 0) response->state = response->state == IN_CHUNK ? BEHIND_CHUNK : WHOLE;
    }
    return fed;
}
