/* From logs to clustered segments: frames are surveyed, sorted, staged and copied; what comes out has no faults, and has
 * their bytes.
 *
 * An input is numbers (4 each: nonce, where the second log begins, size of the stage, size of windows, longest row, which
 * record lies and how) and the frames of two logs.
 */
#include "../cluster_job.h"

#define HEAD 28
#define RECORDS 2000

typedef struct {
    uint32_t nonce, size, window, row_max, lying, lie;
    const uint8_t *logs[2];
    size_t lengths[2];
} sample;

static sample sample_of(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample s = {fuzz_take32(&input), 0, 0, 0, 0, 0, {NULL, NULL}, {0, 0}};
    const uint32_t second = fuzz_take32(&input);
    s.size = fuzz_take32(&input) % 200000 + 1;
    s.window = fuzz_take32(&input) % 10000;
    s.row_max = fuzz_take32(&input);
    s.lying = fuzz_take32(&input);
    s.lie = fuzz_take32(&input);
    s.lengths[0] = fuzz_within(second, input.left);
    s.lengths[1] = input.left - s.lengths[0];
    s.logs[0] = input.at;
    s.logs[1] = input.at + s.lengths[0];
    return s;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, size_max);
    if (seed % 8 == 0 || size < HEAD) return size;
    const sample s = sample_of(data, size);
    for (size_t log = 0; log < 2; log++) {
        uint8_t *frames = data + (s.logs[log] - data);
        for (size_t at = 0; s.lengths[log] - at >= DL_FRAME_HEADER;) {
            const size_t left = s.lengths[log] - at - DL_FRAME_HEADER;
            if (dl_load32(frames + at + 4) > left) dl_store32(frames + at + 4, (uint32_t)left);
            const size_t whole = DL_FRAME_HEADER + dl_load32(frames + at + 4);
            fuzz_seal(frames + at, whole, (s.nonce + (uint32_t)log) ^ (uint32_t)at);
            at += whole;
        }
    }
    return size;
}

/* As the engine does it: by stream, in the order of the log. */
static dl_record *sorted(dl_record *records, size_t count) {
    for (uint32_t shift = 0; shift < 48; shift += 11) {
        uint64_t heads[DL_RADIX + 1] = {0};
        dl_record *out = fuzz_new(count, sizeof *out);
        dl_records_count(records, count, DL_BY_STREAM, shift, heads + 1);
        for (size_t i = 1; i < DL_RADIX; i++)
            heads[i] += heads[i - 1];
        REQUIRE(dl_records_scatter(records, count, DL_BY_STREAM, shift, heads, out, count) == DL_CLUSTER_OK);
        free(records);
        records = out;
    }
    return records;
}

static void check_payload(const sample *s, const dl_record *records, size_t count, const cluster_file *built) {
    uint64_t at = FILE_START;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *frame = s->logs[records[i].place >> 32] + (records[i].place & UINT32_MAX);
        REQUIRE(memcmp(built->bytes + at, frame + records[i].skip, records[i].length) == 0);
        at += records[i].length;
    }
    REQUIRE(at == built->rows_position);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const sample s = sample_of(data, size);
    dl_record *records = fuzz_new(RECORDS, sizeof *records);
    dl_source sources[2];
    size_t count = 0;
    uint64_t largest = 0, bad = 0;
    for (uint32_t log = 0; log < 2; log++) {
        const uint64_t block[] = {0, s.lengths[log]};
        sources[log] = (dl_source){-1, s.nonce + log, 0, s.logs[log], s.lengths[log], 0, 0};
        (void)dl_records_scan(s.logs[log], s.lengths[log], 0, s.nonce + log, log, block, 1, records, RECORDS, &count,
                              &largest, &bad);
    }
    records = sorted(records, count);
    const build_order order = {
        sources,  2,         records, count, (size_t)fuzz_least(UINT64_MAX, s.size > largest ? s.size : largest),
        s.window, s.row_max, ~s.nonce};
    cluster_file built;
    const enum dl_cluster_verdict verdict = build(&order, &built);
    REQUIRE(verdict == DL_CLUSTER_OK || verdict == DL_CLUSTER_ORDER);
    if (verdict == DL_CLUSTER_OK) {
        check_payload(&s, records, count, &built);
        check_built(&built, s.row_max);
        free(built.bytes);
        if (count > 0) { /* records that lie of where they are and how long */
            dl_record *lying = &records[s.lying % count];
            lying->place ^= s.lie >> 16;
            lying->skip ^= s.lie & 0xff;
            lying->length ^= s.lie >> 8 & 0xff;
            if (s.lie >> 31) lying->place ^= UINT64_C(1) << 33;
        }
        (void)build(&order, &built);
    }
    free(built.bytes);
    free(records);
    return 0;
}
