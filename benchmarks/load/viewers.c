/* Viewers of one stream by server-sent events, and one writer. A token's latency counts from when it was due. */
#include "connection.h"
#include "latency.h"
#include "token.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADS_SECONDS 10 /* how long all viewers may take to be let in */

enum line { FIELD, EVENT_NAME, DATA_START, DATA, OTHER };

struct viewer {
    struct connection connection; /* first: events point to it */
    bool let_in;
    enum line line;
    char word[16]; /* a field's name, or an event's */
    size_t length;
    bool is_data; /* whether the event under way is one of data */
    uint64_t next;
    struct token_reader tokens;
};

struct audience {
    const struct options *options;
    int epoll;
    struct connection writer;
    struct viewer *viewers;
    unsigned let_in;
    char request[HEAD_MAX];
    size_t head;
    bool waits; /* for the writer's response */
    uint64_t written, start, end, next_due, interval;
    uint64_t delivered, received; /* within these times; by all viewers, in all */
    struct latencies latencies;
};

static void begin_value(struct viewer *viewer) {
    const bool is_event = viewer->length == 5 && memcmp(viewer->word, "event", 5) == 0;
    const bool is_data = viewer->length == 4 && memcmp(viewer->word, "data", 4) == 0;
    viewer->line = is_event ? EVENT_NAME : is_data && viewer->is_data ? DATA_START : OTHER;
    viewer->length = 0;
}

static void end_line(struct viewer *viewer) {
    if (viewer->line == EVENT_NAME) {
        const size_t space = viewer->length > 0 && viewer->word[0] == ' ' ? 1 : 0;
        viewer->is_data = viewer->length - space == 4 && memcmp(viewer->word + space, "data", 4) == 0;
    } else if (viewer->line == FIELD && viewer->length == 0) {
        viewer->is_data = false;
    }
    viewer->line = FIELD;
    viewer->length = 0;
}

static void deliver(void *to, uint64_t written) {
    struct audience *audience = to;
    const uint64_t now = now_ns();
    audience->received++;
    if (audience->delivered == 0 && now >= audience->end) audience->end = now + 1;
    if (now < audience->start || now >= audience->end) return;
    audience->delivered++;
    latency_add(&audience->latencies, now - written);
}

/* Takes a part of the event stream: the values of the data lines of data events are tokens. */
static void take_events(void *to, const char *part, size_t length) {
    struct viewer *viewer = to;
    const char *end = part + length;
    while (part < end) {
        if (*part == '\n') {
            end_line(viewer);
            part++;
        } else if (viewer->line == FIELD || viewer->line == EVENT_NAME) {
            if (viewer->line == FIELD && *part == ':') {
                begin_value(viewer);
            } else if (viewer->length < sizeof viewer->word) {
                viewer->word[viewer->length++] = *part;
            }
            part++;
        } else if (viewer->line == DATA_START) {
            if (*part == ' ') part++;
            viewer->line = DATA;
        } else {
            const char *line_end = memchr(part, '\n', (size_t)(end - part));
            if (line_end == NULL) line_end = end;
            if (viewer->line == DATA) token_read(&viewer->tokens, part, (size_t)(line_end - part));
            part = line_end;
        }
    }
}

