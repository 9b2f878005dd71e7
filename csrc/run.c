/* Runs of the catalog, read: rows by name's hash and by number; and rows in memory, sorted.
 *
 * Law of this room: it works on pages and arrays of the caller, each page verified as a whole before a row of it is
 * looked at. A page never says more than its own: which page may hold a row is the caller's business. No system calls.
 */
#include "durable_log.h"

#include <string.h>

#include "run_page.h"

_Static_assert(DL_RUN_PAGE_MAX % DL_PAGE == 0, "pages are whole ones");
_Static_assert(DL_RUN_PAGE_MAX >= DL_RUN_PAGE_HEADER + DL_RUN_ROW_HEADER + DL_RUN_NAME_MAX + DL_RUN_PAYLOAD_MAX,
               "the largest row fits into the largest page");
_Static_assert(1 + DL_PAGE / (DL_RUN_ROW_HEADER + 1) < 65536, "the items of a page are counted in 16 bits");

static int compare_with_row(uint64_t hash, const uint8_t *name, size_t name_length, const uint8_t *row) {
    const uint64_t other = dl_load64(row);
    if (hash != other) return hash < other ? -1 : 1;
    const uint8_t *there = dl_row_name(row);
    return dl_text_compare(name, name_length, dl_name_text(there), dl_name_length(there));
}

/* Where in the page the row of that name begins. */
enum dl_run_verdict dl_run_find(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce, uint64_t hash,
                                const uint8_t *name, size_t name_length, size_t *at) {
    dl_run_items items;
    const enum dl_run_verdict verdict = dl_run_page_open(page, length, place, nonce, DL_RUN_ROWS, &items);
    if (verdict != DL_RUN_OK) return verdict;
    for (int is_first = 1; items.left > 0; is_first = 0) {
        const size_t size = dl_row_size(items.item, items.rest);
        if (size == 0) return DL_RUN_BAD_ITEM;
        const int order = compare_with_row(hash, name, name_length, items.item);
        if (order < 0) return is_first ? DL_RUN_BEFORE : DL_RUN_ABSENT;
        *at = (size_t)(items.item - page);
        if (order == 0) return DL_RUN_OK;
        dl_run_items_skip(&items, size);
    }
    return DL_RUN_AFTER;
}

/* ---- by number ---- */

/* A (page of rows, number) for each of the ascending "numbers" that this page of numbers has. "found" has room for
 * "count" of them. */
enum dl_run_verdict dl_run_numbers_find(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                        const uint64_t *numbers, size_t count, dl_run_pair *found,
                                        size_t *found_count) {
    dl_run_items items;
    const enum dl_run_verdict verdict = dl_run_page_open(page, length, place, nonce, DL_RUN_NUMBERS, &items);
    *found_count = 0;
    if (verdict != DL_RUN_OK) return verdict;
    for (size_t next = 0; items.left > 0; dl_run_items_skip(&items, DL_RUN_NUMBER)) {
        if (items.rest < DL_RUN_NUMBER) return DL_RUN_BAD_ITEM;
        const uint64_t number = dl_load64(items.item);
        while (next < count && numbers[next] < number)
            next++;
        if (next == count) break;
        if (numbers[next] != number) continue;
        found[*found_count] = (dl_run_pair){dl_load32(items.item + 8), number};
        ++*found_count;
        next++;
    }
    return DL_RUN_OK;
}

