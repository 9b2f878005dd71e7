/* Clustered segments, within the C core.
 *
 * Law of this room: the layout of rows and entries, and the functions that the cluster's units share. Whatever is
 * loaded here has been verified, and what it says of lengths and positions has been compared with what is there.
 *
 * A clustered segment, grouped by stream. Rows and entries stand in the order of the payload, without gaps:
 *
 *   |<- 4096 ->|<---- payload ---->|<-- rows -->|<----------- entries ----------->|<- 64 ->|
 *   |  header  | stream 3 | 7 | 9  | 3 | 7 | 9  | E0 E1 E2 | index of 3 | E0 | E0 | trailer|
 *
 *   row (48):   crc 4 | length 4 | stream 8 | start 8 | payload position 8 | entries position 8 | entries length 4 |
 *               records 4
 *   entry (32): crc 4 | length 4 | stream 8 | start 8 | before 4 | ends length 4
 *               then a CRC 4 for each page of the chunk, then for each record that touches it where it ends, as a varint
 *               of the distance from the end before it, the first from the chunk's start; the last may end behind it.
 *               "before": how far before the chunk's start the record begins that holds the chunk's first byte.
 *   index:      for each chunk of a row but the first: where its entry begins, from the row's first entry on, 4 bytes.
 *               Behind the row's last entry. It is a hint: entries name their stream and start.
 *
 * Chunks are cut at multiples of 64 KiB from the row's start, pages at multiples of 4 KiB from the chunk's.
 */
#ifndef DURABLE_LOG_CLUSTER_H
#define DURABLE_LOG_CLUSTER_H

#include "durable_log.h"

#include <sys/types.h>

#include "bytes.h"

#define DL_CHUNK_SUMS (4 * DL_CHUNK / DL_PAGE)
#define DL_ENDS_MAX (DL_CHUNK + 5)

_Static_assert(DL_ENTRY_MAX == DL_ENTRY_HEADER + DL_CHUNK_SUMS + DL_ENDS_MAX, "the longest entry");
_Static_assert(sizeof(dl_record) == 32, "two to a cache line");

typedef enum dl_cluster_verdict dl_cv;

typedef struct {
    uint64_t stream;
    uint64_t start;
    uint64_t end;
    uint64_t payload_position;
    uint64_t entries_position;
    uint32_t entries_length;
    uint32_t records;
} dl_row;

typedef struct {
    size_t size;
    uint64_t start; /* of the chunk */
    uint64_t end;
    const uint8_t *sums;
    uint32_t before;
    uint32_t ends_length;
    const uint8_t *ends;
} dl_entry;

/* The records that touch a chunk, one after the other. */
typedef struct {
    const uint8_t *at;
    const uint8_t *stop;
    uint64_t start;
    uint64_t end;
    uint64_t next_start;
} dl_records;

static inline size_t dl_sums_length(uint64_t length) { return (size_t)((length + DL_PAGE - 1) / DL_PAGE) * 4; }

static inline uint64_t dl_chunks_of(uint64_t length) { return (length + DL_CHUNK - 1) / DL_CHUNK; }

static inline uint64_t dl_index_length(const dl_row *row) { return (dl_chunks_of(row->end - row->start) - 1) * 4; }

static inline uint64_t dl_least(uint64_t one, uint64_t other) { return one < other ? one : other; }

static inline uint32_t dl_source_of(const dl_record *record) { return (uint32_t)(record->place >> 32); }

static inline uint64_t dl_place_in(const dl_record *record) { return record->place & UINT32_MAX; }

/* Whether a piece goes on with the row that is being built. */
static inline int dl_plan_joins(const dl_plan *plan, const dl_record *piece) {
    return plan->row_length > 0 && piece->stream == plan->stream && piece->offset == plan->end &&
           plan->row_length + piece->length <= plan->row_max;
}

static inline void dl_plan_add(dl_plan *plan, const dl_record *piece) {
    const int joins = dl_plan_joins(plan, piece);
    plan->rows += joins ? 0 : 1;
    plan->row_length = (joins ? plan->row_length : 0) + piece->length;
    plan->stream = piece->stream;
    plan->end = piece->offset + piece->length;
    plan->payload_bytes += piece->length;
}

/* cluster_read.c */
int dl_row_load(const uint8_t *bytes, uint32_t nonce, dl_row *row);
int dl_row_fits(const dl_row *row, uint64_t length);
int dl_entry_load(const uint8_t *bytes, size_t available, uint32_t nonce, uint64_t stream, uint64_t start,
                  uint64_t row_end, dl_entry *entry);
uint64_t dl_pages_hold(const uint8_t *bytes, uint64_t length, const uint8_t *sums, uint32_t nonce);
dl_records dl_records_in(const dl_entry *entry);
int dl_records_next(dl_records *records);
ssize_t dl_source_read(const dl_source *source, uint64_t position, uint8_t *to, size_t length);
int dl_window_holds(const dl_window *window, const dl_source *source, uint64_t position, uint64_t length);
dl_cv dl_window_get(dl_window *window, const dl_source *source, uint64_t position, uint64_t needed, uint64_t wanted,
                    const uint8_t **at, int32_t *error);

#endif
