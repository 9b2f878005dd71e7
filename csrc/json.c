/* JSON mode: what may be appended, cut into messages, and where messages end.
 *
 * Law of this room: it decides what RFC 8259 calls valid, to the letter, and changes no byte of it. Nesting is a stack
 * of bits, never recursion, so that no text can exhaust the thread's stack. Nothing here knows what a value means.
 */
#include "durable_log.h"

#include <string.h>

#include "bytes.h"

#define DEPTH_LIMIT 4096 /* whatever the caller allows, this is what the stack of bits holds */

typedef enum dl_json_verdict verdict;

/* "at" never exceeds "length"; a function that fails leaves it at the first byte that it could not accept. */
typedef struct {
    const uint8_t *text;
    size_t length;
    size_t at;
    size_t depth;
    size_t depth_max;
    uint8_t objects[DEPTH_LIMIT / 8]; /* bit d: the container that was opened at depth d is an object, not an array */
} scan;

/* The byte at "at", or -1 at the end. */
static inline int peek(const scan *s) { return s->at < s->length ? s->text[s->at] : -1; }

static inline int take(scan *s, int byte) {
    if (peek(s) != byte) return 0;
    s->at++;
    return 1;
}

static inline void skip_space(scan *s) {
    for (int byte = peek(s); byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r'; byte = peek(s))
        s->at++;
}

/* ---- strings ---- */

static inline int is_plain(uint8_t byte) { return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\'; }

/* The first byte from "at" that is a quote, a backslash, a control character or not ASCII, or "length". Eight are tried
 * at once: the additions are on seven bits a byte, so no carry reaches the next one. */
static inline size_t skip_plain(const uint8_t *text, size_t at, size_t length) {
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones * 0x80;
    for (; length - at >= 8; at += 8) {
        const uint64_t word = dl_load64(text + at), low = word & ~high;
        const uint64_t not_quote = (low ^ ones * '"') + ones * 0x7f;
        const uint64_t not_backslash = (low ^ ones * '\\') + ones * 0x7f;
        const uint64_t not_control = low + ones * 0x60;
        const uint64_t stops = ~(not_quote & not_backslash & not_control & ~word) & high;
        if (stops) return at + (size_t)__builtin_ctzll(stops) / 8;
    }
    while (at < length && is_plain(text[at]))
        at++;
    return at;
}

/* One character of more than one byte, by table 3-7 of the Unicode standard: no overlong form, no surrogate, nothing
 * above U+10FFFF. Only the second byte's range depends on the first. */
static verdict take_character(scan *s) {
    const uint8_t first = s->text[s->at];
    const size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4) return DL_JSON_UTF8;
    for (size_t i = 1; i < size; i++) {
        if (s->at + i >= s->length) {
            s->at = s->length;
            return DL_JSON_UTF8;
        }
        const uint8_t byte = s->text[s->at + i];
        const uint8_t least = i > 1 ? 0x80 : first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        const uint8_t most = i > 1 ? 0xbf : first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (byte < least || byte > most) return DL_JSON_UTF8;
    }
    s->at += size;
    return DL_JSON_OK;
}

static inline int is_hex(int byte) {
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

/* What follows a backslash. A surrogate without its pair is valid JSON, and kept. */
static verdict take_escape(scan *s) {
    const int byte = peek(s);
    if (byte != 'u' && (byte <= 0 || !strchr("\"\\/bfnrt", byte))) return DL_JSON_SYNTAX;
    s->at++;
    for (int digits = byte == 'u' ? 4 : 0; digits > 0; digits--, s->at++)
        if (!is_hex(peek(s))) return DL_JSON_SYNTAX;
    return DL_JSON_OK;
}

static verdict take_string(scan *s) {
    if (!take(s, '"')) return DL_JSON_SYNTAX;
    for (;;) {
        s->at = skip_plain(s->text, s->at, s->length);
        const int byte = peek(s);
        verdict result = DL_JSON_SYNTAX; /* a control character, or the end */
        if (byte == '"') {
            s->at++;
            return DL_JSON_OK;
        }
        if (byte == '\\') {
            s->at++;
            result = take_escape(s);
        } else if (byte >= 0x80) {
            do
                result = take_character(s);
            while (result == DL_JSON_OK && peek(s) >= 0x80);
        }
        if (result != DL_JSON_OK) return result;
    }
}

/* ---- numbers and literals ---- */

static int take_digits(scan *s) {
    const size_t start = s->at;
    for (int byte = peek(s); byte >= '0' && byte <= '9'; byte = peek(s))
        s->at++;
    return s->at > start;
}

static verdict take_number(scan *s) {
    take(s, '-');
    if (!take(s, '0') && !take_digits(s)) return DL_JSON_SYNTAX;
    if (take(s, '.') && !take_digits(s)) return DL_JSON_SYNTAX;
    if (take(s, 'e') || take(s, 'E')) {
        if (!take(s, '+')) take(s, '-');
        if (!take_digits(s)) return DL_JSON_SYNTAX;
    }
    return DL_JSON_OK;
}

static verdict take_literal(scan *s, const char *literal) {
    for (; *literal; literal++)
        if (!take(s, *literal)) return DL_JSON_SYNTAX;
    return DL_JSON_OK;
}

static verdict take_scalar(scan *s) {
    switch (peek(s)) {
    case '"': return take_string(s);
    case 't': return take_literal(s, "true");
    case 'f': return take_literal(s, "false");
    case 'n': return take_literal(s, "null");
    default: return take_number(s);
    }
}

/* ---- nesting ---- */

static inline int in_object(const scan *s) { return s->objects[(s->depth - 1) / 8] >> ((s->depth - 1) % 8) & 1; }

/* Clears the bits of deeper containers on the way, so none is read before it was written. */
static void push(scan *s, int is_object) {
    const size_t bit = s->depth % 8, byte = s->depth / 8;
    const unsigned below = bit ? s->objects[byte] & ((1u << bit) - 1) : 0;
    s->objects[byte] = (uint8_t)(below | (unsigned)is_object << bit);
    s->depth++;
}

/* A member's name and colon, and the space on both sides. */
static verdict take_name(scan *s) {
    skip_space(s);
    const verdict result = take_string(s);
    if (result != DL_JSON_OK) return result;
    skip_space(s);
    return take(s, ':') ? DL_JSON_OK : DL_JSON_SYNTAX;
}

/* What opens a value: a container's bracket and, in an object, its first name; or a scalar, whole. "*complete" says
 * whether the value ends here, as scalars and empty containers do. */
static verdict take_opening(scan *s, int *complete) {
    const int bracket = peek(s), is_object = bracket == '{';
    *complete = 1;
    if (bracket != '[' && !is_object) return take_scalar(s);
    if (s->depth >= s->depth_max) return DL_JSON_DEPTH;
    s->at++;
    skip_space(s);
    if (take(s, is_object ? '}' : ']')) return DL_JSON_OK;
    *complete = 0;
    push(s, is_object);
    return is_object ? take_name(s) : DL_JSON_OK;
}

/* What follows a complete value inside of containers, up to the next value or to the outermost end. */
static verdict take_following(scan *s, size_t outermost) {
    while (s->depth > outermost) {
        skip_space(s);
        if (take(s, ',')) return in_object(s) ? take_name(s) : DL_JSON_OK;
        if (!take(s, in_object(s) ? '}' : ']')) return DL_JSON_SYNTAX;
        s->depth--;
    }
    return DL_JSON_OK;
}

/* One value with all that it holds; "at" is its first byte, and afterwards the byte behind it. */
static verdict take_value(scan *s) {
    const size_t outermost = s->depth;
    do {
        int complete = 0;
        skip_space(s);
        verdict result = take_opening(s, &complete);
        if (result == DL_JSON_OK && complete) result = take_following(s, outermost);
        if (result != DL_JSON_OK) return result;
    } while (s->depth > outermost);
    return DL_JSON_OK;
}

/* ---- messages ---- */

typedef struct {
    uint8_t *bytes; /* has room for the text and one comma: a message in an array already has its comma or bracket */
    size_t length;
    size_t count;
} messages;

static verdict take_message(scan *s, messages *out) {
    const size_t start = s->at;
    const verdict result = take_value(s);
    if (result != DL_JSON_OK) return result;
    memcpy(out->bytes + out->length, s->text + start, s->at - start);
    out->length += s->at - start;
    out->bytes[out->length++] = ',';
    out->count++;
    return DL_JSON_OK;
}

/* The outermost array, flattened by one level: its elements are the messages. */
static verdict take_messages(scan *s, messages *out) {
    if (s->depth >= s->depth_max) return DL_JSON_DEPTH;
    s->at++;
    push(s, 0);
    skip_space(s);
    if (take(s, ']')) return DL_JSON_OK;
    for (;;) {
        skip_space(s);
        const verdict result = take_message(s, out);
        if (result != DL_JSON_OK) return result;
        skip_space(s);
        if (take(s, ']')) return DL_JSON_OK;
        if (!take(s, ',')) return DL_JSON_SYNTAX;
    }
}

/* One JSON text, and the space on both sides. */
static verdict take_text(scan *s, messages *out) {
    skip_space(s);
    if (s->at == s->length) return DL_JSON_EMPTY;
    const verdict result = peek(s) == '[' ? take_messages(s, out) : take_message(s, out);
    if (result != DL_JSON_OK) return result;
    s->depth = 0;
    skip_space(s);
    return DL_JSON_OK;
}

static verdict take_texts(scan *s, size_t count, messages *out) {
    for (size_t taken = 0; taken < count; taken++) {
        if (taken > 0 && !take(s, DL_JSON_SEPARATOR)) return DL_JSON_TRAILING;
        const verdict result = take_text(s, out);
        if (result != DL_JSON_OK) return result;
    }
    return s->at == s->length ? DL_JSON_OK : DL_JSON_TRAILING;
}

/* Validates "texts" JSON texts, told apart by separators, and writes their messages, each as it came and with a comma
 * behind it. An array is flattened by one level. "out" needs length + 1 bytes. On an error, "error_position" is the
 * first byte that cannot stand there (a malformed character counts from its first byte), or "length" if the last text
 * ends too early. */
enum dl_json_verdict dl_json_split(const uint8_t *text, size_t length, size_t texts, int depth_max, uint8_t *out,
                                   size_t out_size, size_t *out_length, size_t *count, size_t *error_position) {
    scan s;
    messages found = {out, 0, 0};
    *out_length = *count = *error_position = 0;
    if (out_size <= length) return DL_JSON_NO_ROOM;
    s.text = text;
    s.length = length;
    s.at = s.depth = 0;
    s.depth_max = depth_max < 0 ? 0 : depth_max > DEPTH_LIMIT ? DEPTH_LIMIT : (size_t)depth_max;
    const verdict result = take_texts(&s, texts, &found);
    if (result != DL_JSON_OK) {
        *error_position = s.at;
        return result;
    }
    *out_length = found.length;
    *count = found.count;
    return DL_JSON_OK;
}

enum dl_json_verdict dl_json_split_brief(const uint8_t *text, size_t length, size_t texts, int depth_max, uint8_t *out,
                                         size_t out_size, size_t *out_length, size_t *count, size_t *error_position) {
    return dl_json_split(text, length, texts, depth_max, out, out_size, out_length, count, error_position);
}

/* ---- what is stored ----
 *
 * It was valid when it was accepted, so only brackets, strings and the commas outside of them are looked at; other bytes
 * are safe here and give some position that means nothing. */

/* The byte behind the string whose first byte is at "start", or "length" if it does not end. A quote behind an odd
 * number of backslashes is one of its characters. */
static size_t string_end(const uint8_t *stored, size_t start, size_t length) {
    size_t at = start;
    while (at < length) {
        const uint8_t *quote = memchr(stored + at, '"', length - at);
        if (quote == NULL) return length;
        const size_t end = (size_t)(quote - stored);
        size_t plain = end;
        while (plain > at && stored[plain - 1] == '\\')
            plain--;
        at = end + 1;
        if ((end - plain) % 2 == 0) return at;
    }
    return length;
}

/* The byte behind the comma of the message that begins at "at", or 0 if it is not complete. */
static size_t message_end(const uint8_t *stored, size_t at, size_t length) {
    size_t depth = 0;
    while (at < length) {
        switch (stored[at++]) {
        case '"': at = string_end(stored, at, length); break;
        case '[':
        case '{': depth++; break;
        case ']':
        case '}': depth -= depth > 0; break;
        case ',':
            if (depth == 0) return at;
            break;
        default: break;
        }
    }
    return 0;
}

/* The greatest end of a message (behind its comma) that is not above "limit"; the first message's end if that is above
 * it; 0 if no message is complete. */
size_t dl_json_page(const uint8_t *stored, size_t length, size_t limit) {
    const size_t within = limit < length ? limit : length;
    size_t end = message_end(stored, 0, length);
    while (end != 0 && end < within) {
        const size_t next = message_end(stored, end, within);
        if (next == 0) break;
        end = next;
    }
    return end;
}

static size_t write_size(uint8_t *out, size_t size) {
    uint8_t digits[DL_JSON_FORMAT];
    size_t count = 0;
    do
        digits[count++] = (uint8_t)('0' + size % 10);
    while ((size /= 10) > 0);
    for (size_t i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    return count;
}

/* The sizes of the first messages, "sizes_max" at most, as a format of Python's struct: "12sx" for each, which is its
 * bytes without the comma behind it. "out" needs DL_JSON_FORMAT times "sizes_max" bytes. Returns what the format takes;
 * "end" is where the last of these messages ends. */
size_t dl_json_format(const uint8_t *stored, size_t length, size_t sizes_max, uint8_t *out, size_t *end) {
    size_t used = 0;
    *end = 0;
    for (size_t count = 0; count < sizes_max; count++) {
        const size_t next = message_end(stored, *end, length);
        if (next == 0) break;
        used += write_size(out + used, next - *end - 1);
        out[used++] = 's';
        out[used++] = 'x';
        *end = next;
    }
    return used;
}
