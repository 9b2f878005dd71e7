#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVED_MAX (1 << 18)

void connection_open(struct connection *connection, unsigned number, uint16_t port) {
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int yes = 1;
    connection->number = number;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        fail("connection %u: %s", number, strerror(errno));
    }
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    response_begin(&connection->response);
}

void connection_send(struct connection *connection, const char *bytes, size_t length) {
    response_begin(&connection->response);
    while (length > 0) {
        const ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) fail("connection %u: send: %s", connection->number, strerror(errno));
        bytes += sent;
        length -= (size_t)sent;
    }
}

static bool receive(struct connection *connection, int flags, take_part *take, void *to) {
    char received[RECEIVED_MAX];
    const ssize_t length = recv(connection->fd, received, sizeof received, flags);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    if (length < 0) fail("connection %u: recv: %s", connection->number, strerror(errno));
    if (length == 0) fail("connection %u: the server closed it", connection->number);
    const size_t fed = response_feed(&connection->response, received, (size_t)length, take, to);
    if (fed < (size_t)length)
        fail("connection %u: %zu bytes behind the response", connection->number, (size_t)length - fed);
    return connection->response.state == WHOLE;
}

bool connection_receive(struct connection *connection, take_part *take, void *to) {
    return receive(connection, MSG_DONTWAIT, take, to);
}

void check_status(const struct connection *connection, int status) {
    if (connection->response.status != status) {
        fail("connection %u: status %d instead of %d", connection->number, connection->response.status, status);
    }
}

void connection_exchange(struct connection *connection, const char *request, size_t length, int status, take_part *take,
                         void *to) {
    connection_send(connection, request, length);
    while (!receive(connection, 0, take, to))
        ;
    check_status(connection, status);
}

void create_stream(struct connection *connection, const struct options *options, unsigned stream,
                   const char *content_type) {
    char request[HEAD_MAX];
    const int length =
        snprintf(request, sizeof request,
                 "PUT %s%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: %s\r\nContent-Length: 0\r\n\r\n",
                 options->path, stream, options->port, content_type);
    connection_exchange(connection, request, (size_t)length, 201, NULL, NULL);
}

unsigned read_stream(struct connection *connection, const struct options *options, unsigned stream, take_part *take,
                     void *to) {
    char request[HEAD_MAX], offset[sizeof connection->response.next_offset] = "-1";
    unsigned pages = 0;
    for (;;) {
        const int length =
            snprintf(request, sizeof request, "GET %s%u?offset=%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                     options->path, stream, offset, options->port);
        connection_exchange(connection, request, (size_t)length, 200, take, to);
        pages++;
        if (connection->response.up_to_date) return pages;
        if (strcmp(offset, connection->response.next_offset) == 0) fail("a page of stream %u leads nowhere", stream);
        memcpy(offset, connection->response.next_offset, sizeof offset);
    }
}

size_t write_head(char *to, size_t room, const struct options *options, unsigned stream, const char *content_type,
                  size_t body) {
    const int length = snprintf(
        to, room, "POST %s%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n",
        options->path, stream, options->port, content_type, body);
    if (length < 0 || (size_t)length >= room) fail("the path is too long");
    return (size_t)length;
}

int events_open(void) {
    const int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) fail("epoll: %s", strerror(errno));
    return epoll;
}

void events_of(int epoll, struct connection *connection) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, connection->fd, &event) < 0) fail("epoll: %s", strerror(errno));
}

unsigned events_wait(int epoll, struct epoll_event *events, uint64_t until) {
    const uint64_t now = now_ns(), left = until > now ? until - now : 0;
    const struct timespec span = {.tv_sec = (time_t)(left / SECOND), .tv_nsec = (long)(left % SECOND)};
    const int count = epoll_pwait2(epoll, events, EVENTS_MAX, until > 0 ? &span : NULL, NULL);
    if (count < 0 && errno != EINTR) fail("epoll: %s", strerror(errno));
    return count > 0 ? (unsigned)count : 0;
}
