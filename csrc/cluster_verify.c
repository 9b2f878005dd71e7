/* Whether every byte of a clustered segment between its header and its trailer is what was written.
 *
 * Law of this room: it reads on behind whatever is damaged, and tells each damaged thing once, with the stream bytes
 * that cannot be read because of it. In slices: all that it has to remember stands in the walk.
 */
#include "cluster.h"

#define SLICE (1 << 20)

typedef struct {
    dl_walk *walk;
    dl_fault *faults;
    size_t faults_max;
    size_t count;
    int32_t error;
    uint64_t work;
} report;

static void tell(report *to, dl_cv verdict, uint64_t position, uint64_t start, uint64_t end) {
    to->faults[to->count++] = (dl_fault){to->walk->stream, start, end, position, 0, verdict, 0};
}

/* A row that holds, in its place: sorted, and its payload and entries behind those of the row before. */
static int row_in_place(const dl_walk *walk, const dl_row *row) {
    if (row->stream < walk->stream || (row->stream == walk->stream && row->start < walk->end)) return 0;
    if (walk->payload_position == 0) return 1;
    return row->payload_position == walk->payload_position && row->entries_position == walk->entries_position;
}

static dl_cv begin_row(report *to) {
    dl_walk *walk = to->walk;
    const uint64_t position = walk->source.rows_position + walk->row * DL_ROW;
    const uint8_t *bytes = NULL;
    dl_row row;
    const dl_cv verdict =
        dl_window_get(&walk->reader.rows, &walk->source, position, DL_ROW, walk->reader.rows.size, &bytes, &to->error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    walk->row++;
    to->work += DL_ROW;
    if (!dl_row_load(bytes, walk->source.nonce, &row) || !dl_row_fits(&row, walk->source.length)) {
        walk->payload_position = walk->entries_position = 0;
        const uint64_t stream = walk->stream;
        walk->stream = 0;
        tell(to, DL_CLUSTER_ROW, position, 0, 0);
        walk->stream = stream;
        return DL_CLUSTER_OK;
    }
    const int in_place = row_in_place(walk, &row);
    walk->stream = row.stream;
    walk->end = walk->row_end = row.end;
    walk->chunk = walk->row_start = row.start;
    walk->entry = walk->row_entries = row.entries_position;
    walk->in_row = 1;
    walk->row_index = row.entries_position + row.entries_length;
    walk->row_payload = row.payload_position;
    walk->payload_position = row.payload_position + (row.end - row.start);
    walk->entries_position = walk->row_index + dl_index_length(&row);
    if (!in_place) tell(to, DL_CLUSTER_ORDER, position, row.start, row.end);
    return DL_CLUSTER_OK;
}

/* Where the index says that the entry of "chunk" begins; 0 if it says nothing that can be. */
static dl_cv look_up(report *to, uint64_t chunk, uint64_t *entry, uint64_t *position) {
    dl_walk *walk = to->walk;
    const uint8_t *bytes = NULL;
    *position = walk->row_index + ((chunk - walk->row_start) / DL_CHUNK - 1) * 4;
    const dl_cv verdict =
        dl_window_get(&walk->reader.rows, &walk->source, *position, 4, walk->reader.rows.size, &bytes, &to->error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    *entry = walk->row_entries + dl_load32(bytes);
    if (*entry >= walk->row_index) *entry = 0;
    return DL_CLUSTER_OK;
}

static dl_cv load_entry(report *to, uint64_t position, dl_entry *entry, int *holds) {
    dl_walk *walk = to->walk;
    const uint8_t *bytes = NULL;
    const uint64_t needed = dl_least(walk->row_index - position, DL_ENTRY_MAX);
    const dl_cv verdict = dl_window_get(&walk->reader.entries, &walk->source, position, needed,
                                        walk->reader.entries.size, &bytes, &to->error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    *holds = dl_entry_load(bytes, (size_t)needed, walk->source.nonce, walk->stream, walk->chunk, walk->row_end, entry);
    return DL_CLUSTER_OK;
}

/* The entry of the chunk at hand: where the one before ended, or else where the index says. */
static dl_cv find_entry(report *to, dl_entry *entry, int *holds) {
    dl_walk *walk = to->walk;
    uint64_t indexed = 0, position = 0;
    dl_cv verdict = DL_CLUSTER_OK;
    const int has_index = walk->chunk > walk->row_start;
    *holds = 0;
    if (has_index) verdict = look_up(to, walk->chunk, &indexed, &position);
    if (verdict == DL_CLUSTER_OK && walk->entry != 0) verdict = load_entry(to, walk->entry, entry, holds);
    if (verdict != DL_CLUSTER_OK) return verdict;
    if (*holds && has_index && indexed != walk->entry) tell(to, DL_CLUSTER_INDEX, position, walk->chunk, walk->chunk);
    if (*holds || indexed == 0 || indexed == walk->entry) return DL_CLUSTER_OK;
    walk->entry = indexed;
    return load_entry(to, indexed, entry, holds);
}

static dl_cv check_pages(report *to, const dl_entry *entry) {
    dl_walk *walk = to->walk;
    const uint64_t length = entry->end - entry->start, left = walk->row_end - entry->start;
    const uint64_t position = walk->row_payload + (entry->start - walk->row_start);
    const uint8_t *bytes = NULL;
    const dl_cv verdict = dl_window_get(&walk->reader.pieces, &walk->source, position, length,
                                        left < DL_CHUNK ? DL_CHUNK : left, &bytes, &to->error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    for (uint64_t at = 0; at < length; at += DL_PAGE) {
        const uint64_t page = dl_least(length - at, DL_PAGE);
        if (dl_pages_hold(bytes + at, page, entry->sums + at / DL_PAGE * 4, walk->source.nonce) < page)
            tell(to, DL_CLUSTER_PAGE, position + at, entry->start + at, entry->start + at + page);
    }
    to->work += length;
    return DL_CLUSTER_OK;
}

/* The records of a chunk begin and end where they touch it, the last one within the row. */
static int records_hold(const dl_walk *walk, const dl_entry *entry) {
    dl_records records = dl_records_in(entry);
    while (records.end < entry->end)
        if (!dl_records_next(&records)) return 0;
    return records.at == records.stop && records.end <= walk->row_end &&
           entry->before <= entry->start - walk->row_start;
}

static dl_cv check_chunk(report *to) {
    dl_walk *walk = to->walk;
    const uint64_t end = walk->chunk + dl_least(walk->row_end - walk->chunk, DL_CHUNK), expected = walk->entry;
    dl_entry entry;
    int holds = 0;
    dl_cv verdict = find_entry(to, &entry, &holds);
    if (verdict != DL_CLUSTER_OK) return verdict;
    if (holds && walk->entry != expected && expected != 0)
        tell(to, DL_CLUSTER_ORDER, expected, walk->chunk, walk->chunk);
    if (holds && records_hold(walk, &entry)) {
        verdict = check_pages(to, &entry);
        walk->entry += entry.size;
    } else {
        tell(to, DL_CLUSTER_ENTRY, walk->entry != 0 ? walk->entry : walk->row_entries, walk->chunk, end);
        walk->entry = 0;
    }
    walk->chunk = end;
    walk->in_row = end < walk->row_end;
    if (!walk->in_row && walk->entry != 0 && walk->entry != walk->row_index)
        tell(to, DL_CLUSTER_ORDER, walk->entry, end, end);
    return verdict;
}

/* Nothing may stand behind what the last row names. */
static void check_ends(report *to) {
    const dl_walk *walk = to->walk;
    if (walk->payload_position == 0) return;
    if (walk->payload_position != walk->source.rows_position)
        tell(to, DL_CLUSTER_ORDER, walk->payload_position, walk->end, walk->end);
    if (walk->entries_position != walk->entries_end)
        tell(to, DL_CLUSTER_ORDER, walk->entries_position, walk->end, walk->end);
}

/* The next slice: DL_CLUSTER_MORE until all is done. "faults" has room for 32 at least, and "count" says how many were
 * found. DL_CLUSTER_SHORT and DL_CLUSTER_READ end the walk; "error" of faults[0] is errno then. */
dl_cv dl_cluster_verify(dl_walk *walk, dl_fault *faults, size_t faults_max, size_t *count) {
    report to = {walk, faults, faults_max, 0, 0, 0};
    dl_cv verdict = DL_CLUSTER_OK;
    *count = 0;
    if (faults_max < 32) return DL_CLUSTER_ROOM;
    while (verdict == DL_CLUSTER_OK) {
        if (to.work >= SLICE || to.faults_max - to.count < 32)
            verdict = DL_CLUSTER_MORE;
        else if (walk->in_row)
            verdict = check_chunk(&to);
        else if (walk->row < walk->source.rows_count)
            verdict = begin_row(&to);
        else
            break;
    }
    if (verdict == DL_CLUSTER_OK) check_ends(&to);
    *count = to.count;
    if (verdict == DL_CLUSTER_READ) faults[0].error = to.error;
    return verdict;
}
