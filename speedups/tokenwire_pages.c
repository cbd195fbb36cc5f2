/* Records of the SQLite log in C: twins of what src/tokenwire/log/sqlite/pages.py does with pages that
   are whole, of what writer.py does with a group of records, and of what journal.py finds in a row.

   Always true: what is returned is what the Python returns. Whatever is not plain is left to the
   Python, before anything happened: another type, a page without a checksum or with another one, a
   hole between two pages, numbers that do not fit the bytes, a log that has to be looked up. The
   GIL is held.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#define VERSION "0.1.0"
/* That of log/sqlite/pages.py: both are raised with every change of what a page is. */
#define PAGES 4

#define OFFSET_BITS 32
#define STREAM_STEP 0x9E3779B1u
#define OFFSET_STEP 0x85EBCA6Bu

/* --- CRC-32, as zlib has it ------------------------------------------------------------------- */

static uint32_t tables[8][256];

static void fill_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0);
        tables[0][i] = value;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++)
            tables[t][i] = (tables[t - 1][i] >> 8) ^ tables[0][tables[t - 1][i] & 255];
}

static inline uint32_t word(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Both take and give the inverted value. */
static uint32_t crc_by_table(uint32_t crc, const unsigned char *data, size_t size)
{
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low = crc ^ word(data), high = word(data + 4);
        crc = tables[7][low & 255] ^ tables[6][low >> 8 & 255] ^ tables[5][low >> 16 & 255]
            ^ tables[4][low >> 24] ^ tables[3][high & 255] ^ tables[2][high >> 8 & 255]
            ^ tables[1][high >> 16 & 255] ^ tables[0][high >> 24];
    }
    for (; size > 0; data++, size--)
        crc = (crc >> 8) ^ tables[0][(crc ^ *data) & 255];
    return crc;
}

static uint32_t (*crc_of)(uint32_t, const unsigned char *, size_t) = crc_by_table;

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

/* Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ", Intel, 2009. */
__attribute__((target("sse4.1,pclmul")))
static inline __m128i folded(__m128i value, __m128i by, __m128i next)
{
    __m128i low = _mm_clmulepi64_si128(value, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(value, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("sse4.1,pclmul")))
static uint32_t crc_by_products(uint32_t crc, const unsigned char *data, size_t size)
{
    if (size < 64)
        return crc_by_table(crc, data, size);
    const __m128i *at = (const __m128i *)data;
    const __m128i four = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i one = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i mask = _mm_setr_epi32(~0, 0, ~0, 0);
    __m128i a = _mm_xor_si128(_mm_loadu_si128(at), _mm_cvtsi32_si128((int)crc));
    __m128i b = _mm_loadu_si128(at + 1);
    __m128i c = _mm_loadu_si128(at + 2);
    __m128i d = _mm_loadu_si128(at + 3);
    for (at += 4, size -= 64; size >= 64; at += 4, size -= 64) {
        a = folded(a, four, _mm_loadu_si128(at));
        b = folded(b, four, _mm_loadu_si128(at + 1));
        c = folded(c, four, _mm_loadu_si128(at + 2));
        d = folded(d, four, _mm_loadu_si128(at + 3));
    }
    a = folded(folded(folded(a, one, b), one, c), one, d);
    for (; size >= 16; at++, size -= 16)
        a = folded(a, one, _mm_loadu_si128(at));
    /* From 128 bits to 64, and to 32. */
    a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, one, 0x10));
    b = _mm_clmulepi64_si128(_mm_and_si128(a, mask), _mm_set_epi64x(0, 0x0163cd6124), 0x00);
    a = _mm_xor_si128(_mm_srli_si128(a, 4), b);
    const __m128i poly = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    b = _mm_clmulepi64_si128(_mm_and_si128(a, mask), poly, 0x10);
    b = _mm_clmulepi64_si128(_mm_and_si128(b, mask), poly, 0x00);
    crc = (uint32_t)_mm_extract_epi32(_mm_xor_si128(a, b), 1);
    return crc_by_table(crc, (const unsigned char *)at, size);
}

