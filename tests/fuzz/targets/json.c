/* JSON mode: a text is cut into messages exactly when a second, plain parser takes it, and into the same ones; so are
 * several texts.
 *
 * An input is the greatest depth (2 bytes, signed) and the text, or several and separators between them.
 */
#include "../harness.h"

#define DEPTH_LIMIT 4096

/* ---- the plain parser: recursive, a byte at a time, RFC 8259 rule by rule */

typedef struct {
    const uint8_t *text;
    size_t length;
    size_t at;
    int depth_max;
} reader;

static int see(const reader *r) { return r->at < r->length ? r->text[r->at] : -1; }

static int eat(reader *r, const char *word) {
    const size_t length = strlen(word);
    if (r->length - r->at < length || memcmp(r->text + r->at, word, length) != 0) return 0;
    r->at += length;
    return 1;
}

static void eat_space(reader *r) {
    while (see(r) > 0 && strchr(" \t\r\n", see(r)))
        r->at++;
}

/* The code point at "at", whatever its form allows, or -1. */
static long code_point(const reader *r, size_t *size) {
    const int first = see(r);
    *size = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (first < 0x80) return first;
    if (first < 0xc0 || first > 0xf7 || r->length - r->at < *size) return -1;
    long value = first & (0x7f >> *size);
    for (size_t i = 1; i < *size; i++) {
        if ((r->text[r->at + i] & 0xc0) != 0x80) return -1;
        value = value << 6 | (r->text[r->at + i] & 0x3f);
    }
    static const long least[] = {0, 0, 0x80, 0x800, 0x10000};
    return value < least[*size] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? -1 : value;
}

static int eat_string(reader *r) {
    if (!eat(r, "\"")) return 0;
    while (see(r) != '"') {
        size_t size;
        const long value = code_point(r, &size);
        if (value < 0x20) return 0;
        r->at += size;
        if (value != '\\') continue;
        const int escape = see(r);
        if (escape <= 0 || !strchr("\"\\/bfnrtu", escape)) return 0;
        r->at++;
        for (int i = 0; escape == 'u' && i < 4; i++, r->at++)
            if (see(r) <= 0 || !strchr("0123456789abcdefABCDEF", see(r))) return 0;
    }
    r->at++;
    return 1;
}

static int eat_digits(reader *r) {
    const size_t start = r->at;
    while (see(r) >= '0' && see(r) <= '9')
        r->at++;
    return r->at > start;
}

static int eat_number(reader *r) {
    eat(r, "-");
    if (!eat(r, "0") && !eat_digits(r)) return 0;
    if (eat(r, ".") && !eat_digits(r)) return 0;
    if (!eat(r, "e") && !eat(r, "E")) return 1;
    if (!eat(r, "+")) eat(r, "-");
    return eat_digits(r);
}

static int eat_value(reader *r, int depth);

static int eat_container(reader *r, int depth, const char *close, int named) {
    if (depth >= r->depth_max) return 0;
    r->at++;
    eat_space(r);
    if (eat(r, close)) return 1;
    do {
        eat_space(r);
        if (named) {
            if (!eat_string(r)) return 0;
            eat_space(r);
            if (!eat(r, ":")) return 0;
            eat_space(r);
        }
        if (!eat_value(r, depth + 1)) return 0;
        eat_space(r);
    } while (eat(r, ","));
    return eat(r, close);
}

static int eat_value(reader *r, int depth) {
    if (see(r) == '{') return eat_container(r, depth, "}", 1);
    if (see(r) == '[') return eat_container(r, depth, "]", 0);
    if (see(r) == '"') return eat_string(r);
    return eat(r, "true") || eat(r, "false") || eat(r, "null") || eat_number(r);
}

/* The messages of a text as they have to be stored, or -1. */
static long plain_split(reader *r, uint8_t *out, size_t *out_length) {
    long count = 0;
    *out_length = 0;
    eat_space(r);
    const int is_array = see(r) == '[';
    if (is_array && r->depth_max < 1) return -1;
    r->at += (size_t)is_array;
    eat_space(r);
    if (!is_array || !eat(r, "]")) {
        do {
            eat_space(r);
            const size_t start = r->at;
            if (!eat_value(r, is_array)) return -1;
            memcpy(out + *out_length, r->text + start, r->at - start);
            *out_length += r->at - start;
            out[(*out_length)++] = ',';
            count++;
            eat_space(r);
        } while (is_array && eat(r, ","));
        if (is_array && !eat(r, "]")) return -1;
    }
    eat_space(r);
    return r->at == r->length ? count : -1;
}

/* ---- what has to hold */

typedef struct {
    enum dl_json_verdict verdict;
    size_t length, count, position;
    uint8_t *out;
} result;

static result split(const uint8_t *text, size_t length, size_t texts, int depth) {
    result r = {DL_JSON_OK, 0, 0, 0, malloc(length + 1)};
    uint8_t *copy = fuzz_copy(text, length);
    r.verdict = dl_json_split(copy, length, texts, depth, r.out, length + 1, &r.length, &r.count, &r.position);
    free(copy);
    REQUIRE(r.length <= length + 1 && r.position <= length);
    REQUIRE(r.verdict == DL_JSON_OK ? r.position == 0 : r.length == 0 && r.count == 0);
    return r;
}