static void viewer_open(struct audience *audience, unsigned number) {
    const struct options *options = audience->options;
    struct viewer *viewer = &audience->viewers[number];
    char request[HEAD_MAX];
    const int length =
        snprintf(request, sizeof request, "GET %s0?offset=-1&live=sse HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                 options->path, options->port);
    connection_open(&viewer->connection, number, options->port);
    viewer->tokens = (struct token_reader){
        .whose = "a viewer", .next = &viewer->next, .writers = 1, .taken = deliver, .to = audience};
    events_of(audience->epoll, &viewer->connection);
    connection_send(&viewer->connection, request, (size_t)length);
}

static void viewer_receive(struct audience *audience, struct viewer *viewer) {
    if (connection_receive(&viewer->connection, take_events, viewer)) fail("a viewer's event stream ended");
    if (!viewer->let_in && viewer->connection.response.state != IN_HEAD) {
        check_status(&viewer->connection, 200);
        viewer->let_in = true;
        audience->let_in++;
    }
}

static void write_token(struct audience *audience, uint64_t time) {
    token_write(audience->request + audience->head, 0, audience->written++, time, false);
    audience->waits = true;
    audience->next_due += audience->interval;
    connection_send(&audience->writer, audience->request, audience->head + TOKEN_BYTES);
}

/* Takes what has come, waiting for it at most until that moment. */
static void take_turn(struct audience *audience, uint64_t until) {
    struct epoll_event events[EVENTS_MAX];
    const unsigned happened = events_wait(audience->epoll, events, until);
    for (unsigned at = 0; at < happened; at++) {
        if (events[at].data.ptr != &audience->writer) {
            viewer_receive(audience, events[at].data.ptr);
        } else if (connection_receive(&audience->writer, NULL, NULL)) {
            check_status(&audience->writer, 204);
            audience->waits = false;
        }
    }
}

static void let_in(struct audience *audience) {
    const uint64_t last = now_ns() + HEADS_SECONDS * SECOND;
    const unsigned viewers = audience->options->viewers;
    audience->viewers = calloc(viewers, sizeof *audience->viewers);
    if (audience->viewers == NULL) fail("no memory for %u viewers", viewers);
    for (unsigned at = 0; at < viewers; at++)
        viewer_open(audience, at);
    while (audience->let_in < viewers) {
        take_turn(audience, last);
        if (now_ns() >= last) fail("%u of %u viewers were let in", audience->let_in, viewers);
    }
}

/* When what is missing is missing for too long. */
static uint64_t last_moment(const struct audience *audience) {
    return audience->end + (uint64_t)(audience->options->patience * (double)SECOND);
}

/* Until the time is over and something was measured. */
static void write_all(struct audience *audience) {
    const uint64_t last = last_moment(audience);
    for (uint64_t now = now_ns(); now < audience->end || (audience->delivered == 0 && now < last); now = now_ns()) {
        const uint64_t due = audience->interval > 0 ? audience->next_due : now;
        if (!audience->waits && due <= now) write_token(audience, due);
        take_turn(audience, !audience->waits && audience->next_due < audience->end && audience->interval > 0
                                ? audience->next_due
                                : audience->end);
    }
}

/* Waits until every viewer has every token. */
static void drain(struct audience *audience) {
    const uint64_t last = last_moment(audience);
    const uint64_t due = audience->written * audience->options->viewers;
    while (audience->waits || audience->received < due) {
        take_turn(audience, last);
        if (now_ns() >= last) {
            fail("%llu of %llu tokens for viewers are missing %g s after the end",
                 (unsigned long long)(due - audience->received), (unsigned long long)due, audience->options->patience);
        }
    }
}

void run_viewers(const struct options *options) {
    struct audience audience = {.options = options, .epoll = events_open()};
    connection_open(&audience.writer, options->viewers, options->port);
    create_stream(&audience.writer, options, 0, "text/plain");
    audience.head =
        write_head(audience.request, sizeof audience.request - TOKEN_BYTES, options, 0, "text/plain", TOKEN_BYTES);
    events_of(audience.epoll, &audience.writer);
    audience.start = UINT64_MAX;
    let_in(&audience);
    audience.interval = options->rate > 0 ? (uint64_t)((double)SECOND / options->rate) : 0;
    audience.next_due = now_ns();
    audience.start = audience.next_due + (uint64_t)(options->warm_up * (double)SECOND);
    audience.end = audience.start + (uint64_t)(options->seconds * (double)SECOND);
    const double began = cpu_seconds();
    write_all(&audience);
    drain(&audience);
    printf("{\"viewers\": %u, \"deliveries\": %llu, \"deliveries_per_second\": %.1f, \"cpu_us\": %.2f, ",
           options->viewers, (unsigned long long)audience.delivered,
           (double)audience.delivered * (double)SECOND / (double)(audience.end - audience.start),
           (cpu_seconds() - began) * 1e6 / (double)audience.received);
    latency_print(&audience.latencies);
    printf("}\n");
}
