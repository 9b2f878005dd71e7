/* The command: load SUBJECT --port P --path /v1/stream/name- [options]. */
#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define RUN_SECONDS_MAX 600 /* no run lasts longer, whatever the server does */
#define CONNECTIONS_MAX 65535

struct subject {
    const char *name;
    void (*run)(const struct options *);
};

static const struct subject subjects[] = {
    {"append", run_append}, {"viewers", run_viewers}, {"fill", run_fill}, {"catch-up", run_catch_up}};

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double number(const char *name, double least, double most) {
    char *end;
    const double value = strtod(optarg, &end);
    if (end == optarg || *end != '\0' || !(value >= least && value <= most)) {
        fail("--%s is a number from %g to %g, not %s", name, least, most, optarg);
    }
    return value;
}

static struct options read_options(int count, char **words) {
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},        {"path", required_argument, NULL, 'n'},
        {"connections", required_argument, NULL, 'c'}, {"streams", required_argument, NULL, 's'},
        {"viewers", required_argument, NULL, 'v'},     {"messages", required_argument, NULL, 'm'},
        {"rate", required_argument, NULL, 'r'},        {"warm-up", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 't'},     {"bytes", required_argument, NULL, 'b'},
        {"patience", required_argument, NULL, 'a'},    {NULL, 0, NULL, 0}};
    struct options options = {.connections = 1, .streams = 1, .viewers = 1, .seconds = 1, .patience = 10};
    int at = 0;
    for (int letter; (letter = getopt_long(count, words, "", names, &at)) != -1;) {
        switch (letter) {
        case 'p': options.port = (uint16_t)number("port", 1, 65535); break;
        case 'n': options.path = optarg; break;
        case 'c': options.connections = (unsigned)number("connections", 1, CONNECTIONS_MAX); break;
        case 's': options.streams = (unsigned)number("streams", 1, CONNECTIONS_MAX); break;
        case 'v': options.viewers = (unsigned)number("viewers", 1, CONNECTIONS_MAX); break;
        case 'm': options.messages = (unsigned)number("messages", 1, 10000); break;
        case 'r': options.rate = number("rate", 0.1, 1e7); break;
        case 'w': options.warm_up = number("warm-up", 0, RUN_SECONDS_MAX); break;
        case 't': options.seconds = number("seconds", 0.01, RUN_SECONDS_MAX); break;
        case 'b': options.bytes = (uint64_t)number("bytes", 1, 1e12); break;
        case 'a': options.patience = number("patience", 0.1, RUN_SECONDS_MAX); break;
        default: exit(2);
        }
    }
    if (options.port == 0 || options.path == NULL) fail("--port and --path say where the server is");
    if (options.streams > options.connections) fail("each stream needs a connection of its own, or more");
    return options;
}

static void allow_connections(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int count, char **words) {
    if (count < 2) fail("say which subject: append, viewers, fill or catch-up");
    const struct options options = read_options(count - 1, words + 1);
    allow_connections();
    alarm(RUN_SECONDS_MAX);
    prctl(PR_SET_TIMERSLACK, 1ul);
    for (size_t at = 0; at < sizeof subjects / sizeof subjects[0]; at++) {
        if (strcmp(words[1], subjects[at].name) == 0) {
            subjects[at].run(&options);
            return 0;
        }
    }
    fail("no subject: %s", words[1]);
}
