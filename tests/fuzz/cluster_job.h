/* Building and verifying clustered segments in memory, in buffers no larger than they have to be.
 *
 * Law of this room: what the engine does around the C core, for the two targets that need it. A file here is a page of
 * zeroes, payload, rows and entries: the header and the trailer of a real one are not the C core's business.
 */
#ifndef DURABLE_LOG_CLUSTER_JOB_H
#define DURABLE_LOG_CLUSTER_JOB_H

#include "harness.h"

#define FILE_START DL_PAGE
#define FAULTS 40
#define FILE_MAX (64u << 20) /* rows may promise what no source holds: a real file would be sparse, this is memory */

typedef struct {
    uint8_t *bytes;
    uint64_t length;
    uint64_t rows_position;
    uint64_t rows_count;
    uint64_t entries_position;
    uint32_t nonce;
} cluster_file;

typedef struct {
    const dl_source *sources;
    size_t sources_count;
    const dl_record *records; /* sorted */
    size_t count;
    size_t stage_size;
    size_t window_size;
    uint64_t row_max;
    uint32_t nonce;
} build_order;

static inline dl_source source_of_file(const cluster_file *file) {
    return (dl_source){-1, file->nonce, 1, file->bytes, file->length, file->rows_position, file->rows_count};
}

static inline dl_window new_window(size_t size) { return (dl_window){malloc(size), size, NULL, 0, 0}; }

static inline dl_reader new_reader(size_t more) {
    return (dl_reader){new_window(DL_CHUNK + more), new_window(DL_ENTRY_MAX + more), new_window(DL_ROW + more)};
}

static inline void free_reader(dl_reader *reader) {
    free(reader->pieces.bytes);
    free(reader->entries.bytes);
    free(reader->rows.bytes);
}

static inline dl_output new_output(size_t size, uint64_t position) {
    return (dl_output){malloc(size), size, 0, position};
}

static inline int by_place(const void *one, const void *other) {
    const uint64_t a = ((const dl_record *)one)->place, b = ((const dl_record *)other)->place;
    return (a > b) - (a < b);
}

/* The next frames that fit on the stage. */
static inline enum dl_cluster_verdict stage_more(dl_cluster *job, uint8_t *stage, size_t window_size) {
    dl_record wanted[50];
    size_t found = 0, done = 0;
    dl_window window = new_window(window_size);
    enum dl_cluster_verdict verdict = DL_CLUSTER_MORE;
    const size_t planned = dl_stage_plan(job->sources, job->sources_count, job->records + job->records_done,
                                         job->records_count - job->records_done, job->stage_size, wanted, 50, &found);
    REQUIRE(found <= 50 && planned <= job->records_count - job->records_done);
    job->records_staged += planned;
    job->stage_at = 0;
    qsort(wanted, found, sizeof *wanted, by_place);
    while (verdict == DL_CLUSTER_MORE)
        verdict = dl_stage_fill(job->sources, job->sources_count, wanted, found, &done, &window, stage, job->stage_size,
                                &job->fault);
    REQUIRE(verdict != DL_CLUSTER_OK || done == found);
    free(window.bytes);
    return planned == 0 ? DL_CLUSTER_ROOM : verdict;
}

static inline void flush(cluster_file *file, const dl_output *output, uint64_t end) {
    REQUIRE(output->position >= FILE_START && output->position + output->used <= end);
    if (output->position + output->used > file->length) {
        file->length = output->position + output->used;
        file->bytes = realloc(file->bytes, file->length);
        REQUIRE(file->bytes != NULL);
    }
    memcpy(file->bytes + output->position, output->bytes, output->used);
}

