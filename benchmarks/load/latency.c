#include "latency.h"

#include <stdio.h>
#include <stdlib.h>

void latency_add(struct latencies *all, uint64_t ns) {
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 1 << 16;
        all->ns = realloc(all->ns, all->room * sizeof *all->ns);
        if (all->ns == NULL) fail("no memory for %zu latencies", all->room);
    }
    all->ns[all->count++] = ns;
}

static int compare(const void *left, const void *right) {
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* The least latency that at least this share of all do not exceed. */
static double percentile_us(const struct latencies *all, double share) {
    size_t rank = (size_t)(share * (double)all->count);
    if ((double)rank < share * (double)all->count) rank++;
    return (double)all->ns[rank > 0 ? rank - 1 : 0] / 1e3;
}

void latency_print(struct latencies *all) {
    if (all->count == 0) fail("nothing was measured: the run was too short");
    qsort(all->ns, all->count, sizeof *all->ns, compare);
    printf("\"latency_us\": {\"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}",
           percentile_us(all, 0.5), percentile_us(all, 0.9), percentile_us(all, 0.99), percentile_us(all, 0.999),
           percentile_us(all, 1.0));
}
