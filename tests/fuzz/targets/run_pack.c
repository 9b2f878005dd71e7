/* Rows in memory become pages: scanned, sorted, of the same name the last one kept, and packed. Every page holds, and has
 * just these rows, or their names, or their numbers.
 *
 * An input is numbers (nonce 4, whether names are packed 1, room for fences 1) and rows that follow each other.
 */
#include "../run_units.h"

typedef struct {
    uint32_t nonce, kind;
    size_t fences;
    const uint8_t *rows;
    size_t length;
} sample;

/* Sorted by what the pages are, the same names apart, the last one first. */
static const uint8_t *compared_rows;
static uint32_t compared_kind;

static int compare(const void *one, const void *other) {
    const uint64_t a = ((const dl_run_pair *)one)->value, b = ((const dl_run_pair *)other)->value;
    const uint8_t *left = compared_rows + a, *right = compared_rows + b;
    const int order = compared_kind == DL_RUN_NAMES
                          ? compare_items(name_in(left, DL_RUN_ROWS), name_in(right, DL_RUN_ROWS), DL_RUN_NAMES)
                          : compare_items(left, right, DL_RUN_ROWS);
    return order != 0 ? order : (a < b) - (a > b);
}

static int are_same(const uint8_t *a, const uint8_t *b, uint32_t kind) {
    if (kind == DL_RUN_ROWS) return compare_items(a, b, kind) == 0;
    return compare_items(name_in(a, DL_RUN_ROWS), name_in(b, DL_RUN_ROWS), kind) == 0;
}

static size_t plain_sort(const sample *s, dl_run_pair *pairs, size_t count) {
    size_t kept = 0;
    compared_rows = s->rows;
    compared_kind = s->kind;
    qsort(pairs, count, sizeof *pairs, compare);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || !are_same(s->rows + pairs[kept - 1].value, s->rows + pairs[i].value, s->kind))
            pairs[kept++] = pairs[i];
    return kept;
}

static dl_run_builder new_builder(const sample *s, uint32_t kind, size_t pairs) {
    dl_run_builder out = {0};
    out.pages_size = 2 * whole_pages(DL_RUN_PAGE_HEADER + s->length) + DL_PAGE;
    out.pages = malloc(out.pages_size);
    out.fences_size = s->fences;
    out.fences = s->fences ? fuzz_new(s->fences, sizeof *out.fences) : NULL;
    out.places = s->fences ? fuzz_new(s->fences, sizeof *out.places) : NULL;
    out.pairs_size = pairs;
    out.pairs = pairs ? fuzz_new(pairs, sizeof *out.pairs) : NULL;
    out.deadline_min = DL_RUN_NEVER;
    out.nonce = s->nonce;
    out.place = 1;
    out.kind = kind;
    return out;
}

static void free_builder(dl_run_builder *out) {
    free(out->pages);
    free(out->fences);
    free(out->places);
    free(out->pairs);
}

/* Takes the pages that are sealed: they hold, and have the items that come next. */
static size_t take(const sample *s, dl_run_builder *out, const dl_run_pair *pairs, size_t done) {
    uint32_t place = out->place;
    for (size_t at = 0, size, pages = 0; at < out->pages_used;
         at += size, place += (uint32_t)(size / DL_PAGE), pages++) {
        const uint8_t *page = out->pages + at, *there = page + DL_RUN_PAGE_HEADER;
        dl_run_page info;
        size = whole_pages(dl_load32(page + 4));
        REQUIRE(dl_run_survey(page, size, place, s->nonce, out->kind, 0, &info) == DL_RUN_OK);
        if (s->fences) REQUIRE(out->fences[pages] == info.first && out->places[pages] == place);
        for (size_t i = 0; i < info.items; i++, done++) {
            const uint8_t *row = s->rows + pairs[done].value, *name = name_in(row, DL_RUN_ROWS);
            const uint8_t *item = out->kind == DL_RUN_NAMES ? name : row;
            size_t found = 0;
            REQUIRE(memcmp(there, item, size_of_item(item, out->kind)) == 0);
            if (out->kind == DL_RUN_ROWS)
                REQUIRE(dl_run_find(page, size, place, s->nonce, dl_load64(row), name + 18, dl_load16(name + 16),
                                    &found) == DL_RUN_OK &&
                        found == (size_t)(there - page));
            there += size_of_item(item, out->kind);
        }
    }
    dl_run_emptied(out);
    return done;
}

