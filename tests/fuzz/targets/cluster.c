/* Clustered segments as a whole: whatever is in one, verifying tells the same in any slices, and what can be copied out
 * of it makes one without faults.
 *
 * An input is numbers (4 each: nonce, bytes of payload, rows, longest row, a damaged byte, size of windows, a row and by
 * how much it is cut) and the rows and entries. The payload is always the same bytes.
 */
#include "../cluster_job.h"

#define HEAD 32

typedef struct {
    cluster_file file;
    uint64_t row_max;
    size_t window;
    uint32_t cut_row, cut;
} sample;

static sample sample_of(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample s = {{0}, 0, 0, 0, 0};
    s.file.nonce = fuzz_take32(&input);
    const size_t payload = fuzz_within(fuzz_take32(&input), FUZZ_PAYLOAD_MAX);
    const uint32_t rows = fuzz_take32(&input) % 1024;
    s.row_max = fuzz_take32(&input);
    const uint32_t damaged = fuzz_take32(&input);
    s.window = fuzz_take32(&input) % 100000;
    s.cut_row = fuzz_take32(&input);
    s.cut = fuzz_take32(&input);
    s.file.rows_position = FILE_START + payload;
    s.file.rows_count = rows;
    s.file.entries_position = s.file.rows_position + rows * (uint64_t)DL_ROW;
    s.file.length = s.file.rows_position + input.left;
    s.file.bytes = malloc((size_t)s.file.length);
    memset(s.file.bytes, 0, FILE_START);
    memcpy(s.file.bytes + FILE_START, fuzz_payload(), payload);
    memcpy(s.file.bytes + s.file.rows_position, input.at, input.left);
    if (damaged < payload) s.file.bytes[FILE_START + damaged] ^= 4;
    return s;
}

/* ---- a mutator that mends: everything in its place, and under its checksum */

typedef struct {
    cluster_file *file;
    uint64_t payload; /* where the next row's bytes begin, */
    uint64_t entries; /* and its entries */
    int places;
    int pages;
} mender;

static uint64_t mend_entry(mender *m, uint64_t at, uint64_t stream, uint64_t start, uint64_t bytes, uint32_t length) {
    uint8_t *entry = m->file->bytes + at;
    const uint32_t sums = (length + DL_PAGE - 1) / DL_PAGE * 4;
    if (m->file->length - at < DL_ENTRY_HEADER) return 0;
    if (m->places) {
        dl_store32(entry + 4, length);
        dl_store64(entry + 8, stream);
        dl_store64(entry + 16, start);
    }
    const uint64_t size = (uint64_t)DL_ENTRY_HEADER + sums + dl_load32(entry + 28);
    if (size > m->file->length - at) return 0;
    for (uint32_t page = 0; m->pages && page < length; page += DL_PAGE) {
        const uint32_t part = length - page < DL_PAGE ? length - page : DL_PAGE;
        dl_store32(entry + DL_ENTRY_HEADER + page / DL_PAGE * 4,
                   dl_crc32c(m->file->nonce, m->file->bytes + bytes + page, part));
    }
    fuzz_seal(entry, (size_t)size, m->file->nonce);
    return size;
}

