/* Runs of the catalog, listed: the pages of names, which lie in the order of their bytes.
 *
 * Law of this room: it works on pages of the caller, each verified as a whole before a name of it is looked at, and
 * says where names begin; what they say is the caller's to read. No system calls.
 */
#include "durable_log.h"

#include <string.h>

#include "run_page.h"

_Static_assert(DL_RUN_PAGE_HEADER + DL_RUN_NAME_HEADER + DL_RUN_NAME_MAX <= DL_PAGE,
               "names need no page but small ones");

/* Whether all names of the range sort after this one. */
static int is_below(const dl_run_range *range, const uint8_t *name) {
    const uint8_t *text = dl_name_text(name);
    const size_t length = dl_name_length(name);
    return dl_text_compare(text, length, range->after, range->after_length) <= 0 ||
           dl_text_compare(text, length, range->prefix, range->prefix_length) < 0;
}

/* Whether this one, which is not below, has the prefix. If not, no name after it has. */
static int is_within(const dl_run_range *range, const uint8_t *name) {
    return dl_name_length(name) >= range->prefix_length &&
           memcmp(dl_name_text(name), range->prefix, range->prefix_length) == 0;
}

/* Where the first name begins that is not below the range: before this page is over, or DL_RUN_AFTER it; maybe even
 * DL_RUN_BEFORE it, if it is not below at its start. */
enum dl_run_verdict dl_run_names_seek(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                      const dl_run_range *range) {
    dl_run_items items;
    const enum dl_run_verdict verdict = dl_run_page_open(page, length, place, nonce, DL_RUN_NAMES, &items);
    if (verdict != DL_RUN_OK) return verdict;
    for (int is_first = 1; items.left > 0; is_first = 0) {
        const size_t size = dl_name_size(items.item, items.rest);
        if (size == 0) return DL_RUN_BAD_ITEM;
        if (!is_below(range, items.item)) return is_first ? DL_RUN_BEFORE : DL_RUN_OK;
        dl_run_items_skip(&items, size);
    }
    return DL_RUN_AFTER;
}

/* Names of consecutive pages, one after the other. */
typedef struct {
    const uint8_t *bytes;
    size_t length;
    uint32_t place;
    uint32_t nonce;
    size_t next; /* where the next page begins */
    size_t page; /* and this one */
    dl_run_items items;
} names;

static enum dl_run_verdict names_open(names *walk) {
    const enum dl_run_verdict verdict =
        dl_run_page_open(walk->bytes + walk->next, walk->length - walk->next,
                         walk->place + (uint32_t)(walk->next / DL_PAGE), walk->nonce, DL_RUN_NAMES, &walk->items);
    walk->page = walk->next;
    walk->next += walk->items.size;
    return verdict;
}

/* Goes to the next name; DL_RUN_ABSENT if there is none. */
static enum dl_run_verdict names_next(names *walk, const uint8_t **name) {
    if (walk->items.left == 0) {
        if (walk->next >= walk->length) return DL_RUN_ABSENT;
        const enum dl_run_verdict verdict = names_open(walk);
        if (verdict != DL_RUN_OK) return verdict;
    }
    const size_t size = dl_name_size(walk->items.item, walk->items.rest);
    if (size == 0) return DL_RUN_BAD_ITEM;
    *name = walk->items.item;
    dl_run_items_skip(&walk->items, size);
    return DL_RUN_OK;
}

static int pick(dl_run_picked *picked, const names *walk, const uint8_t *name) {
    if (picked->count == picked->size) return 0;
    picked->at[picked->count++] = (uint32_t)(name - walk->bytes);
    return 1;
}

/* The names of the range in whole pages. DL_RUN_AFTER: there are no more in what follows them, either. DL_RUN_FULL:
 * there is one more at least. */
enum dl_run_verdict dl_run_names_take(const uint8_t *bytes, size_t length, uint32_t place, uint32_t nonce,
                                      const dl_run_range *range, dl_run_picked *picked) {
    names walk = {bytes, length, place, nonce, 0, 0, {NULL, 0, 0, 0}};
    const uint8_t *name;
    enum dl_run_verdict verdict = length > UINT32_MAX ? DL_RUN_BAD_LENGTH : DL_RUN_OK;
    picked->count = 0;
    while (verdict == DL_RUN_OK && (verdict = names_next(&walk, &name)) == DL_RUN_OK) {
        if (is_below(range, name)) continue;
        if (!is_within(range, name))
            verdict = DL_RUN_AFTER;
        else if (!pick(picked, &walk, name))
            verdict = DL_RUN_FULL;
    }
    picked->bytes_read = walk.page;
    return verdict == DL_RUN_ABSENT ? DL_RUN_OK : verdict;
}

/* The names in whole pages whose streams are not deleted and may expire from "from_ms" to "now_ms"; "next_ms" falls
 * to the least deadline of the others that comes later. */
enum dl_run_verdict dl_run_names_due(const uint8_t *bytes, size_t length, uint32_t place, uint32_t nonce,
                                     uint64_t from_ms, uint64_t now_ms, uint64_t *next_ms, dl_run_picked *picked) {
    names walk = {bytes, length, place, nonce, 0, 0, {NULL, 0, 0, 0}};
    const uint8_t *name;
    enum dl_run_verdict verdict = length > UINT32_MAX ? DL_RUN_BAD_LENGTH : DL_RUN_OK;
    picked->count = 0;
    while (verdict == DL_RUN_OK && (verdict = names_next(&walk, &name)) == DL_RUN_OK) {
        const uint64_t deadline = dl_name_deadline(name);
        if (deadline == DL_RUN_NEVER || deadline < from_ms) continue;
        if (deadline > now_ms)
            *next_ms = deadline < *next_ms ? deadline : *next_ms;
        else if (!pick(picked, &walk, name))
            verdict = DL_RUN_FULL;
    }
    picked->bytes_read = walk.page;
    return verdict == DL_RUN_ABSENT ? DL_RUN_OK : verdict;
}
