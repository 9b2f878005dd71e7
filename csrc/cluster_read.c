/* Reading clustered segments: rows, entries, and whether stream bytes are what was written.
 *
 * Law of this room: nothing is used before its checksum held, and no length before it was compared with what is there.
 * What is damaged is told, as narrowly as can be; the way past it is found by the index or by the entry before.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "cluster.h"

#include <errno.h>
#include <unistd.h>

/* ---- windows: pieces of a file in the caller's memory ---- */

/* "length" bytes, which lie within the file as its length is known; fewer if it has become shorter, -1 and errno if
 * they can't be read. */
ssize_t dl_source_read(const dl_source *source, uint64_t position, uint8_t *to, size_t length) {
    size_t done = 0;
    if (source->fd < 0 && source->bytes == NULL) {
        errno = EBADF;
        return -1;
    }
    if (source->fd < 0) {
        memcpy(to, source->bytes + position, length);
        return (ssize_t)length;
    }
    while (done < length) {
        const ssize_t got = pread(source->fd, to + done, length - done, (off_t)(position + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

int dl_window_holds(const dl_window *window, const dl_source *source, uint64_t position, uint64_t length) {
    if (window->source != source || position < window->position) return 0;
    const uint64_t skipped = position - window->position;
    return skipped <= window->length && length <= window->length - skipped;
}

/* "at" is where the "needed" bytes from "position" on are now; if they have to be read, up to "wanted" are, which is
 * not less. */
dl_cv dl_window_get(dl_window *window, const dl_source *source, uint64_t position, uint64_t needed, uint64_t wanted,
                    const uint8_t **at, int32_t *error) {
    if (position > source->length || needed > source->length - position) return DL_CLUSTER_SHORT;
    if (needed > window->size) return DL_CLUSTER_ROOM;
    if (!dl_window_holds(window, source, position, needed)) {
        const uint64_t length = dl_least(dl_least(wanted, window->size), source->length - position);
        const ssize_t got = dl_source_read(source, position, window->bytes, (size_t)length);
        window->source = source;
        window->position = position;
        window->length = got < 0 ? 0 : (size_t)got;
        if (got < 0) {
            *error = errno;
            return DL_CLUSTER_READ;
        }
        if (window->length < needed) return DL_CLUSTER_SHORT;
    }
    *at = window->bytes + (position - window->position);
    return DL_CLUSTER_OK;
}

/* ---- rows and entries ---- */

/* 1 if the DL_ROW bytes are a row. */
int dl_row_load(const uint8_t *bytes, uint32_t nonce, dl_row *row) {
    if (dl_crc32c(nonce, bytes + 4, DL_ROW - 4) != dl_load32(bytes)) return 0;
    const uint32_t length = dl_load32(bytes + 4);
    row->stream = dl_load64(bytes + 8);
    row->start = dl_load64(bytes + 16);
    row->end = row->start + length;
    row->payload_position = dl_load64(bytes + 24);
    row->entries_position = dl_load64(bytes + 32);
    row->entries_length = dl_load32(bytes + 40);
    row->records = dl_load32(bytes + 44);
    return length > 0 && row->end > row->start;
}

/* 1 if what the row names lies within a file of that length. */
int dl_row_fits(const dl_row *row, uint64_t length) {
    const uint64_t payload = row->end - row->start, entries = row->entries_length + dl_index_length(row);
    return row->payload_position <= length && payload <= length - row->payload_position &&
           row->entries_position <= length && entries <= length - row->entries_position;
}

/* 1 if the entry of the chunk that begins at "start" stands here, whole. */
int dl_entry_load(const uint8_t *bytes, size_t available, uint32_t nonce, uint64_t stream, uint64_t start,
                  uint64_t row_end, dl_entry *entry) {
    if (available < DL_ENTRY_HEADER || start >= row_end) return 0;
    const uint64_t length = dl_least(row_end - start, DL_CHUNK);
    const uint32_t ends_length = dl_load32(bytes + 28);
    if (dl_load32(bytes + 4) != length || ends_length > DL_ENDS_MAX) return 0;
    const size_t sums = dl_sums_length(length), size = DL_ENTRY_HEADER + sums + ends_length;
    if (size > available || dl_crc32c(nonce, bytes + 4, size - 4) != dl_load32(bytes)) return 0;
    if (dl_load64(bytes + 8) != stream || dl_load64(bytes + 16) != start) return 0;
    entry->size = size;
    entry->start = start;
    entry->end = start + length;
    entry->sums = bytes + DL_ENTRY_HEADER;
    entry->before = dl_load32(bytes + 24);
    entry->ends = entry->sums + sums;
    entry->ends_length = ends_length;
    return entry->before <= start;
}

dl_records dl_records_in(const dl_entry *entry) {
    const uint64_t first = entry->start - entry->before;
    return (dl_records){entry->ends, entry->ends + entry->ends_length, first, entry->start, first};
}

/* Moves on to the next record of the chunk; 0 if there is none. */
int dl_records_next(dl_records *records) {
    uint64_t distance = 0;
    for (uint32_t shift = 0; records->at < records->stop && shift < 63; shift += 7) {
        const uint8_t byte = *records->at++;
        distance |= (uint64_t)(byte & 0x7f) << shift;
        if (byte >= 0x80) continue;
        if (distance == 0 || distance > UINT64_MAX - records->end) return 0;
        records->start = records->next_start;
        records->next_start = records->end += distance;
        return 1;
    }
    return 0;
}

/* How many bytes from the chunk's start on hold: whole pages, or all. */
uint64_t dl_pages_hold(const uint8_t *bytes, uint64_t length, const uint8_t *sums, uint32_t nonce) {
    for (uint64_t at = 0; at < length; at += DL_PAGE, sums += 4)
        if (dl_crc32c(nonce, bytes + at, (size_t)dl_least(length - at, DL_PAGE)) != dl_load32(sums)) return at;
    return length;
}

/* Whether the DL_ROW bytes are a row, and what it names lies within the file. */
int dl_row_holds(const uint8_t *row, uint32_t nonce, uint64_t file_length) {
    dl_row loaded;
    return dl_row_load(row, nonce, &loaded) && dl_row_fits(&loaded, file_length);
}

/* Takes apart "count" rows; one that does not hold is stream 0, from 0 to 0. Returns how many hold. */
size_t dl_rows_unpack(const uint8_t *table, size_t count, uint32_t nonce, uint64_t file_length, uint64_t *streams,
                      uint64_t *starts, uint64_t *ends) {
    size_t good = 0;
    for (size_t i = 0; i < count; i++) {
        dl_row row;
        const int holds = dl_row_load(table + i * DL_ROW, nonce, &row) && dl_row_fits(&row, file_length);
        streams[i] = holds ? row.stream : 0;
        starts[i] = holds ? row.start : 0;
        ends[i] = holds ? row.end : 0;
        good += holds ? 1 : 0;
    }
    return good;
}

/* ---- reading a span of one row ---- */

/* The sum of the stream bytes "from" to "to", which may lie in several parts. */
static uint32_t span_sum(const dl_span *span, uint64_t from, uint64_t to) {
    uint32_t sum = span->nonce;
    uint64_t start = span->from;
    for (size_t i = 0; i < 3; start += span->lengths[i], i++) {
        const uint64_t first = from > start ? from : start, last = dl_least(to, start + span->lengths[i]);
        if (first < last) sum = dl_crc32c(sum, span->parts[i] + (first - start), (size_t)(last - first));
    }
    return sum;
}

/* Checks the pages of a chunk that lie in the span; "good" is where the first bad one begins, or the chunk ends. */
static int chunk_holds(const dl_span *span, const dl_entry *entry, uint64_t *good) {
    const uint64_t to = dl_least(entry->end, span->to);
    for (; *good < to; *good = dl_least(*good + DL_PAGE, to)) {
        const uint8_t *sum = entry->sums + (*good - entry->start) / DL_PAGE * 4;
        if (span_sum(span, *good, dl_least(*good + DL_PAGE, to)) != dl_load32(sum)) return 0;
    }
    return 1;
}

/* Whether the bytes of a span hold: "entries" are those of its chunks, one behind the other. "good" is the offset up to
 * which they do, and "entry" where the entry stands that is the last one read. */
dl_cv dl_span_check(const dl_span *span, const uint8_t *entries, size_t length, uint64_t *good, size_t *entry) {
    dl_entry loaded;
    uint64_t chunk = span->chunk;
    size_t at = 0;
    *good = span->from;
    if (span->to > span->end || span->from < chunk || (span->from - chunk) % DL_PAGE != 0) return DL_CLUSTER_ORDER;
    if (span->to - span->from != span->lengths[0] + span->lengths[1] + span->lengths[2]) return DL_CLUSTER_SHORT;
    while (chunk < span->to) {
        *entry = at;
        if (!dl_entry_load(entries + at, length - at, span->nonce, span->stream, chunk, span->end, &loaded))
            return DL_CLUSTER_ENTRY;
        if (!chunk_holds(span, &loaded, good)) return DL_CLUSTER_PAGE;
        at += loaded.size;
        chunk = loaded.end;
    }
    return DL_CLUSTER_OK;
}

/* Where the entry of "chunk" begins, in all entries of the row "start" to "end"; "length" if those before it do not
 * lead there. */
size_t dl_entry_find(const uint8_t *entries, size_t length, uint32_t nonce, uint64_t stream, uint64_t start,
                     uint64_t end, uint64_t chunk) {
    size_t at = 0;
    dl_entry entry;
    while (start < chunk) {
        if (!dl_entry_load(entries + at, length - at, nonce, stream, start, end, &entry)) return length;
        at += entry.size;
        start = entry.end;
    }
    return at;
}

/* The record that holds the byte at "offset", which lies in the chunk of the entry; it begins within the row, and may
 * end behind what is left of a row that is damaged. */
dl_cv dl_entry_bounds(const uint8_t *entry, size_t length, uint32_t nonce, uint64_t stream, uint64_t chunk,
                      uint64_t row_start, uint64_t row_end, uint64_t offset, uint64_t *start, uint64_t *end) {
    dl_entry loaded;
    if (!dl_entry_load(entry, length, nonce, stream, chunk, row_end, &loaded)) return DL_CLUSTER_ENTRY;
    dl_records records = dl_records_in(&loaded);
    while (dl_records_next(&records)) {
        if (offset >= records.end) continue;
        *start = records.start;
        *end = records.end;
        return row_start <= records.start && records.start <= offset ? DL_CLUSTER_OK : DL_CLUSTER_ENTRY;
    }
    return DL_CLUSTER_ENTRY;
}
