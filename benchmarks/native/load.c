/* Model and readers in one process: what servers between them cost per token.
 *
 * Every stream has a token due RATE times a second. In a closed loop the next one leaves the model
 * only when the reader has the one before: at most one token of a stream is under way, so that no
 * server gets cheaper by being late. In an open loop tokens leave when they are due, whatever the
 * reader has, up to MOST_UNDER_WAY of a stream; one beyond that is never sent, and is missing. A
 * reader finds tokens by a mark that each has in its text, so that several may come as one event.
 * Streams begin one after the other; the connection that the server opens for a reader's request is
 * the one that comes next.
 *
 *     load MODEL_PORT STREAMS RATE WARM SECONDS TURNS closed|open {PORT PID[,PID...]}... < requests
 *
 * Each PORT is a server with STREAMS streams of its own (several may be of one process), open from
 * the beginning to the end; its request is what stands in its place on stdin, each ended by a zero
 * byte. After WARM seconds of each, they take TURNS turns, in which only the streams of one have
 * tokens: 0.15 seconds that are not counted, then SECONDS that are. Every other round of turns
 * goes backwards, so that what changes steadily falls on all alike.
 *
 * A request may hold twelve @ in a row; they become a number that no other request has.
 * prints a line per turn: the server's number (from 0), tokens of the turn, p50 and p99 of the delay
 * between the model's write and the reader's read in microseconds, then for each PID the user and
 * system time in microseconds and the bytes that it had written to disk. The time is the
 * scheduler's, to the nanosecond; clock ticks (10 ms) only divide it into user and system.
 */
#include "common.h"

enum { MOST_STREAMS = 16384, AT_ONCE = 512, PIECE = 65536, MARK = '~', BINS = 1 << 20 };
/* MOST_UNDER_WAY: a power of two; together they fit into the socket's buffer, MODEL_BUFFER. */
enum { MOST_SERVERS = 16, MOST_PIDS = 16, MOST_UNDER_WAY = 256, MODEL_BUFFER = 1 << 19, EVERY = 4096 };

typedef struct {
    int reader, model;
    unsigned left, arrived;       /* tokens: from the model, at the reader */
    int64_t due;                  /* nanoseconds, as those below */
    int64_t sent[MOST_UNDER_WAY]; /* when the newest tokens left */
} Stream;

typedef struct {
    struct sockaddr_in address;
    char request[1 << 16];
    size_t size;
    const char *pids[MOST_PIDS];
    int pid_count;
    Stream *streams;
} Server;

static const double SETTLE = 0.15;
static Stream streams[MOST_STREAMS];
static Server servers[MOST_SERVERS];
static int stream_count; /* of each server */
static unsigned most_under_way;
static int64_t interval;
static int stream_of[65536]; /* socket -> stream + 1; negative for a model's side */
static uint32_t delays[BINS]; /* microseconds -> tokens */
static int poll_fd, listener;
static const char *WORDS[] = {"the",   " a",     " stream", " of",   " words", ",",     " and",
                              " then", " again", " more",   " text", " until", " it's", " over"};

static void watch(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
}

