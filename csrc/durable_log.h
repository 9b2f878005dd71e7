/* durable_log: what Python sees of the C core.
 *
 * Law of this room: no state, no allocation, no logging. The caller owns all memory and says how long it is; every
 * length is checked before use. A function returns either a verdict of its enum or a byte count, or 0 / -errno, never
 * a mixture. All functions may be called from any thread, without Python's global lock.
 *
 * Numbers on disk are little-endian. A log segment is a file header of one page, then blocks, each starting on a page:
 *
 *   |<- 4096 ->|<---- block ---->|<---- block ---->|
 *   |  header  | B | F | F | pad | B | F | pad     | zeroes or stale bytes ...
 *
 *   block header (64): magic 4 | header crc 4 | lsn 8 | durable lsn 8 | previous lsn 8 | time ms 8 |
 *                      body length 4 | records 4 | body crc 4 | previous header crc 4 | flags 4 | zero 4
 *   frame header (24): crc 4 | length 4 | type 1 | flags 1 | stream number 6 | stream offset 8
 *                      then, as the flags say: producer claim (number 4 | epoch 8 | seq 8), Stream-Seq (length 2 | text)
 *                      then the payload; "length" counts all that follows the 24 bytes
 *
 * Every CRC is CRC32C whose register starts from the segment's nonce, for frames from nonce XOR position in the file
 * (its lower 32 bits); a CRC covers what follows it in its unit.
 */
#ifndef DURABLE_LOG_H
#define DURABLE_LOG_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */
#define DL_PAGE 4096
#define DL_BLOCK_HEADER 64
#define DL_FRAME_HEADER 24
#define DL_PRODUCER_CLAIM 20
#define DL_SEQ_MAX 1024
#define DL_TYPE_MAX 6 /* frame types count from 1 */

#define DL_FLAG_CLOSE 1
#define DL_FLAG_PRODUCER 2
#define DL_FLAG_SEQ 4

enum dl_verdict {
    DL_OK = 0,
    DL_ABSENT = 1,      /* no block magic: zeroes or anything else */
    DL_BAD_HEADER = 2,  /* header checksum, or a field that its checksum should have vouched for */
    DL_BAD_LSN = 3,     /* a valid block of another place */
    DL_BAD_LENGTH = 4,  /* longer than what is there */
    DL_BAD_BODY = 5,    /* body checksum */
    DL_BAD_FRAME = 6,   /* frame checksum or frame structure */
    DL_NO_ROOM = 7      /* the caller's array is full: call again with a larger one */
};

enum dl_json_verdict {
    DL_JSON_OK = 0,
    DL_JSON_EMPTY = 1,    /* nothing but white space */
    DL_JSON_SYNTAX = 2,
    DL_JSON_UTF8 = 3,
    DL_JSON_DEPTH = 4,
    DL_JSON_TRAILING = 5, /* bytes after the value */
    DL_JSON_NO_ROOM = 6
};

typedef struct {
    uint64_t lsn;
    uint64_t durable_lsn;
    uint64_t previous_lsn;
    uint64_t time_ms;
    uint32_t body_length;
    uint32_t records;
    uint32_t previous_crc;
    uint32_t flags;
    uint32_t header_crc; /* out */
    uint32_t nonce;      /* in: of the segment */
} dl_block;

typedef struct {
    uint64_t stream;
    uint64_t offset;
    uint64_t position;       /* of the frame header, in the file */
    uint64_t epoch;          /* with DL_FLAG_PRODUCER */
    uint64_t producer_seq;   /* with DL_FLAG_PRODUCER */
    uint32_t producer;       /* with DL_FLAG_PRODUCER */
    uint32_t payload;        /* bytes from the frame header to the payload */
    uint32_t payload_length;
    uint16_t seq_length;     /* with DL_FLAG_SEQ: the text ends where the payload starts */
    uint8_t type;
    uint8_t flags;
} dl_frame;

/* crc32c.c: "crc" is what an earlier call returned for the bytes before, or the seed. */
uint32_t dl_crc32c(uint32_t crc, const uint8_t *data, size_t length);
uint32_t dl_crc32c_portable(uint32_t crc, const uint8_t *data, size_t length);
int dl_crc32c_hardware(void);

/* frame.c */
enum dl_verdict dl_block_seal(uint8_t *block, size_t size, dl_block *info);
enum dl_verdict dl_block_check(const uint8_t *block, size_t available, uint64_t lsn, uint32_t nonce, dl_block *info);
enum dl_verdict dl_frames_scan(const uint8_t *body, size_t length, uint64_t position, uint32_t nonce, dl_frame *rows,
                               size_t rows_max, size_t *rows_count, size_t *bytes_read);
size_t dl_frame_find(const uint8_t *body, size_t length, uint64_t position, uint32_t nonce, size_t from);
size_t dl_block_find(const uint8_t *bytes, size_t length, uint64_t lsn, uint32_t nonce, size_t from);
enum dl_verdict dl_frames_gather(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce,
                                 uint64_t stream, const uint64_t *positions, const uint64_t *offsets, size_t count,
                                 uint64_t from, uint64_t to, uint8_t *out, size_t *done);

/* commit.c */
enum dl_stage { DL_STAGE_SEAL = 0, DL_STAGE_WRITE = 1, DL_STAGE_SYNC = 2, DL_STAGE_DONE = 3 };
int dl_commit(int fd, uint8_t *block, size_t size, int sync, dl_block *info, int *stage, uint64_t *sync_ns);
int dl_is_copy_on_write(int fd);

/* json.c */
enum dl_json_verdict dl_json_split(const uint8_t *text, size_t length, int depth_max, uint8_t *out, size_t out_size,
                                   size_t *out_length, size_t *count, size_t *error_position);
size_t dl_json_page(const uint8_t *stored, size_t length, size_t limit);
/* cffi: end */

#endif
