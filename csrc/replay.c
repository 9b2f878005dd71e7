/* What the records of one stream make of its index and its state, where they are as they should be.
 *
 * Law of this room: loops over the caller's arrays, each of them the records of one stream as dl_records_scan_all found
 * them, in the order of the log. What is not plain is left to the caller: these loops stop there, and say how far they
 * came. No system calls.
 */
#include <string.h>

#include "bytes.h"
#include "durable_log.h"

static uint32_t type_of(const dl_record *record) { return record->skip >> DL_RECORD_TYPE; }

static uint32_t flags_of(const dl_record *record) { return record->skip >> DL_RECORD_FLAGS & DL_FLAGS; }

static uint32_t producer_of(const dl_record *record) { return record->skip >> DL_RECORD_PRODUCER & DL_PRODUCERS_TOLD; }

/* How many of the records, from the first on, are stream bytes that follow each other from "end" on, to "end_max" at
 * most, without any of "flags". Each is put into "pairs" as an index has it: place and end, 16 bytes. */
size_t dl_replay_data(const dl_record *records, size_t count, uint32_t flags, uint64_t end, uint64_t end_max,
                      uint8_t *pairs) {
    size_t done = 0;
    for (; done < count; done++, pairs += 16) {
        const dl_record *record = &records[done];
        if (type_of(record) != DL_TYPE_DATA || (flags_of(record) & flags) != 0 || record->offset != end) break;
        if (record->length == 0 || end > end_max || record->length > end_max - end) break;
        end += record->length;
        dl_store64(pairs, record->place);
        dl_store64(pairs + 8, end);
    }
    return done;
}

/* Whether it is an append that counts: none of its bytes lie before "tail", which it moves. */
static int in_place(const dl_record *record, uint64_t *tail) {
    if (type_of(record) != DL_TYPE_DATA || record->offset < *tail) return 0;
    *tail = record->offset + record->length;
    return 1;
}

/* Which of the records say what holds in the end of producers and of Stream-Seq, ascending, into "found", which has room
 * for "count": the last claim of each producer, all those of producers whose number is not told, the last Stream-Seq.
 * Returns how many. "tail" is that of the stream before the first of them. */
size_t dl_replay_claims(const dl_record *records, size_t count, uint64_t tail, uint64_t *found) {
    size_t last[DL_PRODUCERS_TOLD + 1], last_seq = count;
    uint64_t end = tail;
    size_t told = 0;
    memset(last, 0, sizeof last);
    for (size_t i = 0; i < count; i++) {
        if (!in_place(&records[i], &end)) continue;
        if (flags_of(&records[i]) & DL_FLAG_PRODUCER) last[producer_of(&records[i])] = i;
        if (flags_of(&records[i]) & DL_FLAG_SEQ) last_seq = i;
    }
    for (size_t i = 0; i < count; i++) {
        if (!in_place(&records[i], &tail)) continue;
        const uint32_t producer = producer_of(&records[i]);
        const int claims = (flags_of(&records[i]) & DL_FLAG_PRODUCER) != 0;
        if (i == last_seq || (claims && (producer == DL_PRODUCERS_TOLD || i == last[producer]))) found[told++] = i;
    }
    return told;
}

/* The latest time at which one of the blocks was written that hold the records. The blocks, in the order of the log,
 * begin at "lsns", the first of them not behind the first record. */
uint64_t dl_replay_time(const dl_record *records, size_t count, const uint64_t *lsns, const uint64_t *times_ms,
                        size_t blocks_count) {
    uint64_t latest = 0;
    for (size_t i = 0; i < count && blocks_count > 0; i++) {
        size_t low = 0, high = blocks_count;
        while (high - low > 1) {
            const size_t middle = low + (high - low) / 2;
            if (lsns[middle] <= records[i].place)
                low = middle;
            else
                high = middle;
        }
        if (times_ms[low] > latest) latest = times_ms[low];
    }
    return latest;
}
