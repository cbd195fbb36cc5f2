/* A crowd of readers that all come within a moment, and their models: what a server does that is
 * asked for more than it can serve.
 *
 * STREAMS requests are sent evenly over ARRIVE seconds, whatever becomes of those before. Each
 * connection that the server then opens is a model's, and has a token due RATE times a second,
 * whatever the server reads; in the closed loop (CLOSED is 1) none leaves before its reader has the
 * one before. A token's text is its model and the moment at which it left it, between two marks, so
 * that a reader finds it however many come as one event.
 *
 *     crowd PORT MODEL_PORT PID STREAMS RATE ARRIVE SECONDS CLOSED IN_TIME_MS < request
 *
 * From the last request on SECONDS are measured. Prints: requests that were refused (by a status of
 * 400 and more), readers that have a first token, p50 and p99 of the time from a request to its
 * first token (one that has none yet counts with the time so far) and from a request to its
 * refusal, tokens of the window, p50 and p99 of their delay; then the CPU time of the server within
 * the window, all in microseconds; last the refusals that say when to come again, and the tokens
 * whose delay was at most IN_TIME_MS.
 */
#include "common.h"

enum { MOST = 8192, FDS = 3 * MOST, AT_ONCE = 512, PIECE = 65536, BINS = 1 << 24, DIGITS = 16 };
enum { MODEL_BUFFER = 1 << 19, TAIL = DIGITS + 2 };

typedef struct {
    int fd;
    int64_t asked, first, refused; /* nanoseconds; 0 is not yet */
    int tail;                      /* bytes of a token whose end has not come */
    char rest[TAIL + 1];
} Reader;

typedef struct {
    int fd;
    int is_asked;     /* the server has sent its whole request */
    int is_under_way; /* a token that its reader does not have, in the closed loop */
    int64_t due;
} Model;

