/* Tokens: what is appended, each with its writer, its number and the time at which it was written, so that every one is
 * known again, missed, or found twice. */
#ifndef TOKEN_H
#define TOKEN_H

#include "load.h"

#define TOKEN_BYTES 60

/* Writes a token of TOKEN_BYTES; one in JSON is a string, its quotes among these. */
void token_write(char *to, unsigned writer, uint64_t number, uint64_t time, bool json);

/* The tokens of one stream, or one viewer's, as they come back. */
struct token_reader {
    const char *whose; /* for messages */
    uint64_t *next; /* by writer: the number of the token that comes next */
    unsigned writers;
    void (*taken)(void *to, uint64_t time); /* is told when each token was written; NULL if nobody is */
    void *to;
    char part[TOKEN_BYTES];
    size_t length;
};

/* Takes bytes of a stream: tokens, and what JSON has between them. Fails for one that is not the next of its writer. */
void token_read(struct token_reader *, const char *bytes, size_t length);

#endif
