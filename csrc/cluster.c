/* What goes into a clustered segment: records of log segments and rows of clustered ones, sorted and counted.
 *
 * Law of this room: loops over the caller's arrays, in slices as long as the caller likes. No system calls, and no
 * payload: that is copied by cluster_write.c once everything here is known.
 */
#include "cluster.h"

#define SCAN_BATCH 64

typedef struct {
    dl_record *records;
    size_t records_max;
    size_t count;
    uint64_t largest;
    uint64_t source;
    int everything; /* or what has to be copied: DATA with payload */
} collection;

/* What dl_records_scan_all puts into "skip" beside the length that is skipped. */
static uint32_t kind_of(const dl_frame *row) {
    const uint32_t type = row->type <= DL_TYPE_MAX ? row->type : 0, flags = row->flags & DL_FLAGS;
    const uint32_t producer = row->producer < DL_PRODUCERS_TOLD ? row->producer : DL_PRODUCERS_TOLD;
    return type << DL_RECORD_TYPE | flags << DL_RECORD_FLAGS | producer << DL_RECORD_PRODUCER;
}

static dl_cv collect(collection *to, const dl_frame *rows, size_t count) {
    for (const dl_frame *row = rows; row < rows + count; row++) {
        if (!to->everything && (row->type != DL_TYPE_DATA || row->payload_length == 0)) continue;
        if (to->count == to->records_max) return DL_CLUSTER_ROOM;
        const uint64_t size = (uint64_t)row->payload + row->payload_length;
        dl_record *record = &to->records[to->count++];
        record->stream = row->stream;
        record->offset = row->offset;
        record->place = to->source << 32 | row->position;
        record->skip = row->payload;
        record->length = row->payload_length;
        if (to->everything) record->skip |= kind_of(row);
        if (size > to->largest) to->largest = size;
    }
    return DL_CLUSTER_OK;
}

/* All frames of one body; "bad" is the position of the first that does not hold. */
static dl_cv scan_body(const uint8_t *body, size_t length, uint64_t position, uint32_t nonce, collection *to,
                       uint64_t *bad) {
    dl_frame rows[SCAN_BATCH];
    enum dl_verdict verdict = DL_NO_ROOM;
    while (verdict == DL_NO_ROOM) {
        size_t count = 0, taken = 0;
        verdict = dl_frames_scan(body, length, position, nonce, rows, SCAN_BATCH, &count, &taken);
        const dl_cv collected = collect(to, rows, count);
        if (collected != DL_CLUSTER_OK) return collected;
        body += taken;
        length -= taken;
        position += taken;
    }
    *bad = position;
    return verdict == DL_OK ? DL_CLUSTER_OK : DL_CLUSTER_FRAME;
}

static dl_cv scan_bodies(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce, const uint64_t *blocks,
                         size_t blocks_count, collection *to, uint64_t *bad_position) {
    dl_cv verdict = DL_CLUSTER_OK;
    for (size_t i = 0; i < blocks_count && verdict == DL_CLUSTER_OK; i++) {
        const uint64_t at = blocks[2 * i], size = blocks[2 * i + 1];
        *bad_position = at;
        if (at < position || at - position > length || size > length - (at - position)) return DL_CLUSTER_SHORT;
        if (at + size > UINT32_MAX) return DL_CLUSTER_SHORT;
        verdict = scan_body(bytes + (at - position), (size_t)size, at, nonce, to, bad_position);
    }
    return verdict;
}

/* Collects the DATA frames with payload of "blocks_count" bodies: pairs of position and length, all of them within
 * "bytes", which is the file from "position" on. "count" and "largest" (frame) go on from what they are. */
dl_cv dl_records_scan(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce, uint32_t source,
                      const uint64_t *blocks, size_t blocks_count, dl_record *records, size_t records_max,
                      size_t *count, uint64_t *largest, uint64_t *bad_position) {
    collection to = {records, records_max, *count, *largest, source, 0};
    const dl_cv verdict = scan_bodies(bytes, length, position, nonce, blocks, blocks_count, &to, bad_position);
    *count = to.count;
    *largest = to.largest;
    return verdict;
}

