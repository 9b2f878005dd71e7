/* durable_log: what Python sees of the C core.
 *
 * Law of this room: no state, no allocation, no logging. The caller owns all memory and says how long it is; every
 * length is checked before use. A function returns one kind of thing: a verdict of its enum, a count, a sum or time, a
 * truth, or 0 / -errno, never a mixture. All may be called from any thread, without Python's global lock.
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
#define DL_FLAGS 7

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
    DL_JSON_TRAILING = 5, /* bytes after the value, or no text where one more should be */
    DL_JSON_NO_ROOM = 6
};

#define DL_JSON_SEPARATOR 0x1e /* between texts: none holds this byte (RFC 7464) */
#define DL_JSON_FORMAT 22      /* what the format of one message takes at most */

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

/* crc32c.c: "crc" is what an earlier call returned for the bytes before, or the seed. The processor has nothing for it
 * (0), an instruction (1), or wide products as well (2). */
uint32_t dl_crc32c(uint32_t crc, const uint8_t *data, size_t length);
uint32_t dl_crc32c_portable(uint32_t crc, const uint8_t *data, size_t length);
int dl_crc32c_hardware(void);
void dl_crc32c_marks(const uint8_t *data, size_t length, uint32_t *marks);
uint32_t dl_crc32c_range(uint32_t crc, const uint8_t *data, const uint32_t *marks, size_t from, size_t to);

/* frame.c */
enum dl_verdict dl_block_seal(uint8_t *block, size_t size, dl_block *info);
enum dl_verdict dl_block_check(const uint8_t *block, size_t available, uint64_t lsn, uint32_t nonce, dl_block *info);
enum dl_verdict dl_frames_scan(const uint8_t *body, size_t length, uint64_t position, uint32_t nonce, dl_frame *rows,
                               size_t rows_max, size_t *rows_count, size_t *bytes_read);
size_t dl_frame_find(const uint8_t *body, size_t length, const uint32_t *marks, uint64_t position, uint32_t nonce,
                     size_t from);
size_t dl_block_find(const uint8_t *bytes, size_t length, uint64_t lsn, uint32_t nonce, size_t from);
enum dl_verdict dl_frames_gather(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce,
                                 uint64_t stream, const uint8_t *index, size_t count, uint64_t from, uint64_t to,
                                 uint8_t *out, size_t *done);
size_t dl_frames_ahead(const uint8_t *index, size_t count, uint64_t size, uint64_t *piece);

/* cluster.c: the picture of the file is in cluster.h */
#define DL_TYPE_DATA 1
#define DL_CHUNK 65536
#define DL_ROW 48
#define DL_ENTRY_HEADER 32
#define DL_ENTRY_MAX 65637 /* header, 16 sums, an end for each byte of a chunk, the last of them of 5 bytes more */
#define DL_ROW_CHUNKS 65536
#define DL_RADIX 2048
#define DL_RECORD_TYPE 29 /* where dl_records_scan_all puts a frame's type (0: one that nobody knows) in "skip", */
#define DL_RECORD_FLAGS 26
#define DL_RECORD_PRODUCER 16  /* and the number of the producer whose claim it has, */
#define DL_PRODUCERS_TOLD 1023 /* which stands for all numbers from it on */

enum dl_cluster_verdict {
    DL_CLUSTER_OK = 0,
    DL_CLUSTER_MORE = 1,  /* empty the buffers and call again */
    DL_CLUSTER_READ = 2,  /* the operating system failed a read */
    DL_CLUSTER_SHORT = 3, /* the file ends before the bytes do */
    DL_CLUSTER_FRAME = 4, /* what does not verify: a frame of a log segment, */
    DL_CLUSTER_ROW = 5,   /* a row, */
    DL_CLUSTER_ENTRY = 6, /* a chunk's entry, */
    DL_CLUSTER_PAGE = 7,  /* a page of stream bytes, */
    DL_CLUSTER_INDEX = 8, /* a position in the sparse index */
    DL_CLUSTER_ORDER = 9, /* the same stream bytes twice, or rows out of order or out of place */
    DL_CLUSTER_ROOM = 10  /* the caller's array is too small */
};

