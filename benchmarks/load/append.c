/* Appends by many connections. In a closed loop each sends as soon as it is answered; on a schedule a request is due at
 * its time whether the server is ready or not, and its latency counts from then: a server that pauses is not asked less.
 */
#include "connection.h"
#include "latency.h"
#include "token.h"

#include <stdio.h>
#include <stdlib.h>

struct writer {
    struct connection connection; /* first: events point to it */
    char *request;
    size_t head, length;
    uint64_t number; /* of the next token */
};

struct load {
    const struct options *options;
    int epoll;
    struct writer *writers;
    struct writer **idle; /* a ring, so that all take turns */
    size_t first_idle, idles;
    uint64_t start, end; /* of what is measured */
    uint64_t next_due, interval; /* of the schedule; 0 is none */
    uint64_t answered; /* within these times */
    struct latencies latencies;
};

static unsigned tokens_of(const struct options *options) { return options->messages > 0 ? options->messages : 1; }

static const char *content_type_of(const struct options *options) {
    return options->messages > 0 ? "application/json" : "text/plain";
}

static void writer_open(struct writer *writer, const struct options *options, unsigned number) {
    const size_t body = options->messages > 0 ? options->messages * (TOKEN_BYTES + 1ul) + 1 : TOKEN_BYTES;
    connection_open(&writer->connection, number, options->port);
    if (number < options->streams) create_stream(&writer->connection, options, number, content_type_of(options));
    writer->request = malloc(HEAD_MAX + body);
    if (writer->request == NULL) fail("no memory for a request of %zu bytes", body);
    writer->head =
        write_head(writer->request, HEAD_MAX, options, number % options->streams, content_type_of(options), body);
    writer->length = writer->head + body;
    writer->number = 0;
}

static void writer_send(struct writer *writer, const struct options *options, uint64_t since) {
    char *to = writer->request + writer->head;
    for (unsigned message = 0; message < tokens_of(options); message++) {
        if (options->messages > 0) *to++ = message == 0 ? '[' : ',';
        token_write(to, writer->connection.number, writer->number++, 0, options->messages > 0);
        to += TOKEN_BYTES;
    }
    if (options->messages > 0) *to = ']';
    writer->connection.since = since;
    connection_send(&writer->connection, writer->request, writer->length);
}

static void let_idle(struct load *load, struct writer *writer) {
    load->idle[(load->first_idle + load->idles++) % load->options->connections] = writer;
}

/* The time is over, and something was measured. */
static bool has_ended(const struct load *load, uint64_t now) {
    return load->interval > 0 ? load->next_due >= load->end : now >= load->end && load->answered > 0;
}

/* Sends what is due and can be sent. */
static void send_due(struct load *load) {
    while (load->idles > 0) {
        const uint64_t now = now_ns(), since = load->interval > 0 ? load->next_due : now;
        if (since > now || has_ended(load, now)) return;
        struct writer *writer = load->idle[load->first_idle];
        load->first_idle = (load->first_idle + 1) % load->options->connections;
        load->idles--;
        load->next_due += load->interval;
        writer_send(writer, load->options, since);
    }
}

/* The moment at which something other than a response is to be done. */
static uint64_t next_moment(const struct load *load, uint64_t last) {
    return load->interval > 0 && load->idles > 0 && load->next_due < load->end ? load->next_due : last;
}

static void count(struct load *load, const struct writer *writer, uint64_t now) {
    const uint64_t when = load->interval > 0 ? writer->connection.since : now;
    if (load->answered == 0 && when >= load->end) load->end = when + 1;
    if (when < load->start || when >= load->end) return;
    load->answered++;
    latency_add(&load->latencies, now - writer->connection.since);
}

static void run(struct load *load) {
    const uint64_t last = load->end + (uint64_t)(load->options->patience * (double)SECOND);
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        send_due(load);
        if (load->idles == load->options->connections && has_ended(load, now_ns())) return;
        const unsigned happened = events_wait(load->epoll, events, next_moment(load, last));
        if (now_ns() >= last)
            fail("responses are missing %g s after the end: the server does not keep up", load->options->patience);
        for (unsigned at = 0; at < happened; at++) {
            struct writer *writer = events[at].data.ptr;
            if (!connection_receive(&writer->connection, NULL, NULL)) continue;
            check_status(&writer->connection, 204);
            count(load, writer, now_ns());
            let_idle(load, writer);
        }
    }
}

static void take_tokens(void *reader, const char *part, size_t length) { token_read(reader, part, length); }

/* Everything that was acknowledged is there, once and in order. */
static void verify(const struct load *load) {
    const unsigned writers = load->options->connections;
    uint64_t *next = calloc(writers, sizeof *next);
    if (next == NULL) fail("no memory for %u numbers", writers);
    for (unsigned stream = 0; stream < load->options->streams; stream++) {
        char name[32];
        snprintf(name, sizeof name, "stream %u", stream);
        struct token_reader reader = {.whose = name, .next = next, .writers = writers};
        read_stream(&load->writers[0].connection, load->options, stream, take_tokens, &reader);
        if (reader.length > 0) fail("%s ends with %zu bytes of a token", name, reader.length);
    }
    for (unsigned at = 0; at < writers; at++) {
        if (next[at] != load->writers[at].number) {
            fail("of %llu tokens of writer %u, %llu are there", (unsigned long long)load->writers[at].number, at,
                 (unsigned long long)next[at]);
        }
    }
    free(next);
}

void run_append(const struct options *options) {
    struct load load = {.options = options, .epoll = events_open()};
    load.writers = calloc(options->connections, sizeof *load.writers);
    load.idle = calloc(options->connections, sizeof(struct writer *));
    if (load.writers == NULL || load.idle == NULL) fail("no memory for %u connections", options->connections);
    for (unsigned at = 0; at < options->connections; at++) {
        writer_open(&load.writers[at], options, at);
        events_of(load.epoll, &load.writers[at].connection);
        let_idle(&load, &load.writers[at]);
    }
    const uint64_t now = now_ns();
    const double began = cpu_seconds();
    load.interval = options->rate > 0 ? (uint64_t)((double)SECOND / options->rate) : 0;
    load.next_due = now;
    load.start = now + (uint64_t)(options->warm_up * (double)SECOND);
    load.end = load.start + (uint64_t)(options->seconds * (double)SECOND);
    run(&load);
    const double used = cpu_seconds() - began;
    verify(&load);
    uint64_t sent = 0;
    for (unsigned at = 0; at < options->connections; at++)
        sent += load.writers[at].number;
    const double a_second = (double)load.answered * (double)SECOND / (double)(load.end - load.start);
    printf("{\"requests\": %llu, \"requests_per_second\": %.1f, \"messages_per_second\": %.1f, \"cpu_us\": %.2f, ",
           (unsigned long long)load.answered, a_second, a_second * tokens_of(options),
           used * 1e6 * tokens_of(options) / (double)sent);
    latency_print(&load.latencies);
    printf("}\n");
}
