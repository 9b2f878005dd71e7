/* A load generator for servers of the Durable Streams protocol.
 *
 * Law of this folder: one process, one thread, one epoll; far cheaper a request than what it measures. Nothing is taken
 * on trust: each status is looked at, and every byte that was acknowledged is read back or awaited, once and in its
 * order. What is not as it must be ends the run with a message and a status that is not 0.
 */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECOND 1000000000ull

struct options {
    const char *path; /* of the streams, less the number of each */
    uint16_t port;
    unsigned connections, streams, viewers;
    unsigned messages; /* of a request, in JSON; 0 is one plain token */
    double rate;       /* requests a second, on a fixed schedule; 0 is the next as soon as the last is answered */
    double warm_up, seconds;
    double patience; /* how many seconds what was sent may take beyond the end of a run */
    uint64_t bytes;
};

/* How each run ends that is no good one. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint64_t now_ns(void);
double cpu_seconds(void); /* of this process */

/* The subjects: each prints one line of JSON. */
void run_append(const struct options *);
void run_viewers(const struct options *);
void run_fill(const struct options *);
void run_catch_up(const struct options *);

#endif