/* The same for every frame, whatever it is; each record's place is its LSN, and its "skip" says more, too. */
dl_cv dl_records_scan_all(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce, uint32_t segment,
                          const uint64_t *blocks, size_t blocks_count, dl_record *records, size_t records_max,
                          size_t *count, uint64_t *bad_position) {
    collection to = {records, records_max, *count, 0, segment, 1};
    const dl_cv verdict = scan_bodies(bytes, length, position, nonce, blocks, blocks_count, &to, bad_position);
    *count = to.count;
    return verdict;
}

/* Copies the records of frames whose type "types" has (bit 1 << type) to "out", which has room for "count". */
size_t dl_records_pick(const dl_record *records, size_t count, uint32_t types, dl_record *out) {
    size_t picked = 0;
    for (size_t i = 0; i < count; i++)
        if (types >> (records[i].skip >> DL_RECORD_TYPE) & 1) out[picked++] = records[i];
    return picked;
}

/* The first of the records, sorted by stream, that is of "stream" or a later one; or "count". */
size_t dl_records_find(const dl_record *records, size_t count, uint64_t stream) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (records[middle].stream < stream)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Each stream of the records, sorted by stream, once, into "streams", which has room for "count". */
size_t dl_records_streams(const dl_record *records, size_t count, uint64_t *streams) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        if (i == 0 || records[i].stream != records[i - 1].stream) streams[found++] = records[i].stream;
    return found;
}

/* One record for each row of "indexes" (ascending): "table" holds "rows_count" rows from number "first" on. */
dl_cv dl_records_of_rows(const uint8_t *table, size_t rows_count, uint64_t first, uint32_t nonce, uint32_t source,
                         const uint64_t *indexes, size_t indexes_count, dl_record *records, uint64_t *bad_row) {
    for (size_t i = 0; i < indexes_count; i++) {
        dl_row row;
        *bad_row = indexes[i];
        if (i > 0 && indexes[i] <= indexes[i - 1]) return DL_CLUSTER_ORDER;
        if (indexes[i] < first || indexes[i] - first >= rows_count) return DL_CLUSTER_SHORT;
        if (!dl_row_load(table + (indexes[i] - first) * DL_ROW, nonce, &row)) return DL_CLUSTER_ROW;
        records[i].stream = row.stream;
        records[i].offset = row.start;
        records[i].place = (uint64_t)source << 32 | (uint32_t)indexes[i];
        records[i].skip = 0;
        records[i].length = (uint32_t)(row.end - row.start);
    }
    return DL_CLUSTER_OK;
}

/* ---- sorting: least significant digit first, so that records of one stream keep their order ---- */

static inline size_t digit(const dl_record *record, enum dl_key key, uint32_t shift) {
    const uint64_t value = key == DL_BY_OFFSET ? record->offset : key == DL_BY_PLACE ? record->place : record->stream;
    return value >> (shift & 63) & (DL_RADIX - 1);
}

/* Adds to "counts" (DL_RADIX of them) how often each value of a digit occurs. */
void dl_records_count(const dl_record *records, size_t count, enum dl_key key, uint32_t shift, uint64_t *counts) {
    for (size_t i = 0; i < count; i++)
        counts[digit(&records[i], key, shift)]++;
}

/* Puts each record where "heads" says for its digit, and moves that head on. */
dl_cv dl_records_scatter(const dl_record *records, size_t count, enum dl_key key, uint32_t shift, uint64_t *heads,
                         dl_record *out, size_t out_count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t *head = &heads[digit(&records[i], key, shift)];
        if (*head >= out_count) return DL_CLUSTER_ROOM;
        out[(*head)++] = records[i];
    }
    return DL_CLUSTER_OK;
}