static void say(Stream *stream, unsigned number, int64_t now) {
    /* A Chat Completions chunk of some 320 bytes, as most servers send it; each answer has an id of
       its own. */
    static char filler[EVERY + 1];
    char json[640 + EVERY], block[768 + EVERY];
    if (!filler[0]) memset(filler, 'x', EVERY);
    /* What a server does after so much text of a stream falls on different moments then. */
    int more = stream->left ? 0 : (int)((stream - streams) * 2654435761u % EVERY);
    int size = snprintf(
        json, sizeof json,
        "data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxY%04d\",\"object\":"
        "\"chat.completion.chunk\",\"created\":1795416446,\"model\":\"bench-model-2026-11-01\","
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{"
        "\"index\":0,\"delta\":{\"content\":\"~%s%.*s\"},\"logprobs\":null,\"finish_reason\":null}],"
        "\"usage\":null}\n\n",
        stream->model % 10000, WORDS[number % (sizeof WORDS / sizeof *WORDS)],
        more, filler);
    int whole = snprintf(block, sizeof block, "%x\r\n%s\r\n", (unsigned)size, json);
    if (send(stream->model, block, (size_t)whole, MSG_NOSIGNAL) != whole) fail("model send");
    stream->sent[stream->left++ % MOST_UNDER_WAY] = now;
}

/* Wait until the server has connected and sent its whole request; then begin the answer. */
static int meet(int patience) {
    static char seen[1 << 20];
    size_t size = 0;
    int model = -1;
    for (int64_t until = now_ns() + patience * 1000000000LL; now_ns() < until;) {
        if (model < 0) {
            model = accept4(listener, NULL, NULL, 0);
            if (model < 0) {
                usleep(200);
                continue;
            }
        }
        ssize_t more = recv(model, seen + size, sizeof seen - 1 - size, MSG_DONTWAIT);
        if (more == 0) { /* of a run of the window before, which its server has given up */
            close(model);
            model = -1;
            size = 0;
            continue;
        }
        if (more < 0) {
            usleep(100);
            continue;
        }
        seen[size += (size_t)more] = 0;
        char *end = strstr(seen, "\r\n\r\n"), *length = strcasestr(seen, "content-length:");
        if (end == NULL) continue;
        size_t body = length != NULL && length < end ? (size_t)atol(length + 15) : 0;
        if (size < (size_t)(end - seen) + 4 + body) continue;
        static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                                   "transfer-encoding: chunked\r\n\r\n";
        int room = MODEL_BUFFER; /* what is under way fits, so that no send waits */
        int one = 1; /* as model servers do: no token waits for the other side's word */
        setsockopt(model, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(model, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        if (send(model, HEAD, sizeof HEAD - 1, MSG_NOSIGNAL) < 0) fail("model head");
        return model;
    }
    fprintf(stderr, "no request reached the model\n");
    exit(1);
}

typedef struct {
    const char *pid;
    long user, system;
    int64_t cpu; /* nanoseconds */
    long long written;
} Used;

static Used look(const char *pid) {
    char path[64], line[2048];
    Used used = {.pid = pid};
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL) fail(path);
    fclose(file);
    char *rest = strrchr(line, ')');
    if (rest == NULL || sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld",
                               &used.user, &used.system) != 2)
        fail("stat");
    used.cpu = cpu_ns(pid);
    snprintf(path, sizeof path, "/proc/%s/io", pid);
    if ((file = fopen(path, "r")) != NULL) { /* a kernel may have none */
        while (fgets(line, sizeof line, file) != NULL)
            sscanf(line, "write_bytes: %lld", &used.written);
        fclose(file);
    }
    return used;
}

static long quantile(uint64_t total, double share) {
    uint64_t seen = 0;
    for (long at = 0; at < BINS; at++)
        if ((seen += delays[at]) >= (uint64_t)((double)total * share)) return at;
    return BINS;
}

/* The streams of a server, each begun when the one before it has reached the model. */
static void begin_all(Server *server, int first) {
    char *names[8];
    int name_count = 0;
    for (char *at = server->request;
         name_count < 8 && (at = strstr(at, "@@@@@@@@@@@@")) != NULL; at += 12)
        names[name_count++] = at;
    int64_t first_name = now_ns() / 1000;
    server->streams = streams + first;
    for (int i = 0; i < stream_count; i++) {
        Stream *stream = &server->streams[i];
        for (int n = 0; n < name_count; n++) {
            char digits[24];
            snprintf(digits, sizeof digits, "%012llx", (unsigned long long)(first_name + i));
            memcpy(names[n], digits, 12);
        }
        stream->reader = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(stream->reader, (struct sockaddr *)&server->address, sizeof server->address) < 0)
            fail("connect");
        if (send(stream->reader, server->request, server->size, MSG_NOSIGNAL) < 0) fail("request");
        stream->model = meet(20);
        stream_of[stream->reader] = first + i + 1;
        stream_of[stream->model] = -(first + i + 1);
        watch(stream->reader);
    }
}

/* Read what has come; the tokens among it, whose delays count when `is_open`. */
static uint64_t take(int is_open) {
    static char piece[PIECE];
    static struct epoll_event events[AT_ONCE];
    uint64_t tokens = 0;
    int ready = epoll_wait(poll_fd, events, AT_ONCE, 1);
    int64_t now = now_ns();
    for (int i = 0; i < ready; i++) {
        Stream *stream = &streams[stream_of[events[i].data.fd] - 1];
        ssize_t size = recv(stream->reader, piece, sizeof piece, MSG_DONTWAIT);
        if (size == 0 || (size < 0 && errno != EAGAIN)) {
            fprintf(stderr, "a reader's stream ended: %.*s\n", 200, piece);
            exit(1);
        }
        char *end = piece + (size < 0 ? 0 : size);
        for (char *mark = piece; (mark = memchr(mark, MARK, (size_t)(end - mark))); mark++) {
            if (stream->arrived == stream->left) {
                fprintf(stderr, "a token came twice\n");
                exit(1);
            }
            int64_t delay = (now - stream->sent[stream->arrived++ % MOST_UNDER_WAY]) / 1000;
            if (!is_open) continue;
            delays[delay < BINS ? delay : BINS - 1]++;
            tokens++;
        }
    }
    return tokens;
}

