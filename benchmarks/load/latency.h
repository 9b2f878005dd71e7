/* Latencies: every one is kept, so that percentiles are exact and the worst is not smoothed away. */
#ifndef LATENCY_H
#define LATENCY_H

#include "load.h"

struct latencies {
    uint64_t *ns;
    size_t count, room;
};

void latency_add(struct latencies *, uint64_t ns);

/* Prints them as a member "latency_us" of a JSON object; sorts them. */
void latency_print(struct latencies *);

#endif
