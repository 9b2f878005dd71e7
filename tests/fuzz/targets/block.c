/* Blocks and frames: the check of a block, the scan of its frames, the searches behind damage, gathering, surveys.
 *
 * An input is four numbers of 4 bytes (nonce, segment, and two that choose what is asked) and the bytes of a log segment
 * from its second page on. The manifest is such a block, too.
 */
#include "../harness.h"

#define HEAD 16
#define MAGIC 0x4b4c4244u

typedef struct {
    const uint8_t *bytes;
    size_t length;
    uint64_t lsn;
    uint32_t nonce;
    uint32_t choice[2];
} log_piece;

static size_t frame_size_at(const uint8_t *bytes, size_t left) {
    if (left < DL_FRAME_HEADER) return 0;
    const size_t rest = dl_load32(bytes + 4);
    return rest > left - DL_FRAME_HEADER ? 0 : rest + DL_FRAME_HEADER;
}

static int frame_holds_at(const log_piece *log, size_t at, size_t size) {
    return fuzz_is_sealed(log->bytes + at, size, log->nonce ^ (uint32_t)(log->lsn + at));
}

/* ---- a mutator that mends: frames, then the block around them */

static void mend_block(uint8_t *block, size_t left, uint64_t lsn, uint32_t nonce) {
    size_t body = dl_load32(block + 40);
    if (body > left - DL_BLOCK_HEADER) body = left - DL_BLOCK_HEADER;
    uint8_t *frames = block + DL_BLOCK_HEADER;
    for (size_t at = 0, size; at < body && (size = frame_size_at(frames + at, body - at)) > 0; at += size)
        fuzz_seal(frames + at, size, nonce ^ (uint32_t)(lsn + DL_BLOCK_HEADER + at));
    dl_store32(block, MAGIC);
    dl_store64(block + 8, lsn);
    dl_store32(block + 48, dl_crc32c(nonce, frames, body));
    dl_store32(block + 4, dl_crc32c(nonce, block + 8, DL_BLOCK_HEADER - 8));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, size_max);
    if (seed % 8 == 0 || size < HEAD) return size;
    const uint64_t lsn = (uint64_t)dl_load32(data + 4) << 32 | DL_PAGE;
    for (size_t at = 0; size - HEAD >= at + DL_BLOCK_HEADER; at += DL_PAGE)
        if (at == 0 || dl_load32(data + HEAD + at) == MAGIC)
            mend_block(data + HEAD + at, size - HEAD - at, lsn + at, dl_load32(data));
    return size;
}

/* ---- what has to hold */

static void check_row(const log_piece *log, const dl_frame *row, size_t at, size_t end) {
    const uint8_t *frame = log->bytes + at;
    const size_t size = frame_size_at(frame, end - at);
    REQUIRE(size > 0 && frame_holds_at(log, at, size));
    REQUIRE(row->position == log->lsn + at);
    REQUIRE(row->payload >= DL_FRAME_HEADER && (size_t)row->payload + row->payload_length == size);
    REQUIRE(row->stream == ((uint64_t)dl_load16(frame + 10) << 32 | dl_load32(frame + 12)));
    REQUIRE(row->offset == dl_load64(frame + 16) && row->type == frame[8] && row->flags == frame[9]);
    size_t extensions = 0;
    if (row->flags & DL_FLAG_PRODUCER) {
        REQUIRE(row->producer == dl_load32(frame + DL_FRAME_HEADER));
        extensions += DL_PRODUCER_CLAIM;
    }
    if (row->flags & DL_FLAG_SEQ) {
        REQUIRE(row->seq_length <= DL_SEQ_MAX);
        REQUIRE(row->seq_length == dl_load16(frame + DL_FRAME_HEADER + extensions));
        extensions += 2 + (size_t)row->seq_length;
    }
    REQUIRE(row->payload == DL_FRAME_HEADER + extensions);
}

/* All rows of the bytes "at" to "end"; the same whether they are scanned at once or a few at a time. */
static size_t check_scan(const log_piece *log, size_t at, size_t end, dl_frame *rows, enum dl_verdict *verdict) {
    size_t count = 0, taken = 0, next = at, found = 0;
    const size_t room = (end - at) / DL_FRAME_HEADER + 1;
    *verdict = dl_frames_scan(log->bytes + at, end - at, log->lsn + at, log->nonce, rows, room, &count, &taken);
    REQUIRE(*verdict == DL_OK || *verdict == DL_BAD_FRAME);
    REQUIRE(count <= room && taken <= end - at && (*verdict != DL_OK || taken == end - at));
    for (size_t i = 0; i < count; i++) {
        check_row(log, &rows[i], next, end);
        next += (size_t)rows[i].payload + rows[i].payload_length;
    }
    REQUIRE(next == at + taken);
    enum dl_verdict again = DL_NO_ROOM;
    for (next = at; again == DL_NO_ROOM; next += taken) {
        dl_frame few[3];
        size_t few_count = 0;
        again = dl_frames_scan(log->bytes + next, end - next, log->lsn + next, log->nonce, few, 3, &few_count, &taken);
        REQUIRE(few_count <= 3 && found + few_count <= count);
        REQUIRE(memcmp(few, rows + found, few_count * sizeof *few) == 0);
        found += few_count;
    }
    REQUIRE(again == *verdict && found == count);
    return count;
}