/* Let the tokens of a server's streams leave when they are due, for a time; those that arrived. */
static uint64_t speak(Server *server, double seconds, int is_open) {
    static unsigned number;
    uint64_t tokens = 0;
    int64_t now = now_ns(), next_scan = now, shut = now + (int64_t)(seconds * 1e9);
    for (; (now = now_ns()) < shut; tokens += take(is_open)) {
        if (now < next_scan) continue;
        next_scan = now + 500000;
        for (int i = 0; i < stream_count; i++) {
            Stream *stream = &server->streams[i];
            if (stream->due > now) continue;
            if (stream->left - stream->arrived < most_under_way)
                say(stream, number++, now_ns());
            else if (most_under_way == 1)
                continue;
            stream->due += interval;
            if (stream->due < now) stream->due = now + interval; /* late: it is not made up for */
        }
    }
    return tokens;
}

/* The first tokens of a server's streams are due within one interval, evenly. */
static void spread(Server *server) {
    int64_t now = now_ns();
    for (int i = 0; i < stream_count; i++) server->streams[i].due = now + interval * i / stream_count;
}

static void turn(Server *server, double seconds) {
    Used used[MOST_PIDS];
    memset(delays, 0, sizeof delays);
    spread(server);
    speak(server, SETTLE, 0);
    for (int i = 0; i < server->pid_count; i++) used[i] = look(server->pids[i]);
    uint64_t tokens = speak(server, seconds, 1);
    printf("%d %llu %ld %ld", (int)(server - servers), (unsigned long long)tokens,
           quantile(tokens, 0.5), quantile(tokens, 0.99));
    for (int i = 0; i < server->pid_count; i++) {
        Used end = look(used[i].pid);
        long user = end.user - used[i].user, system = end.system - used[i].system;
        double cpu = (end.cpu - used[i].cpu) / 1000.0;
        double share = user + system > 0 ? (double)user / (user + system) : 1.0;
        printf(" %.0f %.0f %lld", cpu * share, cpu * (1 - share), end.written - used[i].written);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    int server_count = (argc - 8) / 2, one = 1;
    int is_open_loop = argc > 7 && !strcmp(argv[7], "open");
    if (argc < 10 || argc % 2 || server_count > MOST_SERVERS ||
        (!is_open_loop && strcmp(argv[7], "closed"))) {
        fprintf(stderr, "usage: load MODEL_PORT STREAMS RATE WARM SECONDS TURNS closed|open"
                        " {PORT PID[,PID...]}... < requests\n");
        return 2;
    }
    most_under_way = is_open_loop ? MOST_UNDER_WAY : 1;
    stream_count = atoi(argv[2]);
    if (stream_count < 1 || stream_count * server_count > MOST_STREAMS) return 2;
    interval = (int64_t)(1e9 / atof(argv[3]));
    for (int i = 0; i < server_count; i++) {
        Server *server = &servers[i];
        server->address = loopback(atoi(argv[8 + 2 * i]));
        char *at = argv[9 + 2 * i];
        for (char *pid = strtok(at, ","); pid && server->pid_count < MOST_PIDS; pid = strtok(NULL, ","))
            server->pids[server->pid_count++] = pid;
        int byte;
        while ((byte = getchar()) > 0 && server->size < sizeof server->request - 1)
            server->request[server->size++] = (char)byte;
        if (byte) {
            fprintf(stderr, "each server has a request, ended by a zero byte\n");
            return 2;
        }
    }
    struct sockaddr_in model = loopback(atoi(argv[1]));
    if ((poll_fd = epoll_create1(0)) < 0) fail("epoll_create1");
    if ((listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) fail("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&model, sizeof model) < 0) fail("bind");
    if (listen(listener, 4096) < 0) fail("listen");
    for (int i = 0; i < server_count; i++) {
        begin_all(&servers[i], i * stream_count);
        spread(&servers[i]);
        speak(&servers[i], atof(argv[4]), 0);
    }
    for (int round = 0; round < atoi(argv[6]); round++)
        for (int i = 0; i < server_count; i++)
            turn(&servers[round % 2 ? server_count - 1 - i : i], atof(argv[5]));
    return 0;
}
