/* Runs become one: of the items of up to four sources, those stay that a plain merge would leave, in its order.
 *
 * An input is numbers (nonce 4, kind 1, sources 1, whether tombstones are dropped 1, room for fences 1) and pages in short
 * form, each with the number of its source.
 */
#include "../run_units.h"

#define SOURCES 4
#define PAGES 32

typedef struct {
    uint32_t nonce, kind, count;
    int drops;
    size_t fences;
    run_page pages[SOURCES][PAGES];
    size_t pages_count[SOURCES];
    size_t given[SOURCES];
    size_t largest;
} sample;

typedef struct {
    const uint8_t *bytes;
    size_t size;
    uint32_t source;
} item;

static uint32_t compared_kind; /* what qsort can't be told */

static int compare(const void *one, const void *other) {
    const item *a = one, *b = other;
    const int order = compare_items(a->bytes, b->bytes, compared_kind);
    return order != 0 ? order : (a->source > b->source) - (a->source < b->source);
}

static size_t items_in(const run_page *page) { return dl_load16(page->bytes + 12); }

static size_t length_in(const run_page *page) { return dl_load32(page->bytes + 4) - DL_RUN_PAGE_HEADER; }

static int page_is_sound(const run_page *page, uint32_t kind) {
    return page->is_good && page->kind == kind && length_in(page) > 0 &&
           page->size == whole_pages(DL_RUN_PAGE_HEADER + length_in(page)) &&
           are_items(page->bytes + DL_RUN_PAGE_HEADER, length_in(page), items_in(page), kind);
}

/* All items of sources that are sound and sorted, or NULL. */
static item *items_of(const sample *s, size_t *count) {
    size_t total = 0;
    *count = 0;
    for (uint32_t i = 0; i < s->count; i++)
        for (size_t k = 0; k < s->pages_count[i]; k++) {
            if (!page_is_sound(&s->pages[i][k], s->kind)) return NULL;
            total += items_in(&s->pages[i][k]);
        }
    item *items = fuzz_new(total, sizeof *items);
    for (uint32_t i = 0; i < s->count; i++) {
        const uint8_t *before = NULL;
        for (size_t k = 0; k < s->pages_count[i]; k++) {
            const uint8_t *at = s->pages[i][k].bytes + DL_RUN_PAGE_HEADER;
            for (size_t left = items_in(&s->pages[i][k]); left > 0; left--) {
                const size_t size = size_of_item(at, s->kind);
                const int order = before == NULL ? -1 : compare_items(before, at, s->kind);
                if (order > 0 || (order == 0 && s->kind != DL_RUN_NUMBERS)) {
                    free(items);
                    return NULL;
                }
                items[(*count)++] = (item){at, size, i};
                before = at;
                at += size;
            }
        }
    }
    return items;
}

/* What has to be left of them, in its order. */
static size_t plain_merge(const sample *s, item *items, size_t count) {
    size_t kept = 0;
    compared_kind = s->kind;
    qsort(items, count, sizeof *items, compare);
    for (size_t i = 0; i < count; i++) {
        const int again =
            i > 0 && s->kind != DL_RUN_NUMBERS && compare_items(items[i - 1].bytes, items[i].bytes, s->kind) == 0;
        items[i].source = (uint32_t)again;
    }
    for (size_t i = 0; i < count; i++) {
        const int is_gone =
            s->kind != DL_RUN_NUMBERS && s->drops && dl_load16(name_in(items[i].bytes, s->kind) + 6) & DL_RUN_TOMBSTONE;
        if (items[i].source == 0 && !is_gone) items[kept++] = items[i];
    }
    return kept;
}

/* Takes the pages that are sealed, and compares their items with those that have to come. */
static size_t take(const sample *s, dl_run_builder *out, const item *expected, size_t count, size_t done) {
    uint32_t place = out->place;
    for (size_t at = 0, size; at < out->pages_used; at += size, place += (uint32_t)(size / DL_PAGE)) {
        const uint8_t *page = out->pages + at;
        dl_run_page info;
        size = whole_pages(dl_load32(page + 4));
        REQUIRE(size <= out->pages_used - at);
        if (expected == NULL) continue;
        REQUIRE(dl_run_survey(page, size, place, out->nonce, s->kind, 0, &info) == DL_RUN_OK);
        const uint8_t *there = page + DL_RUN_PAGE_HEADER;
        for (size_t i = 0; i < info.items; i++, done++) {
            REQUIRE(done < count && memcmp(there, expected[done].bytes, expected[done].size) == 0);
            there += expected[done].size;
        }
    }
    dl_run_emptied(out);
    return done;
}

