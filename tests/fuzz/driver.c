/* A small coverage-guided fuzzer, for where libFuzzer is not: it runs the same targets and takes the same options.
 *
 * Law of this room: it knows nothing of what it tests. GCC calls it at every edge and comparison of the code under test
 * (-fsanitize-coverage=trace-pc,trace-cmp); an input that takes an edge more often than any before is kept and changed
 * further. The same seed, the same corpus and the same number of runs give the same inputs. The parent process only
 * waits: whatever ends the child, the input at which it happened lies in memory that both share, and is saved.
 *
 *   target [-seed=N] [-runs=N] [-max_total_time=S] [-max_len=N] [-timeout=S] [-dict=FILE] [-artifact_prefix=P] DIR...
 *   target FILE...    runs these inputs, and nothing else
 *
 * New inputs are written to the first directory, if it is not the only one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

#define SLOTS (1u << 16)
#define HEAP_MAX_MIB "512"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);

typedef struct {
    volatile uint64_t runs;
    volatile size_t size;
    uint8_t input[INPUT_MAX];
} shared;

static struct {
    uint64_t seed, runs, seconds, timeout;
    size_t length_max;
    const char *artifacts;
    const char *output;
} options = {1, UINT64_MAX, UINT64_MAX, 20, 4096, "./", NULL};

static shared *now;
text corpus[CORPUS_MAX];
size_t corpus_count;

/* ---- what the code under test tells */

static uint8_t counts[SLOTS], seen[SLOTS];
static uint32_t touched[SLOTS], touched_count, previous;
static size_t edges;

void __sanitizer_cov_trace_pc(void) {
    const uint32_t place = (uint32_t)((uintptr_t)__builtin_return_address(0) * UINT64_C(0x9e3779b97f4a7c15) >> 40);
    const uint32_t slot = (place ^ previous) % SLOTS;
    previous = place >> 1;
    if (counts[slot] == 0) touched[touched_count++] = slot;
    if (counts[slot] < 255) counts[slot]++;
}

/* How often an edge was taken, roughly: a bit for each of eight ranges. */
static uint8_t range_of(uint8_t count) {
    static const uint8_t starts[] = {2, 3, 4, 8, 16, 32, 128};
    unsigned range = 0;
    while (range < 7 && count >= starts[range])
        range++;
    return (uint8_t)(1u << range);
}

/* Runs one input; whether it did anything that none did before. */
static int run(const uint8_t *bytes, size_t size) {
    int is_new = 0;
    memmove(now->input, bytes, size);
    now->size = size;
    previous = 0;
    uint8_t *copy = malloc(size + !size); /* of exactly its size, so that a sanitizer sees what reads beyond it */
    memcpy(copy, bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    now->runs++;
    for (; touched_count > 0; touched_count--) {
        const uint32_t slot = touched[touched_count - 1];
        const uint8_t range = range_of(counts[slot]);
        edges += seen[slot] == 0;
        is_new |= (seen[slot] & range) == 0;
        seen[slot] |= range;
        counts[slot] = 0;
    }
    return is_new;
}

/* ---- corpus and results */

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) perror(path), exit(2);
    uint8_t *bytes = malloc(INPUT_MAX);
    *size = fread(bytes, 1, INPUT_MAX, file);
    fclose(file);
    return bytes;
}

static void write_file(const char *prefix, const uint8_t *bytes, size_t size, char *path, size_t path_size) {
    uint64_t name = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        name = (name ^ bytes[i]) * UINT64_C(0x100000001b3);
    snprintf(path, path_size, "%s%016llx", prefix, (unsigned long long)name);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) perror(path), exit(2);
}

static void keep(const uint8_t *bytes, size_t size) {
    if (corpus_count == CORPUS_MAX) return;
    corpus[corpus_count].bytes = malloc(size + !size);
    corpus[corpus_count].size = size;
    memcpy(corpus[corpus_count++].bytes, bytes, size);
}

static int is_directory(const char *path) {
    struct stat found;
    if (stat(path, &found) != 0) perror(path), exit(2);
    return S_ISDIR(found.st_mode);
}

static void run_file(const char *path) {
    size_t size;
    uint8_t *bytes = read_file(path, &size);
    if (run(bytes, size)) keep(bytes, size < options.length_max ? size : options.length_max);
    free(bytes);
}

/* In the order of their names, so that a seed means the same everywhere. */
static void run_directory(const char *path) {
    struct dirent **names;
    char file[4096];
    const int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && !is_directory(file)) run_file(file);
        free(names[i]);
    }
    if (count >= 0) free(names);
}

/* ---- the loop */

