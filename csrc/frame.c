/* Blocks and frames: the only code that knows their checksums.
 *
 * Law of this room: it works on the caller's bytes, reads no field before its checksum has vouched for it, and trusts
 * no length that it has not compared with what is there. No system calls.
 */
#include "durable_log.h"

#include <string.h>

#include "bytes.h"

#define BLOCK_MAGIC 0x4b4c4244u /* "DBLK" */

_Static_assert(DL_PAGE % DL_BLOCK_HEADER == 0, "a block header never crosses a page");

typedef struct {
    uint32_t crc;
    uint32_t length;
    uint8_t type;
    uint8_t flags;
    uint64_t stream;
    uint64_t offset;
} frame_head;

static frame_head head_load(const uint8_t *frame) {
    frame_head head;
    head.crc = dl_load32(frame);
    head.length = dl_load32(frame + 4);
    head.type = frame[8];
    head.flags = frame[9];
    head.stream = (uint64_t)dl_load16(frame + 10) << 32 | dl_load32(frame + 12);
    head.offset = dl_load64(frame + 16);
    return head;
}

/* The whole size of the frame at the start of "length" bytes, or 0 if it does not fit in them. */
static size_t frame_size(const uint8_t *frame, size_t length) {
    if (length < DL_FRAME_HEADER) return 0;
    size_t rest = dl_load32(frame + 4);
    return rest > length - DL_FRAME_HEADER ? 0 : DL_FRAME_HEADER + rest;
}

/* "position" is the frame's in its file: a copy of it elsewhere, in somebody's payload say, does not verify. */
static uint32_t frame_seed(uint32_t nonce, uint64_t position) { return nonce ^ (uint32_t)position; }

static uint32_t frame_crc(const uint8_t *frame, size_t size, uint32_t nonce, uint64_t position) {
    return dl_crc32c(frame_seed(nonce, position), frame + 4, size - 4);
}

/* Fills the row from a frame whose checksum holds; DL_BAD_FRAME if its extensions do not fit into it. */
static enum dl_verdict frame_row(const uint8_t *frame, size_t size, uint64_t position, dl_frame *row) {
    const frame_head head = head_load(frame);
    size_t used = DL_FRAME_HEADER;
    memset(row, 0, sizeof *row);
    row->stream = head.stream;
    row->offset = head.offset;
    row->position = position;
    row->type = head.type;
    row->flags = head.flags;
    if (head.flags & DL_FLAG_PRODUCER) {
        if (size - used < DL_PRODUCER_CLAIM) return DL_BAD_FRAME;
        row->producer = dl_load32(frame + used);
        row->epoch = dl_load64(frame + used + 4);
        row->producer_seq = dl_load64(frame + used + 12);
        used += DL_PRODUCER_CLAIM;
    }
    if (head.flags & DL_FLAG_SEQ) {
        if (size - used < 2) return DL_BAD_FRAME;
        row->seq_length = dl_load16(frame + used);
        used += 2;
        if (row->seq_length > DL_SEQ_MAX || size - used < row->seq_length) return DL_BAD_FRAME;
        used += row->seq_length;
    }
    row->payload = (uint32_t)used;
    row->payload_length = (uint32_t)(size - used);
    return DL_OK;
}

/* Writes every checksum of a block whose frames are laid out after the room for its header.
 * "size" is a whole number of pages that holds the body; what follows the body is zeroed. */