static void choose_crc(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1"))
        crc_of = crc_by_products;
}
#else
static void choose_crc(void) {}
#endif

/* For tests: each way beside zlib's. */
static PyObject *crc32(PyObject *module, PyObject *arguments)
{
    Py_buffer data;
    unsigned int value;
    int plain;
    if (!PyArg_ParseTuple(arguments, "y*Ip", &data, &value, &plain))
        return NULL;
    uint32_t crc = (plain ? crc_by_table : crc_of)(~value, data.buf, (size_t)data.len);
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(~crc & 0xFFFFFFFFu);
}

/* --- pages ------------------------------------------------------------------------------------- */

/* The next of some decimal numbers between commas, below 2^62; -1 for anything else. */
static int64_t next_number(const char **at)
{
    const char *text = *at;
    int64_t value = 0;
    if (*text < '0' || *text > '9')
        return -1;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (value > (INT64_C(1) << 62) / 10 - 10)
            return -1;
        value = value * 10 + (*text - '0');
    }
    if (*text == ',' && text[1] != '\0')
        text++;
    else if (*text != '\0')
        return -1;
    *at = text;
    return value;
}

/* Add the records of one page to `list`: those after `skipped` ones, until there are `most`. The
   lengths make up the data, as the page's checksum covers both; that is checked all the same. */
static int add_records(PyObject *list, const unsigned char *entries, Py_ssize_t count,
                       const char *data, Py_ssize_t size, Py_ssize_t skipped, Py_ssize_t most)
{
    Py_ssize_t position = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t length = (Py_ssize_t)word(entries + 8 * i);
        if (length > size - position)
            return 0;
        if (i >= skipped && PyList_GET_SIZE(list) < most) {
            PyObject *record = PyBytes_FromStringAndSize(data + position, length);
            int failed = record == NULL ? -1 : PyList_Append(list, record);
            Py_XDECREF(record);
            if (failed)
                return -1;
        }
        position += length;
    }
    return position == size;
}

/* 1: all pages are in the list; 0: they are not plain; -1: an error of Python. */
static int add_pages(PyObject *list, const char *keys, const char *entry_sizes,
                     const char *data_sizes, const unsigned char *entries, Py_ssize_t entries_size,
                     const unsigned char *data, Py_ssize_t data_size, int64_t after,
                     Py_ssize_t most)
{
    int64_t before = -1;
    while (*keys != '\0') {
        int64_t key = next_number(&keys), size = next_number(&entry_sizes);
        int64_t length = next_number(&data_sizes);
        if (key < 0 || size < 12 || size % 8 != 4 || size > entries_size || length < 0
            || length > data_size)
            return 0;
        int64_t count = size / 8, first = key - count;
        if (before < 0 ? first > after || key <= after : first != before)
            return 0;
        uint32_t seed = (uint32_t)(key >> OFFSET_BITS) * STREAM_STEP + (uint32_t)key * OFFSET_STEP;
        uint32_t crc = crc_of(~seed, entries, (size_t)(8 * count));
        crc = ~crc_of(crc, data, (size_t)length);
        if (crc != word(entries + 8 * count))
            return 0;
        int done = add_records(list, entries, (Py_ssize_t)count, (const char *)data,
                               (Py_ssize_t)length, (Py_ssize_t)(before < 0 ? after - first : 0),
                               most);
        if (done < 1)
            return done;
        before = key;
        entries += size, entries_size -= (Py_ssize_t)size;
        data += length, data_size -= (Py_ssize_t)length;
    }
    return before >= 0 && *entry_sizes == '\0' && *data_sizes == '\0' && entries_size == 0
        && data_size == 0;
}

