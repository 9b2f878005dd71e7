/* Pages, rows and names of a run, as all three units of it read them.
 *
 * Law of this room: a page's checksum is compared before any of its fields is used, except its length, which only says
 * how much the checksum covers and is compared with what is there. Every item's length is compared with what is left
 * of its page before the item is.
 */
#ifndef DURABLE_LOG_RUN_PAGE_H
#define DURABLE_LOG_RUN_PAGE_H

#include "bytes.h"
#include "durable_log.h"

/* The items of one page, from the current one on. */
typedef struct {
    const uint8_t *item;
    size_t rest; /* bytes from "item" to the end of the items */
    size_t size; /* of the whole page */
    uint32_t left;
} dl_run_items;

static inline size_t dl_run_pages(size_t length) { return (length + DL_PAGE - 1) / DL_PAGE * DL_PAGE; }

static inline uint64_t dl_name_number(const uint8_t *name) { return dl_load64(name) & UINT64_C(0xffffffffffff); }

static inline int dl_name_is_tombstone(const uint8_t *name) { return dl_load16(name + 6) & DL_RUN_TOMBSTONE; }

static inline size_t dl_name_length(const uint8_t *name) { return dl_load16(name + 16); }

static inline const uint8_t *dl_name_text(const uint8_t *name) { return name + DL_RUN_NAME_HEADER; }

/* When there is something to be done about a stream that expires; DL_RUN_NEVER if it does not, or is deleted. */
static inline uint64_t dl_name_deadline(const uint8_t *name) {
    return dl_load16(name + 6) & (DL_RUN_TOMBSTONE | DL_RUN_HIDDEN) ? DL_RUN_NEVER : dl_load64(name + 8);
}

/* The whole size of a name that was measured. */
static inline size_t dl_name_whole(const uint8_t *name) { return DL_RUN_NAME_HEADER + dl_name_length(name); }

/* The same of what may be none, at the start of "rest" bytes: 0 then. */
static inline size_t dl_name_size(const uint8_t *name, size_t rest) {
    if (rest < DL_RUN_NAME_HEADER) return 0;
    const size_t length = dl_name_length(name);
    if (length == 0 || length > DL_RUN_NAME_MAX || length > rest - DL_RUN_NAME_HEADER) return 0;
    return dl_name_whole(name);
}

/* The name in a row. */
static inline const uint8_t *dl_row_name(const uint8_t *row) { return row + DL_RUN_ROW_HEADER - DL_RUN_NAME_HEADER; }

/* The whole size of the row at the start of "rest" bytes, or 0 if it is none. */
static inline size_t dl_row_size(const uint8_t *row, size_t rest) {
    if (rest < DL_RUN_ROW_HEADER) return 0;
    const size_t payload = dl_load32(row + 8), before = DL_RUN_ROW_HEADER - DL_RUN_NAME_HEADER;
    const size_t name = dl_name_size(dl_row_name(row), rest - before);
    return name == 0 || payload > DL_RUN_PAYLOAD_MAX || payload > rest - before - name ? 0 : before + name + payload;
}

static inline size_t dl_item_size(const uint8_t *item, size_t rest, uint32_t kind) {
    if (kind == DL_RUN_ROWS) return dl_row_size(item, rest);
    if (kind == DL_RUN_NAMES) return dl_name_size(item, rest);
    return rest < DL_RUN_NUMBER ? 0 : DL_RUN_NUMBER;
}

/* What items of that kind are sorted by at first: hash, number, or the first eight bytes of the name. */
static inline uint64_t dl_item_key(const uint8_t *item, uint32_t kind) {
    if (kind != DL_RUN_NAMES) return dl_load64(item);
    uint64_t key = 0;
    for (size_t i = 0; i < 8; i++)
        key = key << 8 | (i < dl_name_length(item) ? dl_name_text(item)[i] : 0);
    return key;
}

/* Below, at or above 0 as the first text sorts before, with or after the second. */
static inline int dl_text_compare(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length) {
    const int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return (a_length > b_length) - (a_length < b_length);
}

/* The same for two names that were measured, */
static inline int dl_names_compare(const uint8_t *a, const uint8_t *b) {
    return dl_text_compare(dl_name_text(a), dl_name_length(a), dl_name_text(b), dl_name_length(b));
}

/* and for those of two rows. */
static inline int dl_row_names_compare(const uint8_t *a, const uint8_t *b) {
    return dl_names_compare(dl_row_name(a), dl_row_name(b));
}

static inline uint64_t dl_digest(uint64_t a, uint64_t b) {
    uint64_t mixed = (a ^ b * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed ^= mixed >> 29;
    return mixed * UINT64_C(0x94d049bb133111eb);
}

/* Of a name that was measured. The sum over all names of a run does not depend on their order. */
static inline uint64_t dl_name_digest(const uint8_t *name) {
    return dl_digest(dl_load64(name), dl_crc32c(0, name, dl_name_whole(name)));
}

/* The items of the page at the start of "available" bytes, if it holds and is of this place and kind. */
static inline enum dl_run_verdict dl_run_page_open(const uint8_t *page, size_t available, uint32_t place,
                                                   uint32_t nonce, uint32_t kind, dl_run_items *items) {
    if (available < DL_PAGE) return DL_RUN_BAD_LENGTH;
    const size_t length = dl_load32(page + 4);
    if (length <= DL_RUN_PAGE_HEADER || length > DL_RUN_PAGE_MAX) return DL_RUN_BAD_LENGTH;
    items->size = dl_run_pages(length);
    if (items->size > available) return DL_RUN_BAD_LENGTH;
    if (dl_crc32c(nonce, page + 4, items->size - 4) != dl_load32(page)) return DL_RUN_BAD_CRC;
    if (dl_load32(page + 8) != place || page[14] != kind) return DL_RUN_BAD_PLACE;
    items->item = page + DL_RUN_PAGE_HEADER;
    items->rest = length - DL_RUN_PAGE_HEADER;
    items->left = dl_load16(page + 12);
    return items->left == 0 ? DL_RUN_BAD_ITEM : DL_RUN_OK;
}

static inline void dl_run_items_skip(dl_run_items *items, size_t size) {
    items->item += size;
    items->rest -= size;
    items->left--;
}

#endif
