/* System calls that fail when a test says so: loaded before libc, into a process of its own.
 *
 * Law of this file: it stands between a program and libc for calls on files at or below one directory, counts and
 * notes them, and has those fail that a test has armed. What is not armed does what it always does. It also watches
 * over one rule by itself: after a sync that failed, a descriptor is never written or synced again. Any thread.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* The order is that of "KINDS" in shim.py. GROW is a write that makes the file longer. */
enum kind {
    OPEN,
    CREATE,
    READ,
    WRITE,
    GROW,
    SYNC,
    SYNC_DIRECTORY,
    TRUNCATE,
    ALLOCATE,
    RENAME,
    UNLINK,
    LINK,
    MKDIR,
    RMDIR,
    LIST,
    STAT,
    LOCK,
    ADVISE,
    CLOSE
};

/* What an armed call does: nothing at all; all of it, of a write the pages of one half, and then it fails; one half,
 * successfully. */
enum manner { NOTHING, DONE, HALF };

enum { NAME_MAX_KEPT = 64, FILES_MAX = 4096, CALLS_MAX = 1 << 16, PAGE = 4096 };

struct file {
    int known, directory, dirty, failed;
    char name[NAME_MAX_KEPT];
};

struct call {
    int kind, error;
    char name[NAME_MAX_KEPT];
};

struct verdict {
    int error; /* 0: it is not to fail */
    enum manner manner;
    int chosen;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char prefix[PATH_MAX];
static struct file files[FILES_MAX];
static struct call calls[CALLS_MAX];
static unsigned long calls_count;
static char violation[256];

/* Of the calls of the kinds in "mask", counted from 1: every "step"-th from "first" on, "times" of them. */
static struct {
    unsigned long mask, first, times, step, seen, hit;
    int error;
    enum manner manner;
} armed;

static struct {
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*close)(int);
    ssize_t (*pread)(int, void *, size_t, off_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*read)(int, void *, size_t);
    ssize_t (*write)(int, const void *, size_t);
    int (*fdatasync)(int);
    int (*fsync)(int);
    int (*ftruncate)(int, off_t);
    int (*fallocate)(int, int, off_t, off_t);
    int (*posix_fallocate)(int, off_t, off_t);
    int (*posix_fadvise)(int, off_t, off_t, int);
    int (*rename)(const char *, const char *);
    int (*renameat)(int, const char *, int, const char *);
    int (*unlink)(const char *);
    int (*unlinkat)(int, const char *, int);
    int (*link)(const char *, const char *);
    int (*linkat)(int, const char *, int, const char *, int);
    int (*mkdir)(const char *, mode_t);
    int (*rmdir)(const char *);
    DIR *(*opendir)(const char *);
    int (*fstat)(int, struct stat *);
    int (*flock)(int, int);
} real;

static void find(void *where, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(where, &found, sizeof found);
}

__attribute__((constructor)) static void find_all(void) {
    find(&real.open, "open"), find(&real.openat, "openat"), find(&real.close, "close");
    find(&real.pread, "pread"), find(&real.pwrite, "pwrite"), find(&real.read, "read"), find(&real.write, "write");
    find(&real.fdatasync, "fdatasync"), find(&real.fsync, "fsync"), find(&real.ftruncate, "ftruncate");
    find(&real.fallocate, "fallocate"), find(&real.posix_fallocate, "posix_fallocate");
    find(&real.posix_fadvise, "posix_fadvise"), find(&real.rename, "rename"), find(&real.renameat, "renameat");
    find(&real.unlink, "unlink"), find(&real.unlinkat, "unlinkat"), find(&real.link, "link");
    find(&real.linkat, "linkat"), find(&real.mkdir, "mkdir"), find(&real.rmdir, "rmdir");
    find(&real.opendir, "opendir"), find(&real.fstat, "fstat"), find(&real.flock, "flock");
}

/* ---- what a test says and asks */

/* Watch calls at and below this absolute path; forget all that was armed and noted. */
EXPORT void faults_watch(const char *path) {
    pthread_mutex_lock(&mutex);
    snprintf(prefix, sizeof prefix, "%s", path);
    memset(files, 0, sizeof files);
    memset(&armed, 0, sizeof armed);
    calls_count = 0;
    violation[0] = 0;
    pthread_mutex_unlock(&mutex);
}