enum dl_key { DL_BY_STREAM = 0, DL_BY_OFFSET = 1, DL_BY_PLACE = 2, DL_KEYS = 3 };

typedef struct {
    uint64_t stream;
    uint64_t offset;
    uint64_t place;  /* source << 32 | position of the frame, or | number of the row */
    uint32_t skip;   /* bytes from the frame's header to the payload, or from the row's start to "offset" */
    uint32_t length; /* of the stream bytes */
} dl_record;

typedef struct {
    int32_t fd; /* or -1: the file's bytes are in memory */
    uint32_t nonce;
    uint32_t clustered; /* or a log segment */
    const uint8_t *bytes;
    uint64_t length; /* of the file */
    uint64_t rows_position;
    uint64_t rows_count;
} dl_source;

typedef struct {
    uint8_t *bytes; /* the caller's */
    size_t size;
    const dl_source *source; /* whose bytes it holds */
    uint64_t position;
    size_t length;
} dl_window;

typedef struct {
    uint64_t stream;
    uint64_t start;
    uint64_t end;
    uint64_t position; /* in the file of "source" */
    uint32_t source;
    uint32_t verdict; /* dl_cluster_verdict */
    int32_t error;    /* errno, with DL_CLUSTER_READ */
} dl_fault;

typedef struct {
    uint64_t row_max; /* a row that would grow longer than this is continued in another, in bytes */
    uint64_t stream;  /* the row that is being built: all zero at first */
    uint64_t end;
    uint64_t row_length;
    uint64_t rows; /* out */
    uint64_t payload_bytes;
} dl_plan;

typedef struct {
    const uint64_t *streams; /* the numbers of those that stay, ascending; or NULL: all do */
    size_t streams_count;
    size_t streams_at;
    const uint64_t *trims; /* pairs of stream number and first offset kept, ascending */
    size_t trims_count;
    size_t trims_at;
    size_t kept;
} dl_selection;

typedef struct {
    dl_window pieces;  /* at least DL_CHUNK */
    dl_window entries; /* at least DL_ENTRY_MAX */
    dl_window rows;    /* at least DL_ROW */
} dl_reader;

typedef struct {
    uint8_t *bytes; /* the caller's, emptied before each call */
    size_t size;
    size_t used;
    uint64_t position; /* in the file, of bytes[0] */
} dl_output;

typedef struct {
    const dl_source *sources;
    size_t sources_count;
    const dl_record *records;
    size_t records_count;
    size_t records_done;
    size_t records_staged; /* the frames of records up to here stand on the stage, */
    const uint8_t *stage;
    uint64_t stage_size;
    uint64_t stage_at; /* the next of them here */
    dl_reader reader;
    dl_output payload; /* at least DL_CHUNK */
    dl_output entries; /* at least 3 * DL_ENTRY_MAX + 4 * DL_ROW_CHUNKS */
    dl_output rows;    /* at least DL_ROW */
    uint32_t *index;   /* DL_ROW_CHUNKS of them */
    uint32_t nonce;
    dl_plan plan; /* the row that is being built is in it */
    uint64_t records_taken; /* out */
    dl_fault fault;
    const uint8_t *piece; /* what is being copied */
    uint64_t piece_left;
    uint64_t piece_row_start;
    uint64_t piece_row_end;
    uint64_t piece_payload;
    uint64_t piece_entry;
    uint64_t piece_entries_end;
    uint64_t piece_chunk;
    uint64_t row_start; /* what is being built */
    uint64_t row_payload;
    uint64_t row_entries;
    uint32_t row_records;
    uint32_t row_chunks;
    uint64_t chunk_start;
    uint32_t chunk_length;
    uint32_t chunk_before;
    uint32_t chunk_open;
    uint32_t ends_length;
    uint64_t ends_last;
    size_t summed;
    uint32_t sum;
    uint64_t record_start;
    uint64_t record_end;
} dl_cluster;

