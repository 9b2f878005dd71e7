/* Rows and entries of clustered segments, and reading: an entry is found, its records are told, a span's pages checked.
 *
 * An input is numbers (nonce 4, stream 8, start of the row 8, its length 4, first page and pages of the span 4 and 4,
 * where the span is parted 4 and 4, an offset 4, and which payload byte is damaged 4) and the entries of the row. Its
 * payload is always the same bytes: what matters is whether their checksums are right.
 */
#include "../harness.h"

#define HEAD 48

typedef struct {
    uint32_t nonce;
    uint64_t stream;
    uint64_t start;
    uint32_t length;
    uint32_t first, pages;
    uint32_t parted[2];
    uint32_t offset;
    uint32_t damaged;
} question;

static question question_of(fuzz_input *input) {
    question q;
    q.nonce = fuzz_take32(input);
    q.stream = fuzz_take64(input);
    q.start = fuzz_take64(input);
    q.length = fuzz_take32(input);
    q.first = fuzz_take32(input);
    q.pages = fuzz_take32(input);
    q.parted[0] = fuzz_take32(input);
    q.parted[1] = fuzz_take32(input);
    q.offset = fuzz_take32(input);
    q.damaged = fuzz_take32(input);
    q.length = (uint32_t)fuzz_within(q.length, FUZZ_PAYLOAD_MAX - 1) + 1;
    if (q.start > UINT64_MAX / 2) q.start /= 2;
    return q;
}

static uint32_t chunk_length(const question *q, uint64_t chunk) {
    return (uint32_t)fuzz_least(q->length - (chunk - q->start), DL_CHUNK);
}

static size_t sums_length(uint32_t length) { return (length + DL_PAGE - 1) / DL_PAGE * 4; }

/* Every entry gets the checksums of its pages, and its own. */
static void mend(const question *q, uint8_t *entries, size_t left, int places, int pages) {
    for (uint64_t chunk = q->start; left >= DL_ENTRY_HEADER && chunk < q->start + q->length;) {
        const uint32_t length = chunk_length(q, chunk);
        if (places) {
            dl_store32(entries + 4, length);
            dl_store64(entries + 8, q->stream);
            dl_store64(entries + 16, chunk);
        }
        const size_t size = DL_ENTRY_HEADER + sums_length(length) + dl_load32(entries + 28);
        if (size > left) break;
        for (uint32_t at = 0; pages && at < length; at += DL_PAGE) {
            const uint8_t *page = fuzz_payload() + (chunk - q->start) + at;
            const uint32_t sum = dl_crc32c(q->nonce, page, length - at < DL_PAGE ? length - at : DL_PAGE);
            dl_store32(entries + DL_ENTRY_HEADER + at / DL_PAGE * 4, sum);
        }
        fuzz_seal(entries, size, q->nonce);
        entries += size;
        left -= size;
        chunk += length;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, size_max);
    if (seed % 8 == 0 || size < HEAD) return size;
    fuzz_input input = {data, size};
    const question q = question_of(&input);
    mend(&q, data + HEAD, size - HEAD, seed >> 3 & 3, seed >> 5 & 7);
    return size;
}

/* ---- what has to hold */

/* How many bytes of the span's pages hold, by the entries, from its start on. */
static uint64_t plain_good(const dl_span *span, const uint8_t *entries, const uint8_t *bytes) {
    uint64_t good = span->from;
    for (uint64_t chunk = span->chunk; chunk < span->to;) {
        const uint32_t length = (uint32_t)fuzz_least(span->end - chunk, DL_CHUNK);
        for (uint64_t at = good; at < chunk + length && at < span->to; at = good) {
            const uint64_t end = fuzz_least(fuzz_least(at + DL_PAGE, chunk + length), span->to);
            const uint32_t sum = dl_crc32c_portable(span->nonce, bytes + (at - span->from), (size_t)(end - at));
            if (sum != dl_load32(entries + DL_ENTRY_HEADER + (at - chunk) / DL_PAGE * 4)) return good;
            good = end;
        }
        entries += DL_ENTRY_HEADER + sums_length(length) + dl_load32(entries + 28);
        chunk += length;
    }
    return good;
}

