/* One group commit: seal, write, sync, in one call.
 *
 * Law of this room: system calls on the caller's descriptor, in this order, and nothing after one that failed. A sync
 * that failed is never tried again here or anywhere: the kernel has marked its pages clean.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "durable_log.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

_Static_assert(sizeof(off_t) == 8, "a log segment may be 4 GiB long");

static int write_all(int fd, const uint8_t *bytes, size_t length, uint64_t position) {
    while (length > 0) {
        ssize_t written = pwrite(fd, bytes, length, (off_t)position);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return written < 0 ? -errno : -EIO;
        bytes += written;
        position += (uint64_t)written;
        length -= (size_t)written;
    }
    return 0;
}

static int sync_once(int fd) {
#if defined(__APPLE__)
    return fcntl(fd, F_FULLFSYNC);
#else
    return fdatasync(fd);
#endif
}

/* A sync that was interrupted has not failed: nothing was given up. */
static int sync_data(int fd) {
    int result = sync_once(fd);
    while (result < 0 && errno == EINTR)
        result = sync_once(fd);
    return result < 0 ? -errno : 0;
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Seals the block, writes it at the position that its LSN says, and syncs the file if "sync". Returns 0 or -errno;
 * "stage" is the step that failed, DL_STAGE_DONE if none did, and "sync_ns" what the sync took. */
int dl_commit(int fd, uint8_t *block, size_t size, int sync, dl_block *info, int *stage, uint64_t *sync_ns) {
    *sync_ns = 0;
    *stage = DL_STAGE_SEAL;
    if (dl_block_seal(block, size, info) != DL_OK) return -EINVAL;
    *stage = DL_STAGE_WRITE;
    int result = write_all(fd, block, size, info->lsn & 0xffffffffu);
    if (result < 0) return result;
    if (sync) {
        *stage = DL_STAGE_SYNC;
        const uint64_t started = now_ns();
        result = sync_data(fd);
        *sync_ns = now_ns() - started;
        if (result < 0) return result;
    }
    *stage = DL_STAGE_DONE;
    return 0;
}

/* 1 if the file lies on a file system that never writes in place, 0 if not or if nobody knows. */
int dl_is_copy_on_write(int fd) {
#ifdef __linux__
    const unsigned long btrfs = 0x9123683e, zfs = 0x2fc12fc1, bcachefs = 0xca451a4e;
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0) return 0;
    const unsigned long type = (unsigned long)fs.f_type & 0xffffffffu;
    return type == btrfs || type == zfs || type == bcachefs;
#else
    (void)fd;
    return 0;
#endif
}
