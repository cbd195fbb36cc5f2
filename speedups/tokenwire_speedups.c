/* The express lane's functions of each token, in C: twins of `Lane.received`, with `Lane._text_in`
   and `Lane._append` (src/tokenwire/run/call/lane.py), and of `Connection.data_received` and
   `Connection.pull`, which call it (src/tokenwire/providers/http/connection.py).

   Always true: state, records and readers' bytes are those of the Python, whose objects hold all
   of it (a lane's numbers in a base class from here); what is not as it is on the plain path
   (another type, a number too large, a log that lends no more, a name of lane.py that was
   replaced) is left to the Python, before anything happened. Errors are Python's, and go where the
   Python lets them go. The GIL is held throughout.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <structmember.h>
#ifndef _WIN32
#include <errno.h>
#include <sys/socket.h>
#include <sys/types.h>
#ifndef MSG_NOSIGNAL /* not on every system; Python ignores the signal anyway */
#define MSG_NOSIGNAL 0
#endif
#endif

#define VERSION "0.1.0"
/* That of run/call/native.py: both are raised with every change of what these functions do. */
#define TWIN 11
/* That of log/spool.py: both are raised with every change of what `land`, `hear` or `pack` do. */
#define SPOOL 5

/* Memory that is looked at soon. What a stream has is cold when its next token comes, and to wait
   for each line by itself would be most of a token's time here. */
#if defined(__GNUC__)
#define AHEAD(place) __builtin_prefetch(place)
#else
#define AHEAD(place) ((void)(place))
#endif
#define LINE 64

static inline void ahead(const void *place, Py_ssize_t size)
{
    for (Py_ssize_t at = 0; at < size; at += LINE)
        AHEAD((const char *)place + at);
}

/* --- attributes: where `__slots__` put them -------------------------------------------------- */

#define SLOTS(S)                                                                               \
    S(Lane, _account) S(Lane, _bar) S(Lane, _end) S(Lane, _head) S(Lane, _json)                \
    S(Lane, _lines) S(Lane, _read) S(Lane, _sink) S(Lane, _source) S(Lane, _tape)              \
    S(Lane, _template) S(Lane, _text) S(Lane, _times) S(Lane, _varies) S(Template, bar)        \
    S(Template, head) S(Template, steps) S(Template, tail)                                     \
    S(Tape, bytes) S(Tape, reader) S(Tape, records) S(Tape, takers) S(Tape, usage)             \
    S(Tape, writer)                                                                            \
    S(Usage, bytes) S(Usage, records) S(Reader, after) S(Reader, port)                         \
    S(Port, fd) S(Port, form) S(Port, is_open) S(Port, send) S(Port, socket) S(Port, text)     \
    S(Port, unsent) S(Port, wrote) S(Form, chunk) S(Form, fixed) S(Form, has_cursor)           \
    S(Form, head) S(Form, is_json) S(Form, plain) S(Form, shift)                               \
    S(Connection, diversion) S(Connection, _pulled) S(Connection, _transport)
/* Bound by themselves, as the lane does not know of them. */
#define SPOOL_SLOTS(S)                                                                         \
    S(Spool, epoch) S(Spool, landed) S(Spool, log) S(Spool, problem) S(Spool, readers)         \
    S(Spool, synced) S(Spool, then) S(Reader, check)                                           \
    S(Tail, base) S(Tail, bytes) S(Tail, records) S(Tail, takers)
/* Those of the Redis store's logs: appending/owned.py. */
#define OWNED_SLOTS(S)                                                                         \
    S(Owned, bytes) S(Owned, epoch) S(Owned, has_readers) S(Owned, noted) S(Owned, permit)     \
    S(Owned, permit_end) S(Owned, permit_round) S(Owned, published_at) S(Owned, words)

enum slot {
#define S(owner, name) owner##_##name,
    SLOTS(S)
    SLOT_COUNT,
    SPOOL_BEFORE = SLOT_COUNT - 1,
    SPOOL_SLOTS(S)
    SPOOL_END,
    OWNED_BEFORE = SPOOL_END - 1,
    OWNED_SLOTS(S)
#undef S
    ALL_SLOTS
};

static struct {
    const char *owner, *text;
    PyObject *name, *member;
    PyTypeObject *type; /* the last type seen that has this member: its owner, or one below that */
    Py_ssize_t offset;
} slots[ALL_SLOTS] = {
#define S(owner, name) {#owner, #name, NULL, NULL, NULL, 0},
    SLOTS(S) SPOOL_SLOTS(S) OWNED_SLOTS(S)
#undef S
};

/* Whether objects of `type` have the member of this slot, and no other attribute of its name. */
static int has_member(PyTypeObject *type, enum slot s)
{
    if (!PyType_IsSubtype(type, PyDescr_TYPE(slots[s].member)))
        return 0;
    PyObject *found = PyObject_GetAttr((PyObject *)type, slots[s].name);
    if (found == NULL)
        PyErr_Clear();
    Py_XDECREF(found);
    if (found != slots[s].member)
        return 0;
    Py_INCREF(type);
    PyTypeObject *before = slots[s].type;
    slots[s].type = type;
    Py_DECREF(before);
    return 1;
}

/* Where the attribute lies; NULL where the object has to be asked by name. */
static inline PyObject **place(PyObject *object, enum slot s)
{
#ifdef BY_NAME /* what the limited API would cost */
    return NULL;
#endif
    if (Py_TYPE(object) != slots[s].type && !has_member(Py_TYPE(object), s))
        return NULL;
    return (PyObject **)((char *)object + slots[s].offset);
}

/* A new reference. */
static PyObject *get(PyObject *object, enum slot s)
{
    PyObject **at = place(object, s);
    if (at == NULL || *at == NULL)
        return PyObject_GetAttr(object, slots[s].name);
    Py_INCREF(*at);
    return *at;
}

/* The same, borrowed, and only where it is at hand: for what is not used but fetched ahead. */
static inline PyObject *peek(PyObject *object, enum slot s)
{
    PyObject **at = place(object, s);
    return at == NULL ? NULL : *at;
}

static int put(PyObject *object, enum slot s, PyObject *value)
{
    PyObject **at = place(object, s);
    if (at == NULL)
        return PyObject_SetAttr(object, slots[s].name, value);
    PyObject *before = *at;
    Py_INCREF(value);
    *at = value;
    Py_XDECREF(before);
    return 0;
}

/* --- a lane's numbers: lane.py, `_Numbers` ---------------------------------------------------- */

#define CHECK 16

typedef struct {
    PyObject_HEAD
    double now, mean, start, due, wait_below;
    long long base, seq, room, free, quarters, epoch, last, usage_bound;
    long long read_start, read_end, text_start, text_end;
    long long deltas, lent;
    char check[CHECK];
} Numbers;

#define MEMBER(name, type) {"_" #name, type, offsetof(Numbers, name), 0, NULL}
static PyMemberDef members[] = {
    MEMBER(now, T_DOUBLE), MEMBER(mean, T_DOUBLE), MEMBER(start, T_DOUBLE),
    MEMBER(due, T_DOUBLE), MEMBER(wait_below, T_DOUBLE), MEMBER(base, T_LONGLONG),
    MEMBER(seq, T_LONGLONG),
    MEMBER(room, T_LONGLONG), MEMBER(free, T_LONGLONG), MEMBER(quarters, T_LONGLONG),
    MEMBER(epoch, T_LONGLONG), MEMBER(last, T_LONGLONG),
    MEMBER(usage_bound, T_LONGLONG), MEMBER(read_start, T_LONGLONG),
    MEMBER(read_end, T_LONGLONG), MEMBER(text_start, T_LONGLONG),
    MEMBER(text_end, T_LONGLONG), MEMBER(deltas, T_LONGLONG), MEMBER(lent, T_LONGLONG),
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_check(PyObject *self, void *closure)
{
    return PyBytes_FromStringAndSize(((Numbers *)self)->check, CHECK);
}

static int set_check(PyObject *self, PyObject *value, void *closure)
{
    if (value == NULL || !PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) != CHECK) {
        PyErr_SetString(PyExc_TypeError, "a check is 16 bytes");
        return -1;
    }
    memcpy(((Numbers *)self)->check, PyBytes_AS_STRING(value), CHECK);
    return 0;
}

