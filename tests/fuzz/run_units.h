/* Pages of a run in short form, for the targets that read runs.
 *
 * Law of this room: an input says what a page has to say, in few bytes; padding and checksum are added here, so that no
 * change of an input is wasted on them. A plain walk over items, for the targets to compare with, is here, too.
 *
 *   unit: kind 1 | flags 1 | items 2 | length 4 | length of what follows 2 | items
 *   flags: 1 the length is the one given, 2 the checksum is wrong, 4 the place is; the two highest bits are a number
 */
#ifndef DURABLE_LOG_RUN_UNITS_H
#define DURABLE_LOG_RUN_UNITS_H

#include "harness.h"

#define UNIT_HEAD 10
#define UNIT_LENGTH_MAX 200000

typedef struct {
    uint8_t *bytes; /* one page, of exactly its size */
    size_t size;
    uint32_t kind;
    uint32_t number;
    int is_good; /* nothing about its header or its checksum is wrong */
} run_page;

static inline size_t whole_pages(size_t length) { return (length + DL_PAGE - 1) / DL_PAGE * DL_PAGE; }

/* The next page of the input, at that place of its file; 0 if there is none. */
static inline int next_page(fuzz_input *input, uint32_t place, uint32_t nonce, run_page *page) {
    if (input->left < UNIT_HEAD) return 0;
    const uint32_t kind = (uint32_t)fuzz_number(input, 1), flags = (uint32_t)fuzz_number(input, 1);
    const uint16_t items = (uint16_t)fuzz_number(input, 2);
    const uint32_t given = fuzz_take32(input);
    size_t body = (size_t)fuzz_number(input, 2);
    if (body > input->left) body = input->left;
    const size_t length = flags & 1 ? given : DL_RUN_PAGE_HEADER + body;
    const size_t claimed = whole_pages(length > 0 && length < UNIT_LENGTH_MAX ? length : DL_PAGE);
    const size_t needed = whole_pages(DL_RUN_PAGE_HEADER + body);
    *page =
        (run_page){NULL, needed > claimed ? needed : claimed, 1 + kind % 3, flags >> 6, (flags & 7) == 0 && items > 0};
    page->bytes = fuzz_new(page->size, 1);
    dl_store32(page->bytes + 4, (uint32_t)length);
    dl_store32(page->bytes + 8, place + (flags & 4));
    dl_store16(page->bytes + 12, items);
    page->bytes[14] = (uint8_t)page->kind;
    memcpy(page->bytes + DL_RUN_PAGE_HEADER, input->at, body);
    input->at += body;
    input->left -= body;
    fuzz_seal(page->bytes, claimed, nonce);
    if (flags & 2) page->bytes[0] ^= 1;
    return 1;
}

/* ---- items, one by one */

static inline uint64_t number_in(const uint8_t *name) { return dl_load64(name) & UINT64_C(0xffffffffffff); }

static inline uint64_t deadline_in(const uint8_t *name) {
    return dl_load16(name + 6) & (DL_RUN_TOMBSTONE | DL_RUN_HIDDEN) ? DL_RUN_NEVER : dl_load64(name + 8);
}

static inline const uint8_t *name_in(const uint8_t *item, uint32_t kind) {
    return kind == DL_RUN_ROWS ? item + DL_RUN_ROW_HEADER - DL_RUN_NAME_HEADER : item;
}

/* The size of a good item. */
static inline size_t size_of_item(const uint8_t *item, uint32_t kind) {
    if (kind == DL_RUN_NUMBERS) return DL_RUN_NUMBER;
    const size_t name = DL_RUN_NAME_HEADER + (size_t)dl_load16(name_in(item, kind) + 16);
    return kind == DL_RUN_NAMES ? name : DL_RUN_ROW_HEADER - DL_RUN_NAME_HEADER + name + dl_load32(item + 8);
}

static inline int compare_texts(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length) {
    for (size_t i = 0; i < a_length && i < b_length; i++)
        if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
    return (a_length > b_length) - (a_length < b_length);
}

/* By hash and text, number and page, or text. */
static inline int compare_items(const uint8_t *a, const uint8_t *b, uint32_t kind) {
    if (kind != DL_RUN_NAMES && dl_load64(a) != dl_load64(b)) return dl_load64(a) < dl_load64(b) ? -1 : 1;
    if (kind == DL_RUN_NUMBERS) return (dl_load32(a + 8) > dl_load32(b + 8)) - (dl_load32(a + 8) < dl_load32(b + 8));
    const uint8_t *left = name_in(a, kind), *right = name_in(b, kind);
    return compare_texts(left + 18, dl_load16(left + 16), right + 18, dl_load16(right + 16));
}

/* Whether the bytes are that many items, none of which says more than there is. */
static inline int are_items(const uint8_t *bytes, size_t length, size_t count, uint32_t kind) {
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const size_t least = kind == DL_RUN_ROWS    ? DL_RUN_ROW_HEADER
                             : kind == DL_RUN_NAMES ? DL_RUN_NAME_HEADER
                                                    : DL_RUN_NUMBER;
        if (length - at < least) return 0;
        const uint8_t *item = bytes + at;
        if (kind == DL_RUN_ROWS && dl_load32(item + 8) > DL_RUN_PAYLOAD_MAX) return 0;
        if (kind != DL_RUN_NUMBERS) {
            const size_t name = dl_load16(name_in(item, kind) + 16);
            if (name == 0 || name > DL_RUN_NAME_MAX) return 0;
        }
        const size_t size = size_of_item(item, kind);
        if (size > length - at) return 0;
        at += size;
    }
    return at == length;
}

#endif
