/* The loops over records and over a stream's index: each does what a plain loop of this page does.
 *
 * An input is numbers (4 each: shift, key, how many bytes are an index, a stream) and memory that is an index first, then
 * records.
 */
#include "../harness.h"

typedef struct {
    dl_record *records;
    size_t count;
    uint32_t shift;
    enum dl_key key;
    uint64_t stream;
} sample;

static uint64_t key_of(const dl_record *record, enum dl_key key) {
    return key == DL_BY_STREAM ? record->stream : key == DL_BY_OFFSET ? record->offset : record->place;
}

static int compare_streams(const void *one, const void *other) {
    const uint64_t a = ((const dl_record *)one)->stream, b = ((const dl_record *)other)->stream;
    if (a != b) return a < b ? -1 : 1;
    const uint64_t c = ((const dl_record *)one)->offset, d = ((const dl_record *)other)->offset;
    return (c > d) - (c < d);
}

static void check_sorting(const sample *s) {
    uint64_t counts[DL_RADIX] = {0}, heads[DL_RADIX], keys[DL_KEYS] = {0};
    dl_record *out = fuzz_new(s->count, sizeof *out);
    dl_records_count(s->records, s->count, s->key, s->shift, counts);
    uint64_t total = 0;
    for (size_t i = 0; i < DL_RADIX; total += counts[i++])
        heads[i] = total;
    REQUIRE(total == s->count);
    REQUIRE(dl_records_scatter(s->records, s->count, s->key, s->shift, heads, out, s->count) == DL_CLUSTER_OK);
    for (size_t i = 1; i < s->count; i++)
        REQUIRE((key_of(&out[i - 1], s->key) >> (s->shift & 63) & (DL_RADIX - 1)) <=
                (key_of(&out[i], s->key) >> (s->shift & 63) & (DL_RADIX - 1)));
    for (size_t i = 0; i < DL_RADIX; i++)
        heads[i] = s->count > 0 ? i % s->count : 0;
    const enum dl_cluster_verdict wrong =
        dl_records_scatter(s->records, s->count, s->key, s->shift, heads, out, s->count);
    REQUIRE(wrong == DL_CLUSTER_OK || wrong == DL_CLUSTER_ROOM);
    dl_records_greatest(s->records, s->count, keys);
    for (size_t i = 0; i < s->count; i++)
        for (int key = 0; key < DL_KEYS; key++)
            REQUIRE(key_of(&s->records[i], (enum dl_key)key) <= keys[key]);
    free(out);
}

static void check_picking(const sample *s) {
    dl_record *out = fuzz_new(s->count, sizeof *out);
    const size_t picked = dl_records_pick(s->records, s->count, s->shift, out);
    size_t expected = 0;
    for (size_t i = 0; i < s->count; i++)
        if (s->shift >> (s->records[i].skip >> DL_RECORD_TYPE & 31) & 1)
            REQUIRE(memcmp(&out[expected++], &s->records[i], sizeof *out) == 0);
    REQUIRE(picked == expected);
    free(out);
}

/* From here on the records are sorted. */
static void check_streams(const sample *s) {
    uint64_t *streams = fuzz_new(s->count, 8);
    const size_t found = dl_records_streams(s->records, s->count, streams);
    size_t expected = 0, first = 0;
    for (size_t i = 0; i < s->count; i++)
        if (i == 0 || s->records[i].stream != s->records[i - 1].stream)
            REQUIRE(streams[expected++] == s->records[i].stream);
    while (first < s->count && s->records[first].stream < s->stream)
        first++;
    REQUIRE(found == expected && dl_records_find(s->records, s->count, s->stream) == first);
    free(streams);
}

/* As if they were all of one stream: what is told of them is in their order, and holds one by one. */
static void check_replay(const sample *s) {
    uint8_t *pairs = fuzz_new(16 * s->count, 1);
    uint64_t *found = fuzz_new(s->count, 8), end = s->count > 0 ? s->records[0].offset : 0;
    const uint32_t flags = s->shift & DL_FLAGS;
    const size_t done = dl_replay_data(s->records, s->count, flags, end, end + s->shift, pairs);
    for (size_t i = 0; i < done; i++) {
        const dl_record *record = &s->records[i];
        REQUIRE(record->skip >> DL_RECORD_TYPE == DL_TYPE_DATA && record->offset == end && record->length > 0);
        REQUIRE((record->skip >> DL_RECORD_FLAGS & flags) == 0);
        end += record->length;
        REQUIRE(dl_load64(pairs + 16 * i) == record->place && dl_load64(pairs + 16 * i + 8) == end);
    }
    REQUIRE(done == 0 || end - s->records[0].offset <= s->shift);
    const size_t claims = dl_replay_claims(s->records, s->count, s->stream, found);
    REQUIRE(claims <= s->count);
    for (size_t i = 0; i < claims; i++)
        REQUIRE(found[i] < s->count && (i == 0 || found[i] > found[i - 1]) &&
                (s->records[found[i]].skip >> DL_RECORD_FLAGS & (DL_FLAG_PRODUCER | DL_FLAG_SEQ)) != 0);
    REQUIRE(dl_replay_time(s->records, s->count, found, found, claims) <= s->count);
    free(pairs);
    free(found);
}