static void on_tick(int number) {
    static uint64_t before = UINT64_MAX, ticks;
    (void)number;
    ticks = before == now->runs ? ticks + 1 : 0;
    before = now->runs;
    if (ticks < options.timeout) return;
    static const char told[] = "an input took longer than -timeout allows\n";
    if (write(2, told, sizeof told - 1) < 0) _exit(1);
    abort();
}

static void guard(void) {
    const struct itimerval second = {{1, 0}, {1, 0}};
    signal(SIGPROF, on_tick); /* of processor time: others may have the machine */
    setitimer(ITIMER_PROF, &second, NULL);
}

static void fuzz(uint64_t until) {
    static uint8_t data[INPUT_MAX];
    char path[4096], prefix[4096];
    if (corpus_count == 0) keep((const uint8_t *)"", 0);
    for (; now->runs < options.runs && (now->runs % 64 != 0 || (uint64_t)time(NULL) < until);) {
        const size_t newest = corpus_count - corpus_count / 4;
        const size_t which = draw(2) ? draw(corpus_count) : newest + draw(corpus_count - newest);
        const text base = corpus[which < corpus_count ? which : 0];
        size_t size = base.size;
        memcpy(data, base.bytes, size);
        for (uint64_t left = 1 + draw(5); left > 0; left--)
            size = LLVMFuzzerCustomMutator
                       ? LLVMFuzzerCustomMutator(data, size, options.length_max, (unsigned)draw(UINT32_MAX))
                       : LLVMFuzzerMutate(data, size, options.length_max);
        if (!run(data, size)) continue;
        keep(data, size);
        if (options.output == NULL) continue;
        snprintf(prefix, sizeof prefix, "%s/", options.output);
        write_file(prefix, data, size, path, sizeof path);
    }
}

static void fuzz_and_report(uint64_t started) {
    fuzz(options.seconds == UINT64_MAX ? UINT64_MAX : started + options.seconds);
    const uint64_t seconds = (uint64_t)time(NULL) - started;
    printf("edges %zu corpus %zu runs %llu seconds %llu seed %llu\n", edges, corpus_count,
           (unsigned long long)now->runs, (unsigned long long)seconds, (unsigned long long)options.seed);
    fflush(stdout);
}

static int wait_for(pid_t child, const char *program) {
    int status = 0;
    char path[4096], prefix[4096];
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    snprintf(prefix, sizeof prefix, "%scrash-", options.artifacts);
    write_file(prefix, now->input, now->size, path, sizeof path);
    fprintf(stderr, "after %llu runs, with seed %llu; again: %s %s\n", (unsigned long long)now->runs,
            (unsigned long long)options.seed, program, path);
    return 77;
}

static int read_option(const char *argument) {
    char *value = strchr(argument, '=');
    if (argument[0] != '-' || value == NULL) return 0;
    const size_t name = (size_t)(value++ - argument);
    if (strncmp(argument, "-dict", name) == 0) read_words(value);
    if (strncmp(argument, "-artifact_prefix", name) == 0) options.artifacts = value;
    if (strncmp(argument, "-seed", name) == 0) options.seed = strtoull(value, NULL, 10);
    if (strncmp(argument, "-runs", name) == 0) options.runs = strtoull(value, NULL, 10);
    if (strncmp(argument, "-max_total_time", name) == 0) options.seconds = strtoull(value, NULL, 10);
    if (strncmp(argument, "-timeout", name) == 0) options.timeout = strtoull(value, NULL, 10);
    if (strncmp(argument, "-max_len", name) == 0) options.length_max = strtoull(value, NULL, 10);
    return 1;
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=0:detect_leaks=0:quarantine_size_mb=8:max_malloc_fill_size=0"
           ":max_allocation_size_mb=" HEAP_MAX_MIB ":hard_rss_limit_mb=2048";
}

int main(int argc, char **argv) {
    int directories = 0, files = 0;
    const uint64_t started = (uint64_t)time(NULL);
    now = mmap(NULL, sizeof *now, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (now == MAP_FAILED) perror("mmap"), exit(2);
    for (int i = 1; i < argc; i++) {
        if (read_option(argv[i]))
            argv[i] = NULL;
        else if (is_directory(argv[i]))
            directories++, options.output = options.output ? options.output : argv[i];
        else
            files++;
    }
    if (options.length_max > INPUT_MAX) options.length_max = INPUT_MAX;
    if (directories < 2) options.output = NULL;
    random_state = options.seed;
    const pid_t child = files > 0 ? 0 : fork();
    if (child > 0) return wait_for(child, argv[0]);
    if (child < 0) perror("fork"), exit(2);
    guard();
    for (int i = 1; i < argc; i++)
        if (argv[i] != NULL) is_directory(argv[i]) ? run_directory(argv[i]) : run_file(argv[i]);
    if (files == 0) fuzz_and_report(started);
    return 0;
}
