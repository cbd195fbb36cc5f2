/* One stream, many readers: the least that a machine can do for each, and readers that count.
 *
 * `send` is a server: whoever connects gets a head, then one and the same block RATE times a
 * second, by one `send` a reader. `read` connects READERS readers to a server, and says what it spent on
 * them while they read.
 *
 *     fan send PORT RATE
 *     fan read PORT PID READERS WARM SECONDS < request
 *     prints: blocks that arrived in the window, CPU microseconds of PID
 */
#include "common.h"

enum { MOST = 16384, AT_ONCE = 512, PIECE = 65536 };

/* What stands once in every block. */
static const char MARK[] = "\"type\":\"text-delta\"";

static void send_all(int port, double rate) {
    static int readers[MOST];
    static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    static char seen[PIECE];
    char text[256], block[300];
    int count = 0, one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = loopback(port);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    int size = snprintf(text, sizeof text,
                        "id: 123456-9f3c6d2e41b7a805\ndata: {%s,\"part\":0,\"text\":"
                        "\"t1234567890123 \",\"seq\":123456,\"t\":1234567}\n\n",
                        MARK);
    int whole = snprintf(block, sizeof block, "%x\r\n%s\r\n", (unsigned)size, text);
    for (int64_t due = now_ns();; due += (int64_t)(1e9 / rate)) {
        for (int fd; count < MOST && (fd = accept(listener, NULL, NULL)) >= 0; count++) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            if (recv(fd, seen, sizeof seen, 0) <= 0 ||
                send(fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0)
                close(fd), count--; /* it only looked whether somebody is here */
            else
                readers[count] = fd;
        }
        for (int i = 0; i < count; i++)
            if (send(readers[i], block, (size_t)whole, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
                errno != EAGAIN) { /* it has gone: the last one takes its place */
                close(readers[i]);
                readers[i--] = readers[--count];
            }
        int64_t pause = due + (int64_t)(1e9 / rate) - now_ns();
        if (pause > 0) usleep((useconds_t)(pause / 1000));
    }
}

static int read_all(int port, const char *pid, int count, double warm, double seconds) {
    static char request[1 << 16], piece[PIECE];
    struct epoll_event events[AT_ONCE];
    size_t request_size = fread(request, 1, sizeof request, stdin);
    struct sockaddr_in address = loopback(port);
    int poll_fd = epoll_create1(0);
    if (poll_fd < 0) fail("epoll_create1");
    for (int i = 0; i < count; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect");
        if (send(fd, request, request_size, MSG_NOSIGNAL) < 0) fail("request");
        if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    }
    int64_t open = now_ns() + (int64_t)(warm * 1e9), shut = open + (int64_t)(seconds * 1e9);
    int64_t used = 0;
    uint64_t blocks = 0;
    for (int is_open = 0;;) {
        int64_t now = now_ns();
        if (!is_open && now >= open) {
            is_open = 1;
            used = cpu_ns(pid);
        }
        if (now >= shut) break;
        int ready = epoll_wait(poll_fd, events, AT_ONCE, 5);
        for (int i = 0; i < ready; i++) {
            ssize_t size = recv(events[i].data.fd, piece, sizeof piece, MSG_DONTWAIT);
            if (size == 0 || (size < 0 && errno != EAGAIN)) {
                fprintf(stderr, "a reader's stream ended: %.*s\n", 200, piece);
                return 1;
            }
            if (size <= 0 || !is_open) continue;
            for (char *at = piece; (at = memmem(at, (size_t)(piece + size - at), MARK,
                                                sizeof MARK - 1)) != NULL; at++)
                blocks++;
        }
    }
    used = cpu_ns(pid) - used;
    printf("%llu %lld\n", (unsigned long long)blocks, (long long)used / 1000);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "send")) send_all(atoi(argv[2]), atof(argv[3]));
    if (argc == 7 && !strcmp(argv[1], "read"))
        return read_all(atoi(argv[2]), argv[3], atoi(argv[4]), atof(argv[5]), atof(argv[6]));
    fprintf(stderr, "usage: fan send PORT RATE\n"
                    "       fan read PORT PID READERS WARM SECONDS < request\n");
    return 2;
}