static PyGetSetDef check_member[] = {
    {"_check", get_check, set_check, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject Numbers_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "tokenwire_speedups.Numbers",
    .tp_doc = "The numbers of a lane.",
    .tp_basicsize = sizeof(Numbers),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_members = members,
    .tp_getset = check_member,
};

/* What is as large is unbounded; several.py: `MOST`. */
#define MOST (1LL << 62)

/* No sum of two of them overflows. */
static inline int is_small(long long value)
{
    return value <= MOST && value >= -MOST;
}

/* The quarters of a token that are left behind a text. A character that is no ASCII has two bytes
   at least, and is a token at most. */
static inline long long quarters_behind(const Numbers *numbers, Py_ssize_t size, int is_ascii)
{
    return numbers->quarters < MOST ? numbers->quarters - (is_ascii ? size : size * 2)
                                    : numbers->quarters;
}

/* `Lane._is_due`. */
static int64_t most_outstanding;
static inline int is_due(const Numbers *numbers, double now)
{
    return now >= numbers->due || numbers->room - numbers->free >= most_outstanding;
}

/* --- what one call holds --------------------------------------------------------------------- */

/* References, until the end of the call. Functions that fill it give -1 where something is not as
   on the plain path, perhaps with an error set. */
typedef struct {
    PyObject *refs[64];
    int count;
} Held;

static PyObject *hold(Held *held, PyObject *object)
{
    if (object != NULL)
        held->refs[held->count++] = object;
    return object;
}

static void let_go(Held *held)
{
    while (held->count > 0)
        Py_DECREF(held->refs[--held->count]);
}

static int number(PyObject *object, enum slot s, int64_t *value)
{
    PyObject *found = get(object, s);
    int overflow = 1;
    if (found != NULL && PyLong_CheckExact(found))
        *value = PyLong_AsLongLongAndOverflow(found, &overflow);
    Py_XDECREF(found);
    /* Sums of two of them are numbers too. */
    return overflow || *value > INT64_C(1) << 62 || *value < -(INT64_C(1) << 62) ? -1 : 0;
}

static int put_number(PyObject *object, enum slot s, int64_t value)
{
    PyObject *boxed = PyLong_FromLongLong(value);
    int failed = boxed == NULL ? -1 : put(object, s, boxed);
    Py_XDECREF(boxed);
    return failed;
}

typedef struct {
    const char *data;
    Py_ssize_t size;
} Bytes;

static int bytes(Held *held, PyObject *object, enum slot s, Bytes *value)
{
    PyObject *found = hold(held, get(object, s));
    if (found == NULL || !PyBytes_CheckExact(found))
        return -1;
    value->data = PyBytes_AS_STRING(found);
    value->size = PyBytes_GET_SIZE(found);
    return 0;
}

static int has_at(const char *data, Py_ssize_t size, Py_ssize_t at, Bytes part)
{
    return at >= 0 && at <= size - part.size && memcmp(data + at, part.data, part.size) == 0;
}

/* --- lane.py, as it is ----------------------------------------------------------------------- */

static PyObject *names;                        /* the globals of lane.py */
static PyObject *py_received, *seal;           /* `Lane.received` in Python; `_seal` */
static PyObject *py_offer, *py_offer_one;      /* express.py: `offer`, `offer_one` in Python */
static PyObject *str_time, *str_monotonic, *str_seal, *str_ready, *str_give;
static PyObject *str_append, *str_make_up, *str_borrow, *str_fail, *str_several, *str_wait;
static PyObject *py_several; /* `take_several` in Python */
static PyObject *str_received, *str_parse;
static PyObject *str_offer, *str_offer_one, *str_is_closing, *str_data_received, *str_lose;
static PyObject *str_break_down;
static PyObject *str_delay_acks;
static PyObject *py_pull; /* `Connection.pull` in Python */
static PyObject *match_text, *match_number, *match_count, *match_word, *match_blanks;
static int64_t most_bytes, most_text, sometimes;
static double ack_seconds;

/* --- text ------------------------------------------------------------------------------------ */

/* How far a JSON string goes on as a record writes it (template.py: `_STRING`). */
static Py_ssize_t string_end(const char *data, Py_ssize_t at, Py_ssize_t size, int *is_ascii)
{
    unsigned char high = 0;
    for (; at < size; at++) {
        unsigned char c = (unsigned char)data[at];
        if (c == '"' || c < 0x20)
            break;
        if (c == '\\') {
            if (at + 1 >= size || data[at + 1] == 0 || !strchr("\"\\nrtbf", data[at + 1]))
                break;
            at++;
        }
        high |= c;
    }
    *is_ascii = high < 0x80;
    return at;
}

static int is_text(const char *data, Py_ssize_t size)
{
    PyObject *text = PyUnicode_DecodeUTF8(data, size, NULL);
    if (text == NULL)
        PyErr_Clear();
    Py_XDECREF(text);
    return text != NULL;
}

/* The end of what fits a gap of a template (template.py: `_TEXT` and its siblings); -1 where
   nothing does, -2 for a gap of another kind. `data` has a 0 at its end, as all bytes have. */
static Py_ssize_t gap_end(PyObject *match, const char *data, Py_ssize_t at, Py_ssize_t size)
{
    Py_ssize_t start = at;
    int is_ascii;
    if (match == match_text)
        return string_end(data, at, size, &is_ascii);
    if (match == match_blanks) {
        while (data[at] == ' ')
            at++;
        return at;
    }
    if (match == match_word) {
        if (data[at++] != '"')
            return -1;
        while (data[at] >= ' ' && data[at] <= '~' && data[at] != '"' && data[at] != '\\')
            at++;
        return data[at] == '"' && at - start - 1 <= 256 ? at + 1 : -1;
    }
    if (match != match_number && match != match_count)
        return -2;
    while (data[at] >= '0' && data[at] <= '9')
        at++;
    if (at == start || at - start > 15 || data[at] == '.' || data[at] == 'e' || data[at] == 'E')
        return -1;
    return data[start] == '0' && (at - start > 1 || match == match_count) ? -1 : at;
}

/* --- the check of a record: BLAKE2b (RFC 7693) of 8 bytes, without a key ---------------------- */

static const uint64_t iv[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
static const unsigned char sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint64_t turn(uint64_t x, int by)
{
    return x >> by | x << (64 - by);
}

static void compress(uint64_t h[8], const unsigned char *block, uint64_t count, int is_last)
{
    uint64_t v[16], m[16];
    for (int i = 0; i < 16; i++)
        v[i] = i < 8 ? h[i] : iv[i - 8];
#if PY_LITTLE_ENDIAN
    memcpy(m, block, sizeof m);
#else
    for (int i = 0; i < 16; i++) {
        m[i] = 0;
        for (int j = 7; j >= 0; j--)
            m[i] = m[i] << 8 | block[8 * i + j];
    }
#endif
    v[12] ^= count;
    v[14] ^= is_last ? ~UINT64_C(0) : 0;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 12
#endif
    for (int round = 0; round < 12; round++) {
        const unsigned char *s = sigma[round % 10];
#define MIX(a, b, c, d, x, y)                                                                  \
    a += b + m[x], d = turn(d ^ a, 32), c += d, b = turn(b ^ c, 24);                           \
    a += b + m[y], d = turn(d ^ a, 16), c += d, b = turn(b ^ c, 63)
        MIX(v[0], v[4], v[8], v[12], s[0], s[1]);
        MIX(v[1], v[5], v[9], v[13], s[2], s[3]);
        MIX(v[2], v[6], v[10], v[14], s[4], s[5]);
        MIX(v[3], v[7], v[11], v[15], s[6], s[7]);
        MIX(v[0], v[5], v[10], v[15], s[8], s[9]);
        MIX(v[1], v[6], v[11], v[12], s[10], s[11]);
        MIX(v[2], v[7], v[8], v[13], s[12], s[13]);
        MIX(v[3], v[4], v[9], v[14], s[14], s[15]);
#undef MIX
    }
    for (int i = 0; i < 8; i++)
        h[i] ^= v[i] ^ v[i + 8];
}

/* The check of `data`, which is not empty, in hexadecimal. */
static void check_of(const unsigned char *data, size_t size, char out[16])
{
    uint64_t h[8];
    unsigned char last[128] = {0};
    size_t at = 0;
    memcpy(h, iv, sizeof h);
    h[0] ^= 0x01010000 ^ 8;
    for (; size - at > 128; at += 128)
        compress(h, data + at, at + 128, 0);
    memcpy(last, data + at, size - at);
    compress(h, last, size, 1);
    for (int i = 0; i < 16; i++)
        out[i] = "0123456789abcdef"[h[0] >> (8 * (i / 2) + (i % 2 ? 0 : 4)) & 15];
}

/* --- forms: what `%` of bytes does ------------------------------------------------------------ */

typedef struct {
    char kind; /* 'b', 'd' or 'x' */
    Bytes text;
    int64_t number;
} Gap;

/* Fill a form with `gaps`, in their order; the size, or -1 where it has others or is too long. */
static Py_ssize_t fill(char *out, Py_ssize_t room, Bytes form, const Gap *gaps, int count)
{
    Py_ssize_t size = 0;
    int used = 0;
    for (Py_ssize_t at = 0; at < form.size;) {
        const char *start = form.data + at, *gap = memchr(start, '%', (size_t)(form.size - at));
        char digits[24];
        Bytes piece = {start, gap == NULL ? form.size - at : gap - start};
        at += piece.size;
        if (piece.size == 0) {
            char kind = ++at < form.size ? form.data[at] : 0;
            at++;
            if (kind == '%')
                piece = (Bytes){gap, 1};
            else {
                if (used == count || gaps[used].kind != kind || gaps[used].number < 0)
                    return -1;
                piece = gaps[used].text;
                if (kind != 'b') {
                    int64_t rest = gaps[used].number;
                    int base = kind == 'd' ? 10 : 16, first = sizeof digits;
                    do
                        digits[--first] = "0123456789abcdef"[rest % base];
                    while (rest /= base);
                    piece = (Bytes){digits + first, (Py_ssize_t)sizeof digits - first};
                }
                used++;
            }
        }
        if (piece.size > room - size)
            return -1;
        if (piece.size > 0) /* a gap that a form does not have has no bytes at all */
            memcpy(out + size, piece.data, piece.size);
        size += piece.size;
    }
    return used == count ? size : -1;
}

/* --- a token ---------------------------------------------------------------------------------- */

#define MOST_RECORD (8 << 10)
#define MOST_PULLED (16 << 10)

/* What is known of a read that fits. */
typedef struct {
    Bytes text;
    double now, mean;
    int64_t size, t, quarters;
    int is_late; /* and was acknowledged before */
} Token;

/* The steps of a template from `*at` on, which is moved behind them, and `span`, where its text is:
   1, or 0 where the data does not fit or has no text, -1 for a template of another kind. */
static int steps_in(PyObject *steps, const char *raw, Py_ssize_t size, Py_ssize_t *at,
                    Py_ssize_t span[2])
{
    int has_text = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(steps); i++) {
        PyObject *step = PyList_GET_ITEM(steps, i);
        if (!PyTuple_CheckExact(step) || PyTuple_GET_SIZE(step) != 2
            || !PyBytes_CheckExact(PyTuple_GET_ITEM(step, 0)))
            return -1;
        PyObject *fixed = PyTuple_GET_ITEM(step, 0), *match = PyTuple_GET_ITEM(step, 1);
        Bytes part = {PyBytes_AS_STRING(fixed), PyBytes_GET_SIZE(fixed)};
        if (!has_at(raw, size, *at, part))
            return 0;
        *at += part.size;
        Py_ssize_t next = gap_end(match, raw, *at, size);
        if (next < 0)
            return next == -1 ? 0 : -1;
        if (match == match_text) {
            span[0] = *at, span[1] = next;
            has_text = 1;
        }
        *at = next;
    }
    return has_text;
}

/* `Template.span_in`: 1 with where the text is, 0 where the payload does not fit, -1 for a template
   of another kind. */
static int span_in(Held *held, PyObject *lane, PyObject *data, Py_ssize_t at, Py_ssize_t end,
                   Py_ssize_t span[2])
{
    const char *raw = PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data);
    PyObject *template = hold(held, get(lane, Lane__template));
    PyObject *steps = template == NULL ? NULL : hold(held, get(template, Template_steps));
    Bytes tail;
    if (steps == NULL || !PyList_CheckExact(steps) || bytes(held, template, Template_tail, &tail))
        return -1;
    int fits = steps_in(steps, raw, size, &at, span);
    if (fits != 1)
        return fits;
    return at + tail.size == end && has_at(raw, size, at, tail);
}

/* `Lane._text_in`: as `span_in`. */
static int text_in(Held *held, PyObject *lane, PyObject *data, Py_ssize_t start, Py_ssize_t end,
                   Py_ssize_t span[2])
{
    int fits = span_in(held, lane, data, start, end, span);
    if (fits != 1)
        return fits;
    Numbers *numbers = (Numbers *)lane;
    if (put(lane, Lane__read, data))
        return -1;
    numbers->read_start = start, numbers->read_end = end;
    numbers->text_start = span[0], numbers->text_end = span[1];
    return 1;
}

/* What `fits` and `append` look at, in steps: what the ones before looked at leads to the next. */
static inline void fetch_lane(PyObject *lane)
{
    const enum slot objects[] = {Lane__head, Lane__end, Lane__json, Lane__text, Lane__times};
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        PyObject *object = peek(lane, objects[i]);
        if (object != NULL)
            ahead(object, i == 0 ? 6 * LINE : 2 * LINE);
    }
    PyObject *tape = peek(lane, Lane__tape);
    if (tape != NULL)
        ahead(tape, 2 * LINE);
}

static inline void fetch_array(PyObject *array)
{
    if (array != NULL && PyByteArray_CheckExact(array))
        AHEAD(PyByteArray_AS_STRING(array) + PyByteArray_GET_SIZE(array));
}

static inline void fetch_tape(PyObject *lane)
{
    PyObject *tape = peek(lane, Lane__tape);
    fetch_array(peek(lane, Lane__text));
    fetch_array(peek(lane, Lane__times));
    if (tape == NULL || tape == Py_None)
        return;
    const enum slot objects[] = {Tape_records, Tape_reader, Tape_bytes};
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++) {
        PyObject *object = peek(tape, objects[i]);
        if (object != NULL)
            ahead(object, 2 * LINE);
    }
}

static inline void fetch_reader(PyObject *reader, PyObject *port)
{
    if (port == NULL || port == Py_None)
        return;
    PyObject *after = peek(reader, Reader_after), *fd = peek(port, Port_fd);
    if (after != NULL)
        AHEAD(after);
    if (fd != NULL)
        AHEAD(fd);
}

