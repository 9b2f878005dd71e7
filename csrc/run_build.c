/* Runs of the catalog, made: items into pages, and many runs into one.
 *
 * Law of this room: every function stops where the caller's arrays are full or its input ends, says so, and goes on
 * from there when it is called again; what has not been taken has not been changed. No system calls.
 */
#include "durable_log.h"

#include <string.h>

#include "run_page.h"

/* ---- pages ---- */

/* Closes the page in the making, if there is one. */
void dl_run_seal(dl_run_builder *out) {
    if (out->open_length == 0) return;
    uint8_t *page = out->pages + out->pages_used;
    memset(page + out->open_length, 0, out->open_size - out->open_length);
    dl_store32(page + 4, (uint32_t)out->open_length);
    dl_store32(page + 8, out->place + (uint32_t)(out->pages_used / DL_PAGE));
    dl_store16(page + 12, (uint16_t)out->open_items);
    dl_store16(page + 14, (uint16_t)out->kind);
    dl_store32(page, dl_crc32c(out->nonce, page + 4, out->open_size - 4));
    out->pages_used += out->open_size;
    out->open_length = out->open_size = 0;
    out->open_items = 0;
}

/* The caller has taken the sealed pages and the fences: what is in the making moves to the front. */
void dl_run_emptied(dl_run_builder *out) {
    memmove(out->pages, out->pages + out->pages_used, out->open_length);
    out->place += (uint32_t)(out->pages_used / DL_PAGE);
    out->pages_used = out->fences_used = 0;
}

/* Begins a page for an item of that size. 0 if the arrays have no room for it. */
static int page_begin(dl_run_builder *out, uint64_t key, size_t item_size) {
    const size_t size = dl_run_pages(DL_RUN_PAGE_HEADER + item_size);
    dl_run_seal(out);
    out->pages_wanted = size;
    if (out->pages_used >= DL_RUN_SLICE) return 0;
    if (out->pages_used > out->pages_size || size > out->pages_size - out->pages_used) return 0;
    if (out->fences != NULL && out->fences_used == out->fences_size) return 0;
    if (out->fences != NULL) {
        out->fences[out->fences_used] = key;
        out->places[out->fences_used] = out->place + (uint32_t)(out->pages_used / DL_PAGE);
        out->fences_used++;
    }
    out->begun++;
    out->open_length = DL_RUN_PAGE_HEADER;
    out->open_size = size;
    return 1;
}

static void count_name(dl_run_builder *out, const uint8_t *name) {
    const uint64_t number = dl_name_number(name), deadline = dl_name_deadline(name);
    if (out->count == 0 || number < out->number_min) out->number_min = number;
    if (out->count == 0 || number > out->number_max) out->number_max = number;
    if (deadline < out->deadline_min) out->deadline_min = deadline;
    out->count++;
    out->tombstones += (uint64_t)dl_name_is_tombstone(name);
    out->names_digest += dl_name_digest(name);
    if (out->pairs != NULL) out->pairs[out->pairs_used++] = (dl_run_pair){number, out->begun - 1};
}

/* Takes an item that was measured; 0 if the arrays have no room for it. */
static int item_add(dl_run_builder *out, uint64_t key, const uint8_t *item, size_t size) {
    const size_t room = out->open_size > DL_RUN_SHARED_MAX ? 0 : out->open_size - out->open_length;
    if (out->pairs != NULL && out->pairs_used == out->pairs_size) return 0;
    if (size > room && !page_begin(out, key, size)) return 0;
    memcpy(out->pages + out->pages_used + out->open_length, item, size);
    out->open_length += size;
    out->open_items++;
    return 1;
}

/* The same for a row, or a name. */
static int named_add(dl_run_builder *out, uint64_t key, const uint8_t *item, size_t size) {
    if (!item_add(out, key, item, size)) return 0;
    count_name(out, out->kind == DL_RUN_ROWS ? dl_row_name(item) : item);
    return 1;
}

