/* A page of a run: surveyed, and asked for rows, numbers and names. What it says is what a plain walk over its items does.
 *
 * An input is numbers (nonce 4, place 4, hash 8, number 8, time 8, lengths of two texts 1 and 1), the texts and a page in
 * short form.
 */
#include "../run_units.h"

typedef struct {
    uint32_t nonce, place;
    uint64_t hash, number, time;
    const uint8_t *text[2];
    size_t text_length[2];
    run_page page;
} question;

static uint8_t *text_of(const question *q, size_t which) { return fuzz_copy(q->text[which], q->text_length[which]); }

static size_t items_of(const question *q) { return dl_load16(q->page.bytes + 12); }

/* Where in the page its items are, and how long they are together. */
static const uint8_t *first_of(const question *q) { return q->page.bytes + DL_RUN_PAGE_HEADER; }

static size_t length_of(const question *q) { return dl_load32(q->page.bytes + 4) - DL_RUN_PAGE_HEADER; }

static int page_is_sound(const question *q) {
    return q->page.is_good && length_of(q) > 0 && q->page.size == whole_pages(DL_RUN_PAGE_HEADER + length_of(q)) &&
           are_items(first_of(q), length_of(q), items_of(q), q->page.kind);
}

static int page_is_sorted(const question *q) {
    const uint8_t *item = first_of(q);
    for (size_t i = 1; i < items_of(q); i++) {
        const uint8_t *next = item + size_of_item(item, q->page.kind);
        const int order = compare_items(item, next, q->page.kind);
        if (order > 0 || (order == 0 && q->page.kind != DL_RUN_NUMBERS)) return 0;
        item = next;
    }
    return 1;
}

static void check_survey(const question *q, int sound, int sorted) {
    for (uint32_t kind = DL_RUN_ROWS; kind <= DL_RUN_NAMES; kind++) {
        dl_run_page info;
        const enum dl_run_verdict verdict =
            dl_run_survey(q->page.bytes, q->page.size, q->place, q->nonce, kind, 3, &info);
        if (kind != q->page.kind || !sound || !sorted) {
            REQUIRE(verdict >= DL_RUN_BAD_LENGTH && verdict <= DL_RUN_BAD_ORDER);
            continue;
        }
        REQUIRE(verdict == DL_RUN_OK && info.items == items_of(q));
        REQUIRE(info.last < q->page.size);
        REQUIRE(info.last + size_of_item(q->page.bytes + info.last, kind) == DL_RUN_PAGE_HEADER + length_of(q));
    }
}

static void check_find(const question *q, int usable) {
    uint8_t *name = text_of(q, 0);
    size_t at = 0;
    const enum dl_run_verdict verdict =
        dl_run_find(q->page.bytes, q->page.size, q->place, q->nonce, q->hash, name, q->text_length[0], &at);
    if (verdict == DL_RUN_OK) {
        const uint8_t *row = q->page.bytes + at, *found = name_in(row, DL_RUN_ROWS);
        REQUIRE(at + size_of_item(row, DL_RUN_ROWS) <= q->page.size && dl_load64(row) == q->hash);
        REQUIRE(compare_texts(found + 18, dl_load16(found + 16), name, q->text_length[0]) == 0);
    }
    free(name);
    if (!usable || q->page.kind != DL_RUN_ROWS) return;
    const uint8_t *row = first_of(q);
    for (size_t i = 0; i < items_of(q); i++, row += size_of_item(row, DL_RUN_ROWS)) {
        const uint8_t *there = name_in(row, DL_RUN_ROWS);
        REQUIRE(dl_run_find(q->page.bytes, q->page.size, q->place, q->nonce, dl_load64(row), there + 18,
                            dl_load16(there + 16), &at) == DL_RUN_OK);
        REQUIRE(at == (size_t)(row - q->page.bytes));
    }
}

static void check_numbers(const question *q, int usable) {
    const uint64_t wanted[] = {q->number, q->number + 1, q->number + q->time % 100 + 2};
    const dl_run_pair pairs[] = {{0, wanted[0]}, {0, wanted[1]}, {0, wanted[2]}};
    if (wanted[2] < wanted[0]) return;
    dl_run_pair found[3];
    uint32_t at[3] = {0};
    size_t count = 9;
    enum dl_run_verdict verdict =
        dl_run_numbers_find(q->page.bytes, q->page.size, q->place, q->nonce, wanted, 3, found, &count);
    REQUIRE(count <= 3);
    const uint8_t *item = first_of(q);
    if (usable && q->page.kind == DL_RUN_NUMBERS) {
        size_t expected = 0, next = 0;
        for (size_t i = 0; i < items_of(q) && next < 3; i++, item += DL_RUN_NUMBER) {
            while (next < 3 && wanted[next] < dl_load64(item))
                next++;
            if (next == 3 || wanted[next] != dl_load64(item)) continue;
            REQUIRE(expected < count && found[expected].value == wanted[next++]);
            REQUIRE(found[expected++].key == dl_load32(item + 8));
        }
        REQUIRE(verdict == DL_RUN_OK && count == expected);
    }
    verdict = dl_run_rows_select(q->page.bytes, q->page.size, q->place, q->nonce, pairs, 3, at);
    for (size_t i = 0; verdict == DL_RUN_OK && i < 3; i++)
        if (at[i] != 0) REQUIRE(number_in(name_in(q->page.bytes + at[i], DL_RUN_ROWS)) == wanted[i]);
    if (!usable || q->page.kind != DL_RUN_ROWS) return;
    REQUIRE(verdict == DL_RUN_OK);
    for (size_t i = 0; i < items_of(q); i++, item += size_of_item(item, DL_RUN_ROWS))
        for (size_t k = 0; k < 3; k++)
            if (number_in(name_in(item, DL_RUN_ROWS)) == wanted[k]) REQUIRE(at[k] >= (size_t)(item - q->page.bytes));
}