/* A block that holds, and whose frames do, is what sealing makes of it. */
static void check_seal(const log_piece *log, const dl_block *info) {
    const size_t used = DL_BLOCK_HEADER + (size_t)info->body_length, size = (used + DL_PAGE - 1) / DL_PAGE * DL_PAGE;
    uint8_t *block = fuzz_new(size, 1);
    memcpy(block, log->bytes, used);
    for (size_t at = DL_BLOCK_HEADER; at < used; at += frame_size_at(block + at, used - at))
        dl_store32(block + at, 0);
    memset(block, 0, 8);
    dl_block out = *info;
    out.header_crc = out.records = 0;
    REQUIRE(dl_block_seal(block, size, &out) == DL_OK);
    REQUIRE(out.header_crc == info->header_crc && out.records == info->records);
    REQUIRE(memcmp(block, log->bytes, used) == 0);
    for (size_t at = used; at < size; at++)
        REQUIRE(block[at] == 0);
    free(block);
}

/* What may be read at once of the entries, from the first on, one behind the other and not more than it says. */
static void check_ahead(const log_piece *log, const uint8_t *index, size_t count) {
    uint64_t piece[2];
    const size_t ahead = dl_frames_ahead(index, count, log->choice[1], piece);
    REQUIRE(ahead > 0 && ahead <= count && piece[0] == dl_load32(index + 8));
    REQUIRE(ahead == 1 || piece[1] <= log->choice[1]);
    for (size_t i = 0; i < ahead; i++) {
        const uint64_t at = dl_load32(index + 16 * i + 8),
                       length = dl_load64(index + 16 * i + 16) - dl_load64(index + 16 * i);
        REQUIRE(i == 0 || at > dl_load32(index + 16 * i - 8));
        REQUIRE(at + DL_FRAME_HEADER + length <= piece[0] + piece[1]);
    }
}

static void check_gather(const log_piece *log, const dl_frame *rows, size_t count) {
    if (count == 0) return;
    const uint64_t stream = rows[log->choice[0] % count].stream, position = (uint32_t)log->lsn;
    uint8_t *index = fuzz_new(16 * count + 8, 1), *end_of = index;
    uint64_t total = 0;
    size_t chosen = 0, done = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t end = rows[i].offset + rows[i].payload_length;
        if (rows[i].stream != stream || end < rows[i].offset) continue;
        if (chosen > 0 && rows[i].offset != dl_load64(end_of)) continue;
        dl_store64(index + 16 * chosen, rows[i].offset);
        dl_store64(index + 16 * chosen + 8, rows[i].position);
        end_of = index + 16 * ++chosen;
        dl_store64(end_of, end);
        total += rows[i].payload_length;
    }
    if (chosen == 0) goto done;
    check_ahead(log, index, chosen);
    const uint64_t from = dl_load64(index) + fuzz_within(log->choice[1] & 0xffff, total);
    const uint64_t to = from + fuzz_within(log->choice[1] >> 16, dl_load64(end_of) - from);
    uint8_t *out = fuzz_new((size_t)(to - from), 1);
    REQUIRE(dl_frames_gather(log->bytes, log->length, position, log->nonce, stream, index, chosen, from, to, out,
                             &done) == DL_OK);
    REQUIRE(done == chosen);
    for (size_t i = 0; i < count; i++)
        for (uint64_t at = 0; at < rows[i].payload_length; at++) {
            const uint64_t offset = rows[i].offset + at;
            for (size_t k = 0; k < chosen; k++)
                if (dl_load64(index + 16 * k + 8) == rows[i].position && offset >= from && offset < to)
                    REQUIRE(out[offset - from] == log->bytes[rows[i].position - log->lsn + rows[i].payload + at]);
        }
    /* what an index says that lies: of another stream, or a place where no such frame is */
    REQUIRE(dl_frames_gather(log->bytes, log->length, position, log->nonce, stream + 1, index, chosen, from, to, out,
                             &done) == DL_BAD_FRAME);
    dl_store64(end_of - 8, log->lsn + log->choice[0] - 8);
    const enum dl_verdict lied =
        dl_frames_gather(log->bytes, log->length, position, log->nonce, stream, index, chosen, from, to, out, &done);
    REQUIRE(lied == DL_OK || lied == DL_BAD_LENGTH || lied == DL_BAD_FRAME);
    free(out);
done:
    free(index);
}

