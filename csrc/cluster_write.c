/* Building a clustered segment: verified records go in, payload, entries and rows come out.
 *
 * Law of this room: it fills the caller's three buffers and returns when one of them might not hold the next step, so
 * that the caller writes them, rests and calls again; all that it has to remember stands in the job. No byte is copied
 * before the frame or the page that it lies in has been verified, here and now.
 */
#include "cluster.h"

#define READ_AHEAD DL_CHUNK
#define ENTRIES_ROOM (3 * (size_t)DL_ENTRY_MAX + 4 * (size_t)DL_ROW_CHUNKS)

/* ---- the writer: rows, chunks and records ---- */

/* The entry of the open chunk grows behind the finished ones, with room for all sums before its ends. */
static uint8_t *open_entry(const dl_cluster *job) { return job->entries.bytes + job->entries.used; }

static uint8_t *open_ends(const dl_cluster *job) { return open_entry(job) + DL_ENTRY_HEADER + DL_CHUNK_SUMS; }

/* Adds to the open page's sum what came since. */
static void sum_up(dl_cluster *job) {
    job->sum = dl_crc32c(job->sum, job->payload.bytes + job->summed, job->payload.used - job->summed);
    job->summed = job->payload.used;
}

static void close_page(dl_cluster *job) {
    sum_up(job);
    dl_store32(open_entry(job) + DL_ENTRY_HEADER + (job->chunk_length - 1) / DL_PAGE * 4, job->sum);
    job->sum = job->nonce;
}

static void add_end(dl_cluster *job, uint64_t end) {
    uint64_t distance = end - job->ends_last;
    uint8_t *ends = open_ends(job);
    for (; distance >= 0x80; distance >>= 7)
        ends[job->ends_length++] = (uint8_t)(distance | 0x80);
    ends[job->ends_length++] = (uint8_t)distance;
    job->ends_last = end;
}

static void open_chunk(dl_cluster *job) {
    job->chunk_open = 1;
    job->chunk_start = job->ends_last = job->plan.end - job->piece_left;
    job->chunk_length = job->ends_length = 0;
    job->chunk_before = (uint32_t)(job->chunk_start - job->record_start);
    job->sum = job->nonce;
    if (job->row_chunks > 0) job->index[job->row_chunks - 1] = (uint32_t)job->row_entries;
    job->row_chunks++;
    add_end(job, job->record_end);
}

static void close_chunk(dl_cluster *job) {
    uint8_t *entry = open_entry(job);
    const size_t sums = dl_sums_length(job->chunk_length), size = DL_ENTRY_HEADER + sums + job->ends_length;
    if (job->chunk_length % DL_PAGE != 0) close_page(job);
    memmove(entry + DL_ENTRY_HEADER + sums, open_ends(job), job->ends_length);
    dl_store32(entry + 4, job->chunk_length);
    dl_store64(entry + 8, job->plan.stream);
    dl_store64(entry + 16, job->chunk_start);
    dl_store32(entry + 24, job->chunk_before);
    dl_store32(entry + 28, job->ends_length);
    dl_store32(entry, dl_crc32c(job->nonce, entry + 4, size - 4));
    job->entries.used += size;
    job->row_entries += size;
    job->chunk_open = 0;
}

static void close_row(dl_cluster *job) {
    if (job->row_chunks == 0) return;
    if (job->chunk_open) close_chunk(job);
    uint8_t *row = job->rows.bytes + job->rows.used;
    dl_store32(row + 4, (uint32_t)job->plan.row_length);
    dl_store64(row + 8, job->plan.stream);
    dl_store64(row + 16, job->row_start);
    dl_store64(row + 24, job->row_payload);
    dl_store64(row + 32, job->entries.position + job->entries.used - job->row_entries);
    dl_store32(row + 40, (uint32_t)job->row_entries);
    dl_store32(row + 44, job->row_records);
    dl_store32(row, dl_crc32c(job->nonce, row + 4, DL_ROW - 4));
    job->rows.used += DL_ROW;
    for (uint32_t i = 0; i + 1 < job->row_chunks; i++, job->entries.used += 4)
        dl_store32(open_entry(job), job->index[i]);
    job->row_entries = job->row_chunks = job->row_records = 0;
}

/* The next piece: it goes on with the open row if it can. */
static void take_piece(dl_cluster *job, const dl_record *piece) {
    if (!dl_plan_joins(&job->plan, piece)) {
        close_row(job);
        job->row_start = piece->offset;
        job->row_payload = job->payload.position + job->payload.used;
    }
    dl_plan_add(&job->plan, piece);
    job->piece_left = piece->length;
}