typedef struct {
    uint32_t nonce;
    uint64_t stream;
    uint64_t chunk; /* offset at which the first entry's chunk starts */
    uint64_t end;   /* of the row */
    uint64_t from;  /* of the bytes: the start of a page of a chunk; */
    uint64_t to;    /* the end of one */
    const uint8_t *parts[3];
    size_t lengths[3];
} dl_span;

typedef struct {
    dl_source source;
    dl_reader reader;
    uint64_t entries_end;
    uint64_t row; /* the next one, unless this one goes on: */
    uint32_t in_row;
    uint64_t chunk; /* the offset at which it does */
    uint64_t entry;
    uint64_t row_start;
    uint64_t row_end;
    uint64_t row_payload;
    uint64_t row_entries;
    uint64_t row_index;
    uint64_t stream;           /* of the last row that holds */
    uint64_t end;
    uint64_t payload_position; /* where the next row has to begin, or 0 if the last one did not hold */
    uint64_t entries_position;
} dl_walk;

enum dl_cluster_verdict dl_records_scan(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce,
                                        uint32_t source, const uint64_t *blocks, size_t blocks_count,
                                        dl_record *records, size_t records_max, size_t *count, uint64_t *largest,
                                        uint64_t *bad_position);
enum dl_cluster_verdict dl_records_scan_all(const uint8_t *bytes, size_t length, uint64_t position, uint32_t nonce,
                                            uint32_t segment, const uint64_t *blocks, size_t blocks_count,
                                            dl_record *records, size_t records_max, size_t *count,
                                            uint64_t *bad_position);
size_t dl_records_pick(const dl_record *records, size_t count, uint32_t types, dl_record *out);
size_t dl_records_find(const dl_record *records, size_t count, uint64_t stream);
size_t dl_index_run(const uint8_t *index, size_t count);
int dl_index_bounds(const uint8_t *index, size_t length, uint64_t below, size_t *bounds);
size_t dl_records_streams(const dl_record *records, size_t count, uint64_t *streams);
enum dl_cluster_verdict dl_records_of_rows(const uint8_t *table, size_t rows_count, uint64_t first, uint32_t nonce,
                                           uint32_t source, const uint64_t *indexes, size_t indexes_count,
                                           dl_record *records, uint64_t *bad_row);
void dl_records_count(const dl_record *records, size_t count, enum dl_key key, uint32_t shift, uint64_t *counts);
enum dl_cluster_verdict dl_records_scatter(const dl_record *records, size_t count, enum dl_key key, uint32_t shift,
                                           uint64_t *heads, dl_record *out, size_t out_count);
void dl_records_greatest(const dl_record *records, size_t count, uint64_t *keys);
size_t dl_records_select(dl_selection *selection, dl_record *records, size_t first, size_t count, uint64_t *cuts);
enum dl_cluster_verdict dl_records_plan(dl_plan *plan, const dl_record *records, size_t count, size_t *bad);

/* replay.c */
size_t dl_replay_data(const dl_record *records, size_t count, uint32_t flags, uint64_t end, uint64_t end_max,
                      uint8_t *pairs);
size_t dl_replay_claims(const dl_record *records, size_t count, uint64_t tail, uint64_t *found);
uint64_t dl_replay_time(const dl_record *records, size_t count, const uint64_t *lsns, const uint64_t *times_ms,
                        size_t blocks_count);

/* cluster_stage.c */
size_t dl_stage_plan(const dl_source *sources, size_t sources_count, const dl_record *records, size_t count,
                     uint64_t stage_size, dl_record *out, size_t out_max, size_t *out_count);
enum dl_cluster_verdict dl_stage_fill(const dl_source *sources, size_t sources_count, const dl_record *records,
                                      size_t count, size_t *done, dl_window *window, uint8_t *stage,
                                      uint64_t stage_size, dl_fault *fault);