/* The first half of `Lane.received`: 1 for a read that fits, 0 for one that does not, -1 where that
   is left to the Python. */
static int fits(Held *held, PyObject *lane, PyObject *data, Token *token)
{
    const Numbers *numbers = (const Numbers *)lane;
    PyObject *clock = PyDict_GetItemWithError(names, str_time);
    if (clock == NULL || !PyBytes_CheckExact(data))
        return -1;
    PyObject *method = hold(held, PyObject_GetAttr(clock, str_monotonic));
    PyObject *now = method == NULL ? NULL : hold(held, PyObject_CallNoArgs(method));
    if (now == NULL || !PyFloat_CheckExact(now))
        return -1;
    token->now = PyFloat_AS_DOUBLE(now);
    fetch_lane(lane);
    double gap = token->now - numbers->now, mean = numbers->mean;
    token->is_late = gap > ack_seconds && mean < ack_seconds;
    token->mean = mean + (gap - mean) * (gap > mean ? 0.5 : 0.2);

    const char *raw = PyBytes_AS_STRING(data);
    Py_ssize_t length = PyBytes_GET_SIZE(data), span[2] = {0, 0};
    if (length > most_bytes)
        return 0;
    PyObject *lines = hold(held, get(lane, Lane__lines));
    if (lines == NULL || !PyList_CheckExact(lines) || length >= PyList_GET_SIZE(lines))
        return -1;
    PyObject *line = PyList_GET_ITEM(lines, length);
    if (!PyBytes_CheckExact(line))
        return -1;
    Py_ssize_t start = PyBytes_GET_SIZE(line);
    if (!has_at(raw, length, 0, (Bytes){PyBytes_AS_STRING(line), start}))
        return 0;
    token->size = length - start - 2;

    PyObject *varies = hold(held, get(lane, Lane__varies));
    if (varies == Py_True) {
        if (!has_at(raw, length, length - 2, (Bytes){"\r\n", 2}))
            return 0;
        int found = text_in(held, lane, data, start, length - 2, span);
        if (found != 1)
            return found;
    } else {
        Bytes head, end;
        if (varies != Py_False || bytes(held, lane, Lane__head, &head)
            || bytes(held, lane, Lane__end, &end))
            return -1;
        if (!has_at(raw, length, length - end.size, end) || !has_at(raw, length, start, head))
            return 0;
        span[0] = start + head.size, span[1] = length - end.size;
    }
    fetch_tape(lane);
    Py_ssize_t size = span[1] - span[0];
    const char *text = raw + span[0];
    int is_ascii;
    Bytes bar;
    double milliseconds = (token->now - numbers->start) * 1000;
    if (bytes(held, lane, Lane__bar, &bar) || !(milliseconds > -1e15 && milliseconds < 1e15)
        || !is_small(numbers->base) || !is_small(numbers->room) || !is_small(numbers->free)
        || !is_small(numbers->quarters))
        return -1;
    token->t = numbers->base + (int64_t)milliseconds;
    if (size <= 0 || token->size > numbers->free || token->mean < numbers->wait_below
        || token->t <= 0 || string_end(text, 0, size, &is_ascii) != size
        || has_at(text, size, 0, bar) || !(is_ascii || is_text(text, size)))
        return 0;
    token->quarters = quarters_behind(numbers, size, is_ascii);
    if (token->quarters < 0)
        return 0;
    token->text = (Bytes){text, size};
    return 1;
}

/* --- readers: express.py, `offer` -------------------------------------------------------------- */

/* Records of one offer: spool.py knows the number. */
#define MOST_PIECES 8

typedef struct {
    Bytes check, json, text;
} Piece;

/* The newest records of a log, as they are offered, and their chunks in the form that was asked for
   last. One record mostly; of several `record` is NULL. */
typedef struct {
    PyObject *offset, *record; /* `offset` is that of the last one */
    int64_t seq;               /* that of the first one */
    int count;
    Piece pieces[MOST_PIECES];
    Bytes before;           /* the check that a reader must have; NULL where any is right */
    PyObject *form, *chunk; /* `chunk` is made where somebody wants an object */
    PyObject *check_object; /* the same of `check` */
    Py_ssize_t size;
    char out[MOST_RECORD + 2048];
} Offer;

static int flag(PyObject *object, enum slot s, int *value)
{
    PyObject *found = get(object, s);
    int is_flag = found == Py_True || found == Py_False;
    *value = found == Py_True;
    Py_XDECREF(found);
    return is_flag ? 0 : -1;
}

/* `Form.fill` of the record `piece` at `seq`, behind what is in `offer->out`: its size, 0 for one
   that does not fit; -1 for a form of another kind. */
static Py_ssize_t fill_form(Offer *offer, PyObject *form, const Piece *piece, int64_t seq)
{
    Held held;
    Bytes plain, chunk, head, text = piece->text, number_text = {NULL, 0};
    char number_out[24];
    int64_t fixed, shift = 0;
    int has_cursor, is_json;
    Py_ssize_t filled = -1, room = (Py_ssize_t)sizeof offer->out - offer->size;
    char *out = offer->out + offer->size;
    held.count = 0;
    if (form == Py_None)
        return 0;
    if (bytes(&held, form, Form_plain, &plain) || number(form, Form_fixed, &fixed))
        goto done;
    if (plain.size > 0) {
        int64_t size = fixed + piece->check.size + piece->json.size + 1;
        for (int64_t rest = seq; rest > 0; rest /= 10)
            size++;
        Gap gaps[] = {{'x', {NULL, 0}, size}, {'d', {NULL, 0}, seq},
                      {'b', piece->check, 0}, {'b', piece->json, 0}};
        filled = fill(out, room, plain, gaps, 4);
        filled = filled > 0 ? filled : -1;
        goto done;
    }
    PyObject *shifted = hold(&held, get(form, Form_shift));
    if (bytes(&held, form, Form_chunk, &chunk) || bytes(&held, form, Form_head, &head)
        || flag(form, Form_has_cursor, &has_cursor)
        || flag(form, Form_is_json, &is_json) || shifted == NULL
        || (shifted != Py_None && number(form, Form_shift, &shift)))
        goto done;
    filled = 0;
    if (head.size == 0)
        text = piece->json;
    else if (!has_at(piece->json.data, piece->json.size, 0, head)
             || (!is_json && memchr(text.data, '\\', (size_t)text.size) != NULL))
        goto done;
    Gap gaps[5] = {{'x', {NULL, 0}, fixed + text.size}};
    int count = 1;
    if (has_cursor) {
        gaps[count++] = (Gap){'d', {NULL, 0}, seq};
        gaps[count++] = (Gap){'b', piece->check, 0};
        gaps[0].number += piece->check.size + 1;
        for (int64_t rest = seq; rest > 0; rest /= 10)
            gaps[0].number++;
    }
    gaps[count++] = (Gap){'b', text, 0};
    if (shifted != Py_None) {
        Gap gap = {'d', {NULL, 0}, seq + shift};
        number_text = (Bytes){number_out, fill(number_out, 24, (Bytes){"%d", 2}, &gap, 1)};
        gaps[count++] = (Gap){'b', number_text, 0};
        gaps[0].number += number_text.size;
    }
    if (number_text.size < 0 || (filled = fill(out, room, chunk, gaps, count)) <= 0)
        filled = -1;
done:
    let_go(&held);
    return filled;
}

/* The chunks of all records into `offer->out`: 0, with a size of 0 where one does not fit; -1 for a
   form of another kind. */
static int fill_all(Offer *offer, PyObject *form)
{
    Py_ssize_t filled = 0;
    offer->size = 0;
    for (int i = 0; i < offer->count; i++) {
        filled = fill_form(offer, form, &offer->pieces[i], offer->seq + i);
        offer->size = filled > 0 ? offer->size + filled : 0;
        if (filled <= 0)
            break;
    }
    return filled < 0 ? -1 : 0;
}

/* `_is_free`: -1 with an error. */
static int is_free(PyObject *port, int64_t socket)
{
    if (socket < 0)
        return 0;
    PyObject *unsent = get(port, Port_unsent);
    PyObject *count = unsent == NULL ? NULL : PyObject_CallNoArgs(unsent);
    int is_waiting = count == NULL ? -1 : PyObject_IsTrue(count);
    Py_XDECREF(unsent), Py_XDECREF(count);
    if (is_waiting)
        return is_waiting < 0 ? -1 : 0;
    return put_number(port, Port_fd, socket) ? -1 : 1;
}

/* Send what a socket takes at once; how many bytes that were. What is left, and every error, is for
   the transport. */
static Py_ssize_t send_now(int64_t fd, const char *data, Py_ssize_t size)
{
    Py_ssize_t sent = 0;
#ifndef _WIN32
    sent = send((int)fd, data, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL);
#endif
    return sent > 0 ? sent : 0;
}

/* What `except Exception as error` catches: the exception that is set, with its traceback, which is
   set no longer. NULL for any other, which stays set. */
static PyObject *caught(void)
{
    PyObject *type, *error, *traceback;
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type), Py_XDECREF(traceback);
    return error;
}