static void take_record(dl_cluster *job, uint64_t start, uint64_t end) {
    job->record_start = start;
    job->record_end = end;
    job->row_records++;
    job->records_taken++;
    if (job->chunk_open) add_end(job, end);
}

/* Bytes of the record that was taken last. */
static void take_bytes(dl_cluster *job, const uint8_t *bytes, size_t length) {
    while (length > 0) {
        if (!job->chunk_open) open_chunk(job);
        const size_t page = DL_PAGE - job->chunk_length % DL_PAGE, part = length < page ? length : page;
        memcpy(job->payload.bytes + job->payload.used, bytes, part);
        job->payload.used += part;
        job->chunk_length += (uint32_t)part;
        job->piece_left -= part;
        bytes += part;
        length -= part;
        if (part == page) close_page(job);
        if (job->chunk_length == DL_CHUNK) close_chunk(job);
    }
}

/* ---- from a log segment: a piece is a record ---- */

static dl_cv begin_frame(dl_cluster *job, const dl_source *source, const dl_record *record) {
    const uint64_t position = dl_place_in(record), size = (uint64_t)record->skip + record->length;
    if (size > job->stage_size - job->stage_at) return DL_CLUSTER_ROOM;
    const uint8_t *frame = job->stage + job->stage_at;
    dl_frame row;
    size_t count = 0, taken = 0;
    if (dl_frames_scan(frame, (size_t)size, position, source->nonce, &row, 1, &count, &taken) != DL_OK)
        return DL_CLUSTER_FRAME;
    /* one frame of all these bytes: where its payload begins is right only if its length is, too */
    if (row.type != DL_TYPE_DATA || row.stream != record->stream || row.offset != record->offset ||
        row.payload != record->skip)
        return DL_CLUSTER_FRAME;
    take_piece(job, record);
    take_record(job, record->offset, record->offset + record->length);
    job->piece = frame + record->skip;
    job->stage_at += size;
    return DL_CLUSTER_OK;
}

static dl_cv copy_frame(dl_cluster *job) {
    const size_t part = (size_t)dl_least(job->piece_left, DL_CHUNK);
    take_bytes(job, job->piece, part);
    job->piece += part;
    return DL_CLUSTER_OK;
}

/* ---- from a clustered segment: a piece is a row, or its end ---- */

