/* Pages and rows of a run, as all three units of it read them.
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

static inline uint64_t dl_row_number(const uint8_t *row) { return dl_load64(row + 8) & UINT64_C(0xffffffffffff); }

static inline int dl_row_is_tombstone(const uint8_t *row) { return dl_load16(row + 14) & DL_RUN_TOMBSTONE; }

static inline size_t dl_row_name_length(const uint8_t *row) { return dl_load16(row + 20); }

/* The whole size of the row at the start of "rest" bytes, or 0 if it is none. */
static inline size_t dl_row_size(const uint8_t *row, size_t rest) {
    if (rest < DL_RUN_ROW_HEADER) return 0;
    const size_t payload = dl_load32(row + 16), name = dl_row_name_length(row);
    if (name == 0 || name > DL_RUN_NAME_MAX || payload > DL_RUN_PAYLOAD_MAX) return 0;
    const size_t size = DL_RUN_ROW_HEADER + name + payload;
    return size > rest ? 0 : size;
}

static inline size_t dl_item_size(const uint8_t *item, size_t rest, uint32_t kind) {
    if (kind == DL_RUN_ROWS) return dl_row_size(item, rest);
    return rest < DL_RUN_NUMBER ? 0 : DL_RUN_NUMBER;
}

/* Below, at or above 0 as the first text sorts before, with or after the second. */
static inline int dl_text_compare(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length) {
    const int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    if (order != 0) return order;
    return (a_length > b_length) - (a_length < b_length);
}

/* The same for the names of two rows that were measured. */
static inline int dl_row_names_compare(const uint8_t *a, const uint8_t *b) {
    return dl_text_compare(a + DL_RUN_ROW_HEADER, dl_row_name_length(a), b + DL_RUN_ROW_HEADER, dl_row_name_length(b));
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