EXPORT void faults_arm(unsigned long mask, unsigned long first, unsigned long times, unsigned long step, int error,
                       int manner) {
    pthread_mutex_lock(&mutex);
    armed.mask = mask, armed.first = first, armed.times = times, armed.step = step;
    armed.error = error, armed.manner = (enum manner)manner;
    armed.seen = armed.hit = 0;
    pthread_mutex_unlock(&mutex);
}

EXPORT unsigned long faults_calls(void) { return calls_count < CALLS_MAX ? calls_count : CALLS_MAX; }
EXPORT int faults_call_kind(unsigned long index) { return calls[index].kind; }
EXPORT int faults_call_error(unsigned long index) { return calls[index].error; }
EXPORT const char *faults_call_name(unsigned long index) { return calls[index].name; }

/* How many of the armed calls have come. */
EXPORT unsigned long faults_hit(void) { return armed.hit; }

/* The first write or sync of a descriptor whose sync had failed; empty if there was none. */
EXPORT const char *faults_violation(void) { return violation; }

/* How many open files whose name ends so were written and not synced since. */
EXPORT int faults_dirty(const char *suffix) {
    int count = 0;
    pthread_mutex_lock(&mutex);
    for (int fd = 0; fd < FILES_MAX; fd++) {
        const size_t length = strlen(files[fd].name), wanted = strlen(suffix);
        const int ends = length >= wanted && strcmp(files[fd].name + length - wanted, suffix) == 0;
        count += files[fd].known && ends && (files[fd].dirty || files[fd].failed);
    }
    pthread_mutex_unlock(&mutex);
    return count;
}

/* ---- judging; the callers hold the mutex */

static const char *name_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int is_watched(const char *path) {
    const size_t length = strlen(prefix);
    return length && strncmp(path, prefix, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static struct file *file_of(int fd) { return fd >= 0 && fd < FILES_MAX && files[fd].known ? &files[fd] : NULL; }

static struct verdict judge_name(enum kind kind, const char *name) {
    struct verdict verdict = {0, NOTHING, 0};
    if (armed.mask >> kind & 1) {
        const unsigned long at = ++armed.seen - armed.first;
        if (armed.seen >= armed.first && at % armed.step == 0 && at / armed.step < armed.times) {
            verdict = (struct verdict){armed.error, armed.manner, 1};
            armed.hit++;
        }
    }
    if (calls_count < CALLS_MAX) {
        struct call *call = &calls[calls_count];
        call->kind = kind;
        call->error = verdict.error;
        snprintf(call->name, sizeof call->name, "%s", name);
    }
    calls_count++;
    return verdict;
}

static struct verdict judge_path(enum kind kind, const char *path) {
    struct verdict verdict = {0, NOTHING, 0};
    pthread_mutex_lock(&mutex);
    if (is_watched(path)) verdict = judge_name(kind, name_of(path));
    pthread_mutex_unlock(&mutex);
    return verdict;
}

static struct verdict judge_fd(enum kind kind, int fd) {
    struct verdict verdict = {0, NOTHING, 0};
    pthread_mutex_lock(&mutex);
    const struct file *file = file_of(fd);
    if (file) {
        if (kind == SYNC && file->directory) kind = SYNC_DIRECTORY;
        const int changes = kind == WRITE || kind == GROW || kind == SYNC || kind == TRUNCATE;
        if (changes && file->failed && !violation[0])
            snprintf(violation, sizeof violation, "%s was %s after its sync had failed", file->name,
                     kind == SYNC ? "synced" : "written");
        verdict = judge_name(kind, file->name);
    }
    pthread_mutex_unlock(&mutex);
    return verdict;
}

static int fails(struct verdict verdict) { return verdict.chosen && verdict.manner != HALF; }

/* Whether the call is to be made at all. */
static int goes_on(struct verdict verdict) { return !fails(verdict) || verdict.manner == DONE; }

static int finish(int result, struct verdict verdict) {
    if (!fails(verdict)) return result;
    errno = verdict.error;
    return -1;
}

static size_t part(size_t length, struct verdict verdict) {
    if (fails(verdict)) return length / 2 / PAGE * PAGE;
    return verdict.chosen && length > 1 ? length / 2 : length;
}

/* ---- descriptors */

static int opened(int fd, const char *path) {
    struct stat status;
    if (fd < 0 || fd >= FILES_MAX) return fd;
    pthread_mutex_lock(&mutex);
    memset(&files[fd], 0, sizeof files[fd]);
    if (is_watched(path)) {
        files[fd].known = 1;
        files[fd].directory = real.fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
        snprintf(files[fd].name, sizeof files[fd].name, "%s", name_of(path));
    }
    pthread_mutex_unlock(&mutex);
    return fd;
}

static void renamed(const char *from, const char *to) {
    pthread_mutex_lock(&mutex);
    for (int fd = 0; fd < FILES_MAX; fd++)
        if (files[fd].known && strcmp(files[fd].name, name_of(from)) == 0)
            snprintf(files[fd].name, sizeof files[fd].name, "%s", name_of(to));
    pthread_mutex_unlock(&mutex);
}

static void written(int fd) {
    pthread_mutex_lock(&mutex);
    struct file *file = file_of(fd);
    if (file) file->dirty = 1;
    pthread_mutex_unlock(&mutex);
}

static void synced(int fd, int result, int error) {
    pthread_mutex_lock(&mutex);
    struct file *file = file_of(fd);
    if (file && result == 0) file->dirty = 0;
    if (file && result != 0 && error != EINTR && !file->directory) file->failed = 1;
    pthread_mutex_unlock(&mutex);
}

static enum kind kind_of_write(int fd, size_t length, off_t position) {
    struct stat status;
    return real.fstat(fd, &status) == 0 && position + (off_t)length > status.st_size ? GROW : WRITE;
}

/* ---- the calls */

static int open_as(int directory, const char *path, int flags, mode_t mode) {
    const struct verdict verdict = judge_path(flags & O_CREAT ? CREATE : OPEN, path);
    if (!goes_on(verdict)) return finish(-1, verdict);
    const int fd = real.openat(directory, path, flags, mode);
    if (!fails(verdict)) return opened(fd, path);
    if (fd >= 0) real.close(fd); /* the file was made, and nobody has it */
    return finish(-1, verdict);
}

static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(more, unsigned) : 0;
}

EXPORT int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_as(AT_FDCWD, path, flags, mode);
}