static dl_cv begin_row(dl_cluster *job, const dl_source *source, const dl_record *record) {
    const uint64_t index = dl_place_in(record), position = source->rows_position + index * DL_ROW;
    const uint8_t *bytes = NULL;
    dl_row row;
    job->fault.position = position;
    if (index >= source->rows_count) return DL_CLUSTER_SHORT;
    const dl_cv verdict =
        dl_window_get(&job->reader.rows, source, position, DL_ROW, job->reader.rows.size, &bytes, &job->fault.error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    if (!dl_row_load(bytes, source->nonce, &row) || !dl_row_fits(&row, source->length)) return DL_CLUSTER_ROW;
    if (row.stream != record->stream || row.start + record->skip != record->offset ||
        row.end != record->offset + record->length)
        return DL_CLUSTER_ROW;
    take_piece(job, record);
    job->record_start = job->record_end = 0;
    job->piece_row_start = job->piece_chunk = row.start;
    job->piece_row_end = row.end;
    job->piece_payload = row.payload_position;
    job->piece_entry = row.entries_position;
    job->piece_entries_end = row.entries_position + row.entries_length;
    return DL_CLUSTER_OK;
}

/* Gives the records of a verified chunk to the writer, from where the piece begins. */
static dl_cv copy_records(dl_cluster *job, const dl_entry *entry, const uint8_t *payload) {
    dl_records records = dl_records_in(entry);
    uint64_t at = job->plan.end - job->piece_left;
    while (at < entry->end && dl_records_next(&records)) {
        if (records.end <= at) continue;
        const int goes_on = records.start < entry->start && job->row_records > 0 &&
                            records.start == job->record_start && records.end == job->record_end;
        if (!goes_on && (records.start != at || job->record_end > at)) return DL_CLUSTER_ENTRY;
        if (records.end > job->plan.end) return DL_CLUSTER_ENTRY;
        if (!goes_on) take_record(job, records.start, records.end);
        const uint64_t end = dl_least(records.end, entry->end);
        take_bytes(job, payload + (at - entry->start), (size_t)(end - at));
        at = end;
    }
    return at < entry->end ? DL_CLUSTER_ENTRY : DL_CLUSTER_OK;
}

/* The next chunk of the row; of those before the piece, only the entries are read. */
static dl_cv copy_chunk(dl_cluster *job, const dl_source *source) {
    const uint64_t left = job->piece_entries_end - job->piece_entry, needed = dl_least(left, DL_ENTRY_MAX);
    const uint8_t *bytes = NULL;
    dl_entry entry;
    job->fault.position = job->piece_entry;
    dl_cv verdict = dl_window_get(&job->reader.entries, source, job->piece_entry, needed, job->reader.entries.size,
                                  &bytes, &job->fault.error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    if (!dl_entry_load(bytes, (size_t)needed, source->nonce, job->plan.stream, job->piece_chunk, job->piece_row_end,
                       &entry))
        return DL_CLUSTER_ENTRY;
    job->piece_entry += entry.size;
    job->piece_chunk = entry.end;
    if (entry.end <= job->plan.end - job->piece_left) return DL_CLUSTER_OK;
    const uint64_t length = entry.end - entry.start, row_left = job->piece_row_end - entry.start;
    const uint64_t position = job->piece_payload + (entry.start - job->piece_row_start);
    job->fault.position = position;
    verdict = dl_window_get(&job->reader.pieces, source, position, length,
                            row_left < READ_AHEAD ? READ_AHEAD : dl_least(row_left, job->reader.pieces.size), &bytes,
                            &job->fault.error);
    if (verdict != DL_CLUSTER_OK) return verdict;
    const uint64_t good = dl_pages_hold(bytes, length, entry.sums, source->nonce);
    job->fault.position = position + good;
    return good < length ? DL_CLUSTER_PAGE : copy_records(job, &entry, bytes);
}

/* ---- the job ---- */

static int has_room(const dl_cluster *job) {
    return job->payload.size - job->payload.used >= DL_CHUNK && job->entries.size - job->entries.used >= ENTRIES_ROOM &&
           job->rows.size - job->rows.used >= DL_ROW;
}

/* The caller has written what was in the buffers; the entry that is open moves to the front. */
static void resume(dl_cluster *job) {
    if (job->chunk_open)
        memmove(job->entries.bytes, open_entry(job), DL_ENTRY_HEADER + DL_CHUNK_SUMS + job->ends_length);
    dl_output *outputs[] = {&job->payload, &job->entries, &job->rows};
    for (size_t i = 0; i < 3; i++) {
        outputs[i]->position += outputs[i]->used;
        outputs[i]->used = 0;
    }
    job->summed = 0;
}

static dl_cv begin_piece(dl_cluster *job) {
    const dl_record *record = &job->records[job->records_done];
    if (dl_source_of(record) >= job->sources_count || record->length == 0) return DL_CLUSTER_ORDER;
    const dl_source *source = &job->sources[dl_source_of(record)];
    job->fault.stream = record->stream;
    job->fault.start = record->offset;
    job->fault.end = record->offset + record->length;
    job->fault.source = dl_source_of(record);
    job->fault.position = dl_place_in(record);
    const dl_cv verdict = source->clustered ? begin_row(job, source, record) : begin_frame(job, source, record);
    job->records_done++;
    return verdict;
}

/* The next slice of a build: until a buffer is nearly full or what was staged is done (DL_CLUSTER_MORE: write all three,
 * stage more if "records_done" is "records_staged", call again), until all
 * is done (DL_CLUSTER_OK: write what is left), or until something does not verify, which "fault" then tells. */
dl_cv dl_cluster_copy(dl_cluster *job) {
    dl_cv verdict = DL_CLUSTER_OK;
    resume(job);
    if (!has_room(job) || job->plan.row_max > UINT32_MAX || job->stage_at > job->stage_size) return DL_CLUSTER_ROOM;
    while (verdict == DL_CLUSTER_OK) {
        const int between = job->piece_left == 0;
        if (between && job->records_done == job->records_count) {
            close_row(job);
            return DL_CLUSTER_OK;
        }
        if (!has_room(job) || (between && job->records_done == job->records_staged)) {
            if (job->chunk_open) sum_up(job);
            return DL_CLUSTER_MORE;
        }
        if (between)
            verdict = begin_piece(job);
        else if (job->sources[job->fault.source].clustered)
            verdict = copy_chunk(job, &job->sources[job->fault.source]);
        else
            verdict = copy_frame(job);
    }
    job->fault.verdict = verdict;
    return verdict;
}