/* The greatest of each key, going on from what they are. */
void dl_records_greatest(const dl_record *records, size_t count, uint64_t *keys) {
    for (size_t i = 0; i < count; i++) {
        if (records[i].stream > keys[DL_BY_STREAM]) keys[DL_BY_STREAM] = records[i].stream;
        if (records[i].offset > keys[DL_BY_OFFSET]) keys[DL_BY_OFFSET] = records[i].offset;
        if (records[i].place > keys[DL_BY_PLACE]) keys[DL_BY_PLACE] = records[i].place;
    }
}

/* ---- a stream's index: pairs of a start offset and a place, then the end ---- */

/* Of an index that is entries of clustered segments, then entries of the log, those below "below" first: bounds[0] is how
 * many are clustered, bounds[1] where the log's entries from "below" on begin. 0 if it is anything else. */
int dl_index_bounds(const uint8_t *index, size_t length, uint64_t below, size_t *bounds) {
    const size_t entries = length / 16;
    size_t at = 0;
    if (length % 16 != 8) return 0;
    while (at < entries && dl_load64(index + 16 * at + 8) >> 63)
        at++;
    bounds[0] = at;
    for (uint64_t place; at < entries && (place = dl_load64(index + 16 * at + 8)) < below; at++)
        if (place >> 32 == 0) return 0; /* lost */
    bounds[1] = at;
    for (; at < entries; at++) {
        const uint64_t place = dl_load64(index + 16 * at + 8);
        if (place < below || place >> 63) return 0;
    }
    return 1;
}

/* How many of the "count" entries, from the first on, lie in the same file as that. */
size_t dl_index_run(const uint8_t *index, size_t count) {
    size_t run = 0;
    while (run < count && dl_load32(index + 16 * run + 12) == dl_load32(index + 12))
        run++;
    return run;
}

/* ---- choosing and counting: over sorted records ---- */

static int is_wanted(dl_selection *s, uint64_t stream) {
    if (s->streams == NULL) return 1;
    while (s->streams_at < s->streams_count && s->streams[s->streams_at] < stream)
        s->streams_at++;
    return s->streams_at < s->streams_count && s->streams[s->streams_at] == stream;
}

static uint64_t first_kept(dl_selection *s, uint64_t stream) {
    while (s->trims_at < s->trims_count && s->trims[2 * s->trims_at] < stream)
        s->trims_at++;
    return s->trims_at < s->trims_count && s->trims[2 * s->trims_at] == stream ? s->trims[2 * s->trims_at + 1] : 0;
}

/* Moves those of the records "first" to "first + count" that stay to the front, behind those kept before. "cuts", with
 * room for "count", gets the new places of those that begin below what has to stay and end above it. */
size_t dl_records_select(dl_selection *selection, dl_record *records, size_t first, size_t count, uint64_t *cuts) {
    size_t cut = 0;
    for (size_t i = first; i < first + count; i++) {
        const dl_record record = records[i];
        if (!is_wanted(selection, record.stream)) continue;
        const uint64_t kept = first_kept(selection, record.stream);
        if (record.offset + record.length <= kept) continue;
        if (record.offset < kept) cuts[cut++] = selection->kept;
        records[selection->kept++] = record;
    }
    return cut;
}

/* Counts rows and bytes of what is to be built. "bad" is the first record that overlaps the one before it. */
dl_cv dl_records_plan(dl_plan *plan, const dl_record *records, size_t count, size_t *bad) {
    for (size_t i = 0; i < count; i++) {
        const dl_record *record = &records[i];
        *bad = i;
        if (record->length == 0 || record->offset > UINT64_MAX - record->length) return DL_CLUSTER_ORDER;
        if (record->stream < plan->stream) return DL_CLUSTER_ORDER;
        if (record->stream == plan->stream && record->offset < plan->end) return DL_CLUSTER_ORDER;
        dl_plan_add(plan, record);
    }
    return DL_CLUSTER_OK;
}