/* An error shows at the first byte that can't stand there: up to it, the text could go on. */
static void check_position(const uint8_t *text, size_t length, int depth, const result *r) {
    if (r->position == length) return;
    const result before = split(text, r->position, 1, depth);
    if (r->verdict == DL_JSON_TRAILING)
        REQUIRE(before.verdict == DL_JSON_OK);
    else if (before.verdict != DL_JSON_EMPTY)
        REQUIRE(before.verdict == DL_JSON_SYNTAX && before.position == r->position);
    free(before.out);
}

/* The format is the size of each message, which a page has, too. */
static void check_format(const uint8_t *stored, size_t length) {
    const size_t most = length + 1;
    uint8_t *format = malloc(most * DL_JSON_FORMAT);
    char expected[DL_JSON_FORMAT + 1];
    size_t end = 0, used = dl_json_format(stored, length, most, format, &end), at = 0, written = 0;
    while (at < end) {
        const size_t step = dl_json_page(stored + at, length - at, 0);
        const int size = snprintf(expected, sizeof expected, "%zusx", step - 1);
        REQUIRE(step > 0 && (size_t)size <= used - written && memcmp(format + written, expected, (size_t)size) == 0);
        at += step;
        written += (size_t)size;
        size_t first = 0;
        if (at == step) REQUIRE(dl_json_format(stored, length, 1, format, &first) == written && first == step);
    }
    REQUIRE(at == end && written == used);
    free(format);
}

/* Every message of what is stored ends where paging says; an array of them is the same messages again. */
static void check_pages(const result *r, int depth) {
    size_t count = 0;
    for (size_t at = 0, step; at < r->length; at += step, count++) {
        step = dl_json_page(r->out + at, r->length - at, 1);
        REQUIRE(step > 1 && step <= r->length - at && r->out[at + step - 1] == ',');
        REQUIRE(dl_json_page(r->out, r->length, at + step) == at + step);
        REQUIRE(at == 0 || dl_json_page(r->out, r->length, at + step - 1) == at);
    }
    REQUIRE(count == r->count);
    check_format(r->out, r->length);
    uint8_t *array = malloc(r->length + 2);
    memcpy(array + 1, r->out, r->length);
    array[0] = '[';
    array[r->length + (r->length == 0)] = ']';
    const result again = split(array, r->length + 1 + (r->length == 0), 1, depth + 1);
    REQUIRE(again.verdict == DL_JSON_OK || depth >= DEPTH_LIMIT);
    if (again.verdict == DL_JSON_OK)
        REQUIRE(again.count == count && again.length == r->length && memcmp(again.out, r->out, r->length) == 0);
    free(again.out);
    free(array);
}

/* Texts together are what each of them is alone, and as many as there are. */
static void check_texts(const uint8_t *text, size_t length, int depth, int limit) {
    uint8_t *expected = malloc(length + 1);
    size_t expected_length = 0, texts = 0, at = 0;
    long count = 0;
    do {
        const uint8_t *next = memchr(text + at, DL_JSON_SEPARATOR, length - at);
        const size_t end = next == NULL ? length : (size_t)(next - text);
        reader plain = {text + at, end - at, 0, limit};
        size_t written;
        const long found = plain_split(&plain, expected + expected_length, &written);
        count = found < 0 || count < 0 ? -1 : count + found;
        if (count >= 0) expected_length += written;
        texts++;
        at = end + 1;
    } while (at <= length);
    const result r = split(text, length, texts, depth), fewer = split(text, length, texts - 1, depth),
                 more = split(text, length, texts + 1, depth);
    REQUIRE((r.verdict == DL_JSON_OK) == (count >= 0));
    if (r.verdict == DL_JSON_OK)
        REQUIRE((long)r.count == count && r.length == expected_length && memcmp(r.out, expected, r.length) == 0);
    REQUIRE(fewer.verdict != DL_JSON_OK || length == 0);
    REQUIRE(more.verdict != DL_JSON_OK);
    free(r.out);
    free(fewer.out);
    free(more.out);
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input input = {data, size};
    const int depth = (int16_t)fuzz_number(&input, 2), limit = depth < 0             ? 0
                                                               : depth > DEPTH_LIMIT ? DEPTH_LIMIT
                                                                                     : depth;
    const result r = split(input.at, input.left, 1, depth);
    uint8_t *expected = malloc(input.left + 1);
    size_t expected_length = 0;
    reader plain = {input.at, input.left, 0, limit};
    const long count = plain_split(&plain, expected, &expected_length);
    REQUIRE((r.verdict == DL_JSON_OK) == (count >= 0));
    if (r.verdict == DL_JSON_OK) {
        REQUIRE((long)r.count == count && r.length == expected_length);
        REQUIRE(memcmp(r.out, expected, r.length) == 0);
        check_pages(&r, depth < 0 ? 0 : depth);
    } else {
        check_position(input.at, input.left, depth, &r);
    }
    check_texts(input.at, input.left, depth, limit);
    const size_t page = dl_json_page(input.at, input.left, depth < 0 ? SIZE_MAX : (size_t)depth);
    uint8_t *copy = fuzz_copy(input.at, input.left);
    check_format(copy, input.left);
    free(copy);
    REQUIRE(page <= input.left && (page == 0 || input.at[page - 1] == ','));
    REQUIRE(dl_json_split(input.at, input.left, 1, depth, expected, input.left, &expected_length, &expected_length,
                          &expected_length) == DL_JSON_NO_ROOM);
    free(r.out);
    free(expected);
    return 0;
}