EXPORT int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_as(AT_FDCWD, path, flags, mode);
}

EXPORT int openat(int directory, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_as(directory, path, flags, mode);
}

EXPORT int openat64(int directory, const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    const mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_as(directory, path, flags, mode);
}

/* The descriptor is gone, whatever the call says: that is how Linux does it. */
EXPORT int close(int fd) {
    const struct verdict verdict = judge_fd(CLOSE, fd);
    if (fd >= 0 && fd < FILES_MAX) {
        pthread_mutex_lock(&mutex);
        files[fd].known = 0;
        pthread_mutex_unlock(&mutex);
    }
    return finish(real.close(fd), verdict);
}

EXPORT ssize_t pread(int fd, void *to, size_t length, off_t position) {
    const struct verdict verdict = judge_fd(READ, fd);
    if (fails(verdict)) return finish(-1, verdict);
    return real.pread(fd, to, part(length, verdict), position);
}

EXPORT ssize_t pread64(int fd, void *to, size_t length, off_t position) { return pread(fd, to, length, position); }

EXPORT ssize_t read(int fd, void *to, size_t length) {
    const struct verdict verdict = judge_fd(READ, fd);
    if (fails(verdict)) return finish(-1, verdict);
    return real.read(fd, to, part(length, verdict));
}

EXPORT ssize_t pwrite(int fd, const void *from, size_t length, off_t position) {
    const struct verdict verdict = judge_fd(kind_of_write(fd, length, position), fd);
    if (!goes_on(verdict)) return finish(-1, verdict);
    if (!fails(verdict)) written(fd);
    const ssize_t done = real.pwrite(fd, from, part(length, verdict), position);
    return fails(verdict) ? finish(-1, verdict) : done;
}

EXPORT ssize_t pwrite64(int fd, const void *from, size_t length, off_t position) {
    return pwrite(fd, from, length, position);
}

EXPORT ssize_t write(int fd, const void *from, size_t length) {
    const struct verdict verdict = judge_fd(GROW, fd);
    if (!goes_on(verdict)) return finish(-1, verdict);
    if (!fails(verdict)) written(fd);
    const ssize_t done = real.write(fd, from, part(length, verdict));
    return fails(verdict) ? finish(-1, verdict) : done;
}

static int sync_by(int (*sync)(int), int fd) {
    const struct verdict verdict = judge_fd(SYNC, fd);
    const int result = finish(goes_on(verdict) ? sync(fd) : -1, verdict);
    const int error = errno;
    synced(fd, result, error);
    errno = error;
    return result;
}

