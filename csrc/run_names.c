/* The least names of a run that follow a given one: one pass over rows that lie in another order.
 *
 * Law of this room: a heap with the greatest kept name on top, and the names' bytes in slots of one size, both the
 * caller's: memory follows the limit, never the run. No system calls.
 */
#include "durable_log.h"

#include <string.h>

#include "run_page.h"

static int names_compare(const dl_run_names *names, const dl_run_name *a, const dl_run_name *b) {
    return dl_text_compare(names->texts + (size_t)a->slot * DL_RUN_NAME_MAX, a->length,
                           names->texts + (size_t)b->slot * DL_RUN_NAME_MAX, b->length);
}

static void swap(dl_run_name *a, dl_run_name *b) {
    const dl_run_name held = *a;
    *a = *b;
    *b = held;
}

static void sift_down(dl_run_names *names, size_t count) {
    for (size_t at = 0;;) {
        size_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && names_compare(names, &names->heap[child], &names->heap[child + 1]) < 0) child++;
        if (names_compare(names, &names->heap[at], &names->heap[child]) >= 0) return;
        swap(&names->heap[at], &names->heap[child]);
        at = child;
    }
}

static void sift_up(dl_run_names *names, size_t at) {
    while (at > 0 && names_compare(names, &names->heap[(at - 1) / 2], &names->heap[at]) < 0) {
        swap(&names->heap[(at - 1) / 2], &names->heap[at]);
        at = (at - 1) / 2;
    }
}

static int is_wanted(const dl_run_names *names, const uint8_t *name, size_t length) {
    if (length < names->prefix_length || memcmp(name, names->prefix, names->prefix_length) != 0) return 0;
    return dl_text_compare(name, length, names->after, names->after_length) > 0;
}

static void keep(dl_run_names *names, const uint8_t *name, size_t length, uint32_t ordinal, size_t at) {
    const int is_full = names->count == names->limit;
    const uint32_t slot = is_full ? names->heap[0].slot : (uint32_t)names->count;
    uint8_t *text = names->texts + (size_t)slot * DL_RUN_NAME_MAX;
    if (is_full && dl_text_compare(name, length, text, names->heap[0].length) >= 0) return;
    memcpy(text, name, length);
    names->heap[is_full ? 0 : names->count] = (dl_run_name){ordinal, (uint32_t)at, slot, (uint32_t)length};
    if (is_full)
        sift_down(names, names->count);
    else
        sift_up(names, names->count++);
}

/* Sees every row of whole pages, of which the first is the page of rows "ordinal". Stops before the first page that
 * does not hold; "bytes_read" is where it begins. */
enum dl_run_verdict dl_run_names_scan(const uint8_t *bytes, size_t length, uint32_t place, uint32_t nonce,
                                      uint32_t ordinal, dl_run_names *names, size_t *bytes_read) {
    dl_run_items items;
    for (*bytes_read = 0; *bytes_read < length; *bytes_read += items.size, ordinal++) {
        const uint8_t *page = bytes + *bytes_read;
        const enum dl_run_verdict verdict = dl_run_page_open(
            page, length - *bytes_read, place + (uint32_t)(*bytes_read / DL_PAGE), nonce, DL_RUN_ROWS, &items);
        if (verdict != DL_RUN_OK) return verdict;
        while (items.left > 0) {
            const size_t size = dl_row_size(items.item, items.rest);
            if (size == 0) return DL_RUN_BAD_ITEM;
            const uint8_t *name = items.item + DL_RUN_ROW_HEADER;
            const size_t name_length = dl_row_name_length(items.item);
            if (is_wanted(names, name, name_length)) {
                names->matches++;
                keep(names, name, name_length, ordinal, (size_t)(items.item - page));
            }
            dl_run_items_skip(&items, size);
        }
    }
    return DL_RUN_OK;
}

/* Puts what was kept into ascending order; it is no heap any more. */
void dl_run_names_sort(dl_run_names *names) {
    for (size_t count = names->count; count > 1; count--) {
        swap(&names->heap[0], &names->heap[count - 1]);
        sift_down(names, count - 1);
    }
}