static PyObject *read_pages(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 7) {
        PyErr_SetString(PyExc_TypeError, "read() takes 7 arguments");
        return NULL;
    }
    const char *texts[3];
    for (int i = 0; i < 3; i++) {
        Py_ssize_t size;
        if (!PyUnicode_CheckExact(arguments[i]))
            Py_RETURN_NONE;
        texts[i] = PyUnicode_AsUTF8AndSize(arguments[i], &size);
        if (texts[i] == NULL)
            return NULL;
    }
    if (!PyBytes_CheckExact(arguments[3]) || !PyBytes_CheckExact(arguments[4]))
        Py_RETURN_NONE;
    long long after = PyLong_AsLongLong(arguments[5]);
    Py_ssize_t most = PyLong_AsSsize_t(arguments[6]);
    if ((after == -1 || most == -1) && PyErr_Occurred())
        return NULL;
    PyObject *list = after < 0 || most < 0 ? NULL : PyList_New(0);
    if (list == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    int done = add_pages(list, texts[0], texts[1], texts[2],
                         (unsigned char *)PyBytes_AS_STRING(arguments[3]),
                         PyBytes_GET_SIZE(arguments[3]),
                         (unsigned char *)PyBytes_AS_STRING(arguments[4]),
                         PyBytes_GET_SIZE(arguments[4]), after, most);
    if (done > 0)
        return list;
    Py_DECREF(list);
    return done < 0 ? NULL : Py_NewRef(Py_None);
}

static inline void put_word(unsigned char *at, uint32_t value)
{
    at[0] = value & 255, at[1] = value >> 8 & 255, at[2] = value >> 16 & 255, at[3] = value >> 24;
}

/* pages.py: one page of `cut`, as `(key, total, entries, data)`. */
static PyObject *page_of(PyObject **records, PyObject **checks, Py_ssize_t count, Py_ssize_t size,
                         int64_t key, int64_t total)
{
    PyObject *entries = PyBytes_FromStringAndSize(NULL, 8 * count + 4);
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (entries == NULL || data == NULL) {
        Py_XDECREF(entries), Py_XDECREF(data);
        return NULL;
    }
    unsigned char *entry = (unsigned char *)PyBytes_AS_STRING(entries);
    char *at = PyBytes_AS_STRING(data);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t length = PyBytes_GET_SIZE(records[i]);
        put_word(entry + 8 * i, (uint32_t)length);
        put_word(entry + 8 * i + 4, (uint32_t)PyLong_AsUnsignedLongMask(checks[i]));
        memcpy(at, PyBytes_AS_STRING(records[i]), (size_t)length);
        at += length;
    }
    uint32_t seed = (uint32_t)(key >> OFFSET_BITS) * STREAM_STEP + (uint32_t)key * OFFSET_STEP;
    uint32_t crc = crc_of(~seed, entry, (size_t)(8 * count));
    crc = ~crc_of(crc, (unsigned char *)PyBytes_AS_STRING(data), (size_t)size);
    put_word(entry + 8 * count, crc);
    return Py_BuildValue("LLNN", (long long)key, (long long)total, entries, data);
}

/* `cut`, of records that are what their checksums say; None where the Python has to do it. */
static PyObject *cut_pages(PyObject *module, PyObject *arguments)
{
    long long sid, first, total;
    PyObject *records, *checks;
    Py_ssize_t most, most_bytes, start = 0;
    if (!PyArg_ParseTuple(arguments, "LLLO!O!nn", &sid, &first, &total, &PyList_Type, &records,
                          &PyList_Type, &checks, &most, &most_bytes))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(records);
    int is_plain = PyList_GET_SIZE(checks) == count && most > 0 && sid >= 0 && sid < 1LL << 30
                && first >= 0 && first < (1LL << OFFSET_BITS) - count;
    for (Py_ssize_t i = 0; i < count && is_plain; i++)
        is_plain = PyBytes_CheckExact(PyList_GET_ITEM(records, i))
                && PyBytes_GET_SIZE(PyList_GET_ITEM(records, i)) <= INT32_MAX
                && PyLong_CheckExact(PyList_GET_ITEM(checks, i));
    if (!is_plain)
        Py_RETURN_NONE;
    PyObject *pages = PyList_New(0);
    while (pages != NULL && start < count) {
        Py_ssize_t end = start, size = 0;
        for (; end < count && end - start < most; end++) {
            Py_ssize_t more = PyBytes_GET_SIZE(PyList_GET_ITEM(records, end));
            if (size + more > most_bytes && end > start)
                break;
            size += more;
        }
        total += size;
        PyObject *page = page_of(((PyListObject *)records)->ob_item + start,
                                 ((PyListObject *)checks)->ob_item + start, end - start, size,
                                 (sid << OFFSET_BITS) + first + end - 1, total);
        if (page == NULL || PyList_Append(pages, page))
            Py_CLEAR(pages);
        Py_XDECREF(page);
        start = end;
    }
    return pages;
}

