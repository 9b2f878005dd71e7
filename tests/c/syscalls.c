/* What the C core does when the system does less than it was asked: interrupted calls, half a write, nothing at all. And
 * its checksums on processors that lack an instruction.
 *
 * Law of this room: every call that csrc makes is answered from a script that the test wrote before, so that each answer
 * is given exactly once and in order. The linker puts these functions in the place of the system's. Prints nothing if all
 * holds.
 *
 * wraps: pwrite pread fdatasync fstatfs
 */
#define _GNU_SOURCE
#include "durable_log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define EXPECT(condition) ((condition) ? (void)0 : fail(__LINE__, #condition))
#define FD 99
#define NONCE 7

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t length, off_t position);
ssize_t __wrap_pread(int fd, void *bytes, size_t length, off_t position);
int __wrap_fdatasync(int fd);
int __wrap_fstatfs(int fd, struct statfs *found);

static void fail(int line, const char *condition) {
    fprintf(stderr, "syscalls.c:%d: does not hold: %s\n", line, condition);
    exit(1);
}

/* ---- the system */

enum call { WRITE, READ, SYNC, FILE_SYSTEM };

typedef struct {
    enum call call;
    long result; /* a length, or what kind of file system; what is negative is an error number */
} answer;

static const answer *script;
static size_t answers, answered;
static uint8_t file[2 * DL_PAGE];

#define SCRIPT(...) set_script((const answer[]){__VA_ARGS__}, sizeof((const answer[]){__VA_ARGS__}) / sizeof(answer))
#define NO_CALLS() set_script(NULL, 0)

static void set_script(const answer *next, size_t count) {
    EXPECT(answered == answers);
    script = next;
    answers = count;
    answered = 0;
    memset(file, 0, sizeof file);
}

static long reply(enum call call, int fd) {
    EXPECT(fd == FD && answered < answers && script[answered].call == call);
    const long result = script[answered++].result;
    if (result >= 0) return result;
    errno = (int)-result;
    return -1;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t length, off_t position) {
    const ssize_t written = reply(WRITE, fd);
    EXPECT(written <= (ssize_t)length);
    if (written > 0) memcpy(file + position, bytes, (size_t)written);
    return written;
}

ssize_t __wrap_pread(int fd, void *bytes, size_t length, off_t position) {
    const ssize_t got = reply(READ, fd);
    EXPECT(got <= (ssize_t)length);
    if (got > 0) memset(bytes, 'a' + (int)(position % 20), (size_t)got);
    return got;
}

int __wrap_fdatasync(int fd) { return reply(SYNC, fd) < 0 ? -1 : 0; }

int __wrap_fstatfs(int fd, struct statfs *found) {
    const long kind = reply(FILE_SYSTEM, fd);
    memset(found, 0, sizeof *found);
    found->f_type = kind;
    return kind < 0 ? -1 : 0;
}

/* ---- one commit */

static uint8_t block[DL_PAGE];
static dl_block info;
static int stage;
static uint64_t sync_ns;

/* A block with one frame of 10 bytes, for the second page of segment 3. */
static int commit(int sync, size_t size) {
    memset(block, 0x55, sizeof block);
    memset(block + DL_BLOCK_HEADER, 0, DL_FRAME_HEADER);
    block[DL_BLOCK_HEADER + 4] = 10;
    block[DL_BLOCK_HEADER + 8] = DL_TYPE_DATA;
    info = (dl_block){0};
    info.lsn = UINT64_C(3) << 32 | DL_PAGE;
    info.body_length = DL_FRAME_HEADER + 10;
    info.nonce = NONCE;
    return dl_commit(FD, block, size, sync, &info, &stage, &sync_ns);
}

static void a_block_is_written_where_its_lsn_says_and_synced(void) {
    SCRIPT({WRITE, DL_PAGE}, {SYNC, 0});
    EXPECT(commit(1, DL_PAGE) == 0 && stage == DL_STAGE_DONE);
    EXPECT(memcmp(file + DL_PAGE, block, DL_PAGE) == 0);
    EXPECT(dl_block_check(file + DL_PAGE, DL_PAGE, info.lsn, NONCE, &info) == DL_OK);
}

static void a_commit_without_sync_syncs_nothing(void) {
    SCRIPT({WRITE, DL_PAGE});
    EXPECT(commit(0, DL_PAGE) == 0 && stage == DL_STAGE_DONE && sync_ns == 0);
}

static void interrupted_and_short_writes_go_on(void) {
    SCRIPT({WRITE, -EINTR}, {WRITE, 1000}, {WRITE, -EINTR}, {WRITE, 3000}, {WRITE, 96}, {SYNC, 0});
    EXPECT(commit(1, DL_PAGE) == 0 && stage == DL_STAGE_DONE);
    EXPECT(memcmp(file + DL_PAGE, block, DL_PAGE) == 0);
}

static void a_write_that_fails_is_not_synced(void) {
    SCRIPT({WRITE, 1000}, {WRITE, -ENOSPC});
    EXPECT(commit(1, DL_PAGE) == -ENOSPC && stage == DL_STAGE_WRITE);
}

static void a_write_that_writes_nothing_is_an_error(void) {
    SCRIPT({WRITE, 0});
    EXPECT(commit(1, DL_PAGE) == -EIO && stage == DL_STAGE_WRITE);
}

static void a_sync_that_fails_is_told_and_not_tried_again(void) {
    SCRIPT({WRITE, DL_PAGE}, {SYNC, -EIO});
    EXPECT(commit(1, DL_PAGE) == -EIO && stage == DL_STAGE_SYNC);
}