enum dl_verdict dl_block_seal(uint8_t *block, size_t size, dl_block *info) {
    if (size % DL_PAGE != 0 || size < DL_BLOCK_HEADER || info->body_length > size - DL_BLOCK_HEADER)
        return DL_BAD_LENGTH;
    uint8_t *body = block + DL_BLOCK_HEADER;
    const size_t length = info->body_length;
    uint32_t records = 0;
    for (size_t at = 0; at < length; records++) {
        size_t frame = frame_size(body + at, length - at);
        if (frame == 0) return DL_BAD_FRAME;
        dl_store32(body + at, frame_crc(body + at, frame, info->nonce, info->lsn + DL_BLOCK_HEADER + at));
        at += frame;
    }
    memset(body + length, 0, size - DL_BLOCK_HEADER - length);
    info->records = records;
    dl_store32(block, BLOCK_MAGIC);
    dl_store64(block + 8, info->lsn);
    dl_store64(block + 16, info->durable_lsn);
    dl_store64(block + 24, info->previous_lsn);
    dl_store64(block + 32, info->time_ms);
    dl_store32(block + 40, info->body_length);
    dl_store32(block + 44, records);
    dl_store32(block + 48, dl_crc32c(info->nonce, body, length));
    dl_store32(block + 52, info->previous_crc);
    dl_store32(block + 56, info->flags);
    dl_store32(block + 60, 0);
    info->header_crc = dl_crc32c(info->nonce, block + 8, DL_BLOCK_HEADER - 8);
    dl_store32(block + 4, info->header_crc);
    return DL_OK;
}

static enum dl_verdict header_check(const uint8_t *block, size_t available, uint64_t lsn, uint32_t nonce,
                                    dl_block *info) {
    if (available < DL_BLOCK_HEADER || dl_load32(block) != BLOCK_MAGIC) return DL_ABSENT;
    const uint32_t crc = dl_crc32c(nonce, block + 8, DL_BLOCK_HEADER - 8);
    if (crc != dl_load32(block + 4)) return DL_BAD_HEADER;
    info->header_crc = crc;
    info->nonce = nonce;
    info->lsn = dl_load64(block + 8);
    info->durable_lsn = dl_load64(block + 16);
    info->previous_lsn = dl_load64(block + 24);
    info->time_ms = dl_load64(block + 32);
    info->body_length = dl_load32(block + 40);
    info->records = dl_load32(block + 44);
    info->previous_crc = dl_load32(block + 52);
    info->flags = dl_load32(block + 56);
    return info->lsn == lsn ? DL_OK : DL_BAD_LSN;
}

/* Whether a whole block of this place stands at the start of "available" bytes. From DL_BAD_LENGTH on, its header
 * holds and "info" is filled. */
enum dl_verdict dl_block_check(const uint8_t *block, size_t available, uint64_t lsn, uint32_t nonce, dl_block *info) {
    enum dl_verdict verdict = header_check(block, available, lsn, nonce, info);
    if (verdict != DL_OK) return verdict;
    if (info->body_length > available - DL_BLOCK_HEADER) return DL_BAD_LENGTH;
    const uint32_t crc = dl_crc32c(nonce, block + DL_BLOCK_HEADER, info->body_length);
    return crc == dl_load32(block + 48) ? DL_OK : DL_BAD_BODY;
}

/* The first page at or after "from" on which a block header of that very place holds, or "length". */
size_t dl_block_find(const uint8_t *bytes, size_t length, uint64_t lsn, uint32_t nonce, size_t from) {
    dl_block info;
    if (from > length) return length;
    size_t at = (from + DL_PAGE - 1) / DL_PAGE * DL_PAGE;
    for (; at < length; at += DL_PAGE)
        if (header_check(bytes + at, length - at, lsn + at, nonce, &info) == DL_OK) return at;
    return length;
}

/* One row for each frame of a body, in order, each checked. "position" is that of the body in its file. Stops at the
 * first frame that does not hold; "bytes_read" is how far it came. */
enum dl_verdict dl_frames_scan(const uint8_t *body, size_t length, uint64_t position, uint32_t nonce, dl_frame *rows,
                               size_t rows_max, size_t *rows_count, size_t *bytes_read) {
    enum dl_verdict verdict = DL_OK;
    size_t at = 0, count = 0;
    while (at < length) {
        size_t size = frame_size(body + at, length - at);
        if (size == 0 || frame_crc(body + at, size, nonce, position + at) != dl_load32(body + at)) {
            verdict = DL_BAD_FRAME;
            break;
        }
        if (count == rows_max) {
            verdict = DL_NO_ROOM;
            break;
        }
        verdict = frame_row(body + at, size, position + at, &rows[count]);
        if (verdict != DL_OK) break;
        count++;
        at += size;
    }
    *rows_count = count;
    *bytes_read = at;
    return verdict;
}

