/* Cutting pages of the SQLite log, in C: a twin of what src/tokenwire/log/sqlite/pages.py does with
   pages that are whole.

   Always true: a list that is returned has the records that the Python returns. Whatever is not
   plain gives None, and is left to the Python: another type, a page without a checksum or with
   another one, a hole between two pages, numbers that do not fit the bytes. The GIL is held.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define VERSION "0.1.0"
/* That of log/sqlite/pages.py: both are raised with every change of what a page is. */
#define PAGES 1

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

/* --- the module -------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))read_pages, METH_FASTCALL,
     "read(keys, entry_sizes, data_sizes, entries, data, after, most): the records of pages, of\n"
     "which the first three are decimal numbers with commas, from the one with the key `after` + 1\n"
     "on; None where the Python has to look."},
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