/* The rows that "pairs" names by their position in memory, from the "next" one on; or the names in them, if the builder
 * is one of names. */
enum dl_run_verdict dl_run_pack_rows(const uint8_t *rows, size_t length, const dl_run_pair *pairs, size_t count,
                                     size_t *next, dl_run_builder *out) {
    for (; *next < count; ++*next) {
        const uint64_t at = pairs[*next].value;
        const size_t size = at > length ? 0 : dl_row_size(rows + at, length - at);
        if (size == 0) return DL_RUN_BAD_ITEM;
        const uint8_t *row = rows + at, *name = dl_row_name(row);
        const int is_taken = out->kind == DL_RUN_NAMES ? named_add(out, pairs[*next].key, name, dl_name_whole(name))
                                                       : named_add(out, pairs[*next].key, row, size);
        if (!is_taken) return DL_RUN_FULL;
    }
    return DL_RUN_OK;
}

/* (number, page) pairs as items of a page of numbers, from the "next" one on. */
enum dl_run_verdict dl_run_pack_pairs(const dl_run_pair *pairs, size_t count, size_t *next, dl_run_builder *out) {
    uint8_t item[DL_RUN_NUMBER];
    for (; *next < count; ++*next) {
        dl_store64(item, pairs[*next].key);
        dl_store32(item + 8, (uint32_t)pairs[*next].value);
        if (!item_add(out, pairs[*next].key, item, sizeof item)) return DL_RUN_FULL;
    }
    return DL_RUN_OK;
}

/* ---- merging ---- */

/* Puts the source on an item, unless it is on one or has ended. */
static enum dl_run_verdict source_settle(dl_run_source *source, uint32_t kind) {
    if (source->size != 0 || source->ended) return DL_RUN_OK;
    if (source->left == 0) {
        if (source->next >= source->length) {
            source->ended = source->last;
            return source->last ? DL_RUN_OK : DL_RUN_INPUT;
        }
        dl_run_items items;
        const enum dl_run_verdict verdict =
            dl_run_page_open(source->bytes + source->next, source->length - source->next,
                             source->place + (uint32_t)(source->next / DL_PAGE), source->nonce, kind, &items);
        if (verdict != DL_RUN_OK) return verdict;
        source->at = source->next + DL_RUN_PAGE_HEADER;
        source->end = source->at + items.rest;
        source->left = items.left;
        source->next += items.size;
    }
    source->size = dl_item_size(source->bytes + source->at, source->end - source->at, kind);
    if (source->size == 0) return DL_RUN_BAD_ITEM;
    source->key = dl_item_key(source->bytes + source->at, kind);
    return DL_RUN_OK;
}

static enum dl_run_verdict source_step(dl_run_source *source, uint32_t kind) {
    source->at += source->size;
    source->size = 0;
    source->left--;
    return source_settle(source, kind);
}

typedef struct {
    dl_run_source *sources;
    uint32_t *heap; /* indices of sources, the least item first; those that have ended come last */
    uint32_t count;
    uint32_t kind;
} merge;

/* Order of the current items of two sources that are on one. */
static int items_compare(const dl_run_source *a, const dl_run_source *b, uint32_t kind) {
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    const uint8_t *left = a->bytes + a->at, *right = b->bytes + b->at;
    if (kind == DL_RUN_ROWS) return dl_row_names_compare(left, right);
    if (kind == DL_RUN_NAMES) return dl_names_compare(left, right);
    const uint32_t left_page = dl_load32(left + 8), right_page = dl_load32(right + 8);
    return (left_page > right_page) - (left_page < right_page);
}

/* Whether source a goes before source b; of the same names, the one of the newer run does. */
static int goes_before(const merge *m, uint32_t a, uint32_t b) {
    const dl_run_source *left = &m->sources[a], *right = &m->sources[b];
    if (left->ended || right->ended) return left->ended == right->ended ? a < b : right->ended;
    const int order = items_compare(left, right, m->kind);
    return order != 0 ? order < 0 : a < b;
}