/* Report the exception that is set to a reader; -1 with an error. */
static int fail(PyObject *reader)
{
    PyObject *error = caught();
    PyObject *done = error == NULL ? NULL : PyObject_CallMethodOneArg(reader, str_fail, error);
    Py_XDECREF(error), Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Write the record to a reader whose port may take it: 1 when it is done, 0 where the reader is to
   be called, -1 with an error, -2 for what is left to the Python before anything happened. */
static int write_to(Offer *offer, PyObject *reader, PyObject *port)
{
    int is_open, is_direct, done = -2;
    int64_t after, fd, socket;
    Py_ssize_t sent;
    PyObject *form = NULL, *text = NULL, *send = NULL, *rest = NULL, *answer = NULL;
    if (flag(port, Port_is_open, &is_open))
        return -2;
    if (!is_open)
        return 0;
    if (number(reader, Reader_after, &after) || number(port, Port_fd, &fd)
        || number(port, Port_socket, &socket) || fd > INT_MAX || socket > INT_MAX)
        return -2;
    if (after != offer->seq - 1)
        return 0;
    if (offer->before.data != NULL) { /* a failover may have lost what the reader has */
        PyObject *check = get(reader, Reader_check);
        int is_next = check != NULL && PyBytes_CheckExact(check)
                      && PyBytes_GET_SIZE(check) == CHECK && offer->before.size == CHECK
                      && memcmp(PyBytes_AS_STRING(check), offer->before.data, CHECK) == 0;
        Py_XDECREF(check);
        if (check == NULL)
            PyErr_Clear();
        if (!is_next)
            return 0;
        if (offer->check_object == NULL
            && (offer->check_object = PyBytes_FromStringAndSize(
                    offer->pieces[offer->count - 1].check.data, CHECK)) == NULL)
            return -1;
    }
    form = get(port, Port_form), text = get(port, Port_text);
    if (form == NULL || text == NULL || (text != Py_None && !PyByteArray_CheckExact(text)))
        goto end;
    if (form != offer->form) { /* of further readers of this wire it is the same one */
        Py_CLEAR(offer->form);
        Py_CLEAR(offer->chunk);
        if (fill_all(offer, form))
            goto end;
        offer->form = Py_NewRef(form);
    }
    done = 0;
    if (offer->size == 0)
        goto end;
    if (text != Py_None) {
        Py_ssize_t before = PyByteArray_GET_SIZE(text), more = 0;
        if (before >= most_text)
            goto end;
        done = -1;
        for (int i = 0; i < offer->count; i++)
            more += offer->pieces[i].text.size;
        if (PyByteArray_Resize(text, before + more))
            goto end;
        for (int i = 0; i < offer->count; before += offer->pieces[i++].text.size)
            memcpy(PyByteArray_AS_STRING(text) + before, offer->pieces[i].text.data,
                   (size_t)offer->pieces[i].text.size);
    }
    done = -1;
    if (put(reader, Reader_after, offer->offset))
        goto end;
    is_direct = fd >= 0 ? 1 : is_free(port, socket);
    if (is_direct < 0 && fail(reader))
        goto end;
    sent = is_direct > 0 ? send_now(fd >= 0 ? fd : socket, offer->out, offer->size) : 0;
    if (is_direct >= 0 && sent < offer->size) {
        if (is_direct && put_number(port, Port_fd, -1))
            goto end;
        if (sent > 0)
            rest = PyBytes_FromStringAndSize(offer->out + sent, offer->size - sent);
        else {
            if (offer->chunk == NULL)
                offer->chunk = PyBytes_FromStringAndSize(offer->out, offer->size);
            rest = Py_XNewRef(offer->chunk);
        }
        if (rest == NULL)
            goto end;
        if ((send = get(port, Port_send)) != NULL)
            answer = PyObject_CallOneArg(send, rest);
        if (answer == NULL && fail(reader))
            goto end;
    }
    if (put(port, Port_wrote, Py_True)
        || (offer->before.data != NULL && put(reader, Reader_check, offer->check_object)))
        goto end;
    done = 1;
end:
    Py_XDECREF(form), Py_XDECREF(text), Py_XDECREF(send), Py_XDECREF(rest), Py_XDECREF(answer);
    return done;
}

/* Bring what is touched of the takers behind number `i` closer, while this one is written to: of
   many readers all of it is cold. */
static void look_ahead(PyObject *takers, Py_ssize_t i)
{
#ifdef __GNUC__
    Py_ssize_t left = PyTuple_GET_SIZE(takers) - i;
    if (left > 4)
        __builtin_prefetch(PyTuple_GET_ITEM(takers, i + 4));
    if (left > 3) {
        char *reader = (char *)PyTuple_GET_ITEM(PyTuple_GET_ITEM(takers, i + 3), 2);
        __builtin_prefetch(reader), __builtin_prefetch(reader + slots[Reader_port].offset);
    }
    for (Py_ssize_t n = 2; n >= 1 && left > n; n--) {
        PyObject *reader = PyTuple_GET_ITEM(PyTuple_GET_ITEM(takers, i + n), 2);
        PyObject **at = reader == Py_None ? NULL : place(reader, Reader_port);
        PyObject *port = at == NULL ? NULL : *at;
        if (port == NULL || port == Py_None)
            continue;
        __builtin_prefetch(port), __builtin_prefetch((char *)port + slots[Port_wrote].offset);
        if (n == 1 && (at = place(port, Port_fd)) != NULL)
            __builtin_prefetch(*at);
        if (n == 1 && (at = place(port, Port_text)) != NULL)
            __builtin_prefetch(*at);
    }
#endif
}

/* `offer` in Python, for the takers from number `first` on. */
static int offer_in_python(const Offer *offer, PyObject *takers, Py_ssize_t first)
{
    const Piece *one = &offer->pieces[0];
    PyErr_Clear();
    PyObject *rest = PyTuple_GetSlice(takers, first, PyTuple_GET_SIZE(takers)), *done = NULL;
    if (rest != NULL)
        done = PyObject_CallFunction(py_offer, "OOy#y#y#O", rest, offer->offset, one->check.data,
                                     one->check.size, one->json.data, one->json.size,
                                     one->text.data, one->text.size, offer->record);
    Py_XDECREF(rest), Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static Piece piece_of(PyObject *record, Bytes text)
{
    const char *whole = PyBytes_AS_STRING(record);
    Bytes json = {whole + CHECK, PyBytes_GET_SIZE(record) - CHECK};
    return (Piece){{whole, CHECK}, json, text};
}

/* An offer of nothing, for `end_offer`. Its ten kilobytes of chunks stay as they are: to set them to 0
   for each record would displace from the cache what is read next. */
static void clear_offer(Offer *offer)
{
    offer->offset = offer->form = offer->chunk = offer->check_object = NULL;
}

/* Begin to offer a record; -1 with an error. `end_offer` follows either way. */
static int begin_offer(Offer *offer, int64_t seq, PyObject *record, Bytes text)
{
    offer->offset = PyLong_FromLongLong(seq), offer->record = record, offer->seq = seq;
    offer->count = 1, offer->pieces[0] = piece_of(record, text);
    offer->form = Py_NewRef(Py_None), offer->chunk = offer->check_object = NULL, offer->size = 0;
    offer->before = (Bytes){NULL, 0};
    return offer->offset == NULL ? -1 : 0;
}

static void end_offer(Offer *offer)
{
    Py_XDECREF(offer->offset), Py_XDECREF(offer->form), Py_XDECREF(offer->chunk);
    Py_XDECREF(offer->check_object);
}

/* Whether `reader`, which is all who wait, can be written to past its transport (express.py:
   `offer_one`): -1 where that is left to the Python. */
static int is_ready(PyObject *reader, int64_t before)
{
    int64_t after, fd;
    int is_open;
    PyObject *port = peek(reader, Reader_port), *form;
    if (port == NULL)
        return -1;
    if (port == Py_None)
        return 0;
    form = peek(port, Port_form);
    if (form == NULL || flag(port, Port_is_open, &is_open) || number(reader, Reader_after, &after)
        || number(port, Port_fd, &fd))
        return -1;
    return is_open && form != Py_None && after == before && fd >= 0;
}

/* Offer a record to the reader that `is_ready`; -1 with an error. */
static int offer_one(PyObject *reader, PyObject *takers, int64_t seq, PyObject *record, Bytes text)
{
    Offer offer;
    int failed = begin_offer(&offer, seq, record, text);
    PyObject *port = failed ? NULL : get(reader, Reader_port);
    if (port != NULL) {
        int done = write_to(&offer, reader, port);
        failed = done == 1 ? 0 : done == -1 ? -1 : offer_in_python(&offer, takers, 0);
    } else
        failed = -1;
    Py_XDECREF(port);
    end_offer(&offer);
    return failed;
}

/* Give what is offered to all who wait for it; -1 with an error. */
static int offer_to(Offer *offer, PyObject *takers)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(takers); i++) {
        PyObject *taker = PyTuple_GET_ITEM(takers, i), *reader = PyTuple_GET_ITEM(taker, 2);
        PyObject *take = PyTuple_GET_ITEM(taker, 1), *answer;
        int is_taken = 0;
        look_ahead(takers, i);
        if (reader != Py_None) {
            PyObject *port = get(reader, Reader_port);
            is_taken = port == NULL ? -2 : port == Py_None ? 0 : write_to(offer, reader, port);
            Py_XDECREF(port);
            if (is_taken == -2 && (offer->before.data != NULL || offer->record == NULL)) {
                PyErr_Clear(); /* `offer` compares no checks, and has one record */
                is_taken = 0;
            }
            if (is_taken == -2)
                return offer_in_python(offer, takers, i);
        }
        if (is_taken == 0 && take != Py_None && offer->record != NULL) {
            answer = PyObject_CallFunctionObjArgs(take, offer->offset, offer->record, NULL);
            is_taken = answer == NULL ? -1 : PyObject_IsTrue(answer);
            Py_XDECREF(answer);
        }
        if (is_taken == 0) {
            answer = PyObject_CallNoArgs(PyTuple_GET_ITEM(taker, 0));
            is_taken = answer == NULL ? -1 : 1;
            Py_XDECREF(answer);
        }
        if (is_taken < 0)
            return -1;
    }
    return 0;
}

/* Offer a record to all who wait for it; -1 with an error. */
static int offer_all(PyObject *takers, int64_t seq, PyObject *record, Bytes text)
{
    Offer offer;
    int failed = begin_offer(&offer, seq, record, text) || offer_to(&offer, takers) ? -1 : 0;
    end_offer(&offer);
    return failed;
}

/* Whether all takers are what `offer` expects. */
static int are_takers(PyObject *takers)
{
    if (!PyTuple_CheckExact(takers))
        return 0;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(takers); i++) {
        PyObject *taker = PyTuple_GET_ITEM(takers, i);
        if (!PyTuple_CheckExact(taker) || PyTuple_GET_SIZE(taker) != 3)
            return 0;
    }
    return 1;
}

/* More room at the end of a bytearray, for bytes to put there; NULL with an error. */
static char *grown(PyObject *array, Py_ssize_t size)
{
    Py_ssize_t before = PyByteArray_GET_SIZE(array);
    return PyByteArray_Resize(array, before + size) ? NULL : PyByteArray_AS_STRING(array) + before;
}

/* What a token adds to what is outstanding. */
static int take_over(Numbers *numbers, PyObject *text, PyObject *times, const Token *token)
{
    char *place = grown(text, token->text.size);
    if (place == NULL)
        return -1;
    memcpy(place, token->text.data, token->text.size);
    if ((place = grown(times, sizeof token->now)) == NULL)
        return -1;
    memcpy(place, &token->now, sizeof token->now);
    numbers->free -= token->size;
    numbers->quarters = token->quarters;
    numbers->mean = token->mean, numbers->now = token->now;
    return 0;
}

/* The JSON of a token's record; its size, or -1. */
static Py_ssize_t json_of(char *out, Py_ssize_t room, Bytes form, const Token *token, int64_t seq)
{
    Gap gaps[] = {
        {'b', token->text, 0}, {'d', {NULL, 0}, seq}, {'d', {NULL, 0}, token->t}
    };
    return fill(out, room, form, gaps, 3);
}