/* --- a group of records: writer.py, `Writer._append_all` --------------------------------------- */

enum { HEAD_SID, HEAD_EPOCH, HEAD_TAIL, HEAD_TOTAL, HEAD_CLOSED, HEAD_PAGED, HEAD_RECORDS,
       HEAD_CHECKS, SPOOL_LOG, SPOOL_EPOCH, SPOOL_RECORDS, SLOTS };
static const char *const slot_names[SLOTS] = {
    "sid", "epoch", "tail", "total", "closed", "paged", "records", "checks",
    "log", "epoch", "records",
};
static Py_ssize_t offsets[SLOTS];
static PyTypeObject *head_type, *spool_type;

static PyObject *bind(PyObject *module, PyObject *arguments)
{
    PyTypeObject *head, *spool;
    Py_ssize_t places[SLOTS];
    if (!PyArg_ParseTuple(arguments, "O!O!", &PyType_Type, &head, &PyType_Type, &spool))
        return NULL;
    for (int i = 0; i < SLOTS; i++) {
        PyTypeObject *owner = i < SPOOL_LOG ? head : spool;
        PyObject *member = PyObject_GetAttrString((PyObject *)owner, slot_names[i]);
        if (member == NULL || !Py_IS_TYPE(member, &PyMemberDescr_Type)
            || !PyType_IsSubtype(owner, PyDescr_TYPE(member))
            || ((PyMemberDescrObject *)member)->d_member->type != T_OBJECT_EX) {
            Py_XDECREF(member);
            PyErr_Format(PyExc_TypeError, "%s is no slot", slot_names[i]);
            return NULL;
        }
        places[i] = ((PyMemberDescrObject *)member)->d_member->offset;
        Py_DECREF(member);
    }
    memcpy(offsets, places, sizeof offsets); /* all, or none: they are of the two classes below */
    Py_INCREF(head), Py_INCREF(spool);
    Py_XSETREF(head_type, head);
    Py_XSETREF(spool_type, spool);
    Py_RETURN_NONE;
}

static inline PyObject **slot(PyObject *object, int which)
{
    return (PyObject **)((char *)object + offsets[which]);
}

/* A small number that is not negative; -1 for anything else. */
static inline int64_t small(PyObject *object)
{
    int overflow = 1;
    int64_t value = object != NULL && PyLong_CheckExact(object)
                        ? PyLong_AsLongLongAndOverflow(object, &overflow) : -1;
    return overflow || value > INT64_C(1) << 40 ? -1 : value;
}

#if defined(__GNUC__)
#define AHEAD(place) __builtin_prefetch(place)
#else
#define AHEAD(place) ((void)(place))
#endif