/* The place of the lesser child of a place in the heap, or "count". */
static uint32_t lesser_child(const merge *m, uint32_t at) {
    uint32_t child = 2 * at + 1;
    if (child >= m->count) return m->count;
    if (child + 1 < m->count && goes_before(m, m->heap[child + 1], m->heap[child])) child++;
    return child;
}

static void sift_down(const merge *m, uint32_t at) {
    for (;;) {
        const uint32_t child = lesser_child(m, at);
        if (child == m->count || goes_before(m, m->heap[at], m->heap[child])) return;
        const uint32_t swap = m->heap[at];
        m->heap[at] = m->heap[child];
        m->heap[child] = swap;
        at = child;
    }
}

static enum dl_run_verdict merge_begin(const merge *m, uint32_t *which) {
    for (uint32_t i = 0; i < m->count; i++) {
        const enum dl_run_verdict verdict = source_settle(&m->sources[i], m->kind);
        *which = i;
        if (verdict != DL_RUN_OK) return verdict;
        m->heap[i] = i;
    }
    for (uint32_t i = m->count / 2; i-- > 0;)
        sift_down(m, i);
    return DL_RUN_OK;
}

static enum dl_run_verdict heap_step(const merge *m, uint32_t at, uint32_t *which) {
    *which = m->heap[at];
    const enum dl_run_verdict verdict = source_step(&m->sources[*which], m->kind);
    if (verdict == DL_RUN_OK) sift_down(m, at);
    return verdict;
}

/* Leaves behind what the item at the top of the heap replaces: the same name in older runs. */
static enum dl_run_verdict skip_replaced(const merge *m, uint32_t *which) {
    const dl_run_source *top = &m->sources[m->heap[0]];
    for (;;) {
        const uint32_t child = lesser_child(m, 0);
        if (child == m->count) return DL_RUN_OK;
        const dl_run_source *other = &m->sources[m->heap[child]];
        if (other->ended || items_compare(top, other, m->kind) != 0) return DL_RUN_OK;
        const enum dl_run_verdict verdict = heap_step(m, child, which);
        if (verdict != DL_RUN_OK) return verdict;
    }
}

/* Hands the least item over and steps past it. */
static enum dl_run_verdict take_least(const merge *m, int drop_tombstones, dl_run_builder *out, uint32_t *which) {
    const dl_run_source *top = &m->sources[m->heap[0]];
    const uint8_t *item = top->bytes + top->at;
    if (m->kind == DL_RUN_NUMBERS) {
        if (!item_add(out, top->key, item, top->size)) return DL_RUN_FULL;
    } else {
        const enum dl_run_verdict verdict = skip_replaced(m, which);
        if (verdict != DL_RUN_OK) return verdict;
        const uint8_t *name = m->kind == DL_RUN_ROWS ? dl_row_name(item) : item;
        const int is_dropped = drop_tombstones && dl_name_is_tombstone(name);
        if (!is_dropped && !named_add(out, top->key, item, top->size)) return DL_RUN_FULL;
    }
    return heap_step(m, 0, which);
}

/* Merges sources, the newest first, of pages of the builder's kind. DL_RUN_INPUT and the bad verdicts say by "which"
 * of the sources; "heap" has room for "count" indices. DL_RUN_OK: all sources have ended. */
enum dl_run_verdict dl_run_merge(dl_run_source *sources, uint32_t count, uint32_t *heap, int drop_tombstones,
                                 dl_run_builder *out, uint32_t *which) {
    const merge m = {sources, heap, count, out->kind};
    if (count == 0) return DL_RUN_OK;
    enum dl_run_verdict verdict = merge_begin(&m, which);
    while (verdict == DL_RUN_OK && !sources[heap[0]].ended)
        verdict = take_least(&m, drop_tombstones, out, which);
    return verdict;
}
