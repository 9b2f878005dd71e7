/* Connections that are kept, each with at most one request under way.
 *
 * A request fits into the socket's buffer, which is empty when it is sent: sending does not wait.
 */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "load.h"
#include "response.h"

#include <sys/epoll.h>

#define EVENTS_MAX 256

struct connection {
    int fd;
    unsigned number;
    uint64_t since; /* when the request under way was sent, or due */
    struct response response;
};

void connection_open(struct connection *, unsigned number, uint16_t port);
void connection_send(struct connection *, const char *bytes, size_t length);

/* Takes what has come, without waiting. Returns whether the response is whole by now. */
bool connection_receive(struct connection *, take_part *take, void *to);

/* Sends a request and waits for its response, which has to have that status. */
void connection_exchange(struct connection *, const char *request, size_t length, int status, take_part *take,
                         void *to);

void check_status(const struct connection *, int status);

/* Creates a stream, empty. */
void create_stream(struct connection *, const struct options *, unsigned stream, const char *content_type);

/* Reads a stream from its start to its tail; returns in how many pages. */
unsigned read_stream(struct connection *, const struct options *, unsigned stream, take_part *take, void *to);

/* The head of a request with a body of that length; returns its length. */
size_t write_head(char *to, size_t room, const struct options *, unsigned stream, const char *content_type,
                  size_t body);

int events_open(void);
void events_of(int epoll, struct connection *);

/* Waits until something has come for a connection, at most until that moment, 0 being one that never comes. */
unsigned events_wait(int epoll, struct epoll_event *, uint64_t until);

#endif