/* A clustered segment of the records, or why not; the caller frees its bytes either way. */
static inline enum dl_cluster_verdict build(const build_order *order, cluster_file *file) {
    dl_plan plan = {order->row_max, 0, 0, 0, 0, 0};
    size_t bad = 0;
    *file = (cluster_file){calloc(1, FILE_START), FILE_START, 0, 0, 0, order->nonce};
    enum dl_cluster_verdict verdict = dl_records_plan(&plan, order->records, order->count, &bad);
    if (verdict != DL_CLUSTER_OK) return verdict;
    file->rows_count = plan.rows;
    file->rows_position = FILE_START + plan.payload_bytes;
    file->entries_position = file->rows_position + plan.rows * DL_ROW;
    if (file->entries_position > FILE_MAX) return DL_CLUSTER_ROOM;

    /* large and written before they are read: not worth new memory for each input */
    static uint8_t entries[3 * DL_ENTRY_MAX + 4 * DL_ROW_CHUNKS];
    static uint32_t index[DL_ROW_CHUNKS];
    dl_cluster job = {0};
    uint8_t *stage = malloc(order->stage_size);
    job.sources = order->sources;
    job.sources_count = order->sources_count;
    job.records = order->records;
    job.records_count = order->count;
    job.stage = stage;
    job.stage_size = order->stage_size;
    job.reader = new_reader(order->window_size);
    job.payload = new_output(DL_CHUNK + order->window_size, FILE_START);
    job.rows = new_output(DL_ROW, file->rows_position);
    job.entries = (dl_output){entries, sizeof entries, 0, file->entries_position};
    job.index = index;
    job.nonce = order->nonce;
    job.plan.row_max = order->row_max;
    verdict = DL_CLUSTER_MORE;
    while (verdict == DL_CLUSTER_MORE) {
        verdict = DL_CLUSTER_OK;
        if (job.piece_left == 0 && job.records_done == job.records_staged && job.records_done < job.records_count)
            verdict = stage_more(&job, stage, order->window_size + 1);
        if (verdict != DL_CLUSTER_OK) break;
        verdict = dl_cluster_copy(&job);
        if (verdict != DL_CLUSTER_OK && verdict != DL_CLUSTER_MORE) break;
        flush(file, &job.payload, file->rows_position);
        flush(file, &job.rows, file->entries_position);
        flush(file, &job.entries, UINT64_MAX);
    }
    if (verdict == DL_CLUSTER_OK) {
        REQUIRE(job.plan.rows == plan.rows && job.plan.payload_bytes == plan.payload_bytes);
        REQUIRE(job.payload.position + job.payload.used == file->rows_position);
        REQUIRE(job.rows.position + job.rows.used == file->entries_position);
        REQUIRE(job.entries.position + job.entries.used == file->length || plan.rows == 0);
    }
    free_reader(&job.reader);
    free(job.payload.bytes);
    free(job.rows.bytes);
    free(stage);
    return verdict;
}

/* Verifies a file, and says how many faults there are; a mix of them all, too. */
static inline size_t verify(const cluster_file *file, size_t more, enum dl_cluster_verdict *verdict, uint64_t *mix) {
    dl_walk walk = {0};
    dl_fault faults[FAULTS];
    size_t found = 0, count = 0;
    walk.source = source_of_file(file);
    walk.reader = new_reader(more);
    walk.entries_end = file->length;
    walk.payload_position = FILE_START;
    walk.entries_position = file->entries_position;
    *verdict = DL_CLUSTER_MORE;
    *mix = 0;
    for (; *verdict == DL_CLUSTER_MORE; found += count) {
        *verdict = dl_cluster_verify(&walk, faults, FAULTS, &count);
        REQUIRE(count <= FAULTS);
        for (size_t i = 0; i < count; i++) {
            REQUIRE(faults[i].start <= faults[i].end && faults[i].verdict >= DL_CLUSTER_FRAME);
            *mix = (*mix ^ faults[i].position ^ faults[i].start << 20 ^ faults[i].end << 40 ^ faults[i].verdict) * 31;
        }
    }
    free_reader(&walk.reader);
    return found;
}

/* What was built has no faults, and built from itself again it is the same. */
static inline void check_built(const cluster_file *file, uint64_t row_max) {
    enum dl_cluster_verdict verdict;
    uint64_t mix;
    REQUIRE(verify(file, 0, &verdict, &mix) == 0 && verdict == DL_CLUSTER_OK);
    const size_t count = (size_t)file->rows_count;
    uint64_t *indexes = fuzz_new(count, 8), bad = 0;
    dl_record *records = fuzz_new(count, sizeof *records);
    for (size_t i = 0; i < count; i++)
        indexes[i] = i;
    REQUIRE(dl_records_of_rows(file->bytes + file->rows_position, count, 0, file->nonce, 0, indexes, count, records,
                               &bad) == DL_CLUSTER_OK);
    const dl_source source = source_of_file(file);
    const build_order order = {&source, 1, records, count, 1, 5000, row_max, file->nonce};
    cluster_file again;
    REQUIRE(build(&order, &again) == DL_CLUSTER_OK);
    REQUIRE(again.length == file->length && again.rows_count == file->rows_count);
    REQUIRE(memcmp(again.bytes, file->bytes, (size_t)file->length) == 0);
    free(again.bytes);
    free(indexes);
    free(records);
}

#endif