/* Bring what is touched of the items behind number `i` closer: all of it is cold. */
static void fetch(PyObject *items, Py_ssize_t i)
{
    Py_ssize_t left = PyList_GET_SIZE(items) - i;
    for (Py_ssize_t n = 4; n >= 1; n--) {
        PyObject *item = left > n ? PyList_GET_ITEM(items, i + n) : NULL;
        if (item == NULL || !PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3)
            continue;
        PyObject *spool = PyTuple_GET_ITEM(item, 0);
        if (n == 4) {
            for (Py_ssize_t at = 0; at < 192; at += 64)
                AHEAD((char *)spool + at);
            continue;
        }
        if (!Py_IS_TYPE(spool, spool_type))
            continue;
        PyObject *log = *slot(spool, SPOOL_LOG), *records = *slot(spool, SPOOL_RECORDS);
        if (log == NULL || records == NULL || !PyList_CheckExact(records))
            continue;
        Py_ssize_t size = PyList_GET_SIZE(records);
        if (n == 3)
            AHEAD(log), AHEAD(records);
        else if (size > 0 && n == 2)
            AHEAD(&PyList_GET_ITEM(records, size - 1));
        else if (size > 0)
            for (Py_ssize_t at = 0; at < 192; at += 64)
                AHEAD((char *)PyList_GET_ITEM(records, size - 1) + at);
    }
}

/* What a group adds to the row of its commit. */
typedef struct {
    uint32_t *numbers;
    Py_ssize_t count, room;
    PyObject *records;
    int64_t size;
} Row;

static int add_entry(Row *row, uint32_t sid, uint32_t offset, uint32_t length, uint32_t check)
{
    if (row->count + 4 > row->room) {
        Py_ssize_t room = row->room ? 2 * row->room : 1024;
        uint32_t *numbers = PyMem_Realloc(row->numbers, (size_t)room * sizeof *numbers);
        if (numbers == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        row->numbers = numbers, row->room = room;
    }
    uint32_t *at = row->numbers + row->count;
    at[0] = sid, at[1] = offset, at[2] = length, at[3] = check;
    row->count += 4;
    return 0;
}

/* Append one item: 1 when it is done, 0 for one that is left to the Python, before anything
   happened, -1 with an error. */
static int append_item(Row *row, PyObject *item, PyObject *heads, PyObject *due, int64_t page)
{
    if (!PyTuple_CheckExact(item) || PyTuple_GET_SIZE(item) != 3
        || !Py_IS_TYPE(PyTuple_GET_ITEM(item, 0), spool_type))
        return 0;
    PyObject *spool = PyTuple_GET_ITEM(item, 0), *log = *slot(spool, SPOOL_LOG);
    PyObject *records = *slot(spool, SPOOL_RECORDS);
    int64_t start = small(PyTuple_GET_ITEM(item, 1)), end = small(PyTuple_GET_ITEM(item, 2));
    if (log == NULL || !PyUnicode_CheckExact(log) || records == NULL || !PyList_CheckExact(records)
        || start < 0 || end < start || end > PyList_GET_SIZE(records) || end > UINT32_MAX)
        return 0;
    PyObject *head = PyDict_GetItemWithError(heads, log);
    if (head == NULL || !Py_IS_TYPE(head, head_type))
        return PyErr_Occurred() ? -1 : 0;
    PyObject *some = *slot(head, HEAD_RECORDS), *checks = *slot(head, HEAD_CHECKS);
    int64_t sid = small(*slot(head, HEAD_SID)), total = small(*slot(head, HEAD_TOTAL));
    int64_t paged = small(*slot(head, HEAD_PAGED)), epoch = small(*slot(head, HEAD_EPOCH));
    if (*slot(head, HEAD_CLOSED) != Py_None || small(*slot(head, HEAD_TAIL)) != start || epoch < 0
        || epoch != small(*slot(spool, SPOOL_EPOCH)) || sid < 0 || sid > UINT32_MAX || total < 0
        || paged < 0 || some == NULL || checks == NULL
        || (some != Py_None && (!PyList_CheckExact(some) || !PyList_CheckExact(checks))))
        return 0;
    for (int64_t i = start; i < end; i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        if (!PyBytes_CheckExact(record) || PyBytes_GET_SIZE(record) > INT32_MAX)
            return 0;
    }
    int failed = -1;
    PyObject *all = NULL;
    Py_INCREF(head);
    for (int64_t i = start; i < end; i++) {
        PyObject *record = PyList_GET_ITEM(records, i);
        Py_ssize_t length = PyBytes_GET_SIZE(record);
        uint32_t seed = (uint32_t)sid * STREAM_STEP + (uint32_t)(i + 1) * OFFSET_STEP;
        uint32_t check = ~crc_of(~seed, (unsigned char *)PyBytes_AS_STRING(record), (size_t)length);
        if (add_entry(row, (uint32_t)sid, (uint32_t)(i + 1), (uint32_t)length, check)
            || PyList_Append(row->records, record))
            goto end;
        if (some != Py_None) {
            PyObject *number = PyLong_FromUnsignedLong(check);
            int is_bad = number == NULL || PyList_Append(some, record)
                      || PyList_Append(checks, number);
            Py_XDECREF(number);
            if (is_bad)
                goto end;
        }
        total += length, row->size += length;
    }
    if ((all = PyLong_FromLongLong(total)) == NULL)
        goto end;
    Py_INCREF(PyTuple_GET_ITEM(item, 2));
    Py_XSETREF(*slot(head, HEAD_TAIL), PyTuple_GET_ITEM(item, 2));
    Py_INCREF(all);
    Py_XSETREF(*slot(head, HEAD_TOTAL), all);
    if (end - paged >= page && PyDict_SetItem(due, *slot(head, HEAD_SID), head))
        goto end;
    failed = 1;
end:
    Py_XDECREF(all);
    Py_DECREF(head);
    return failed;
}

/* append(items, start, heads, due, numbers, records, page, most): the items from `start` on, until
   one is left to the Python, or there are more than `most` bytes; where that ended, and the bytes. */
static PyObject *append(PyObject *module, PyObject *arguments)
{
    PyObject *items, *heads, *due, *numbers, *bytes = NULL, *done = NULL, *answer = NULL;
    Py_ssize_t at, page;
    long long most;
    Row row = {NULL, 0, 0, NULL, 0};
    if (!PyArg_ParseTuple(arguments, "O!nO!O!OO!nL", &PyList_Type, &items, &at, &PyDict_Type,
                          &heads, &PyDict_Type, &due, &numbers, &PyList_Type, &row.records, &page,
                          &most))
        return NULL;
    int is_done = head_type != NULL && at >= 0;
    while (is_done == 1 && at < PyList_GET_SIZE(items) && row.size <= most) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, at));
        fetch(items, at);
        is_done = append_item(&row, item, heads, due, page);
        at += is_done == 1;
        Py_DECREF(item);
    }
    if (is_done >= 0)
        bytes = PyBytes_FromStringAndSize((char *)row.numbers,
                                          row.count * (Py_ssize_t)sizeof *row.numbers);
    if (bytes != NULL)
        done = PyObject_CallMethod(numbers, "frombytes", "O", bytes);
    if (done != NULL)
        answer = Py_BuildValue("nL", at, (long long)row.size);
    PyMem_Free(row.numbers);
    Py_XDECREF(bytes), Py_XDECREF(done);
    return answer;
}

