/* Frames on their way from log segments into a clustered one.
 *
 * Law of this room: records are wanted by stream and lie in the order of the log, so reading each where it is wanted is
 * a system call a record. Instead, as many as the stage holds are fetched in the order of the log, which reads what
 * lies close together at once, and stand on the stage in the order in which they are wanted. Nothing is verified here:
 * that is done when a frame leaves the stage.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "cluster.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define GAP_MAX DL_PAGE /* copying that many bytes takes as long as a system call */
#define SLICE (1 << 20)

static int is_frame(const dl_source *sources, size_t sources_count, const dl_record *record) {
    return dl_source_of(record) < sources_count && !sources[dl_source_of(record)].clustered;
}

/* How many of the records may be on the stage together. For each that is a frame, "out" says where: its place, size, and
 * as its offset the position on the stage. */
size_t dl_stage_plan(const dl_source *sources, size_t sources_count, const dl_record *records, size_t count,
                     uint64_t stage_size, dl_record *out, size_t out_max, size_t *out_count) {
    uint64_t used = 0;
    size_t done = 0, found = 0;
    for (; done < count; done++) {
        const dl_record *record = &records[done];
        if (!is_frame(sources, sources_count, record)) continue;
        const uint64_t size = (uint64_t)record->skip + record->length;
        if (found == out_max || size > stage_size - used) break;
        out[found] = *record;
        out[found++].offset = used;
        used += size;
    }
    *out_count = found;
    return done;
}

/* How much to read from the record's frame on, so that it covers those that follow it closely. */
static uint64_t read_together(const dl_record *record, const dl_record *stop, size_t most) {
    const uint64_t start = dl_place_in(record);
    uint64_t end = start + record->skip + record->length;
    for (const dl_record *next = record + 1; next < stop && dl_source_of(next) == dl_source_of(record); next++) {
        const uint64_t place = dl_place_in(next), next_end = place + next->skip + next->length;
        if (place < end || place - end > GAP_MAX || next_end - start > most) break;
        end = next_end;
    }
    return end - start;
}

static dl_cv fetch(const dl_source *source, const dl_record *record, const dl_record *stop, dl_window *window,
                   uint8_t *to, int32_t *error) {
    const uint64_t position = dl_place_in(record), size = (uint64_t)record->skip + record->length;
    const uint8_t *frame = NULL;
    if (size > window->size) {
        if (position > source->length || size > source->length - position) return DL_CLUSTER_SHORT;
        const ssize_t got = dl_source_read(source, position, to, (size_t)size);
        if (got < 0) *error = errno;
        return got < 0 ? DL_CLUSTER_READ : (uint64_t)got < size ? DL_CLUSTER_SHORT : DL_CLUSTER_OK;
    }
    const int here = dl_window_holds(window, source, position, size);
    const uint64_t wanted = here ? size : read_together(record, stop, window->size);
    const dl_cv verdict = dl_window_get(window, source, position, size, wanted, &frame, error);
    if (verdict == DL_CLUSTER_OK) memcpy(to, frame, (size_t)size);
    return verdict;
}

/* Fetches what dl_stage_plan said, sorted by place, from record "*done" on: a slice, or until something fails. */
dl_cv dl_stage_fill(const dl_source *sources, size_t sources_count, const dl_record *records, size_t count,
                    size_t *done, dl_window *window, uint8_t *stage, uint64_t stage_size, dl_fault *fault) {
    for (uint64_t work = 0; *done < count && work < SLICE; ++*done) {
        const dl_record *record = &records[*done];
        const uint64_t size = (uint64_t)record->skip + record->length;
        if (!is_frame(sources, sources_count, record)) return DL_CLUSTER_ORDER;
        if (record->offset > stage_size || size > stage_size - record->offset) return DL_CLUSTER_ROOM;
        fault->source = dl_source_of(record);
        fault->position = dl_place_in(record);
        const dl_cv verdict = fetch(&sources[dl_source_of(record)], record, records + count, window,
                                    stage + record->offset, &fault->error);
        if (verdict != DL_CLUSTER_OK) return verdict;
        work += size;
    }
    return *done < count ? DL_CLUSTER_MORE : DL_CLUSTER_OK;
}

/* Gives the whole pages of memory that nobody wants any more back to the system; what they held is gone. Freeing it is
 * then quick, which matters to whoever holds Python's lock while it is freed. */
void dl_forget(uint8_t *memory, size_t length) {
#ifdef __linux__
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)memory + page - 1) / page * page;
    const uintptr_t last = ((uintptr_t)memory + length) / page * page;
    if (first < last) (void)madvise(memory + (first - (uintptr_t)memory), last - first, MADV_DONTNEED);
#else
    (void)memory;
    (void)length;
#endif
}