static void check_searches(const log_piece *log) {
    const size_t from = fuzz_within(log->choice[0], log->length + 1);
    dl_block info;
    const size_t block = dl_block_find(log->bytes, log->length, log->lsn, log->nonce, from);
    REQUIRE(block <= log->length && (block == log->length || (block >= from && block % DL_PAGE == 0)));
    if (block < log->length) {
        const enum dl_verdict verdict =
            dl_block_check(log->bytes + block, log->length - block, log->lsn + block, log->nonce, &info);
        REQUIRE(verdict == DL_OK || verdict == DL_BAD_LENGTH || verdict == DL_BAD_BODY);
    }
    uint32_t *marks = fuzz_new(log->length / DL_PAGE + 1, sizeof *marks);
    dl_crc32c_marks(log->bytes, log->length, marks);
    const size_t frame = dl_frame_find(log->bytes, log->length, marks, log->lsn, log->nonce, from);
    free(marks);
    REQUIRE(frame <= log->length || from > log->length);
    if (frame >= log->length) return;
    const size_t size = frame_size_at(log->bytes + frame, log->length - frame);
    REQUIRE(frame >= from && size > 0 && frame_holds_at(log, frame, size));
    for (size_t at = from; at < frame; at++) {
        const size_t there = frame_size_at(log->bytes + at, log->length - at);
        const uint8_t type = log->bytes[at + 8], flags = log->bytes[at + 9];
        REQUIRE(there == 0 || type == 0 || type > DL_TYPE_MAX || flags > 7 || !frame_holds_at(log, at, there));
    }
}

/* Surveys find what a scan does: all frames, or those that hold stream bytes. */
static void check_surveys(const log_piece *log, const dl_frame *rows, size_t count, size_t body,
                          enum dl_verdict scanned) {
    const size_t room = count + 1;
    dl_record *records = fuzz_new(room, sizeof *records);
    const uint64_t blocks[] = {log->lsn + DL_BLOCK_HEADER, body, log->lsn + log->choice[0], log->choice[1]};
    uint64_t largest = 0, bad = 0;
    size_t found = 0, data = 0;
    enum dl_cluster_verdict verdict =
        dl_records_scan_all(log->bytes, log->length, log->lsn, log->nonce, 7, blocks, 1, records, room, &found, &bad);
    if (verdict != DL_CLUSTER_SHORT) {
        REQUIRE(found == count && verdict == (scanned == DL_OK ? DL_CLUSTER_OK : DL_CLUSTER_FRAME));
        for (size_t i = 0; i < count; i++) {
            REQUIRE(records[i].stream == rows[i].stream && records[i].offset == rows[i].offset);
            REQUIRE((records[i].skip & 0xffff) == rows[i].payload && records[i].length == rows[i].payload_length);
            const uint32_t type = rows[i].type <= DL_TYPE_MAX ? rows[i].type : 0;
            REQUIRE(records[i].skip >> DL_RECORD_TYPE == type);
            REQUIRE((records[i].skip >> DL_RECORD_FLAGS & DL_FLAGS) == (rows[i].flags & DL_FLAGS));
            data += rows[i].type == DL_TYPE_DATA && rows[i].payload_length > 0;
        }
        found = 0;
        verdict = dl_records_scan(log->bytes, log->length, log->lsn, log->nonce, 7, blocks, 1, records, room, &found,
                                  &largest, &bad);
        REQUIRE(found == data && largest <= body);
    }
    found = 0;
    verdict = dl_records_scan(log->bytes, log->length, log->lsn, log->nonce, 7, blocks + 2, 1, records, room, &found,
                              &largest, &bad);
    REQUIRE(found <= room && (verdict != DL_CLUSTER_OK || blocks[3] <= log->length));
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    log_piece log = {NULL, 0, 0, fuzz_take32(&input), {0, 0}};
    log.lsn = (uint64_t)fuzz_take32(&input) << 32 | DL_PAGE;
    log.choice[0] = fuzz_take32(&input);
    log.choice[1] = fuzz_take32(&input);
    log.length = input.left;
    uint8_t *bytes = fuzz_copy(input.at, input.left);
    log.bytes = bytes;

    dl_block info = {0}, again = {0};
    enum dl_verdict verdict = dl_block_check(bytes, log.length, log.lsn, log.nonce, &info);
    REQUIRE(dl_block_check(bytes, log.length, log.lsn, log.nonce, &again) == verdict);
    REQUIRE(memcmp(&info, &again, sizeof info) == 0);
    check_searches(&log);
    if (log.length >= DL_BLOCK_HEADER) {
        const size_t there = log.length - DL_BLOCK_HEADER, body = verdict == DL_OK ? info.body_length : there;
        REQUIRE(body <= there);
        /* positions are those in the file, as in an engine that reads it: the lower 32 bits of an LSN */
        log.lsn &= UINT32_MAX;
        dl_frame *rows = fuzz_new(body / DL_FRAME_HEADER + 1, sizeof *rows);
        enum dl_verdict scanned;
        const size_t count = check_scan(&log, DL_BLOCK_HEADER, DL_BLOCK_HEADER + body, rows, &scanned);
        check_gather(&log, rows, count);
        check_surveys(&log, rows, count, body, scanned);
        if (verdict == DL_OK && scanned == DL_OK && info.records == count && dl_load32(bytes + 60) == 0)
            check_seal(&log, &info);
        free(rows);
    }
    free(bytes);
    return 0;
}