static void mend_row(mender *m, uint8_t *row) {
    uint64_t payload_left = m->file->rows_position - m->payload;
    if (m->places) {
        dl_store64(row + 24, m->payload);
        dl_store64(row + 32, m->entries);
        if (dl_load32(row + 4) == 0 || dl_load32(row + 4) > payload_left) dl_store32(row + 4, (uint32_t)payload_left);
    }
    const uint32_t length = dl_load32(row + 4);
    const uint64_t payload = dl_load64(row + 24), entries = dl_load64(row + 32), start = dl_load64(row + 16);
    if (payload <= m->file->rows_position && length <= m->file->rows_position - payload && entries < m->file->length) {
        uint64_t at = entries, starts[4] = {0};
        uint32_t chunks = 0;
        for (uint32_t done = 0; done < length; done += DL_CHUNK, chunks++) {
            const uint32_t part = length - done < DL_CHUNK ? length - done : DL_CHUNK;
            starts[chunks % 4] = at - entries;
            const uint64_t size = mend_entry(m, at, dl_load64(row + 8), start + done, payload + done, part);
            if (size == 0) break;
            at += size;
        }
        if (m->places) dl_store32(row + 40, (uint32_t)(at - entries));
        for (uint32_t i = 1; m->places && i < chunks && i < 4 && m->file->length - at >= 4; i++, at += 4)
            dl_store32(m->file->bytes + at, (uint32_t)starts[i]);
        m->payload = payload + length;
        m->entries = at;
    }
    fuzz_seal(row, DL_ROW, m->file->nonce);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, size_max);
    if (seed % 8 == 0 || size < HEAD) return size;
    sample s = sample_of(data, size);
    mender m = {&s.file, FILE_START, s.file.entries_position, (seed >> 3 & 3) != 0, (seed >> 5 & 7) != 0};
    for (uint64_t i = 0; i < s.file.rows_count && s.file.rows_position + (i + 1) * DL_ROW <= s.file.length; i++)
        mend_row(&m, s.file.bytes + s.file.rows_position + i * DL_ROW);
    memcpy(data + HEAD, s.file.bytes + s.file.rows_position, size - HEAD);
    free(s.file.bytes);
    return size;
}

/* ---- what has to hold */

/* The stream bytes of what was built are those of the rows, one behind the other. */
static void check_payload(const sample *s, const dl_record *records, size_t count, const cluster_file *built) {
    uint64_t at = FILE_START;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = s->file.bytes + s->file.rows_position + (records[i].place & UINT32_MAX) * DL_ROW;
        const uint64_t position = dl_load64(row + 24) + records[i].skip;
        REQUIRE(memcmp(built->bytes + at, s->file.bytes + position, records[i].length) == 0);
        at += records[i].length;
    }
    REQUIRE(at == built->rows_position);
}

static void check_copy(const sample *s, size_t faults) {
    const size_t count = (size_t)s->file.rows_count;
    uint64_t *indexes = fuzz_new(count, 8), bad = 0;
    dl_record *records = fuzz_new(count, sizeof *records);
    cluster_file built;
    for (size_t i = 0; i < count; i++)
        indexes[i] = i;
    const size_t there = (size_t)fuzz_least(count, (s->file.length - s->file.rows_position) / DL_ROW);
    enum dl_cluster_verdict verdict = dl_records_of_rows(s->file.bytes + s->file.rows_position, there, 0, s->file.nonce,
                                                         0, indexes, count, records, &bad);
    if (verdict == DL_CLUSTER_OK && count > 0 && s->cut > 0 && s->cut < records[s->cut_row % count].length) {
        dl_record *cut = &records[s->cut_row % count];
        cut->skip = s->cut;
        cut->offset += s->cut;
        cut->length -= s->cut;
    }
    if (verdict == DL_CLUSTER_OK) {
        const dl_source source = source_of_file(&s->file);
        const build_order order = {&source, 1, records, count, 1, s->window, s->row_max, ~s->file.nonce};
        verdict = build(&order, &built);
        if (verdict == DL_CLUSTER_OK) {
            check_payload(s, records, count, &built);
            check_built(&built, s->row_max);
        }
        free(built.bytes);
    }
    REQUIRE(faults > 0 || verdict != DL_CLUSTER_PAGE);
    free(indexes);
    free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sample s = sample_of(data, size);
    enum dl_cluster_verdict verdict, again;
    uint64_t mix, mix_again;
    const size_t faults = verify(&s.file, 0, &verdict, &mix);
    REQUIRE(verify(&s.file, s.window, &again, &mix_again) == faults && again == verdict && mix_again == mix);
    REQUIRE(verdict == DL_CLUSTER_OK || verdict == DL_CLUSTER_SHORT);
    check_copy(&s, faults + (verdict == DL_CLUSTER_SHORT));
    free(s.file.bytes);
    return 0;
}
