#include "token.h"

#include <string.h>

/* "wwww-nnnnnnnnnnnn-tttttttttttttttt-" in hexadecimal, and a filling */
enum { WRITER_AT = 1, NUMBER_AT = 6, TIME_AT = 19, FILLING_AT = 36 };
enum { WRITER_DIGITS = 4, NUMBER_DIGITS = 12, TIME_DIGITS = 16 };

static void write_hex(char *to, uint64_t value, int digits) {
    for (int at = digits - 1; at >= 0; at--, value >>= 4)
        to[at] = "0123456789abcdef"[value & 15];
}

static uint64_t read_hex(const char *from, int digits) {
    uint64_t value = 0;
    for (int at = 0; at < digits; at++) {
        const char digit = from[at];
        const int worth = digit >= 'a' ? digit - 'a' + 10 : digit - '0';
        if (worth < 0 || worth > 15) fail("no token: %.*s", TOKEN_BYTES, from);
        value = value << 4 | (uint64_t)worth;
    }
    return value;
}

void token_write(char *to, unsigned writer, uint64_t number, uint64_t time, bool json) {
    to[0] = to[TOKEN_BYTES - 1] = json ? '"' : '.';
    write_hex(to + WRITER_AT, writer, WRITER_DIGITS);
    to[NUMBER_AT - 1] = to[TIME_AT - 1] = to[FILLING_AT - 1] = '-';
    write_hex(to + NUMBER_AT, number, NUMBER_DIGITS);
    write_hex(to + TIME_AT, time, TIME_DIGITS);
    memset(to + FILLING_AT, 'x', TOKEN_BYTES - 1 - FILLING_AT);
}

static void take_token(struct token_reader *reader, const char *token) {
    const uint64_t writer = read_hex(token + WRITER_AT, WRITER_DIGITS);
    const uint64_t number = read_hex(token + NUMBER_AT, NUMBER_DIGITS);
    if (token[0] != token[TOKEN_BYTES - 1] || writer >= reader->writers) fail("no token: %.*s", TOKEN_BYTES, token);
    if (number != reader->next[writer]) {
        fail("%s: token %llu of writer %llu came where token %llu was due", reader->whose, (unsigned long long)number,
             (unsigned long long)writer, (unsigned long long)reader->next[writer]);
    }
    reader->next[writer]++;
    if (reader->taken != NULL) reader->taken(reader->to, read_hex(token + TIME_AT, TIME_DIGITS));
}

void token_read(struct token_reader *reader, const char *bytes, size_t length) {
    const char *end = bytes + length;
    while (bytes < end) {
        if (reader->length == 0 && strchr("[], \r\n", *bytes) != NULL) {
            bytes++;
        } else if (reader->length == 0 && end - bytes >= TOKEN_BYTES) {
            take_token(reader, bytes);
            bytes += TOKEN_BYTES;
        } else {
            reader->part[reader->length++] = *bytes++;
            if (reader->length < TOKEN_BYTES) continue;
            take_token(reader, reader->part);
            reader->length = 0;
        }
    }
}