void dl_forget(uint8_t *memory, size_t length);

/* cluster_write.c */
enum dl_cluster_verdict dl_cluster_copy(dl_cluster *job);

/* cluster_read.c */
int dl_row_holds(const uint8_t *row, uint32_t nonce, uint64_t file_length);
size_t dl_rows_unpack(const uint8_t *table, size_t count, uint32_t nonce, uint64_t file_length, uint64_t *streams,
                      uint64_t *starts, uint64_t *ends);
enum dl_cluster_verdict dl_span_check(const dl_span *span, const uint8_t *entries, size_t length, uint64_t *good,
                                      size_t *entry);
size_t dl_entry_find(const uint8_t *entries, size_t length, uint32_t nonce, uint64_t stream, uint64_t start,
                     uint64_t end, uint64_t chunk);
enum dl_cluster_verdict dl_entry_bounds(const uint8_t *entry, size_t length, uint32_t nonce, uint64_t stream,
                                        uint64_t chunk, uint64_t row_start, uint64_t row_end, uint64_t offset,
                                        uint64_t *start, uint64_t *end);

/* cluster_verify.c */
enum dl_cluster_verdict dl_cluster_verify(dl_walk *walk, dl_fault *faults, size_t faults_max, size_t *count);

/* commit.c */
enum dl_stage { DL_STAGE_SEAL = 0, DL_STAGE_WRITE = 1, DL_STAGE_SYNC = 2, DL_STAGE_DONE = 3 };
int dl_commit(int fd, uint8_t *block, size_t size, int sync, dl_block *info, int *stage, uint64_t *sync_ns);
int dl_is_copy_on_write(int fd);

/* json.c */
enum dl_json_verdict dl_json_split(const uint8_t *text, size_t length, size_t texts, int depth_max, uint8_t *out,
                                   size_t out_size, size_t *out_length, size_t *count, size_t *error_position);
/* The same. The binding keeps the interpreter's lock meanwhile: for texts that take microseconds. */
enum dl_json_verdict dl_json_split_brief(const uint8_t *text, size_t length, size_t texts, int depth_max, uint8_t *out,
                                         size_t out_size, size_t *out_length, size_t *count, size_t *error_position);
size_t dl_json_page(const uint8_t *stored, size_t length, size_t limit);
size_t dl_json_format(const uint8_t *stored, size_t length, size_t sizes_max, uint8_t *out, size_t *end);

/* run.c, run_find.c, run_build.c, run_names.c
 *
 * A run is a file header of one page, then pages of rows, of numbers and of names, then tables and a trailer (engine/run_format.py):
 *
 *   |<- 4096 ->|<- 4096 ->|<- n * 4096 ->|   |<- 4096 ->|   |<- 4096 ->|
 *   |  header  | P R R R  | P R          |...| P I I I  |...| P N N N  |... tables | trailer |
 *
 *   page header (16): crc 4 | length of header and items 4 | position / 4096 4 | items 2 | kind 1 | zero 1
 *   row (R): hash 8 | payload length 4 | name (N) | payload
 *   number (I): stream number 8 | which page of rows it is on 4
 *   name (N): stream number 6 | flags 2 | deadline 8, ms since 1970 | length of the text 2 | text
 *
 * A page is one of 4096 bytes, or of as many whole ones as its first row needs, which is its only one if these are
 * more than 64 KiB. Rows ascend by hash, then text; names by their text's bytes. */
#define DL_RUN_PAGE_HEADER 16
#define DL_RUN_ROW_HEADER 30 /* up to the text */
#define DL_RUN_NUMBER 12
#define DL_RUN_NAME_HEADER 18 /* up to the text */
#define DL_RUN_NAME_MAX 1024
#define DL_RUN_PAYLOAD_MAX 1073741824
#define DL_RUN_PAGE_MAX 1073745920
#define DL_RUN_SHARED_MAX 65536 /* a longer page is that of one row: others should not wait for it to be read */
#define DL_RUN_SLICE 1048576