EXPORT int fdatasync(int fd) { return sync_by(real.fdatasync, fd); }
EXPORT int fsync(int fd) { return sync_by(real.fsync, fd); }

EXPORT int ftruncate(int fd, off_t length) {
    const struct verdict verdict = judge_fd(TRUNCATE, fd);
    return finish(goes_on(verdict) ? real.ftruncate(fd, length) : -1, verdict);
}

EXPORT int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

EXPORT int fallocate(int fd, int mode, off_t position, off_t length) {
    const struct verdict verdict = judge_fd(ALLOCATE, fd);
    return finish(goes_on(verdict) ? real.fallocate(fd, mode, position, length) : -1, verdict);
}

EXPORT int fallocate64(int fd, int mode, off_t position, off_t length) { return fallocate(fd, mode, position, length); }

/* These two return the error itself. */
EXPORT int posix_fallocate(int fd, off_t position, off_t length) {
    const struct verdict verdict = judge_fd(ALLOCATE, fd);
    return fails(verdict) ? verdict.error : real.posix_fallocate(fd, position, length);
}

EXPORT int posix_fallocate64(int fd, off_t position, off_t length) { return posix_fallocate(fd, position, length); }

EXPORT int posix_fadvise(int fd, off_t position, off_t length, int advice) {
    const struct verdict verdict = judge_fd(ADVISE, fd);
    return fails(verdict) ? verdict.error : real.posix_fadvise(fd, position, length, advice);
}

EXPORT int posix_fadvise64(int fd, off_t position, off_t length, int advice) {
    return posix_fadvise(fd, position, length, advice);
}

static int rename_as(int from_directory, const char *from, int to_directory, const char *to) {
    const struct verdict verdict = judge_path(RENAME, from);
    const int result = goes_on(verdict) ? real.renameat(from_directory, from, to_directory, to) : -1;
    if (result == 0) renamed(from, to);
    return finish(result, verdict);
}

EXPORT int rename(const char *from, const char *to) { return rename_as(AT_FDCWD, from, AT_FDCWD, to); }
EXPORT int renameat(int from_directory, const char *from, int to_directory, const char *to) {
    return rename_as(from_directory, from, to_directory, to);
}

EXPORT int unlink(const char *path) {
    const struct verdict verdict = judge_path(UNLINK, path);
    return finish(goes_on(verdict) ? real.unlink(path) : -1, verdict);
}

EXPORT int unlinkat(int directory, const char *path, int flags) {
    const struct verdict verdict = judge_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path);
    return finish(goes_on(verdict) ? real.unlinkat(directory, path, flags) : -1, verdict);
}

EXPORT int link(const char *from, const char *to) {
    const struct verdict verdict = judge_path(LINK, to);
    return finish(goes_on(verdict) ? real.link(from, to) : -1, verdict);
}

EXPORT int linkat(int from_directory, const char *from, int to_directory, const char *to, int flags) {
    const struct verdict verdict = judge_path(LINK, to);
    return finish(goes_on(verdict) ? real.linkat(from_directory, from, to_directory, to, flags) : -1, verdict);
}

EXPORT int mkdir(const char *path, mode_t mode) {
    const struct verdict verdict = judge_path(MKDIR, path);
    return finish(goes_on(verdict) ? real.mkdir(path, mode) : -1, verdict);
}

EXPORT int rmdir(const char *path) {
    const struct verdict verdict = judge_path(RMDIR, path);
    return finish(goes_on(verdict) ? real.rmdir(path) : -1, verdict);
}

EXPORT DIR *opendir(const char *path) {
    const struct verdict verdict = judge_path(LIST, path);
    if (!fails(verdict)) return real.opendir(path);
    errno = verdict.error;
    return NULL;
}

EXPORT int fstat(int fd, struct stat *status) {
    const struct verdict verdict = judge_fd(STAT, fd);
    return finish(goes_on(verdict) ? real.fstat(fd, status) : -1, verdict);
}

EXPORT int fstat64(int fd, struct stat64 *status) { return fstat(fd, (struct stat *)status); }

EXPORT int flock(int fd, int operation) {
    const struct verdict verdict = judge_fd(LOCK, fd);
    return finish(goes_on(verdict) ? real.flock(fd, operation) : -1, verdict);
}