/* --- what another process appended: journal.py, `records_of` ----------------------------------- */

/* Add a record of the log `name` to `appends`, or NULL for one that is not what it was. */
static int add_heard(PyObject *appends, PyObject *newest, PyObject *name, uint32_t offset,
                     PyObject *record)
{
    PyObject *last = PyDict_GetItemWithError(newest, name);
    if (last == NULL && PyErr_Occurred())
        return -1;
    if (record != NULL && last != NULL && PyTuple_CheckExact(last) && PyTuple_GET_SIZE(last) == 3
        && PyList_CheckExact(PyTuple_GET_ITEM(last, 2))) {
        PyObject *records = PyTuple_GET_ITEM(last, 2);
        if (small(PyTuple_GET_ITEM(last, 1)) + PyList_GET_SIZE(records) == (int64_t)offset - 1)
            return PyList_Append(records, record);
    }
    if (record == NULL && last != NULL && PyDict_DelItem(newest, name))
        return -1;
    PyObject *records = record == NULL ? Py_NewRef(Py_None) : PyList_New(1), *one = NULL;
    if (record != NULL && records != NULL)
        PyList_SET_ITEM(records, 0, Py_NewRef(record));
    if (records != NULL)
        one = Py_BuildValue("OLN", name, (long long)offset - 1, records);
    int failed = one == NULL || PyList_Append(appends, one)
              || (record != NULL && PyDict_SetItem(newest, name, one));
    Py_XDECREF(one);
    return failed ? -1 : 0;
}