#define DL_RUN_ROWS 1
#define DL_RUN_NUMBERS 2
#define DL_RUN_NAMES 3

#define DL_RUN_TOMBSTONE 1 /* the name is deleted */
#define DL_RUN_HIDDEN 2    /* deleted for readers, kept for its forks */
#define DL_RUN_NEVER 0xffffffffffffffff
#define DL_RUN_MISSING 0xffffffff /* in place of a position: no row was found */

enum dl_run_verdict {
    DL_RUN_OK = 0,
    DL_RUN_ABSENT = 1,     /* the page holds, and would have it if it were there */
    DL_RUN_BEFORE = 2,     /* sorts before the first item of the page */
    DL_RUN_AFTER = 3,      /* sorts after the last item of the page */
    DL_RUN_FULL = 4,       /* the caller's arrays have to be emptied first */
    DL_RUN_INPUT = 5,      /* a source has come to the end of its bytes */
    DL_RUN_BAD_LENGTH = 6, /* longer than what is there */
    DL_RUN_BAD_CRC = 7,
    DL_RUN_BAD_PLACE = 8,  /* a page that holds, of another place or kind */
    DL_RUN_BAD_ITEM = 9,   /* an item that does not fit into its page, or not into the limits */
    DL_RUN_BAD_ORDER = 10,
    DL_RUN_READ = 11       /* the operating system failed a read */
};

typedef struct {
    uint64_t key;   /* hash, number, page or the beginning of a name: what it is sorted by */
    uint64_t value; /* position of a row in memory, page or number: what decides between equal keys */
} dl_run_pair;

typedef struct {
    uint64_t tombstones;
    uint64_t number_min;
    uint64_t number_max;
    uint64_t deadline_min; /* of the streams that are not deleted */
    uint64_t digest;       /* a sum over (number, page) that does not depend on their order */
    uint64_t names_digest; /* the same over names */
    uint64_t first;        /* hash or number of the first item, or how its name begins */
    uint32_t items;
    uint32_t last;   /* position of the last item in the page */
} dl_run_page;

typedef struct {
    uint8_t *pages;       /* "pages_used" bytes of sealed pages, then the one in the making */
    uint64_t *fences;     /* first key of every page that was begun since the arrays were emptied, or NULL, too */
    uint32_t *places;     /* and its position / 4096 */
    dl_run_pair *pairs;   /* (number, page) of every row; NULL if they are not wanted */
    size_t pages_size;    /* a page at least */
    size_t pages_used;
    size_t pages_wanted;  /* out: what the next page needs, with DL_RUN_FULL; may be more than "pages_size" */
    size_t fences_size;
    size_t fences_used;
    size_t pairs_size;
    size_t pairs_used;
    size_t open_length;   /* of the page in the making, 0 if there is none */
    size_t open_size;     /* what it may grow to */
    uint64_t begun;       /* pages, in all */
    uint64_t count;       /* rows or names, in all */
    uint64_t tombstones;
    uint64_t number_min;
    uint64_t number_max;
    uint64_t deadline_min; /* in: DL_RUN_NEVER */
    uint64_t names_digest;
    uint32_t open_items;
    uint32_t place;       /* in the file, of the first byte of "pages": position / 4096 */
    uint32_t nonce;
    uint32_t kind;
} dl_run_builder;

typedef struct {
    const uint8_t *bytes; /* whole pages */
    size_t length;
    size_t next;          /* where the next page begins */
    size_t at;            /* the current item, if "size" is not 0 */
    size_t size;
    size_t end;           /* of the items of its page */
    uint64_t key;         /* of the current item */
    uint32_t left;        /* items of its page, the current one included */
    uint32_t place;       /* of the first of the bytes: position / 4096 */
    uint32_t nonce;
    uint8_t last;         /* in: nothing follows these bytes */
    uint8_t ended;        /* out */
} dl_run_source;