/* The place of "number" among the ascending values of "wanted", or "count". */
static size_t wanted_index(const dl_run_pair *wanted, size_t count, uint64_t number) {
    size_t low = 0, high = count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (wanted[middle].value < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && wanted[low].value == number ? low : count;
}

/* at[i]: where in the page of rows the row with number wanted[i].value begins, 0 if it has none. The values ascend. */
enum dl_run_verdict dl_run_rows_select(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                       const dl_run_pair *wanted, size_t count, uint32_t *at) {
    dl_run_items items;
    const enum dl_run_verdict verdict = dl_run_page_open(page, length, place, nonce, DL_RUN_ROWS, &items);
    if (verdict != DL_RUN_OK) return verdict;
    memset(at, 0, count * sizeof *at);
    while (items.left > 0) {
        const size_t size = dl_row_size(items.item, items.rest);
        if (size == 0) return DL_RUN_BAD_ITEM;
        const size_t index = wanted_index(wanted, count, dl_name_number(dl_row_name(items.item)));
        if (index < count) at[index] = (uint32_t)(items.item - page);
        dl_run_items_skip(&items, size);
    }
    return DL_RUN_OK;
}

/* ---- a page as a whole ---- */

static void survey_item(const uint8_t *item, uint32_t kind, uint32_t ordinal, dl_run_page *info) {
    if (kind == DL_RUN_NUMBERS) {
        info->digest += dl_digest(dl_load64(item), dl_load32(item + 8));
        return;
    }
    const uint8_t *name = kind == DL_RUN_ROWS ? dl_row_name(item) : item;
    const uint64_t number = dl_name_number(name), deadline = dl_name_deadline(name);
    info->tombstones += (uint64_t)dl_name_is_tombstone(name);
    info->number_min = number < info->number_min ? number : info->number_min;
    info->number_max = number > info->number_max ? number : info->number_max;
    info->deadline_min = deadline < info->deadline_min ? deadline : info->deadline_min;
    info->digest += dl_digest(number, ordinal);
    info->names_digest += dl_name_digest(name);
}

static int ascend(const uint8_t *before, const uint8_t *item, uint32_t kind) {
    if (kind == DL_RUN_NAMES) return dl_names_compare(before, item) < 0;
    if (dl_load64(before) != dl_load64(item)) return dl_load64(before) < dl_load64(item);
    if (kind == DL_RUN_ROWS) return dl_row_names_compare(before, item) < 0;
    return dl_load32(before + 8) <= dl_load32(item + 8);
}

/* Everything that can be said of a page without the others. "ordinal": which page of rows it is. */
enum dl_run_verdict dl_run_survey(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce, uint32_t kind,
                                  uint32_t ordinal, dl_run_page *info) {
    dl_run_items items;
    const enum dl_run_verdict verdict = dl_run_page_open(page, length, place, nonce, kind, &items);
    if (verdict != DL_RUN_OK) return verdict;
    if (items.size != length) return DL_RUN_BAD_LENGTH;
    memset(info, 0, sizeof *info);
    info->number_min = UINT64_MAX;
    info->deadline_min = DL_RUN_NEVER;
    info->items = items.left;
    for (const uint8_t *before = NULL; items.left > 0;) {
        const size_t size = dl_item_size(items.item, items.rest, kind);
        if (size == 0) return DL_RUN_BAD_ITEM;
        if (before == NULL) info->first = dl_item_key(items.item, kind);
        if (before != NULL && !ascend(before, items.item, kind)) return DL_RUN_BAD_ORDER;
        survey_item(items.item, kind, ordinal, info);
        info->last = (uint32_t)(items.item - page);
        before = items.item;
        dl_run_items_skip(&items, size);
    }
    return items.rest == 0 ? DL_RUN_OK : DL_RUN_BAD_ITEM;
}

/* ---- sorting rows in memory ---- */

/* A (key, position) for each of the rows that follow each other in memory, the key that of rows or of names. "pairs"
 * may be NULL: then they are only counted and measured. "bytes_read" is where the first one begins that is no row. */
enum dl_run_verdict dl_run_rows_scan(const uint8_t *rows, size_t length, uint32_t kind, dl_run_pair *pairs,
                                     size_t pairs_max, size_t *count, size_t *bytes_read) {
    *count = *bytes_read = 0;
    while (*bytes_read < length) {
        const uint8_t *row = rows + *bytes_read;
        const size_t size = dl_row_size(row, length - *bytes_read);
        if (size == 0) return DL_RUN_BAD_ITEM;
        if (pairs != NULL) {
            if (*count == pairs_max) return DL_RUN_FULL;
            const uint8_t *item = kind == DL_RUN_NAMES ? dl_row_name(row) : row;
            pairs[*count] = (dl_run_pair){dl_item_key(item, kind), *bytes_read};
        }
        ++*count;
        *bytes_read += size;
    }
    return DL_RUN_OK;
}

static inline int in_order(const dl_run_pair *a, const dl_run_pair *b, const uint8_t *rows) {
    if (a->key != b->key) return a->key < b->key;
    const int order = rows == NULL ? 0 : dl_row_names_compare(rows + a->value, rows + b->value);
    return order != 0 ? order < 0 : a->value <= b->value;
}

static void insertion_sort(dl_run_pair *pairs, size_t count, const uint8_t *rows) {
    for (size_t i = 1; i < count; i++) {
        const dl_run_pair pair = pairs[i];
        size_t to = i;
        for (; to > 0 && !in_order(&pairs[to - 1], &pair, rows); to--)
            pairs[to] = pairs[to - 1];
        pairs[to] = pair;
    }
}

static void merge_halves(const dl_run_pair *from, size_t half, size_t count, dl_run_pair *to, const uint8_t *rows) {
    size_t left = 0, right = half;
    if (half == count || in_order(&from[half - 1], &from[half], rows)) {
        memcpy(to, from, count * sizeof *to);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (right == count || (left < half && in_order(&from[left], &from[right], rows)))
            to[i] = from[left++];
        else
            to[i] = from[right++];
    }
}

/* A merge sort from the bottom up: no input is slow, however many hashes collide. */
static void sort(dl_run_pair *pairs, dl_run_pair *scratch, size_t count, const uint8_t *rows) {
    const size_t block = 16;
    dl_run_pair *from = pairs, *to = scratch;
    for (size_t at = 0; at < count; at += block)
        insertion_sort(from + at, count - at < block ? count - at : block, rows);
    for (size_t half = block; half < count; half *= 2) {
        for (size_t at = 0; at < count; at += 2 * half) {
            const size_t rest = count - at;
            merge_halves(from + at, rest < half ? rest : half, rest < 2 * half ? rest : 2 * half, to + at, rows);
        }
        dl_run_pair *swap = from;
        from = to;
        to = swap;
    }
    if (from != pairs) memcpy(pairs, from, count * sizeof *pairs);
}

/* Sorts what dl_run_rows_scan made of these very rows, by key, then name; of rows with the same name the last one in
 * memory stays. Returns how many are left. "scratch" is as long as "pairs". */
size_t dl_run_rows_sort(const uint8_t *rows, dl_run_pair *pairs, dl_run_pair *scratch, size_t count) {
    size_t kept = 0;
    sort(pairs, scratch, count, rows);
    for (size_t i = 0; i < count; i++) {
        const int again = kept > 0 && pairs[kept - 1].key == pairs[i].key &&
                          dl_row_names_compare(rows + pairs[kept - 1].value, rows + pairs[i].value) == 0;
        if (!again) kept++;
        pairs[kept - 1] = pairs[i];
    }
    return kept;
}

/* Sorts by key, then value. "scratch" is as long as "pairs". */
void dl_run_pairs_sort(dl_run_pair *pairs, dl_run_pair *scratch, size_t count) { sort(pairs, scratch, count, NULL); }