/* The first place at or after "from" where a frame verifies, or "length": how to go on behind one that does not, whose
 * length can't be trusted. Whoever wrote the payload may have made every fourth byte look like a long frame: by the
 * "marks" of the body, all of these together take a time that grows as the body does. */
size_t dl_frame_find(const uint8_t *body, size_t length, const uint32_t *marks, uint64_t position, uint32_t nonce,
                     size_t from) {
    const uint8_t flags = DL_FLAG_CLOSE | DL_FLAG_PRODUCER | DL_FLAG_SEQ;
    for (size_t at = from; at < length && length - at >= DL_FRAME_HEADER; at++) {
        const frame_head head = head_load(body + at);
        if (head.type == 0 || head.type > DL_TYPE_MAX || (head.flags & ~flags) != 0) continue;
        const size_t size = frame_size(body + at, length - at);
        if (size == 0) continue;
        const uint32_t seed = frame_seed(nonce, position + at);
        if (dl_crc32c_range(seed, body, marks, at + 4, at + size) == head.crc) return at;
    }
    return length;
}

/* ---- records of one stream, by its index: pairs of a start offset and a place, then the end ---- */

static uint64_t start_in(const uint8_t *index, size_t entry) { return dl_load64(index + 16 * entry); }

static uint64_t position_in(const uint8_t *index, size_t entry) { return dl_load32(index + 16 * entry + 8); }

/* How many of the "count" entries can be read from one log segment at once: records that stand one behind the other, the
 * first of them, and those within "size" bytes from its start. piece[0] is where to read, piece[1] how much at most. */
size_t dl_frames_ahead(const uint8_t *index, size_t count, uint64_t size, uint64_t *piece) {
    const uint64_t extensions_max = DL_PRODUCER_CLAIM + 2 + DL_SEQ_MAX;
    size_t ahead = 0;
    piece[0] = piece[1] = 0;
    for (; ahead < count; ahead++) {
        const uint64_t at = position_in(index, ahead), length = start_in(index, ahead + 1) - start_in(index, ahead);
        if (ahead == 0) piece[0] = at;
        if (ahead > 0 && at <= position_in(index, ahead - 1)) break;
        const uint64_t end = at - piece[0] + DL_FRAME_HEADER + extensions_max + length;
        if (ahead > 0 && end > size) break;
        piece[1] = end;
    }
    return ahead;
}

/* Copies stream bytes "from" to "to" out of the records of "count" entries into "out" (to - from bytes). "bytes" is the
 * file from "position" on. "done" counts the records that held. */
enum dl_verdict dl_frames_gather(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce,
                                 uint64_t stream, const uint8_t *index, size_t count, uint64_t from, uint64_t to,
                                 uint8_t *out, size_t *done) {
    dl_frame row;
    for (*done = 0; *done < count; ++*done) {
        const uint64_t at = position_in(index, *done), start = start_in(index, *done), end = start_in(index, *done + 1);
        if (at < position || at - position > length) return DL_BAD_LENGTH;
        const uint8_t *frame = bytes + (at - position);
        const size_t size = frame_size(frame, length - (size_t)(at - position));
        if (size == 0) return DL_BAD_LENGTH;
        if (frame_crc(frame, size, nonce, at) != dl_load32(frame)) return DL_BAD_FRAME;
        if (frame_row(frame, size, at, &row) != DL_OK) return DL_BAD_FRAME;
        if (row.stream != stream || row.offset != start || row.offset + row.payload_length != end) return DL_BAD_FRAME;
        const uint64_t first = start > from ? start : from, last = end < to ? end : to;
        if (first < last) memcpy(out + (first - from), frame + row.payload + (first - start), last - first);
    }
    return DL_OK;
}