typedef struct {
    const uint8_t *prefix; /* the names that begin with this one */
    const uint8_t *after;  /* and sort after that one, which is not among them */
    size_t prefix_length;
    size_t after_length;
} dl_run_range;

typedef struct {
    uint32_t *at; /* where in the bytes the names that were picked begin */
    size_t size;  /* how many of them "at" has room for */
    size_t count;
    size_t bytes_read; /* where the last page begins that was looked at */
} dl_run_picked;

typedef struct {
    dl_source source;
    const uint64_t *fences; /* the first hash of each page of rows */
    const uint32_t *places; /* where each of them begins, and where the last one ends: position / 4096; or NULL */
    size_t pages;
} dl_run_table;

typedef struct {
    const uint64_t *hashes;    /* of the names that are looked for, */
    const uint8_t *names;      /* which follow each other here */
    const uint32_t *name_ends; /* and end here */
    size_t names_length;
    size_t count;
    size_t next;    /* the first name that was not looked for yet */
    uint32_t *rows; /* where in "out" the row of each begins; only those that are DL_RUN_MISSING are looked for */
    uint8_t *out;   /* the caller's; has to have room for whole pages, whatever their rows take */
    size_t out_size;
    size_t out_used;
    size_t out_wanted; /* out: what the next page needs beside what is used, with DL_RUN_FULL */
    uint64_t position; /* out: of the page that does not hold or can't be read, */
    int32_t error;     /* and errno, with DL_RUN_READ */
} dl_run_lookup;

enum dl_run_verdict dl_run_find(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce, uint64_t hash,
                                const uint8_t *name, size_t name_length, size_t *at);
enum dl_run_verdict dl_run_find_many(const dl_run_table *run, dl_run_lookup *job);
enum dl_run_verdict dl_run_survey(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce, uint32_t kind,
                                  uint32_t ordinal, dl_run_page *info);
enum dl_run_verdict dl_run_numbers_find(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                        const uint64_t *numbers, size_t count, dl_run_pair *found, size_t *found_count);
enum dl_run_verdict dl_run_rows_select(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                       const dl_run_pair *wanted, size_t count, uint32_t *at);
enum dl_run_verdict dl_run_rows_scan(const uint8_t *rows, size_t length, uint32_t kind, dl_run_pair *pairs,
                                     size_t pairs_max, size_t *count, size_t *bytes_read);
size_t dl_run_rows_sort(const uint8_t *rows, dl_run_pair *pairs, dl_run_pair *scratch, size_t count);
void dl_run_pairs_sort(dl_run_pair *pairs, dl_run_pair *scratch, size_t count);

enum dl_run_verdict dl_run_pack_rows(const uint8_t *rows, size_t length, const dl_run_pair *pairs, size_t count,
                                     size_t *next, dl_run_builder *out);
enum dl_run_verdict dl_run_pack_pairs(const dl_run_pair *pairs, size_t count, size_t *next, dl_run_builder *out);
enum dl_run_verdict dl_run_merge(dl_run_source *sources, uint32_t count, uint32_t *heap, int drop_tombstones,
                                 dl_run_builder *out, uint32_t *which);
void dl_run_seal(dl_run_builder *out);
void dl_run_emptied(dl_run_builder *out);

enum dl_run_verdict dl_run_names_seek(const uint8_t *page, size_t length, uint32_t place, uint32_t nonce,
                                      const dl_run_range *range);
enum dl_run_verdict dl_run_names_take(const uint8_t *bytes, size_t length, uint32_t place, uint32_t nonce,
                                      const dl_run_range *range, dl_run_picked *picked);
enum dl_run_verdict dl_run_names_due(const uint8_t *bytes, size_t length, uint32_t place, uint32_t nonce,
                                     uint64_t from_ms, uint64_t now_ms, uint64_t *next_ms, dl_run_picked *picked);
/* cffi: end */

#endif
