/* Runs of the catalog, read: the rows of many names at once.
 *
 * Law of this room: one call looks for many names in one run, and is all that there is to a look-up: pages that may have
 * a name are read from the caller's file into the caller's memory, and verified there before a row is believed. Which
 * page that is, the fences say; they, the places and the ends of names are compared with what there is of them. The
 * only system calls are those that read.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cluster.h"
#include "run_page.h"

typedef struct {
    uint64_t position;
    size_t length;
} extent;

typedef struct {
    uint64_t hash;
    const uint8_t *text;
    size_t length;
} wanted;

/* How many of the ascending fences lie below the hash, or at it, too. */
static size_t fences_below(const dl_run_table *run, uint64_t hash, int or_at) {
    size_t low = 0, high = run->pages;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (run->fences[middle] < hash || (or_at && run->fences[middle] == hash))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Where a page of rows lies; the length is 0 if that can't be. */
static extent extent_of(const dl_run_table *run, size_t page) {
    const uint64_t from = run->places == NULL ? page + 1 : run->places[page];
    const uint64_t to = run->places == NULL ? page + 2 : run->places[page + 1];
    const extent none = {from * DL_PAGE, 0}, found = {from * DL_PAGE, (size_t)(to - from) * DL_PAGE};
    return to <= from || to - from > DL_RUN_PAGE_MAX / DL_PAGE ? none : found;
}

static int name_at(const dl_run_lookup *job, size_t index, wanted *name) {
    const size_t begin = index == 0 ? 0 : job->name_ends[index - 1], end = job->name_ends[index];
    if (begin > end || end > job->names_length) return 0;
    *name = (wanted){job->hashes[index], job->names + begin, end - begin};
    return 1;
}

/* How much of a page there is, whatever the places say. */
static size_t length_there(const dl_source *file, extent at) {
    const uint64_t there = file->length > at.position ? file->length - at.position : 0;
    return there < at.length ? (size_t)there : at.length;
}

/* Puts the row of that name, if the page has it, behind those that were found before; "size" is its length. */
static enum dl_run_verdict look_into(const dl_run_table *run, dl_run_lookup *job, extent at, const wanted *name,
                                     size_t *size) {
    uint8_t *page = job->out + job->out_used;
    const dl_source *file = &run->source;
    const ssize_t got = dl_source_read(file, at.position, page, length_there(file, at));
    if (got < 0) {
        job->error = errno;
        return DL_RUN_READ;
    }
    size_t begin = 0;
    const uint32_t place = (uint32_t)(at.position / DL_PAGE);
    const enum dl_run_verdict verdict =
        dl_run_find(page, (size_t)got, place, file->nonce, name->hash, name->text, name->length, &begin);
    if (verdict == DL_RUN_OK) {
        *size = dl_row_size(page + begin, (size_t)got - begin);
        memmove(page, page + begin, *size);
    }
    return verdict;
}

/* Bisects the pages that may have the name, the last one first where there are two: it is the only one but where hashes
 * collide. */
static enum dl_run_verdict find_one(const dl_run_table *run, dl_run_lookup *job, const wanted *name, size_t *size) {
    size_t end = fences_below(run, name->hash, 1), low = end - 1;
    if (end > 0 && run->fences[end - 1] == name->hash) {
        const size_t first = fences_below(run, name->hash, 0);
        low = first > 0 ? first - 1 : 0;
    }
    while (end > 0 && low < end) {
        const size_t middle = low + (end - low) / 2;
        const extent at = extent_of(run, middle);
        job->position = at.position;
        if (at.length == 0) return DL_RUN_BAD_LENGTH;
        job->out_wanted = length_there(&run->source, at);
        if (job->out_size - job->out_used < job->out_wanted) return DL_RUN_FULL;
        const enum dl_run_verdict verdict = look_into(run, job, at, name, size);
        if (verdict == DL_RUN_AFTER)
            low = middle + 1;
        else if (verdict == DL_RUN_BEFORE)
            end = middle;
        else
            return verdict;
    }
    return DL_RUN_ABSENT;
}

/* Has the system read ahead, side by side, what is about to be looked into one by one. */
static void announce(const dl_run_table *run, const dl_run_lookup *job) {
#ifdef POSIX_FADV_WILLNEED
    for (size_t i = job->next + 1; run->source.fd >= 0 && i < job->count; i++) {
        const size_t end = job->rows[i] == DL_RUN_MISSING ? fences_below(run, job->hashes[i], 1) : 0;
        const extent at = end == 0 ? (extent){0, 0} : extent_of(run, end - 1);
        if (at.length > 0)
            (void)posix_fadvise(run->source.fd, (off_t)at.position, (off_t)at.length, POSIX_FADV_WILLNEED);
    }
#else
    (void)run;
    (void)job;
#endif
}

/* Looks for the names from "next" on that were not found before, until one of them can't be looked for. */
enum dl_run_verdict dl_run_find_many(const dl_run_table *run, dl_run_lookup *job) {
    if (job->next == 0) announce(run, job);
    for (; job->next < job->count; job->next++) {
        size_t size = 0;
        wanted name;
        if (job->rows[job->next] != DL_RUN_MISSING) continue;
        if (!name_at(job, job->next, &name)) return DL_RUN_INPUT;
        if (job->out_used > job->out_size || job->out_used >= DL_RUN_MISSING) return DL_RUN_FULL;
        const enum dl_run_verdict verdict = find_one(run, job, &name, &size);
        if (verdict == DL_RUN_OK) {
            job->rows[job->next] = (uint32_t)job->out_used;
            job->out_used += size;
        } else if (verdict != DL_RUN_ABSENT) {
            return verdict;
        }
    }
    return DL_RUN_OK;
}