/* Every second stream is wanted, every third one trimmed; what stays is told in two slices. */
static size_t check_selecting(const sample *s) {
    uint64_t *wanted = fuzz_new(s->count, 8), *trims = fuzz_new(2 * s->count, 8), *cuts = fuzz_new(s->count, 8);
    size_t wanted_count = 0, trims_count = 0, streams = 0, kept = 0, cut = 0;
    dl_record *expected = fuzz_new(s->count, sizeof *expected);
    for (size_t i = 0; i < s->count; i++) {
        const dl_record *record = &s->records[i];
        const int is_first = i == 0 || record->stream != s->records[i - 1].stream;
        if (is_first && streams % 2 == 0) wanted[wanted_count++] = record->stream;
        if (is_first && streams % 3 == 0) {
            trims[2 * trims_count] = record->stream;
            trims[2 * trims_count++ + 1] = record->offset + record->length / 2 + 1;
        }
        streams += (size_t)is_first;
        const int is_wanted =
            s->key == DL_BY_STREAM || (wanted_count > 0 && wanted[wanted_count - 1] == record->stream);
        const int is_trimmed = trims_count > 0 && trims[2 * trims_count - 2] == record->stream;
        const uint64_t from = is_trimmed ? trims[2 * trims_count - 1] : 0;
        if (!is_wanted || record->offset + record->length <= from) continue;
        cut += record->offset < from;
        expected[kept++] = *record;
    }
    dl_selection selection = {s->key == DL_BY_STREAM ? NULL : wanted, wanted_count, 0, trims, trims_count, 0, 0};
    const size_t half = s->count / 2;
    size_t told = dl_records_select(&selection, s->records, 0, half, cuts);
    for (size_t i = 0; i < told; i++)
        REQUIRE(cuts[i] < selection.kept);
    told += dl_records_select(&selection, s->records, half, s->count - half, cuts);
    REQUIRE(selection.kept == kept && told == cut);
    REQUIRE(memcmp(s->records, expected, kept * sizeof *expected) == 0);
    free(wanted);
    free(trims);
    free(cuts);
    free(expected);
    return kept;
}

static void check_plan(const sample *s) {
    dl_plan plan = {UINT64_C(1) << s->shift % 33, 0, 0, 0, 0, 0};
    size_t bad = 0, good = 0;
    uint64_t bytes = 0;
    const enum dl_cluster_verdict verdict = dl_records_plan(&plan, s->records, s->count, &bad);
    for (; good < s->count; good++) {
        const dl_record *record = &s->records[good], *before = record - 1;
        if (record->length == 0 || record->offset + record->length < record->offset) break;
        if (good > 0 && record->stream == before->stream && record->offset - before->offset < before->length) break;
        bytes += record->length;
    }
    REQUIRE(verdict == (good == s->count ? DL_CLUSTER_OK : DL_CLUSTER_ORDER));
    REQUIRE(good == s->count ? plan.payload_bytes == bytes && plan.rows <= s->count : bad == good);
}

static void check_index(const uint8_t *index, size_t length, uint64_t below) {
    size_t bounds[2] = {0, 0}, clustered = 0, old = 0;
    const size_t entries = length / 16;
    int is_index = length % 16 == 8;
    for (size_t i = 0; i < entries; i++) {
        const uint64_t place = dl_load64(index + 16 * i + 8);
        const int kind = place >> 63 ? 0 : place < below ? 1 : 2;
        const int before = i < clustered + 1 && clustered == i ? 0 : old == i ? 1 : 2;
        if (kind < before || (kind == 1 && place >> 32 == 0)) is_index = 0;
        if (kind == 0 && clustered == i) clustered = old = i + 1;
        if (kind == 1 && old == i) old = i + 1;
    }
    const size_t run = dl_index_run(index, entries);
    REQUIRE(run <= entries && (run > 0 || entries == 0));
    REQUIRE(run == entries || dl_load32(index + 16 * run + 12) != dl_load32(index + 12));
    REQUIRE(dl_index_bounds(index, length, below, bounds) == is_index);
    if (is_index) REQUIRE(bounds[0] == clustered && bounds[1] == old);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample s = {NULL, 0, fuzz_take32(&input), DL_BY_STREAM, 0};
    s.key = (enum dl_key)(fuzz_take32(&input) % DL_KEYS);
    const uint32_t length = fuzz_take32(&input);
    s.stream = fuzz_take32(&input);
    const size_t index_length = fuzz_within(length, input.left);
    uint8_t *index = fuzz_copy(input.at, index_length);
    check_index(index, index_length, s.stream << (s.shift & 31));
    free(index);
    s.count = (input.left - index_length) / sizeof *s.records;
    s.records = fuzz_new(s.count, sizeof *s.records);
    memcpy(s.records, input.at + index_length, s.count * sizeof *s.records);
    check_sorting(&s);
    check_picking(&s);
    check_replay(&s);
    qsort(s.records, s.count, sizeof *s.records, compare_streams);
    check_streams(&s);
    check_plan(&s);
    s.count = check_selecting(&s);
    free(s.records);
    return 0;
}