static int is_in_range(const uint8_t *name, const dl_run_range *range) {
    const size_t length = dl_load16(name + 16);
    return compare_texts(name + 18, length, range->after, range->after_length) > 0 && length >= range->prefix_length &&
           compare_texts(name + 18, range->prefix_length, range->prefix, range->prefix_length) == 0;
}

/* Of two copies of the page one behind the other, the second is in a wrong place: only the first one's names count. */
static void check_names(const question *q, int usable) {
    uint8_t *prefix = text_of(q, 0), *after = text_of(q, 1), *twice = fuzz_new(2 * q->page.size, 1);
    const dl_run_range range = {prefix, after, q->text_length[0], q->text_length[1]};
    const size_t room = 1 + (size_t)q->time % 50;
    uint32_t *at = fuzz_new(room, sizeof *at);
    dl_run_picked picked = {at, room, 77, 77};
    uint64_t next = DL_RUN_NEVER;
    memcpy(twice, q->page.bytes, q->page.size);
    memcpy(twice + q->page.size, q->page.bytes, q->page.size);
    (void)dl_run_names_seek(q->page.bytes, q->page.size, q->place, q->nonce, &range);
    for (int due = 0; due < 2; due++) {
        const enum dl_run_verdict verdict =
            due ? dl_run_names_due(twice, 2 * q->page.size, q->place, q->nonce, q->time / 2, q->time, &next, &picked)
                : dl_run_names_take(twice, 2 * q->page.size, q->place, q->nonce, &range, &picked);
        REQUIRE(picked.count <= room && picked.bytes_read <= 2 * q->page.size);
        for (size_t i = 0; i < picked.count; i++) {
            const uint8_t *name = twice + at[i];
            REQUIRE(at[i] + size_of_item(name, DL_RUN_NAMES) <= q->page.size);
            REQUIRE(due ? deadline_in(name) >= q->time / 2 && deadline_in(name) <= q->time : is_in_range(name, &range));
        }
        if (!usable || q->page.kind != DL_RUN_NAMES) continue;
        REQUIRE(verdict == DL_RUN_BAD_PLACE || verdict == DL_RUN_AFTER ||
                (verdict == DL_RUN_FULL && picked.count == room));
        size_t expected = 0;
        const uint8_t *name = first_of(q);
        for (size_t i = 0; i < items_of(q); i++, name += size_of_item(name, DL_RUN_NAMES)) {
            const uint64_t deadline = deadline_in(name);
            const int wanted = due ? deadline != DL_RUN_NEVER && deadline >= q->time / 2 && deadline <= q->time
                                   : is_in_range(name, &range);
            if (wanted && expected < room) REQUIRE(at[expected++] == (size_t)(name - q->page.bytes));
            if (due && !wanted && verdict != DL_RUN_FULL) REQUIRE(deadline <= q->time || next <= deadline);
        }
        REQUIRE(expected == picked.count);
    }
    free(prefix);
    free(after);
    free(twice);
    free(at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    question q = {fuzz_take32(&input), 0, 0, 0, 0, {NULL, NULL}, {0, 0}, {0}};
    q.place = fuzz_take32(&input);
    q.hash = fuzz_take64(&input);
    q.number = fuzz_take64(&input);
    q.time = fuzz_take64(&input);
    for (size_t i = 0; i < 2; i++)
        q.text_length[i] = (size_t)fuzz_number(&input, 1);
    for (size_t i = 0; i < 2; i++) {
        q.text_length[i] = (size_t)fuzz_least(q.text_length[i], input.left);
        q.text[i] = input.at;
        input.at += q.text_length[i];
        input.left -= q.text_length[i];
    }
    if (!next_page(&input, q.place, q.nonce, &q.page)) return 0;
    const int sound = page_is_sound(&q), sorted = sound && page_is_sorted(&q);
    check_survey(&q, sound, sorted);
    check_find(&q, sorted);
    check_numbers(&q, sorted);
    check_names(&q, sorted);
    free(q.page.bytes);
    return 0;
}