static void a_sync_that_was_interrupted_has_not_failed(void) {
    SCRIPT({WRITE, DL_PAGE}, {SYNC, -EINTR}, {SYNC, -EINTR}, {SYNC, 0});
    EXPECT(commit(1, DL_PAGE) == 0 && stage == DL_STAGE_DONE);
}

static void a_block_that_cannot_be_sealed_is_not_written(void) {
    NO_CALLS();
    EXPECT(commit(1, DL_PAGE - 1) == -EINVAL && stage == DL_STAGE_SEAL);
}

static void file_systems_that_never_write_in_place_are_known(void) {
    SCRIPT({FILE_SYSTEM, 0x9123683e}, {FILE_SYSTEM, 0x2fc12fc1}, {FILE_SYSTEM, 0xca451a4e}, {FILE_SYSTEM, 0xef53},
           {FILE_SYSTEM, -EBADF});
    for (int i = 0; i < 5; i++)
        EXPECT(dl_is_copy_on_write(FD) == (i < 3));
}

/* ---- reading */

/* Stages one record of 100 bytes from position 40, of a file of 1000, through a window of that size. */
static enum dl_cluster_verdict stage_one(size_t window_size, int fd, dl_fault *fault, uint8_t *out) {
    uint8_t memory[200];
    const dl_source source = {fd, NONCE, 0, NULL, 1000, 0, 0};
    const dl_record record = {1, 0, 40, DL_FRAME_HEADER, 100 - DL_FRAME_HEADER};
    dl_window window = {memory, window_size, NULL, 0, 0};
    size_t done = 0;
    *fault = (dl_fault){0};
    return dl_stage_fill(&source, 1, &record, 1, &done, &window, out, 100, fault);
}

static void reads_go_on_until_all_is_there_or_fail(void) {
    uint8_t out[100];
    dl_fault fault;
    for (size_t window = 50; window <= 200; window += 150) { /* into the stage itself, or by way of the window */
        SCRIPT({READ, -EINTR}, {READ, 30}, {READ, -EINTR}, {READ, 70});
        EXPECT(stage_one(window, FD, &fault, out) == DL_CLUSTER_OK);
        EXPECT(out[0] == 'a' && out[29] == 'a' && out[30] == 'k' && out[99] == 'k');
        SCRIPT({READ, 30}, {READ, 0});
        EXPECT(stage_one(window, FD, &fault, out) == DL_CLUSTER_SHORT);
        SCRIPT({READ, 30}, {READ, -EIO});
        EXPECT(stage_one(window, FD, &fault, out) == DL_CLUSTER_READ && fault.error == EIO && fault.position == 40);
        NO_CALLS();
        EXPECT(stage_one(window, -1, &fault, out) == DL_CLUSTER_READ && fault.error == EBADF);
    }
}

static void a_look_up_that_cannot_read_says_where(void) {
    const uint64_t fence = 5, hash = 9;
    const uint32_t end = 1;
    uint32_t row = DL_RUN_MISSING;
    uint8_t out[DL_PAGE];
    const dl_run_table run = {{FD, NONCE, 0, NULL, 2 * DL_PAGE, 0, 0}, &fence, NULL, 1};
    dl_run_lookup job = {0};
    job.hashes = &hash;
    job.names = (const uint8_t *)"x";
    job.name_ends = &end;
    job.names_length = job.count = 1;
    job.rows = &row;
    job.out = out;
    job.out_size = sizeof out;
    SCRIPT({READ, -EIO});
    EXPECT(dl_run_find_many(&run, &job) == DL_RUN_READ && job.error == EIO && job.position == DL_PAGE);
    SCRIPT({READ, 1000}, {READ, 0});
    EXPECT(dl_run_find_many(&run, &job) == DL_RUN_BAD_LENGTH && job.next == 0);
}

/* ---- processors */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

/* libgcc's, as __builtin_cpu_supports reads it. */
extern struct {
    unsigned vendor, type, subtype, features[1];
} __cpu_model;
extern unsigned __cpu_features2[];

static void checksums_are_the_same_without_any_one_instruction(void) {
    uint8_t bytes[5000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * i);
    __builtin_cpu_init();
    const unsigned features = __cpu_model.features[0];
    const uint32_t expected = dl_crc32c_portable(NONCE, bytes, sizeof bytes);
    for (int bit = 0; bit < 32; bit++) {
        __cpu_model.features[0] = features & ~(1u << bit);
        EXPECT(dl_crc32c(NONCE, bytes, sizeof bytes) == expected);
    }
    __cpu_model.features[0] = features;
    const unsigned more_features = __cpu_features2[0];
    __cpu_features2[0] = 0;
    EXPECT(dl_crc32c_hardware() < 2 && dl_crc32c(NONCE, bytes, sizeof bytes) == expected);
    __cpu_features2[0] = more_features;
    __cpu_model.features[0] = 0;
    EXPECT(!dl_crc32c_hardware() && dl_crc32c(NONCE, bytes, sizeof bytes) == expected);
    __cpu_model.features[0] = features;
}

#else

static void checksums_are_the_same_without_any_one_instruction(void) {}

#endif

int main(void) {
    a_block_is_written_where_its_lsn_says_and_synced();
    a_commit_without_sync_syncs_nothing();
    interrupted_and_short_writes_go_on();
    a_write_that_fails_is_not_synced();
    a_write_that_writes_nothing_is_an_error();
    a_sync_that_fails_is_told_and_not_tried_again();
    a_sync_that_was_interrupted_has_not_failed();
    a_block_that_cannot_be_sealed_is_not_written();
    file_systems_that_never_write_in_place_are_known();
    reads_go_on_until_all_is_there_or_fail();
    a_look_up_that_cannot_read_says_where();
    NO_CALLS();
    checksums_are_the_same_without_any_one_instruction();
    return 0;
}