static void pack(const sample *s, const dl_run_pair *pairs, size_t count) {
    dl_run_builder out = new_builder(s, s->kind, count);
    size_t next = 0, done = 0;
    enum dl_run_verdict verdict;
    while ((verdict = dl_run_pack_rows(s->rows, s->length, pairs, count, &next, &out)) == DL_RUN_FULL) {
        REQUIRE(out.pages_used > 0 || out.open_length > 0);
        done = take(s, &out, pairs, done);
    }
    REQUIRE(verdict == DL_RUN_OK && next == count);
    dl_run_seal(&out);
    REQUIRE(take(s, &out, pairs, done) == count && out.count == count && out.pairs_used == count);

    /* and the numbers that the builder noted, sorted */
    dl_run_pair *scratch = fuzz_new(count, sizeof *scratch);
    dl_run_builder numbers = new_builder(s, DL_RUN_NUMBERS, 0);
    dl_run_pairs_sort(out.pairs, scratch, count);
    for (size_t i = 1; i < count; i++)
        REQUIRE(out.pairs[i - 1].key < out.pairs[i].key ||
                (out.pairs[i - 1].key == out.pairs[i].key && out.pairs[i - 1].value <= out.pairs[i].value));
    size_t items = 0;
    next = 0;
    do {
        verdict = dl_run_pack_pairs(out.pairs, count, &next, &numbers);
        if (verdict == DL_RUN_OK) dl_run_seal(&numbers);
        uint32_t place = numbers.place;
        for (size_t at = 0; at < numbers.pages_used; at += DL_PAGE, place++) {
            dl_run_page info;
            REQUIRE(dl_run_survey(numbers.pages + at, DL_PAGE, place, s->nonce, DL_RUN_NUMBERS, 0, &info) == DL_RUN_OK);
            items += info.items;
        }
        dl_run_emptied(&numbers);
    } while (verdict == DL_RUN_FULL);
    REQUIRE(items == count);
    free_builder(&numbers);
    free_builder(&out);
    free(scratch);
}

/* Positions that lie. */
static void pack_lies(const sample *s) {
    const dl_run_pair lies[] = {{1, s->length}, {2, s->length + 1}, {3, UINT64_MAX}, {4, s->nonce % (s->length + 1)}};
    for (size_t i = 0; i < 4; i++) {
        dl_run_builder out = new_builder(s, s->kind, 0);
        size_t next = 0;
        const enum dl_run_verdict verdict = dl_run_pack_rows(s->rows, s->length, lies + i, 1, &next, &out);
        REQUIRE(verdict == DL_RUN_BAD_ITEM || (i == 3 && verdict == DL_RUN_OK));
        free_builder(&out);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample s = {fuzz_take32(&input), 0, 0, NULL, 0};
    s.kind = fuzz_number(&input, 1) & 1 ? DL_RUN_NAMES : DL_RUN_ROWS;
    s.fences = (size_t)fuzz_number(&input, 1) % 5;
    s.length = input.left;
    uint8_t *rows = fuzz_copy(input.at, input.left);
    s.rows = rows;
    size_t count = 0, again = 0, taken = 0;
    const size_t room = s.length / DL_RUN_ROW_HEADER + 1;
    dl_run_pair *pairs = fuzz_new(room, sizeof *pairs), *expected = fuzz_new(room, sizeof *pairs);
    const enum dl_run_verdict verdict = dl_run_rows_scan(rows, s.length, s.kind, NULL, 0, &count, &taken);
    REQUIRE(verdict == DL_RUN_OK ? taken == s.length : verdict == DL_RUN_BAD_ITEM);
    REQUIRE(count < room && are_items(rows, taken, count, DL_RUN_ROWS));
    REQUIRE(count == 0 || dl_run_rows_scan(rows, taken, s.kind, pairs, count - 1, &again, &taken) == DL_RUN_FULL);
    REQUIRE(dl_run_rows_scan(rows, taken, s.kind, pairs, count, &again, &taken) == DL_RUN_OK || count > 0);
    taken = 0;
    (void)dl_run_rows_scan(rows, s.length, s.kind, pairs, count, &again, &taken);
    s.length = taken;
    memcpy(expected, pairs, count * sizeof *pairs);
    const size_t left = plain_sort(&s, expected, count);
    dl_run_pair *scratch = fuzz_new(count, sizeof *scratch);
    REQUIRE(dl_run_rows_sort(rows, pairs, scratch, count) == left);
    for (size_t i = 0; i < left; i++)
        REQUIRE(pairs[i].value == expected[i].value);
    pack(&s, pairs, left);
    pack_lies(&s);
    free(scratch);
    free(pairs);
    free(expected);
    free(rows);
    return 0;
}
