/* What the programs of this folder share. Included first, as it says which functions there are. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* End with the error of the last call, which was about `what`. */
static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* User and system time of all threads of a process, in nanoseconds: the scheduler's, as the clock
   ticks of /proc are 10 ms, which is much of a short window. */
static inline int64_t cpu_ns(const char *pid) {
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid((pid_t)atoi(pid), &clock) != 0 || clock_gettime(clock, &t) != 0)
        fail("the CPU clock");
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