static void merge(sample *s) {
    dl_run_source sources[SOURCES] = {0};
    uint32_t heap[SOURCES], which = 0;
    size_t count = 0, left = 0, done = 0;
    item *expected = items_of(s, &count);
    if (expected != NULL) left = plain_merge(s, expected, count);
    dl_run_builder out = {0};
    out.pages_size = 2 * s->largest + DL_PAGE;
    out.fences_size = s->fences;
    out.pages = malloc(out.pages_size);
    out.fences = s->fences ? fuzz_new(s->fences, sizeof *out.fences) : NULL;
    out.places = s->fences ? fuzz_new(s->fences, sizeof *out.places) : NULL;
    out.deadline_min = DL_RUN_NEVER;
    out.nonce = ~s->nonce;
    out.place = 5;
    out.kind = s->kind;
    for (uint32_t i = 0; i < s->count; i++) {
        sources[i].nonce = s->nonce;
        sources[i].place = 1;
    }
    for (;;) {
        const enum dl_run_verdict verdict = dl_run_merge(sources, s->count, heap, s->drops, &out, &which);
        REQUIRE(out.pages_used <= out.pages_size && out.fences_used <= out.fences_size);
        if (verdict == DL_RUN_FULL) {
            REQUIRE(out.pages_used > 0 || out.open_length > 0);
            done = take(s, &out, expected, left, done);
        } else if (verdict == DL_RUN_INPUT) {
            REQUIRE(which < s->count);
            dl_run_source *source = &sources[which];
            source->place += (uint32_t)(source->length / DL_PAGE);
            source->next = source->length = 0;
            if (s->given[which] == s->pages_count[which]) {
                source->last = 1;
            } else {
                const run_page *page = &s->pages[which][s->given[which]++];
                source->bytes = page->bytes;
                source->length = page->size;
            }
        } else {
            REQUIRE(expected == NULL || verdict == DL_RUN_OK);
            REQUIRE(verdict == DL_RUN_OK ||
                    (verdict >= DL_RUN_BAD_LENGTH && verdict <= DL_RUN_BAD_ITEM && which < s->count));
            break;
        }
    }
    if (expected != NULL) {
        dl_run_seal(&out);
        REQUIRE(take(s, &out, expected, left, done) == left);
        REQUIRE(s->kind == DL_RUN_NUMBERS || out.count == left);
    }
    free(expected);
    free(out.pages);
    free(out.fences);
    free(out.places);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample s = {0};
    s.largest = DL_PAGE;
    s.nonce = fuzz_take32(&input);
    s.kind = 1 + (uint32_t)fuzz_number(&input, 1) % 3;
    s.count = (uint32_t)fuzz_number(&input, 1) % (SOURCES + 1);
    s.drops = (int)fuzz_number(&input, 1) & 1;
    s.fences = (size_t)fuzz_number(&input, 1) % 5;
    uint32_t places[SOURCES] = {1, 1, 1, 1};
    run_page page;
    while (s.count > 0) {
        const uint32_t number = input.left > 1 ? input.at[1] >> 6 : 0, source = number % s.count;
        if (s.pages_count[source] == PAGES || !next_page(&input, places[source], s.nonce, &page)) break;
        places[source] += (uint32_t)(page.size / DL_PAGE);
        if (page.size > s.largest) s.largest = page.size;
        s.pages[source][s.pages_count[source]++] = page;
    }
    for (size_t i = 0; i < SOURCES; i++) /* what settles a page is its kind, not what the input calls it */
        for (size_t k = 0; k < s.pages_count[i]; k++)
            REQUIRE(s.pages[i][k].kind == s.pages[i][k].bytes[14]);
    merge(&s);
    for (size_t i = 0; i < SOURCES; i++)
        for (size_t k = 0; k < s.pages_count[i]; k++)
            free(s.pages[i][k].bytes);
    return 0;
}