/* Call a method without arguments; -1 with an error. */
static int call(PyObject *object, PyObject *name)
{
    PyObject *done = PyObject_CallMethodNoArgs(object, name);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* `Lane._append` for a sink that takes JSON: as `append`. `answer` is what `Lane._give` returns. */
static int give(Held *held, PyObject *lane, PyObject *text, PyObject *times, Bytes form,
                const Token *token, PyObject **answer)
{
    Numbers *numbers = (Numbers *)lane;
    char out[MOST_RECORD];
    PyObject *sink = hold(held, get(lane, Lane__sink));
    PyObject *ready = sink == NULL ? NULL : hold(held, PyObject_GetAttr(sink, str_ready));
    Py_ssize_t size = json_of(out, sizeof out, form, token, numbers->seq + 1);
    if (ready != Py_True || size < 0)
        return 0;
    PyObject *json = hold(held, PyBytes_FromStringAndSize(out, size));
    if (json == NULL || take_over(numbers, text, times, token))
        return -1;
    numbers->seq++;
    *answer = PyObject_CallMethodOneArg(lane, str_give, json);
    return *answer == NULL ? -1 : 1;
}

/* `Lane._append`: 1 when it is done, 0 where it is left to the Python, and -1 with an error on the
   way. By hand it calls nothing but what readers are written to with. */
static int append(Held *held, PyObject *lane, const Token *token, PyObject **answer)
{
    Numbers *numbers = (Numbers *)lane;
    int64_t writer, tape_bytes, used, used_records;
    PyObject *tape = hold(held, get(lane, Lane__tape));
    PyObject *text = hold(held, get(lane, Lane__text));
    PyObject *times = hold(held, get(lane, Lane__times));
    Bytes form;
    if (!tape || !text || !times || !PyByteArray_CheckExact(text)
        || !PyByteArray_CheckExact(times) || bytes(held, lane, Lane__json, &form)
        || !is_small(numbers->seq) || PyDict_GetItemWithError(names, str_seal) != seal
        || PyDict_GetItemWithError(names, str_offer) != py_offer
        || PyDict_GetItemWithError(names, str_offer_one) != py_offer_one)
        return 0;
    if (tape == Py_None)
        return give(held, lane, text, times, form, token, answer);
    PyObject *takers = hold(held, get(tape, Tape_takers));
    PyObject *reader = hold(held, get(tape, Tape_reader));
    PyObject *records = hold(held, get(tape, Tape_records));
    PyObject *usage = hold(held, get(tape, Tape_usage));
    if (!takers || !reader || !records || !usage || takers == Py_None
        || !PyList_CheckExact(records)
        || number(tape, Tape_writer, &writer) || number(tape, Tape_bytes, &tape_bytes)
        || number(usage, Usage_bytes, &used) || number(usage, Usage_records, &used_records))
        return 0;
    int64_t seq = numbers->seq + 1;
    if (writer != numbers->epoch || PyList_GET_SIZE(records) != seq - 1
        || seq > numbers->last || used > numbers->usage_bound)
        return 0;
    AHEAD(((PyListObject *)records)->ob_item + seq - 1);
    PyObject *port = reader == Py_None ? NULL : peek(reader, Reader_port);
    if (port != NULL)
        ahead(port, 2 * LINE);

    /* The check before, or that of this record, and its JSON. */
    char out[MOST_RECORD];
    Py_ssize_t size = json_of(out + CHECK, sizeof out - CHECK, form, token, seq);
    if (size < 0)
        return 0;
    size += CHECK;
    memcpy(out, numbers->check, CHECK);
    fetch_reader(reader, port);
    check_of((unsigned char *)out, size, out);
    PyObject *record = hold(held, PyBytes_FromStringAndSize(out, size));
    int is_one = reader == Py_None ? 0 : is_ready(reader, seq - 1);
    if (record == NULL || is_one < 0
        || (is_one ? !PyTuple_CheckExact(takers) : !are_takers(takers)))
        return 0;
    if (take_over(numbers, text, times, token) || PyList_Append(records, record)
        || put_number(tape, Tape_bytes, tape_bytes + size)
        || put_number(usage, Usage_bytes, used + size)
        || put_number(usage, Usage_records, used_records + 1))
        return -1;
    memcpy(numbers->check, out, CHECK);
    numbers->seq = seq;
    if (is_one ? offer_one(reader, takers, seq, record, token->text)
               : offer_all(takers, seq, record, token->text))
        return -1;
    if (!(seq & sometimes) && is_due(numbers, token->now)
        && (call(lane, str_make_up) || call(lane, str_borrow)))
        return -1;
    *answer = Py_NewRef(Py_True);
    return 1;
}

/* `Lane._append` in Python. */
static PyObject *append_in_python(PyObject *lane, const Token *token)
{
    PyObject *arguments = Py_BuildValue("y#LLddL", token->text.data, token->text.size,
                                        (long long)token->size, (long long)token->t, token->now,
                                        token->mean, (long long)token->quarters);
    PyObject *method = arguments == NULL ? NULL : PyObject_GetAttr(lane, str_append);
    PyObject *done = method == NULL ? NULL : PyObject_CallObject(method, arguments);
    Py_XDECREF(arguments), Py_XDECREF(method);
    return done;
}

/* --- several payloads in one read: run/call/several.py ---------------------------------------- */

#define LARGE (16 << 10)
#define MOST_TEXT (4 << 10)

/* The texts of the payloads of a read, joined. */
typedef struct {
    char text[MOST_TEXT];
    Py_ssize_t size, count, all; /* of the text; payloads, and their bytes */
    int is_ascii;
    Py_ssize_t begin, first, last, end; /* where the last payload is, and its text */
} Joined;

/* The size of a chunk from its head at `at`, which is moved behind it; 0 for another form. */
static Py_ssize_t chunk_size(const char *raw, Py_ssize_t *at)
{
    Py_ssize_t size = 0, place = *at;
    for (; place - *at < 4; place++) {
        char c = raw[place];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0 || (digit == 0 && place == *at))
            break;
        size = size * 16 + digit;
    }
    if (place == *at || raw[place] != '\r' || raw[place + 1] != '\n')
        return 0;
    *at = place + 2;
    return size;
}

/* `Template.first_in`: 1 with the payload's end and that of its text, 0 where none fits, -1 for a
   template of another kind. */
static int payload_at(PyObject *steps, Bytes head, Bytes tail, const char *raw, Py_ssize_t size,
                      Py_ssize_t at, Joined *joined, Py_ssize_t *end)
{
    Py_ssize_t span[2];
    if (PyList_GET_SIZE(steps) > 0) {
        int fits = steps_in(steps, raw, size, &at, span);
        if (fits != 1)
            return fits;
    } else {
        int is_ascii;
        if (!has_at(raw, size, at, head))
            return 0;
        span[0] = at + head.size;
        span[1] = at = string_end(raw, span[0], size, &is_ascii);
    }
    joined->first = span[0], joined->last = span[1];
    *end = at + tail.size;
    return has_at(raw, size, at, tail);
}

/* `payloads_in`: 1 for a read that fits, 0 for one that does not, -1 for a template of another
   kind, or with an error. */
static int join(Held *held, PyObject *template, PyObject *data, Joined *joined)
{
    const char *raw = PyBytes_AS_STRING(data);
    Py_ssize_t size = PyBytes_GET_SIZE(data), at = 0;
    PyObject *steps = hold(held, get(template, Template_steps));
    Bytes head, tail, bar;
    if (steps == NULL || !PyList_CheckExact(steps) || bytes(held, template, Template_head, &head)
        || bytes(held, template, Template_tail, &tail)
        || bytes(held, template, Template_bar, &bar))
        return -1;
    joined->size = joined->count = joined->all = 0;
    joined->is_ascii = 1;
    while (at < size) {
        Py_ssize_t start = at, more = chunk_size(raw, &start), end = start + more;
        if (more == 0 || !has_at(raw, size, end, (Bytes){"\r\n", 2}))
            return 0;
        joined->all += more;
        while (start < end) {
            joined->begin = start;
            int fits = payload_at(steps, head, tail, raw, size, start, joined, &start);
            if (fits != 1)
                return fits;
            const char *text = raw + joined->first;
            Py_ssize_t length = joined->last - joined->first;
            if (length == 0 || has_at(raw, size, joined->first, bar)
                || length > MOST_TEXT - joined->size)
                return 0;
            int is_ascii = 1;
            for (Py_ssize_t i = 0; i < length && is_ascii; i++)
                is_ascii = (unsigned char)text[i] < 0x80;
            if (!is_ascii && !is_text(text, length))
                return 0;
            joined->is_ascii &= is_ascii;
            memcpy(joined->text + joined->size, text, length);
            joined->size += length;
            joined->count++;
        }
        if (start != end)
            return 0;
        joined->end = end;
        at = end + 2;
    }
    return joined->count > 0;
}

/* The first half of `take_several`, as `fits`. `token` has the time. */
static int fits_several(Held *held, PyObject *lane, PyObject *data, Token *token, Joined *joined)
{
    Numbers *numbers = (Numbers *)lane;
    PyObject *template = hold(held, get(lane, Lane__template));
    if (PyDict_GetItemWithError(names, str_several) != py_several || template == NULL)
        return -1;
    if (PyBytes_GET_SIZE(data) >= LARGE || template == Py_None)
        return 0;
    int found = join(held, template, data, joined);
    if (found != 1)
        return found;
    double milliseconds = (token->now - numbers->start) * 1000;
    if (!(milliseconds > -1e15 && milliseconds < 1e15) || !is_small(numbers->base)
        || !is_small(numbers->room) || !is_small(numbers->free) || !is_small(numbers->quarters))
        return -1;
    token->t = numbers->base + (int64_t)milliseconds;
    token->size = joined->all;
    token->quarters = quarters_behind(numbers, joined->size, joined->is_ascii);
    if (token->size > numbers->free || token->t <= 0 || token->quarters < 0)
        return 0;
    double gap = (token->now - numbers->now) / (double)joined->count, mean = numbers->mean;
    token->mean = mean + (gap - mean) * (gap > mean ? 0.5 : 0.2);
    token->text = (Bytes){joined->text, joined->size};
    PyObject *steps = peek(template, Template_steps);
    if (steps != NULL && PyList_GET_SIZE(steps) > 0) {
        if (put(lane, Lane__read, data))
            return -1;
        numbers->read_start = joined->begin, numbers->read_end = joined->end;
        numbers->text_start = joined->first, numbers->text_end = joined->last;
    }
    return 1;
}

/* `take_several`. */
static PyObject *several(Held *held, PyObject *lane, PyObject *data, Token *token)
{
    Joined joined;
    PyObject *answer = NULL;
    int found = fits_several(held, lane, data, token, &joined);
    if (found < 0) {
        PyErr_Clear();
        PyObject *function = PyDict_GetItemWithError(names, str_several);
        PyObject *time = PyFloat_FromDouble(token->now);
        if (function != NULL && time != NULL)
            answer = PyObject_CallFunctionObjArgs(function, lane, data, time, NULL);
        else if (!PyErr_Occurred())
            answer = PyObject_CallFunctionObjArgs(py_received, lane, data, NULL);
        Py_XDECREF(time);
        return answer;
    }
    if (found == 0)
        return Py_NewRef(Py_False);
    if (append(held, lane, token, &answer) == 0) {
        PyErr_Clear();
        answer = append_in_python(lane, token);
    }
    if (answer == Py_True && token->mean < ((Numbers *)lane)->wait_below) {
        PyObject *account = get(lane, Lane__account);
        if (account == NULL || call(account, str_wait))
            Py_CLEAR(answer);
        Py_XDECREF(account);
    }
    return answer;
}

/* `Source.delay_acks`; -1 with an error. */
static int delay_acks(Held *held, PyObject *lane)
{
    PyObject *source = hold(held, get(lane, Lane__source));
    PyObject *seq = hold(held, PyLong_FromLongLong(((Numbers *)lane)->seq));
    if (source == NULL || seq == NULL)
        return -1;
    return hold(held, PyObject_CallMethodOneArg(source, str_delay_acks, seq)) == NULL ? -1 : 0;
}

static PyObject *received(PyObject *lane, PyObject *data)
{
    Held held;
    Token token;
    PyObject *answer = NULL;
    held.count = 0;
    int found = fits(&held, lane, data, &token);
    if (found < 0) {
        PyErr_Clear();
        answer = PyObject_CallFunctionObjArgs(py_received, lane, data, NULL);
    } else if (token.is_late && delay_acks(&held, lane)) {
        answer = NULL;
    } else if (found == 0) {
        answer = several(&held, lane, data, &token);
    } else if (append(&held, lane, &token, &answer) == 0) {
        PyErr_Clear();
        answer = append_in_python(lane, &token);
    }
    let_go(&held);
    return answer;
}

/* `Connection.data_received`. */
static PyObject *data_received(PyObject *connection, PyObject *data)
{
    PyObject *diversion = get(connection, Connection_diversion), *done;
    if (diversion == NULL)
        return NULL;
    if (diversion != Py_None) {
        ahead(diversion, 6 * LINE);
        done = PyObject_CallMethodOneArg(diversion, str_received, data);
        Py_DECREF(diversion);
        int is_taken = done == NULL ? -1 : PyObject_IsTrue(done);
        Py_XDECREF(done);
        if (is_taken)
            return is_taken < 0 ? NULL : Py_NewRef(Py_None);
    } else
        Py_DECREF(diversion);
    done = PyObject_CallMethodOneArg(connection, str_parse, data);
    Py_XDECREF(done);
    return done == NULL ? NULL : Py_NewRef(Py_None);
}

