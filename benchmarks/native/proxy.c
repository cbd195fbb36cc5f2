/* The least that a machine can do for a token: bytes from a model's socket to a reader's.
 *
 * One thread, one epoll: each reader gets a connection of its own to the model, and what comes from
 * either side is written to the other as it is. Nothing is parsed, kept or bounded; it is no
 * product, but the mark that `token_cost.py` measures tokenwire against.
 *
 *     proxy PORT MODEL_PORT
 */
#include "common.h"

enum { MOST_FDS = 65536, AT_ONCE = 256, PIECE = 65536 };

static int peers[MOST_FDS]; /* the other side of each socket */
static int poll_fd;

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void pair_up(int reader, int model_port) {
    struct sockaddr_in address = loopback(model_port);
    int model = socket(AF_INET, SOCK_STREAM, 0);
    if (model < 0 || model >= MOST_FDS || reader >= MOST_FDS ||
        connect(model, (struct sockaddr *)&address, sizeof address) < 0) {
        if (model >= 0) close(model);
        close(reader);
        return;
    }
    peers[reader] = model;
    peers[model] = reader;
    watch(reader);
    watch(model);
}

static void part(int fd) {
    int peer = peers[fd];
    peers[fd] = peers[peer] = 0;
    close(fd);
    close(peer);
}

int main(int argc, char **argv) {
    static char piece[PIECE];
    struct epoll_event events[AT_ONCE];
    if (argc != 3) {
        fprintf(stderr, "usage: proxy PORT MODEL_PORT\n");
        return 2;
    }
    struct sockaddr_in address = loopback(atoi(argv[1]));
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    if ((poll_fd = epoll_create1(0)) < 0) fail("epoll_create1");
    watch(listener);
    for (;;) {
        int count = epoll_wait(poll_fd, events, AT_ONCE, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int reader = accept(listener, NULL, NULL);
                if (reader >= 0) pair_up(reader, atoi(argv[2]));
                continue;
            }
            if (!peers[fd]) continue; /* its peer closed both in this round */
            ssize_t size = recv(fd, piece, sizeof piece, MSG_DONTWAIT);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0 || send(peers[fd], piece, (size_t)size, MSG_NOSIGNAL) != size) part(fd);
        }
    }
}