static void check_span(const question *q, const uint8_t *entries, size_t length, uint64_t chunk,
                       const uint8_t *payload) {
    const uint64_t row_end = q->start + q->length, pages = (row_end - chunk + DL_PAGE - 1) / DL_PAGE;
    const uint64_t from = chunk + fuzz_within(q->first, fuzz_least(pages, DL_CHUNK / DL_PAGE) - 1) * DL_PAGE;
    const uint64_t to = fuzz_least(from + (1 + (uint64_t)q->pages % 64) * DL_PAGE, row_end);
    const size_t size = (size_t)(to - from), one = fuzz_within(q->parted[0], size);
    const size_t other = fuzz_within(q->parted[1], size - one);
    const size_t lengths[3] = {one, other, size - one - other};
    uint8_t *parts[3];
    dl_span span = {q->nonce, q->stream, chunk, row_end, from, to, {0}, {0}}, whole = span;
    for (size_t i = 0, at = (size_t)(from - q->start); i < 3; at += lengths[i++]) {
        span.parts[i] = parts[i] = fuzz_copy(payload + at, lengths[i]);
        span.lengths[i] = lengths[i];
    }
    whole.parts[0] = payload + (from - q->start);
    whole.lengths[0] = size;
    uint64_t good = 0, good_again = 0;
    size_t entry = 0, entry_again = 0;
    const enum dl_cluster_verdict verdict = dl_span_check(&span, entries, length, &good, &entry);
    REQUIRE(dl_span_check(&whole, entries, length, &good_again, &entry_again) == verdict);
    REQUIRE(good == good_again && entry == entry_again && good >= from && good <= to && entry <= length);
    if (verdict == DL_CLUSTER_OK || verdict == DL_CLUSTER_PAGE)
        REQUIRE(good == plain_good(&whole, entries, whole.parts[0]) && (good == to) == (verdict == DL_CLUSTER_OK));
    else
        REQUIRE(verdict == DL_CLUSTER_ENTRY);
    for (size_t i = 0; i < 3; i++)
        free(parts[i]);
    /* spans that lie */
    whole.lengths[1] = 1;
    REQUIRE(dl_span_check(&whole, entries, length, &good, &entry) == DL_CLUSTER_SHORT);
    whole.to = row_end + 1;
    REQUIRE(dl_span_check(&whole, entries, length, &good, &entry) == DL_CLUSTER_ORDER);
}

static void check_bounds(const question *q, const uint8_t *entry, size_t length, uint64_t chunk) {
    const uint64_t row_end = q->start + q->length, offset = chunk + fuzz_within(q->offset, chunk_length(q, chunk) - 1);
    uint64_t start = 0, end = 0, next_start = 0, next_end = 0;
    if (dl_entry_bounds(entry, length, q->nonce, q->stream, chunk, q->start, row_end, offset, &start, &end) !=
        DL_CLUSTER_OK)
        return;
    REQUIRE(q->start <= start && start <= offset && offset < end);
    REQUIRE(
        fuzz_is_sealed(entry, DL_ENTRY_HEADER + sums_length(chunk_length(q, chunk)) + dl_load32(entry + 28), q->nonce));
    if (end < chunk + chunk_length(q, chunk) && dl_entry_bounds(entry, length, q->nonce, q->stream, chunk, q->start,
                                                                row_end, end, &next_start, &next_end) == DL_CLUSTER_OK)
        REQUIRE(next_start == end && next_end > end);
}

/* Whether "count" bytes at a position lie within a file. */
static int lies_within(uint64_t position, uint64_t count, uint64_t length) {
    return position <= length && count <= length - position;
}

static int row_fits(const uint8_t *row, uint64_t file_length) {
    const uint64_t payload = dl_load32(row + 4), chunks = (payload + DL_CHUNK - 1) / DL_CHUNK;
    const uint64_t entries = dl_load32(row + 40) + (chunks - 1) * 4;
    return lies_within(dl_load64(row + 24), payload, file_length) &&
           lies_within(dl_load64(row + 32), entries, file_length);
}

/* The same bytes as a table of rows. */
static void check_rows(const question *q, const uint8_t *table, size_t count) {
    uint64_t *columns[3], bad = 0;
    for (size_t i = 0; i < 3; i++)
        columns[i] = fuzz_new(count, 8);
    size_t good = 0;
    const uint64_t file_length = (uint64_t)q->offset << (q->pages & 31);
    const size_t told = dl_rows_unpack(table, count, q->nonce, file_length, columns[0], columns[1], columns[2]);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = table + i * DL_ROW;
        const uint64_t start = dl_load64(row + 16), end = start + dl_load32(row + 4), index = i + 10;
        const int holds = fuzz_is_sealed(row, DL_ROW, q->nonce) && end > start;
        const int fits = holds && row_fits(row, file_length);
        dl_record record = {0};
        good += (size_t)fits;
        REQUIRE(dl_row_holds(row, q->nonce, file_length) == fits);
        REQUIRE(columns[0][i] == (fits ? dl_load64(row + 8) : 0));
        REQUIRE(columns[1][i] == (fits ? start : 0) && columns[2][i] == (fits ? end : 0));
        REQUIRE(dl_records_of_rows(table, count, 10, q->nonce, 5, &index, 1, &record, &bad) ==
                (holds ? DL_CLUSTER_OK : DL_CLUSTER_ROW));
        REQUIRE(bad == index && (!holds || record.place == (UINT64_C(5) << 32 | index)));
    }
    REQUIRE(told == good);
    for (size_t i = 0; i < 3; i++)
        free(columns[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    const question q = question_of(&input);
    uint8_t *payload = fuzz_copy(fuzz_payload(), q.length), *entries = fuzz_copy(input.at, input.left);
    if (q.damaged < q.length) payload[q.damaged] ^= 0x20;
    for (uint64_t chunk = q.start; chunk < q.start + q.length; chunk += DL_CHUNK) {
        const size_t at = dl_entry_find(entries, input.left, q.nonce, q.stream, q.start, q.start + q.length, chunk);
        REQUIRE(at <= input.left);
        check_span(&q, entries + at, input.left - at, chunk, payload);
        check_bounds(&q, entries + at, input.left - at, chunk);
    }
    check_rows(&q, entries, input.left / DL_ROW);
    free(entries);
    free(payload);
    return 0;
}