/* --- what has landed: spool.py, `Spools.land` --------------------------------------------------- */

/* Where `part` begins in `data`, from `at` on; -1 where it does not. */
static Py_ssize_t find(Bytes data, Py_ssize_t at, Bytes part)
{
    while (at <= data.size - part.size) {
        const char *first = memchr(data.data + at, part.data[0], (size_t)(data.size - at));
        if (first == NULL)
            return -1;
        at = first - data.data;
        if (has_at(data.data, data.size, at, part))
            return at;
        at++;
    }
    return -1;
}

/* express.py: `text_of_delta`. */
static Bytes text_of(Bytes json)
{
    const Bytes start = {"\"text\":\"", 8}, stop = {"\",\"seq\":", 8}, none = {"", 0};
    Py_ssize_t at = find(json, 0, start);
    if (at < 0)
        return none;
    at += start.size;
    Py_ssize_t end = find(json, at, stop);
    Bytes text = {json.data + at, (end < 0 ? json.size - 1 : end) - at};
    if (text.size <= 0 || (memchr(text.data, '"', (size_t)text.size) != NULL
                           && memchr(text.data, '\\', (size_t)text.size) == NULL))
        return none;
    return text;
}

/* Bring what is touched of the items behind number `i` closer: all of it is cold. */
static void fetch_spools(PyObject *items, Py_ssize_t i)
{
    Py_ssize_t left = PyList_GET_SIZE(items) - i;
    for (Py_ssize_t n = 4; n >= 1; n--) {
        if (left <= n)
            continue;
        PyObject *item = PyList_GET_ITEM(items, i + n);
        if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3)
            continue;
        PyObject *spool = PyTuple_GET_ITEM(item, 0), *records, *readers, *taker, *reader, *port;
        if (n == 4) {
            ahead(spool, 3 * LINE);
            continue;
        }
        records = peek(spool, Tape_records), readers = peek(spool, Spool_readers);
        if (records == NULL || readers == NULL || !PyList_CheckExact(records)
            || !PyTuple_CheckExact(readers))
            continue;
        if (n == 3) {
            AHEAD(records), AHEAD(readers);
            continue;
        }
        Py_ssize_t size = PyList_GET_SIZE(records);
        taker = PyTuple_GET_SIZE(readers) == 0 ? NULL : PyTuple_GET_ITEM(readers, 0);
        if (taker == NULL || size == 0 || !PyTuple_CheckExact(taker) || PyTuple_GET_SIZE(taker) != 3)
            continue;
        reader = PyTuple_GET_ITEM(taker, 2);
        if (n == 2) {
            AHEAD(&PyList_GET_ITEM(records, size - 1)), ahead(reader, 3 * LINE);
            continue;
        }
        ahead(PyList_GET_ITEM(records, size - 1), 3 * LINE);
        if (reader != Py_None && (port = peek(reader, Reader_port)) != NULL)
            ahead(port, 2 * LINE);
    }
}

/* `count` records of a list, from number `at` on, behind the offset `start`, as an offer, which holds
   them in `held`; 0 where they are not plain ones, or -1 with an error. `before`: what a reader must
   have. */
static int begin_several(Offer *offer, Held *held, PyObject *records, Py_ssize_t at,
                         Py_ssize_t count, int64_t start, Bytes before)
{
    Piece pieces[MOST_PIECES];
    Py_ssize_t size = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *record = PyList_GET_ITEM(records, at + i);
        if (!PyBytes_CheckExact(record) || PyBytes_GET_SIZE(record) <= CHECK)
            return 0;
        hold(held, Py_NewRef(record));
        Bytes json = {PyBytes_AS_STRING(record) + CHECK, PyBytes_GET_SIZE(record) - CHECK};
        Bytes text = text_of(json);
        size += PyBytes_GET_SIZE(record);
        if (text.size == 0 || size >= MOST_RECORD)
            return 0;
        pieces[i] = piece_of(record, text);
    }
    if (begin_offer(offer, start + 1, PyList_GET_ITEM(records, at + count - 1), pieces[0].text))
        return -1;
    offer->before = before;
    if (count > 1) {
        memcpy(offer->pieces, pieces, (size_t)count * sizeof *pieces);
        offer->count = (int)count, offer->record = NULL;
        Py_SETREF(offer->offset, PyLong_FromLongLong(start + count));
    }
    return offer->offset == NULL ? -1 : 1;
}

/* The check of record number `at` of a list, which `held` holds; none where there is none. */
static Bytes check_in(Held *held, PyObject *records, Py_ssize_t at)
{
    PyObject *one = at < 0 ? NULL : PyList_GET_ITEM(records, at);
    if (one == NULL || !PyBytes_CheckExact(one) || PyBytes_GET_SIZE(one) < CHECK)
        return (Bytes){NULL, 0};
    return (Bytes){PyBytes_AS_STRING(hold(held, Py_NewRef(one))), CHECK};
}

/* Records that are in the store: 1 when their readers have them, 2 when there is more to do with
   their spool, 0 for what is left to the Python before anything happened, -1 with an error. */
static int land_one(PyObject *item, long most_landed, int keeps)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3)
        return 0;
    PyObject *spool = PyTuple_GET_ITEM(item, 0), *last = PyTuple_GET_ITEM(item, 2);
    Held held;
    Offer offer;
    int64_t landed, synced;
    int done = 0;
    held.count = 0;
    clear_offer(&offer);
    long long start = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 1)), end = PyLong_AsLongLong(last);
    if (PyErr_Occurred())
        return -1;
    PyObject *problem = hold(&held, get(spool, Spool_problem));
    PyObject *readers = hold(&held, get(spool, Spool_readers));
    PyObject *takers = hold(&held, get(spool, Tape_takers));
    PyObject *then = hold(&held, get(spool, Spool_then));
    PyObject *records = hold(&held, get(spool, Tape_records));
    if (problem == Py_None && readers != NULL && are_takers(readers) && takers != NULL
        && takers != Py_None && then != NULL && records != NULL && PyList_CheckExact(records)
        && !number(spool, Spool_landed, &landed) && !number(spool, Spool_synced, &synced)
        && landed == start && end > start && end - start <= MOST_PIECES && start >= 0
        && end <= PyList_GET_SIZE(records)) {
        Bytes before = {NULL, 0};
        if (keeps)
            before = check_in(&held, records, start - 1);
        if (!keeps || before.data != NULL)
            done = begin_several(&offer, &held, records, start, end - start, start, before);
        if (done > 0)
            done = put(spool, Spool_landed, last) || offer_to(&offer, readers)
                       ? -1
                       : then == Py_None && end - synced < most_landed ? 1 : 2;
        end_offer(&offer);
    }
    if (done == 0 && PyErr_Occurred()) /* an attribute that is not there is for the Python */
        PyErr_Clear();
    let_go(&held);
    return done;
}

/* Report the exception that is set to `fault`; -1 with an error. */
static int report(PyObject *fault)
{
    PyObject *error = caught();
    PyObject *done = error == NULL ? NULL : PyObject_CallOneArg(fault, error);
    Py_XDECREF(error), Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* land(items, landed, fault, after, most, keeps): what is not a plain record is given to `landed`,
   an error to `fault`, and a spool of which more is to be done to `after`. */
static PyObject *land(PyObject *module, PyObject *arguments)
{
    PyObject *items, *in_python, *fault, *after;
    long most;
    int keeps;
    if (!PyArg_ParseTuple(arguments, "O!OOOlp", &PyList_Type, &items, &in_python, &fault, &after,
                          &most, &keeps))
        return NULL;
    int is_bound = py_offer != NULL && slots[Spool_landed].member != NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i)), *done = NULL;
        if (is_bound)
            fetch_spools(items, i);
        int is_done = is_bound ? land_one(item, most, keeps) : 0;
        if (is_done < 0)
            is_done = report(fault) ? -1 : 2;
        if (is_done == 0)
            done = PyObject_CallObject(in_python, item);
        else if (is_done == 2)
            done = PyObject_CallFunctionObjArgs(after, PyTuple_GET_ITEM(item, 0),
                                                PyTuple_GET_ITEM(item, 2), NULL);
        Py_DECREF(item);
        if (is_done != 1 && done == NULL)
            return NULL;
        Py_XDECREF(done);
    }
    Py_RETURN_NONE;
}

/* --- what other processes appended: tail.py, `Tails.hear` --------------------------------------- */

typedef struct {
    PyObject *tails;
    Py_ssize_t most, most_bytes;
    int keeps;
} Hearing;

/* Whether each record follows the one before, the first one that with the check `before`. */
static int are_chained(Bytes before, PyObject *records)
{
    unsigned char data[MOST_RECORD + CHECK];
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        char check[CHECK];
        const char *whole = PyBytes_AS_STRING(record);
        Py_ssize_t size = PyBytes_GET_SIZE(record) - CHECK;
        memcpy(data, before.data, CHECK);
        memcpy(data + CHECK, whole + CHECK, (size_t)size);
        check_of(data, (size_t)(CHECK + size), check);
        if (memcmp(check, whole, CHECK) != 0)
            return 0;
        before.data = whole;
    }
    return 1;
}

/* Bring what is touched of the appends behind number `i` closer: all of it is cold. */
static void fetch_tails(const Hearing *hearing, PyObject *appends, Py_ssize_t i)
{
    Py_ssize_t left = PyList_GET_SIZE(appends) - i;
    for (Py_ssize_t n = 3; n >= 1; n--) {
        PyObject *append = left > n ? PyList_GET_ITEM(appends, i + n) : NULL, *tail, *takers, *port;
        if (append == NULL || !PyTuple_CheckExact(append) || PyTuple_GET_SIZE(append) != 3
            || !PyUnicode_CheckExact(PyTuple_GET_ITEM(append, 0)))
            continue;
        tail = PyDict_GetItemWithError(hearing->tails, PyTuple_GET_ITEM(append, 0));
        if (tail == NULL) {
            PyErr_Clear();
            continue;
        }
        if (n == 3) {
            ahead(tail, 2 * LINE);
            continue;
        }
        takers = peek(tail, Tail_takers);
        if (takers == NULL || !PyTuple_CheckExact(takers) || PyTuple_GET_SIZE(takers) == 0)
            continue;
        if (n == 2) {
            AHEAD(PyTuple_GET_ITEM(takers, 0));
            continue;
        }
        PyObject *taker = PyTuple_GET_ITEM(takers, 0);
        if (!PyTuple_CheckExact(taker) || PyTuple_GET_SIZE(taker) != 3
            || PyTuple_GET_ITEM(taker, 2) == Py_None)
            continue;
        if ((port = peek(PyTuple_GET_ITEM(taker, 2), Reader_port)) != NULL)
            ahead(port, 2 * LINE);
    }
}

/* Records that another process appended: 1 when their readers have them, 0 for what is left to the
   Python before anything happened, -1 with an error. */