static Reader readers[MOST];
static Model models[MOST];
static int reader_of[FDS], model_of[FDS]; /* socket -> number + 1 */
static uint32_t delays[BINS];             /* of tokens, microseconds -> number */
static int poll_fd;
static uint64_t tokens;
static int is_open, told_when, is_closed_loop;
static int64_t began;

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void say(Model *model, int64_t now) {
    char json[640], block[768];
    int size = snprintf(
        json, sizeof json,
        "data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxY%04d\",\"object\":"
        "\"chat.completion.chunk\",\"created\":1795416446,\"model\":\"bench-model-2026-11-01\","
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{"
        "\"index\":0,\"delta\":{\"content\":\"~%04x%012llx~\"},\"logprobs\":null,"
        "\"finish_reason\":null}],\"usage\":null}\n\n",
        model->fd % 10000, (unsigned)(model - models), (unsigned long long)(now - began));
    int whole = snprintf(block, sizeof block, "%x\r\n%s\r\n", (unsigned)size, json);
    ssize_t sent = send(model->fd, block, (size_t)whole, MSG_NOSIGNAL | MSG_DONTWAIT);
    model->is_under_way = is_closed_loop && sent == whole;
    if (sent == whole) return;
    if (sent < 0 && errno == EAGAIN) return; /* half a megabyte waits: this one is lost */
    close(model->fd);
    model_of[model->fd] = 0;
    model->fd = -1;
}

/* The tokens of one more piece, and the first bytes of an answer. */
static void took(Reader *reader, char *piece, ssize_t size, int64_t now) {
    piece[size] = 0;
    if (!reader->first && !reader->refused && !strncmp(piece, "HTTP/1.1 ", 9) &&
        piece[9] >= '4') {
        reader->refused = now;
        told_when += strcasestr(piece, "\r\nretry-after:") != NULL;
        return;
    }
    char *at = piece, *end = piece + size, *mark;
    while ((mark = memchr(at, '~', (size_t)(end - at))) != NULL) {
        if (end - mark < TAIL) break;
        if (mark[TAIL - 1] != '~') {
            fprintf(stderr, "no token: %.40s\n", mark);
            exit(1);
        }
        if (!reader->first) reader->first = now;
        uint64_t text = strtoull(mark + 1, NULL, 16);
        Model *model = &models[(text >> 48) % MOST];
        model->is_under_way = 0;
        if (is_open) {
            int64_t delay = (now - began - (int64_t)(text & ((1ULL << 48) - 1))) / 1000;
            delays[delay < 0 ? 0 : delay < BINS ? delay : BINS - 1]++;
            tokens++;
        }
        at = mark + TAIL;
    }
    reader->tail = mark == NULL ? 0 : (int)(end - mark);
    if (mark != NULL) memcpy(reader->rest, mark, (size_t)reader->tail);
}

static int is_less(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static long long of_sorted(int64_t *times, int count, double share) {
    qsort(times, (size_t)count, sizeof *times, is_less);
    int at = (int)((double)count * share);
    return count == 0 ? -1 : times[at < count ? at : count - 1] / 1000;
}

static long of_delays(double share) {
    uint64_t seen = 0;
    for (long at = 0; at < BINS; at++)
        if ((seen += delays[at]) >= (uint64_t)((double)tokens * share)) return at;
    return BINS;
}

/* The server's request to a model: answered when it is whole. */
static void asked(Model *model, const char *piece, int64_t now) {
    /* It ends with the JSON of a whole body, and comes in one or two pieces. */
    size_t size = strlen(piece);
    if (size == 0 || piece[size - 1] != '}') return;
    static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    if (send(model->fd, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0) return;
    model->is_asked = 1;
    model->due = now;
}

int main(int argc, char **argv) {
    static char request[1 << 16], buffer[TAIL + PIECE + 1];
    struct epoll_event events[AT_ONCE];
    if (argc != 10) {
        fprintf(stderr, "usage: crowd PORT MODEL_PORT PID STREAMS RATE ARRIVE SECONDS CLOSED "
                        "IN_TIME_MS < request\n");
        return 2;
    }
    int count = atoi(argv[4]), opened = 0, model_count = 0, one = 1;
    if (count < 1 || count > MOST) return 2;
    is_closed_loop = atoi(argv[8]);
    long in_time = atol(argv[9]) * 1000;
    int64_t interval = (int64_t)(1e9 / atof(argv[5]));
    int64_t arrive = (int64_t)(atof(argv[6]) * 1e9), seconds = (int64_t)(atof(argv[7]) * 1e9);
    size_t request_size = fread(request, 1, sizeof request, stdin);
    struct sockaddr_in server = loopback(atoi(argv[1])), address = loopback(atoi(argv[2]));
    if ((poll_fd = epoll_create1(0)) < 0) fail("epoll_create1");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    watch(listener);
    int64_t begin = began = now_ns(), shut = begin + arrive + seconds, next_scan = begin;
    int64_t used = 0;
    for (;;) {
        int64_t now = now_ns();
        if (now >= shut) break;
        for (; opened < count && begin + arrive * opened / count <= now; opened++) {
            Reader *reader = &readers[opened];
            reader->fd = socket(AF_INET, SOCK_STREAM, 0);
            if (connect(reader->fd, (struct sockaddr *)&server, sizeof server) < 0) fail("connect");
            if (send(reader->fd, request, request_size, MSG_NOSIGNAL) < 0) fail("request");
            reader->asked = now_ns();
            reader_of[reader->fd] = opened + 1;
            watch(reader->fd);
        }
        if (!is_open && now >= begin + arrive) {
            is_open = 1;
            used = cpu_ns(argv[3]);
        }
        if (now >= next_scan) {
            next_scan = now + 500000;
            for (int i = 0; i < model_count; i++) {
                Model *model = &models[i];
                if (model->fd < 0 || !model->is_asked || model->due > now) continue;
                if (model->is_under_way) continue;
                say(model, now_ns());
                model->due += interval;
                if (model->due < now) model->due = now + interval;
            }
        }
        int ready = epoll_wait(poll_fd, events, AT_ONCE, 1);
        now = now_ns();
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int got = accept4(listener, NULL, NULL, 0), room = MODEL_BUFFER;
                if (got < 0 || got >= FDS || model_count >= MOST) continue;
                setsockopt(got, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
                models[model_count].fd = got;
                model_of[got] = ++model_count;
                watch(got);
                continue;
            }
            Reader *reader = reader_of[fd] ? &readers[reader_of[fd] - 1] : NULL;
            char *piece = buffer + TAIL;
            ssize_t size = recv(fd, piece, PIECE, MSG_DONTWAIT);
            if (size < 0 && errno == EAGAIN) continue;
            if (size <= 0) { /* a refused reader's, or a model that its server has left */
                if (reader != NULL && !reader->refused && !reader->first) reader->refused = now;
                if (model_of[fd]) models[model_of[fd] - 1].fd = -1;
                reader_of[fd] = model_of[fd] = 0;
                close(fd);
            } else if (reader != NULL) {
                piece -= reader->tail;
                memcpy(piece, reader->rest, (size_t)reader->tail);
                took(reader, piece, size + reader->tail, now);
            } else if (model_of[fd] && !models[model_of[fd] - 1].is_asked) {
                piece[size] = 0;
                asked(&models[model_of[fd] - 1], piece, now);
            }
        }
    }
    used = cpu_ns(argv[3]) - used;
    static int64_t first[MOST], refused[MOST];
    int firsts = 0, refusals = 0, begun = 0;
    for (int i = 0; i < opened; i++) {
        Reader *reader = &readers[i];
        if (reader->refused) {
            refused[refusals++] = reader->refused - reader->asked;
        } else {
            begun += reader->first != 0;
            first[firsts++] = (reader->first ? reader->first : shut) - reader->asked;
        }
    }
    long long first_50 = of_sorted(first, firsts, 0.5), first_99 = of_sorted(first, firsts, 0.99);
    long long no_50 = of_sorted(refused, refusals, 0.5), no_99 = of_sorted(refused, refusals, 0.99);
    unsigned long long kept = 0;
    for (long at = 0; at <= in_time && at < BINS; at++) kept += delays[at];
    printf("%d %d %lld %lld %lld %lld %llu %ld %ld %lld %d %llu\n", refusals, begun, first_50,
           first_99, no_50, no_99, (unsigned long long)tokens, of_delays(0.5), of_delays(0.99),
           (long long)used / 1000, told_when, kept);
    return 0;
}
