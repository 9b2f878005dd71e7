/* Many names at once: in a run that is sound every name that it has is found, with its row, and none that it has not; in
 * one that is not, whatever its fences and places say, a row that is found is that of the name.
 *
 * An input is numbers (nonce 4, whether fences, places or ends of names lie 1, room 4, name that is changed 1) and the
 * pages of rows in short form.
 */
#include "../run_units.h"

#define PAGES 16
#define NAMES 64

enum { LYING_FENCES = 1, LYING_PLACES = 2, LYING_ENDS = 4, SHORT_FILE = 8, NO_PLACES = 16 };

typedef struct {
    uint32_t nonce, lies, room, changed;
    run_page pages[PAGES];
    size_t pages_count;
    uint64_t fences[PAGES];
    uint32_t places[PAGES + 1];
    uint64_t hashes[NAMES + 1];
    uint8_t names[NAMES * DL_RUN_NAME_MAX];
    uint32_t ends[NAMES + 1];
    const uint8_t *rows[NAMES];
    size_t count;
    int is_sound;
} sample;

static void take_names(sample *s, const run_page *page) {
    static const uint8_t nothing;
    const size_t length = dl_load32(page->bytes + 4) - DL_RUN_PAGE_HEADER, items = dl_load16(page->bytes + 12);
    const uint8_t *row = page->bytes + DL_RUN_PAGE_HEADER, *before = s->count ? s->rows[s->count - 1] : &nothing;
    const int sound = page->is_good && length > 0 && page->kind == DL_RUN_ROWS &&
                      page->size == whole_pages(DL_RUN_PAGE_HEADER + length) &&
                      are_items(row, length, items, DL_RUN_ROWS);
    s->is_sound &= sound;
    for (size_t i = 0; sound && i < items && s->count < NAMES; i++, row += size_of_item(row, DL_RUN_ROWS)) {
        const uint8_t *name = name_in(row, DL_RUN_ROWS);
        const uint32_t at = s->count ? s->ends[s->count - 1] : 0;
        if (before != &nothing && compare_items(before, row, DL_RUN_ROWS) >= 0) s->is_sound = 0;
        if (i == 0) s->fences[s->pages_count - 1] = dl_load64(row);
        memcpy(s->names + at, name + 18, dl_load16(name + 16));
        s->hashes[s->count] = dl_load64(row);
        s->ends[s->count] = at + dl_load16(name + 16);
        s->rows[s->count++] = before = row;
    }
}

static uint8_t *file_of(const sample *s, size_t *length) {
    *length = s->places[s->pages_count] * (size_t)DL_PAGE;
    uint8_t *file = fuzz_new(*length, 1);
    for (size_t i = 0; i < s->pages_count; i++)
        memcpy(file + s->places[i] * (size_t)DL_PAGE, s->pages[i].bytes, s->pages[i].size);
    if (s->lies & SHORT_FILE && s->room % DL_PAGE < *length) *length -= s->room % DL_PAGE;
    return file;
}

static void lie(sample *s) {
    const size_t page = s->changed % (s->pages_count + 1);
    if (s->lies & LYING_FENCES && page < s->pages_count) s->fences[page] ^= s->room;
    if (s->lies & LYING_PLACES) s->places[page] ^= s->room;
    if (s->lies & LYING_ENDS && s->count > 0) s->ends[s->changed % s->count] ^= s->room;
}

static void look_up(sample *s) {
    size_t length;
    uint8_t *file = file_of(s, &length), *names = fuzz_copy(s->names, s->count ? s->ends[s->count - 1] : 0);
    const size_t names_length = s->count ? s->ends[s->count - 1] : 0;
    int one_page_each = 1;
    for (size_t i = 0; i < s->pages_count; i++)
        one_page_each &= s->pages[i].size == DL_PAGE;
    const int no_places = s->lies & NO_PLACES && one_page_each;
    if (s->count > 0 && names_length > 0 && !(s->lies & (LYING_FENCES | LYING_PLACES | LYING_ENDS)))
        names[s->changed % names_length] ^= (uint8_t)(s->room >> 24); /* a name that may not be there */
    lie(s);
    uint32_t *rows = fuzz_new(s->count, sizeof *rows);
    memset(rows, 0xff, s->count * sizeof *rows);
    dl_run_lookup job = {0};
    job.hashes = s->hashes;
    job.names = names;
    job.name_ends = s->ends;
    job.names_length = names_length;
    job.count = s->count;
    job.rows = rows;
    job.out_size = (s->room & 0xffffff) % 300000;
    job.out = malloc(job.out_size + !job.out_size);
    const dl_run_table run = {
        {-1, s->nonce, 0, file, length, 0, 0}, s->fences, no_places ? NULL : s->places, s->pages_count};
    const enum dl_run_verdict verdict = dl_run_find_many(&run, &job);
    REQUIRE(job.out_used <= job.out_size && job.next <= job.count);
    REQUIRE((verdict == DL_RUN_OK) == (job.next == job.count));
    const int is_honest = (s->lies & (LYING_FENCES | LYING_PLACES | LYING_ENDS | SHORT_FILE)) == 0;
    REQUIRE(verdict == DL_RUN_OK || verdict == DL_RUN_FULL || !s->is_sound || !is_honest);
    for (size_t i = 0; i < job.next; i++) {
        const size_t begin = i ? s->ends[i - 1] : 0, end = s->ends[i];
        const uint8_t *row = job.out + rows[i];
        if (rows[i] != DL_RUN_MISSING) {
            REQUIRE(rows[i] < job.out_used && are_items(row, size_of_item(row, DL_RUN_ROWS), 1, DL_RUN_ROWS));
            REQUIRE(rows[i] + size_of_item(row, DL_RUN_ROWS) <= job.out_used && dl_load64(row) == s->hashes[i]);
            const uint8_t *name = name_in(row, DL_RUN_ROWS);
            REQUIRE(compare_texts(name + 18, dl_load16(name + 16), names + begin, end - begin) == 0);
        }
        if (!s->is_sound || !is_honest) continue;
        const uint8_t *name = name_in(s->rows[i], DL_RUN_ROWS);
        const int is_there = compare_texts(name + 18, dl_load16(name + 16), names + begin, end - begin) == 0;
        if (is_there)
            REQUIRE(rows[i] != DL_RUN_MISSING && memcmp(row, s->rows[i], size_of_item(row, DL_RUN_ROWS)) == 0);
    }
    free(file);
    free(names);
    free(rows);
    free(job.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    sample *s = fuzz_new(1, sizeof *s);
    s->nonce = fuzz_take32(&input);
    s->lies = (uint32_t)fuzz_number(&input, 1);
    s->room = fuzz_take32(&input);
    s->changed = (uint32_t)fuzz_number(&input, 1);
    s->is_sound = 1;
    s->places[0] = 1;
    while (s->pages_count < PAGES &&
           next_page(&input, s->places[s->pages_count], s->nonce, &s->pages[s->pages_count])) {
        s->pages_count++;
        s->places[s->pages_count] =
            s->places[s->pages_count - 1] + (uint32_t)(s->pages[s->pages_count - 1].size / DL_PAGE);
        take_names(s, &s->pages[s->pages_count - 1]);
    }
    look_up(s);
    for (size_t i = 0; i < s->pages_count; i++)
        free(s->pages[i].bytes);
    free(s);
    return 0;
}