static int hear_one(const Hearing *hearing, PyObject *append)
{
    if (!PyTuple_CheckExact(append) || PyTuple_GET_SIZE(append) != 3)
        return 0;
    PyObject *log = PyTuple_GET_ITEM(append, 0), *records = PyTuple_GET_ITEM(append, 2);
    if (!PyUnicode_CheckExact(log) || !PyList_CheckExact(records)
        || PyList_GET_SIZE(records) < 1 || PyList_GET_SIZE(records) > MOST_PIECES)
        return 0;
    PyObject *tail = PyDict_GetItemWithError(hearing->tails, log);
    if (tail == NULL)
        return PyErr_Occurred() ? -1 : 0;
    long long start = PyLong_AsLongLong(PyTuple_GET_ITEM(append, 1));
    if (start == -1 && PyErr_Occurred())
        return -1;
    Held held;
    Offer offer;
    int64_t base, size;
    int done = 0;
    held.count = 0;
    clear_offer(&offer);
    hold(&held, Py_NewRef(tail));
    PyObject *present = hold(&held, get(tail, Tail_records));
    PyObject *takers = hold(&held, get(tail, Tail_takers));
    Py_ssize_t count = PyList_GET_SIZE(records);
    if (present == NULL || !PyList_CheckExact(present) || takers == NULL || !are_takers(takers)
        || number(tail, Tail_base, &base) || number(tail, Tail_bytes, &size)
        || base + PyList_GET_SIZE(present) != start
        || PyList_GET_SIZE(present) + count > hearing->most)
        goto end;
    for (Py_ssize_t i = 0; i < count; i++)
        if (PyBytes_CheckExact(PyList_GET_ITEM(records, i)))
            size += PyBytes_GET_SIZE(PyList_GET_ITEM(records, i));
    Bytes before = {NULL, 0};
    if (hearing->keeps)
        before = check_in(&held, present, PyList_GET_SIZE(present) - 1);
    if (size > hearing->most_bytes || (hearing->keeps && before.data == NULL))
        goto end;
    done = begin_several(&offer, &held, records, 0, count, start, before);
    if (done > 0 && hearing->keeps && !are_chained(before, records))
        done = 0;
    if (done > 0)
        done = PyList_SetSlice(present, PyList_GET_SIZE(present), PyList_GET_SIZE(present), records)
                       || put_number(tail, Tail_bytes, size) || offer_to(&offer, takers)
                   ? -1
                   : 1;
    end_offer(&offer);
end:
    if (done == 0 && PyErr_Occurred()) /* an attribute that is not there is for the Python */
        PyErr_Clear();
    let_go(&held);
    return done;
}

/* hear(appends, tails, in_python, fault, most, most_bytes, keeps): what is not plain is given
   to `in_python`, an error to `fault`. */
static PyObject *hear(PyObject *module, PyObject *arguments)
{
    PyObject *appends, *in_python, *fault;
    Hearing hearing;
    if (!PyArg_ParseTuple(arguments, "O!O!OOnnp", &PyList_Type, &appends, &PyDict_Type,
                          &hearing.tails, &in_python, &fault, &hearing.most, &hearing.most_bytes,
                          &hearing.keeps))
        return NULL;
    int is_bound = py_offer != NULL && slots[Tail_base].member != NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(appends); i++) {
        PyObject *append = Py_NewRef(PyList_GET_ITEM(appends, i));
        if (is_bound)
            fetch_tails(&hearing, appends, i);
        int is_done = is_bound ? hear_one(&hearing, append) : 0;
        if (is_done == 0) {
            PyObject *done = PyObject_CallObject(in_python, append);
            is_done = done == NULL ? -1 : 1;
            Py_XDECREF(done);
        }
        Py_DECREF(append);
        if (is_done < 0 && report(fault))
            return NULL;
    }
    Py_RETURN_NONE;
}

/* --- a group for Redis: log/redis/appending/packing.py, `pack_items` ---------------------------- */

typedef struct {
    char *data;
    Py_ssize_t size, room;
} Buffer;

/* Room for `size` more bytes; NULL with an error. */
static char *room_in(Buffer *buffer, Py_ssize_t size)
{
    if (size > buffer->room - buffer->size) {
        Py_ssize_t room = 2 * buffer->room + size + 4096;
        char *data = PyMem_Realloc(buffer->data, (size_t)room);
        if (data == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        buffer->data = data, buffer->room = room;
    }
    return buffer->data + buffer->size;
}

static int add_bytes(Buffer *buffer, const char *data, Py_ssize_t size)
{
    char *out = room_in(buffer, size);
    if (out == NULL)
        return -1;
    memcpy(out, data, (size_t)size);
    buffer->size += size;
    return 0;
}

/* The head of a word or a command: `$SIZE\r\n`, `*COUNT\r\n`; -1 with an error. */
static int add_head(Buffer *buffer, char kind, Py_ssize_t size)
{
    char digits[32];
    int first = sizeof digits;
    digits[--first] = '\n', digits[--first] = '\r';
    do
        digits[--first] = (char)('0' + size % 10);
    while (size /= 10);
    digits[--first] = kind;
    return add_bytes(buffer, digits + first, (Py_ssize_t)sizeof digits - first);
}

static int real(PyObject *object, enum slot s, double *value)
{
    PyObject *found = get(object, s);
    int is_real = found != NULL && PyFloat_CheckExact(found);
    if (is_real)
        *value = PyFloat_AS_DOUBLE(found);
    Py_XDECREF(found);
    return is_real ? 0 : -1;
}

typedef struct {
    PyObject *owned, *apart;
    int64_t round, noted_bytes, most_offset, until, count;
    double now, publish_seconds;
    Buffer commands;
} Pack;

/* Bring what is touched of the items behind number `i` closer. */
static void fetch_owned(const Pack *pack, PyObject *items, Py_ssize_t i)
{
    for (Py_ssize_t n = 1; n <= 3 && i + n < PyList_GET_SIZE(items); n++) {
        PyObject *item = PyList_GET_ITEM(items, i + n), *log, *owned, *part;
        if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3)
            continue;
        PyObject *spool = PyTuple_GET_ITEM(item, 0);
        if (n == 3) {
            ahead(spool, 3 * LINE);
            continue;
        }
        log = peek(spool, Spool_log);
        if (log == NULL || !PyUnicode_CheckExact(log))
            continue;
        if ((owned = PyDict_GetItemWithError(pack->owned, log)) == NULL)
            continue;
        if (n == 2) {
            ahead(owned, 4 * LINE);
            continue;
        }
        const enum slot parts[] = {Owned_bytes, Owned_noted, Owned_permit, Owned_permit_end,
                                   Owned_published_at, Owned_words};
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
            if ((part = peek(owned, parts[k])) != NULL)
                AHEAD(part);
        part = peek(spool, Tape_records);
        if (part != NULL && PyList_CheckExact(part) && PyList_GET_SIZE(part) > 0)
            AHEAD(&PyList_GET_ITEM(part, PyList_GET_SIZE(part) - 1));
    }
}

/* 1 for an item that is packed, 0 for one that goes another way, -1 with an error. */
static int pack_one(Pack *pack, PyObject *item)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3)
        return 0;
    PyObject *spool = PyTuple_GET_ITEM(item, 0);
    Held held;
    int64_t epoch, owners, size, noted, permit, round;
    double permit_end, published_at;
    int has_readers, done = 0;
    held.count = 0;
    long long start = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 1));
    long long end = PyLong_AsLongLong(PyTuple_GET_ITEM(item, 2));
    if (PyErr_Occurred())
        return -1;
    if (end <= start || end - start > MOST_PIECES || start < 0 || end > pack->most_offset)
        return 0;
    PyObject *log = hold(&held, get(spool, Spool_log));
    PyObject *records = hold(&held, get(spool, Tape_records));
    PyObject *owned = log == NULL ? NULL : PyDict_GetItemWithError(pack->owned, log);
    if (hold(&held, Py_XNewRef(owned)) == NULL || records == NULL || !PyList_CheckExact(records)
        || end > PyList_GET_SIZE(records))
        goto end;
    int is_apart = PySet_GET_SIZE(pack->apart) > 0 ? PySet_Contains(pack->apart, log) : 0;
    PyObject *words = hold(&held, get(owned, Owned_words));
    if (is_apart || words == NULL || !PyTuple_CheckExact(words) || PyTuple_GET_SIZE(words) != 5
        || !PyBytes_CheckExact(PyTuple_GET_ITEM(words, 4))
        || flag(owned, Owned_has_readers, &has_readers) || has_readers
        || number(spool, Spool_epoch, &epoch) || number(owned, Owned_epoch, &owners)
        || epoch != owners || number(owned, Owned_permit_round, &round) || round != pack->round
        || real(owned, Owned_permit_end, &permit_end) || !(pack->now < permit_end)
        || real(owned, Owned_published_at, &published_at)
        || pack->now - published_at > pack->publish_seconds || number(owned, Owned_bytes, &size)
        || number(owned, Owned_noted, &noted) || number(owned, Owned_permit, &permit))
        goto end;
    PyObject *key = PyTuple_GET_ITEM(words, 4);
    if (size < 0 || noted < 0)
        goto end;
    for (long long at = start; at < end; at++) {
        PyObject *record = PyList_GET_ITEM(records, at);
        if (!PyBytes_CheckExact(record))
            goto end;
        size += PyBytes_GET_SIZE(record);
    }
    if (size - noted > pack->noted_bytes)
        goto end;
    Buffer *out = &pack->commands;
    static const char push[] = "$6\r\nRPUSHX\r\n";
    done = add_head(out, '*', 2 + end - start) || add_bytes(out, push, sizeof push - 1)
            || add_bytes(out, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        ? -1 : 1;
    for (long long at = start; at < end && done == 1; at++) { /* nothing runs in between */
        PyObject *record = PyList_GET_ITEM(records, at);
        Py_ssize_t length = PyBytes_GET_SIZE(record);
        if (add_head(out, '$', length) || add_bytes(out, PyBytes_AS_STRING(record), length)
            || add_bytes(out, "\r\n", 2))
            done = -1;
    }
    if (done == 1 && put_number(owned, Owned_bytes, size))
        done = -1;
    pack->count += end - start;
    if (permit < pack->until)
        pack->until = permit;
end:
    if (done == 0 && PyErr_Occurred()) /* the same is met by who takes it */
        PyErr_Clear();
    let_go(&held);
    return done;
}

static PyObject *pack(PyObject *module, PyObject *arguments)
{
    PyObject *items, *taken = NULL, *rest = NULL, *done = NULL;
    Pack pack = {.until = INT64_C(1) << 53};
    long long round, noted_bytes, most_offset;
    if (!PyArg_ParseTuple(arguments, "O!O!O!LddLL", &PyList_Type, &items, &PyDict_Type, &pack.owned,
                          &PySet_Type, &pack.apart, &round, &pack.now, &pack.publish_seconds,
                          &noted_bytes, &most_offset))
        return NULL;
    pack.round = round, pack.noted_bytes = noted_bytes, pack.most_offset = most_offset;
    if (slots[Spool_landed].member == NULL || slots[Owned_words].member == NULL
        || slots[Tape_usage].member == NULL)
        return PyErr_Format(PyExc_RuntimeError, "no classes are bound");
    taken = PyList_New(0), rest = PyList_New(0);
    if (taken == NULL || rest == NULL)
        goto end;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, i));
        fetch_owned(&pack, items, i);
        int is_packed = pack_one(&pack, item);
        int failed = is_packed < 0 || PyList_Append(is_packed ? taken : rest, item);
        Py_DECREF(item);
        if (failed)
            goto end;
    }
    if (room_in(&pack.commands, 1))
        done = Py_BuildValue("OOLLy#", taken, rest, (long long)pack.until, (long long)pack.count,
                             pack.commands.data, pack.commands.size);