/* records_of(numbers, data, readers, appends, newest) */
static PyObject *records_of(PyObject *module, PyObject *arguments)
{
    Py_buffer numbers;
    PyObject *data, *readers, *appends, *newest, *answer = NULL;
    if (!PyArg_ParseTuple(arguments, "y*O!O!O!O!", &numbers, &PyBytes_Type, &data, &PyDict_Type,
                          &readers, &PyList_Type, &appends, &PyDict_Type, &newest))
        return NULL;
    const char *at = PyBytes_AS_STRING(data);
    int64_t room = PyBytes_GET_SIZE(data);
    for (const char *entry = numbers.buf, *end = entry + numbers.len / 16 * 16; entry < end;
         entry += 16) {
        uint32_t words[4]; /* log, offset, length, checksum */
        memcpy(words, entry, sizeof words);
        int64_t size = words[2] < room ? words[2] : room; /* a row that is not whole */
        PyObject *key = words[1] ? PyLong_FromUnsignedLong(words[0]) : NULL, *record = NULL;
        PyObject *name = key == NULL ? NULL : PyDict_GetItemWithError(readers, key);
        Py_XDECREF(key);
        if (name == NULL && PyErr_Occurred())
            goto end;
        if (name != NULL) {
            uint32_t seed = words[0] * STREAM_STEP + words[1] * OFFSET_STEP;
            int is_whole = ~crc_of(~seed, (const unsigned char *)at, (size_t)size) == words[3];
            if (is_whole && (record = PyBytes_FromStringAndSize(at, (Py_ssize_t)size)) == NULL)
                goto end;
            int failed = add_heard(appends, newest, name, words[1], record);
            Py_XDECREF(record);
            if (failed)
                goto end;
        }
        at += size, room -= size;
    }
    answer = Py_NewRef(Py_None);
end:
    PyBuffer_Release(&numbers);
    return answer;
}

/* --- the module -------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_pages, METH_FASTCALL,
     "read(keys, entry_sizes, data_sizes, entries, data, after, most): the records of pages, of\n"
     "which the first three are decimal numbers with commas, from the one with the key `after` + 1\n"
     "on; None where the Python has to look."},
    {"cut", cut_pages, METH_VARARGS,
     "cut(sid, first, total, records, checks, most, most_bytes): pages as `pages.cut` makes them, of\n"
     "records that are what their checksums say; None where the Python has to."},
    {"bind", bind, METH_VARARGS, "bind(head, spool): the classes whose slots `append` touches."},
    {"append", append, METH_VARARGS,
     "append(items, start, heads, due, numbers, records, page, most): the items from `start` on, as\n"
     "`Writer._append_all` does; where the Python has to go on, and the bytes of the records."},
    {"records_of", records_of, METH_VARARGS,
     "records_of(numbers, data, readers, appends, newest): what a row of the journal has for some\n"
     "logs, as `records_of` of journal.py."},
    {"crc32", crc32, METH_VARARGS,
     "crc32(data, value, plain): as that of zlib; `plain`: as other processors do it."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT, "tokenwire_pages", "Pages of tokenwire's SQLite log in C.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_tokenwire_pages(void)
{
    fill_tables();
    choose_crc();
    PyObject *module = PyModule_Create(&module_def);
    if (module != NULL && (PyModule_AddStringConstant(module, "__version__", VERSION)
                           || PyModule_AddIntConstant(module, "PAGES", PAGES)))
        Py_CLEAR(module);
    return module;
}