end:
    Py_XDECREF(taken), Py_XDECREF(rest);
    PyMem_Free(pack.commands.data);
    return done;
}

/* Report the exception that is set to a method of a connection, with its transport; -1 with an
   error. */
static int disconnect(PyObject *connection, PyObject *method, PyObject *transport)
{
    PyObject *error = caught(), *done = NULL;
    if (error != NULL)
        done = PyObject_CallMethodObjArgs(connection, method, transport, error, NULL);
    Py_XDECREF(error), Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* What a socket has, up to `MOST_PULLED` bytes: NULL with an error, None where it has nothing now,
   or is at its end. */
static PyObject *read_now(int64_t fd)
{
#ifndef _WIN32
    static char piece[MOST_PULLED]; /* the GIL is held until its bytes are copied */
    ssize_t size = recv((int)fd, piece, sizeof piece, MSG_DONTWAIT);
    if (size > 0)
        return PyBytes_FromStringAndSize(piece, size);
    if (size < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
        return PyErr_SetFromErrno(PyExc_OSError);
#endif
    return Py_NewRef(Py_None);
}

/* `Connection.pull`. */
static PyObject *pull(PyObject *connection, PyObject *nothing)
{
    int64_t fd;
    int is_more = 0, failed = -1;
    PyObject *closing = NULL, *data = NULL, *done = NULL;
    PyObject *transport = get(connection, Connection__transport);
    if (transport == NULL || number(connection, Connection__pulled, &fd) || fd > INT_MAX) {
        Py_XDECREF(transport);
        PyErr_Clear();
        return PyObject_CallOneArg(py_pull, connection);
    }
    if (fd < 0 || transport == Py_None) {
        Py_DECREF(transport);
        return Py_NewRef(Py_False);
    }
    closing = PyObject_CallMethodNoArgs(transport, str_is_closing);
    int is_closing = closing == NULL ? -1 : PyObject_IsTrue(closing);
    Py_XDECREF(closing);
    if (is_closing) {
        Py_DECREF(transport);
        return is_closing < 0 ? NULL : Py_NewRef(Py_False);
    }
    data = read_now(fd);
    if (data == NULL)
        failed = disconnect(connection, str_lose, transport);
    else if (data == Py_None)
        failed = 0;
    else {
        done = PyObject_CallMethodOneArg(connection, str_data_received, data);
        failed = done == NULL ? disconnect(connection, str_break_down, transport) : 0;
        if (failed == 0 && number(connection, Connection__pulled, &fd)) {
            PyErr_Clear();
            fd = -1;
        }
        is_more = fd >= 0 && PyBytes_GET_SIZE(data) < MOST_PULLED;
    }
    Py_DECREF(transport);
    Py_XDECREF(data), Py_XDECREF(done);
    return failed ? NULL : PyBool_FromLong(is_more);
}

/* --- the module -------------------------------------------------------------------------------- */

static PyMethodDef received_method = {
    "received", received, METH_O,
    "Take a read whole; False, and nothing has happened, for one that does not fit."
};
static PyMethodDef data_received_method = {
    "data_received", data_received, METH_O, "A read of the socket."
};
static PyMethodDef pull_method = {
    "pull", pull, METH_NOARGS, "Read the socket past the event loop, and hand on what is there."
};

static int find_slot(enum slot s, PyObject *classes)
{
    PyObject *owner = PyDict_GetItemString(classes, slots[s].owner);
    if (owner == NULL || !PyType_Check(owner)) {
        PyErr_Format(PyExc_TypeError, "there is no class %s", slots[s].owner);
        return -1;
    }
    PyObject *name = PyUnicode_InternFromString(slots[s].text);
    PyObject *member = name == NULL ? NULL : PyObject_GetAttr(owner, name);
    if (member == NULL || !Py_IS_TYPE(member, &PyMemberDescr_Type)
        || !PyType_IsSubtype((PyTypeObject *)owner, PyDescr_TYPE(member))
        || ((PyMemberDescrObject *)member)->d_member->type != T_OBJECT_EX) {
        Py_XDECREF(name), Py_XDECREF(member);
        PyErr_Format(PyExc_TypeError, "%s.%s is no slot", slots[s].owner, slots[s].text);
        return -1;
    }
    slots[s].offset = ((PyMemberDescrObject *)member)->d_member->offset;
    Py_XSETREF(slots[s].name, name);
    Py_XSETREF(slots[s].member, member);
    Py_INCREF(owner);
    Py_XSETREF(slots[s].type, (PyTypeObject *)owner);
    return 0;
}

static PyObject *bind_lane(PyObject *module, PyObject *arguments)
{
    PyObject *lane_names, *classes, *matches[5], *lane, *connection;
    if (!PyArg_ParseTuple(arguments, "O!O!(OOOOO)", &PyDict_Type, &lane_names, &PyDict_Type,
                          &classes, matches, matches + 1, matches + 2, matches + 3, matches + 4))
        return NULL;
    for (enum slot s = 0; s < SLOT_COUNT; s++)
        if (find_slot(s, classes))
            return NULL;
    lane = PyDict_GetItemString(classes, "Lane");
    connection = PyDict_GetItemString(classes, "Connection");
    PyObject *in_python = PyObject_GetAttrString(lane, "received");
    PyObject *now_pull = PyObject_GetAttrString(connection, "pull");
    PyObject *now_seal = PyDict_GetItemString(lane_names, "_seal");
    PyObject *bytes_bound = PyDict_GetItemString(lane_names, "_MOST_BYTES");
    PyObject *sum_bound = PyDict_GetItemString(lane_names, "_MOST_OUTSTANDING");
    PyObject *ack_bound = PyDict_GetItemString(lane_names, "ACK_SECONDS");
    PyObject *last_bits = PyDict_GetItemString(lane_names, "_SOMETIMES");
    PyObject *now_several = PyDict_GetItemString(lane_names, "take_several");
    PyObject *now_offer = PyDict_GetItemString(lane_names, "offer"), *text_bound = NULL;
    PyObject *now_one = PyDict_GetItemString(lane_names, "offer_one");
    if (now_offer != NULL && PyFunction_Check(now_offer))
        text_bound = PyDict_GetItemString(PyFunction_GET_GLOBALS(now_offer), "MOST_TEXT");
    if (in_python == NULL || !PyFunction_Check(in_python) || now_pull == NULL || !now_seal
        || !bytes_bound || !sum_bound || !text_bound || !last_bits || !ack_bound || !now_one
        || !now_several || !PyFunction_Check(now_several)
        || !PyType_IsSubtype((PyTypeObject *)lane, &Numbers_type)) {
        Py_XDECREF(in_python), Py_XDECREF(now_pull);
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "this is another lane");
        return NULL;
    }
    most_bytes = PyLong_AsLongLong(bytes_bound);
    most_outstanding = PyLong_AsLongLong(sum_bound);
    sometimes = PyLong_AsLongLong(last_bits);
    ack_seconds = PyFloat_AsDouble(ack_bound);
    most_text = PyLong_AsLongLong(text_bound);
    Py_XSETREF(py_received, in_python);
    Py_XSETREF(py_pull, now_pull);
    Py_XSETREF(names, Py_NewRef(lane_names));
    Py_XSETREF(seal, Py_NewRef(now_seal));
    Py_XSETREF(py_several, Py_NewRef(now_several));
    Py_XSETREF(py_offer, Py_NewRef(now_offer));
    Py_XSETREF(py_offer_one, Py_NewRef(now_one));
    Py_XSETREF(match_text, Py_NewRef(matches[0]));
    Py_XSETREF(match_number, Py_NewRef(matches[1]));
    Py_XSETREF(match_count, Py_NewRef(matches[2]));
    Py_XSETREF(match_word, Py_NewRef(matches[3]));
    Py_XSETREF(match_blanks, Py_NewRef(matches[4]));
    if (PyErr_Occurred())
        return NULL;
    return Py_BuildValue(
        "NNN", PyDescr_NewMethod((PyTypeObject *)lane, &received_method),
        PyDescr_NewMethod((PyTypeObject *)connection, &data_received_method),
        PyDescr_NewMethod((PyTypeObject *)connection, &pull_method));
}

static PyObject *find_slots(enum slot first, enum slot end, PyObject *classes)
{
    for (enum slot s = first; s < end; s++)
        if (find_slot(s, classes))
            return NULL;
    Py_RETURN_NONE;
}

static PyObject *bind_spool(PyObject *module, PyObject *classes)
{
    if (!PyDict_Check(classes))
        return PyErr_Format(PyExc_TypeError, "classes by name");
    return find_slots(SLOT_COUNT, SPOOL_END, classes);
}

static PyObject *bind_owned(PyObject *module, PyObject *type)
{
    PyObject *classes = Py_BuildValue("{sO}", "Owned", type);
    PyObject *done = classes == NULL ? NULL : find_slots(SPOOL_END, ALL_SLOTS, classes);
    Py_XDECREF(classes);
    return done;
}

static PyMethodDef methods[] = {
    {"bind_spool", bind_spool, METH_O, "bind_spool(classes): `Spool`, `Tail` and `Reader` by name."},
    {"bind_owned", bind_owned, METH_O, "bind_owned(type): the class of a Redis store's logs."},
    {"land", land, METH_VARARGS,
     "land(items, landed, fault, after, most, keeps): give records that are in the store to their\n"
     "readers, as `Spools.land` does."},
    {"hear", hear, METH_VARARGS,
     "hear(appends, tails, in_python, fault, most, most_bytes, keeps): give what other\n"
     "processes appended to its readers, as `Tails.hear` does."},
    {"pack", pack, METH_VARARGS,
     "pack(items, owned, apart, round, now, publish_seconds, noted_bytes, most_offset): `pack_items`\n"
     "of log/redis/appending/packing.py."},
    {"bind", bind_lane, METH_VARARGS,
     "bind(names, classes, matches): the methods in place of `Lane.received`, and of\n"
     "`Connection.data_received` and `Connection.pull`, for the globals of lane.py, the classes by\n"
     "name that they touch, and what matches the gaps of a template."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "tokenwire_speedups", "tokenwire's express lane in C.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_tokenwire_speedups(void)
{
    const struct {
        PyObject **at;
        const char *text;
    } words[] = {
        {&str_time, "time"}, {&str_monotonic, "monotonic"},
        {&str_seal, "_seal"}, {&str_append, "_append"}, {&str_make_up, "make_up"},
        {&str_borrow, "_borrow"}, {&str_fail, "fail"}, {&str_ready, "ready"},
        {&str_several, "take_several"}, {&str_wait, "wait_for_tick"}, {&str_give, "_give"},
        {&str_received, "received"}, {&str_parse, "parse"},
        {&str_offer, "offer"}, {&str_offer_one, "offer_one"},
        {&str_is_closing, "is_closing"}, {&str_delay_acks, "delay_acks"},
        {&str_data_received, "data_received"}, {&str_lose, "_lose"},
        {&str_break_down, "_break_down"},
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if ((*words[i].at = PyUnicode_InternFromString(words[i].text)) == NULL)
            return NULL;
    if (PyType_Ready(&Numbers_type))
        return NULL;
    PyObject *module = PyModule_Create(&module_def);
    if (module != NULL && (PyModule_AddStringConstant(module, "__version__", VERSION)
                           || PyModule_AddObjectRef(module, "Numbers", (PyObject *)&Numbers_type)
                           || PyModule_AddIntConstant(module, "SPOOL", SPOOL)
                           || PyModule_AddIntConstant(module, "TWIN", TWIN)))
        Py_CLEAR(module);
    return module;
}
