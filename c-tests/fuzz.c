/*
 * fuzz: calls in random order with right and wrong arguments, each answer compared with a model.
 *
 * Promise: whatever is called, in whatever order and with whatever arguments that can be told to be
 * wrong (NULL, misaligned, closed handles, ids and lengths beyond the limits, options that can't be
 * meant), each call gives the one code that the header says, and zeroed out parameters with a
 * failure; what a call refuses changes nothing; and every value, version and neighbour is that of a
 * model which does the same. Several databases at once, in memory and on disk, in both modes, some
 * opened again in between, for reading only at times.
 *
 * Usage: fuzz [SEED]. The same seed makes the same calls.
 */
#include "harness.h"

/* Ids are below this: few, so that calls meet. */
#define ID_LIMIT 48
#define VALUE_LIMIT 120
#define LONGEST_MANY 6
/* A database with so many versions is emptied. */
#define VERSION_LIMIT 2000
/* A handle is noticed as closed until there were more opens than this. */
#define STALE_FOR 40
#define CALLS 700000

/* ---- the model ----------------------------------------------------------------------------- */

typedef struct version {
    uint64_t commit;
    uint64_t seed;
    size_t len;
    /* The version of the same id before; -1: none. */
    int before;
    int deleted;
} version;

typedef struct model {
    const char *name;
    uint32_t flags;
    /* NULL: in memory. */
    char path[TEST_PATH_MAX];
    ourdb *handle;
    int read_only;
    uint32_t next_id;
    uint64_t commits;
    int count;
    int newest[ID_LIMIT];
    version versions[VERSION_LIMIT + LONGEST_MANY];
} model;

static uint64_t seed;
static unsigned long calls;
/* Whether something is wrong with the arguments of the call being made. */
static int faulty;
/* The handles that were closed last, and how many opens ago. */
static ourdb *closed_handle;
static unsigned long closed_at;
static unsigned long opens;

static uint32_t
below(uint32_t limit)
{
    return test_random_below(&seed, limit);
}

static int
is_live(const model *m, uint32_t id)
{
    return id < ID_LIMIT && m->newest[id] >= 0 && !m->versions[m->newest[id]].deleted;
}

static void
forget_all(model *m)
{
    uint32_t id;

    m->next_id = 1;
    m->commits = 0;
    m->count = 0;
    for (id = 0; id < ID_LIMIT; id++) {
        m->newest[id] = -1;
    }
}

static void
remember(model *m, uint32_t id, int deleted, uint64_t value_seed, size_t len)
{
    version *v = &m->versions[m->count];

    v->commit = m->commits;
    v->seed = value_seed;
    v->len = len;
    v->deleted = deleted;
    v->before = m->newest[id];
    m->newest[id] = m->count++;
    if (id >= m->next_id) {
        m->next_id = id + 1;
    }
}

static uint64_t
live_records(const model *m)
{
    uint64_t live = 0;
    uint32_t id;

    for (id = 0; id < ID_LIMIT; id++) {
        live += is_live(m, id) ? 1 : 0;
    }
    return live;
}

static void
check_value(const version *v, const uint8_t *data, size_t len)
{
    uint8_t expected[VALUE_LIMIT];

    test_fill(expected, v->len, v->seed);
    CHECK_BYTES(data, len, expected, v->len);
}

/* ---- arguments ----------------------------------------------------------------------------- */

/* An id: mostly one that can be there. */
static uint32_t
any_id(void)
{
    static const uint32_t far[] = {ID_LIMIT, ID_LIMIT + 1, 1u << 31, UINT32_MAX - 1, UINT32_MAX};

    return below(20) == 0 ? far[below(5)] : below(ID_LIMIT);
}

/* The handle, or now and then something that is none. */
static ourdb *
some_handle(const model *m)
{
    switch (below(60)) {
    case 0:
        faulty = 1;
        return NULL;
    case 1:
        faulty = 1;
        return (ourdb *)(void *)((char *)(void *)m->handle + 1 + below(7));
    case 2:
        if (closed_handle != NULL && opens - closed_at < STALE_FOR) {
            faulty = 1;
            return closed_handle;
        }
        break;
    default:
        break;
    }
    return m->handle;
}

/* A place for an answer, or now and then none. `place` has room for one byte more. */
static void *
some_place(void *place)
{
    switch (below(60)) {
    case 0:
        faulty = 1;
        return NULL;
    case 1:
        faulty = 1;
        return (char *)place + 1;
    default:
        return place;
    }
}

/* A value of the caller's: seed, bytes and length. */
typedef struct given {
    uint64_t seed;
    uint8_t bytes[VALUE_LIMIT + 8];
    const void *data;
    size_t len;
    /* Longer than record_size_max. */
    int too_long;
} given;

static void
some_value(given *value)
{
    value->seed = test_random(&seed);
    value->len = below(8) == 0 ? 0 : below(VALUE_LIMIT + 1);
    value->too_long = 0;
    test_fill(value->bytes, value->len, value->seed);
    value->data = value->len == 0 && below(2) == 0 ? NULL : value->bytes;
    if (below(60) == 0) {
        value->data = NULL;
        value->len = below(2) == 0 ? 1 + below(100) : SIZE_MAX;
        faulty = 1;
    } else if (below(60) == 0) {
        value->data = value->bytes;
        value->len = VALUE_LIMIT + 1 + below(7);
        value->too_long = 1;
    }
}

/* A place for an answer: garbage before the call, so that it is seen to be written. */
typedef union place {
    uint32_t id;
    uint64_t number;
    size_t len;
    ourdb_buf buf;
    ourdb_records records;
    ourdb *handle;
    unsigned char bytes[64];
} place;

#define CALL(call, expected)                                                                  \
    do {                                                                                      \
        int code = (call);                                                                    \
                                                                                              \
        calls++;                                                                              \
        test_checks++;                                                                        \
        test_code(__FILE__, __LINE__, #call, code,                                            \
                  faulty ? OURDB_INVALID_ARGUMENT : (expected));                              \
    } while (0)

/* After a failure a place that was given is zero; whether there is no answer to look at. */
#define NO_ANSWER(expected, given_place, field)                                               \
    (faulty || (expected) != OURDB_OK                                                         \
         ? ((given_place) == (void *)&answer ? CHECK_ZERO(answer.field) : (void)0, 1)         \
         : 0)

/* ---- writing ------------------------------------------------------------------------------- */

static int
writable(const model *m, int otherwise)
{
    return m->read_only ? OURDB_READ_ONLY : otherwise;
}

static void
call_insert(model *m)
{
    given value;
    place answer;
    void *out = some_place(&answer);
    int expected = OURDB_OK;

    TEST_GARBAGE(answer);
    some_value(&value);
    if (m->flags & OURDB_OPEN_KEY_VALUE) {
        expected = OURDB_WRONG_MODE;
    } else if (value.too_long) {
        expected = OURDB_RECORD_TOO_LARGE;
    } else if (m->next_id >= ID_LIMIT) {
        expected = OURDB_FULL;
    }
    expected = writable(m, expected);
    CALL(ourdb_insert(some_handle(m), value.data, value.len, out), expected);
    if (NO_ANSWER(expected, out, id)) {
        return;
    }
    CHECK_NUMBER(answer.id, m->next_id);
    m->commits++;
    remember(m, answer.id, 0, value.seed, value.len);
}

/* Whether `id` can be set to a value of such a length. */
static int
settable(const model *m, uint32_t id, int too_long)
{
    if (id >= ID_LIMIT) {
        return OURDB_ID_OUT_OF_RANGE;
    }
    if (too_long) {
        return OURDB_RECORD_TOO_LARGE;
    }
    if (!(m->flags & OURDB_OPEN_KEY_VALUE) && !is_live(m, id)) {
        return OURDB_ID_NOT_ASSIGNED;
    }
    return OURDB_OK;
}

static int
live_or_why_not(const model *m, uint32_t id)
{
    return id >= ID_LIMIT ? OURDB_ID_OUT_OF_RANGE : is_live(m, id) ? OURDB_OK : OURDB_NOT_FOUND;
}

static void
call_set(model *m)
{
    given value;
    uint32_t id = any_id();
    int expected;

    some_value(&value);
    expected = writable(m, settable(m, id, value.too_long));
    CALL(ourdb_set(some_handle(m), id, value.data, value.len), expected);
    if (!faulty && expected == OURDB_OK) {
        m->commits++;
        remember(m, id, 0, value.seed, value.len);
    }
}

static void
call_delete(model *m)
{
    uint32_t id = any_id();
    int expected = writable(m, live_or_why_not(m, id));

    CALL(ourdb_delete(some_handle(m), id), expected);
    if (!faulty && expected == OURDB_OK) {
        m->commits++;
        remember(m, id, 1, 0, 0);
    }
}

/* Whether an id comes again further on: of those only the last one counts. */
static int
comes_again(const uint32_t *ids, size_t count, size_t index)
{
    size_t later;

    for (later = index + 1; later < count; later++) {
        if (ids[later] == ids[index]) {
            return 1;
        }
    }
    return 0;
}

/* Values for a call with many of them. */
static void
some_values(given *values, ourdb_slice *slices, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        some_value(&values[i]);
        slices[i].data = values[i].data;
        slices[i].len = values[i].len;
    }
}

static void
call_insert_many(model *m)
{
    given values[LONGEST_MANY];
    ourdb_slice slices[LONGEST_MANY];
    uint32_t ids[LONGEST_MANY + 1];
    size_t count = below(LONGEST_MANY + 1);
    int expected = writable(m, m->flags & OURDB_OPEN_KEY_VALUE ? OURDB_WRONG_MODE : OURDB_OK);
    uint32_t *out = count == 0 ? NULL : some_place(ids);
    size_t i;

    TEST_GARBAGE(ids);
    some_values(values, slices, count);
    for (i = 0; i < count && expected == OURDB_OK; i++) {
        expected = values[i].too_long ? OURDB_RECORD_TOO_LARGE : OURDB_OK;
    }
    if (expected == OURDB_OK && m->next_id + count > ID_LIMIT) {
        expected = OURDB_FULL;
    }
    expected = count == 0 ? OURDB_OK : expected;
    CALL(ourdb_insert_many(some_handle(m), count == 0 ? NULL : slices, count, out), expected);
    if (faulty || expected != OURDB_OK) {
        CHECK_NUMBER(ids[0], UINT32_C(0xA5A5A5A5));
        return;
    }
    m->commits += count > 0 ? 1 : 0;
    for (i = 0; i < count; i++) {
        CHECK_NUMBER(ids[i], m->next_id);
        remember(m, ids[i], 0, values[i].seed, values[i].len);
    }
}

static void
call_set_many(model *m)
{
    given values[LONGEST_MANY];
    ourdb_slice slices[LONGEST_MANY];
    uint32_t ids[LONGEST_MANY + 1];
    size_t count = below(LONGEST_MANY + 1);
    int expected = writable(m, OURDB_OK);
    uint32_t *in = count == 0 ? NULL : some_place(ids);
    size_t i;

    some_values(values, slices, count);
    for (i = 0; i < count; i++) {
        ids[i] = any_id();
    }
    for (i = 0; i < count && expected == OURDB_OK; i++) {
        expected = settable(m, ids[i], values[i].too_long);
    }
    expected = count == 0 ? OURDB_OK : expected;
    CALL(ourdb_set_many(some_handle(m), in, slices, count), expected);
    if (faulty || expected != OURDB_OK) {
        return;
    }
    m->commits += count > 0 ? 1 : 0;
    for (i = 0; i < count; i++) {
        if (!comes_again(ids, count, i)) {
            remember(m, ids[i], 0, values[i].seed, values[i].len);
        }
    }
}

static void
call_delete_many(model *m)
{
    uint32_t ids[LONGEST_MANY + 1];
    size_t count = below(LONGEST_MANY + 1);
    int expected = writable(m, OURDB_OK);
    uint32_t *in = count == 0 ? NULL : some_place(ids);
    size_t i;

    for (i = 0; i < count; i++) {
        ids[i] = any_id();
    }
    for (i = 0; i < count && expected == OURDB_OK; i++) {
        expected = live_or_why_not(m, ids[i]);
    }
    expected = count == 0 ? OURDB_OK : expected;
    CALL(ourdb_delete_many(some_handle(m), in, count), expected);
    if (faulty || expected != OURDB_OK) {
        return;
    }
    m->commits += count > 0 ? 1 : 0;
    for (i = 0; i < count; i++) {
        if (!comes_again(ids, count, i)) {
            remember(m, ids[i], 1, 0, 0);
        }
    }
}

/* ---- reading ------------------------------------------------------------------------------- */

static void
call_get(model *m)
{
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    int expected = live_or_why_not(m, id);

    TEST_GARBAGE(answer);
    CALL(ourdb_get(some_handle(m), id, out), expected);
    if (NO_ANSWER(expected, out, buf)) {
        return;
    }
    check_value(&m->versions[m->newest[id]], answer.buf.data, answer.buf.len);
    ourdb_free_buf(&answer.buf);
    CHECK_ZERO(answer.buf);
    ourdb_free_buf(&answer.buf);
}

static void
call_get_into(model *m)
{
    uint8_t into[VALUE_LIMIT + 1];
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    size_t cap = below(4) == 0 ? below(20) : VALUE_LIMIT;
    void *buf = cap == 0 ? NULL : into;
    int expected = live_or_why_not(m, id);
    const version *v = expected == OURDB_OK ? &m->versions[m->newest[id]] : NULL;

    TEST_GARBAGE(answer);
    TEST_GARBAGE(into);
    if (cap > 0 && below(60) == 0) {
        buf = NULL;
        faulty = 1;
    }
    if (v != NULL && v->len > cap) {
        expected = OURDB_BUFFER_TOO_SMALL;
    }
    CALL(ourdb_get_into(some_handle(m), id, buf, cap, out), expected);
    if (!faulty && expected == OURDB_BUFFER_TOO_SMALL) {
        CHECK_NUMBER(answer.len, v->len);
        CHECK_NUMBER(into[0], 0xA5);
    } else if (!NO_ANSWER(expected, out, len)) {
        check_value(v, into, answer.len);
        CHECK_NUMBER(into[answer.len], 0xA5);
    }
}

static void
call_contains(model *m)
{
    uint32_t id = any_id();

    CALL(ourdb_contains(some_handle(m), id), is_live(m, id) ? OURDB_OK : OURDB_NOT_FOUND);
}

static void
check_item(const model *m, const ourdb_record *item, uint32_t id, const version *v)
{
    CHECK_NUMBER(item->id, id);
    if (v == NULL || v->deleted) {
        CHECK_NUMBER(item->flags, v == NULL ? OURDB_RECORD_MISSING : OURDB_RECORD_DELETED);
        CHECK(item->data == NULL && item->len == 0);
    } else {
        CHECK_NUMBER(item->flags, 0);
        check_value(v, item->data, item->len);
    }
    CHECK_NUMBER(item->commit, v == NULL ? 0 : v->commit);
    CHECK(item->commit <= m->commits);
}

static void
call_get_many(model *m)
{
    uint32_t ids[LONGEST_MANY + 1];
    size_t count = below(LONGEST_MANY + 1);
    place answer;
    void *out = count == 0 ? &answer : some_place(&answer);
    uint32_t *in = count == 0 ? NULL : some_place(ids);
    size_t i;

    TEST_GARBAGE(answer);
    for (i = 0; i < count; i++) {
        ids[i] = any_id();
    }
    CALL(ourdb_get_many(some_handle(m), in, count, out), OURDB_OK);
    if (NO_ANSWER(OURDB_OK, out, records)) {
        return;
    }
    CHECK_NUMBER(answer.records.count, count);
    for (i = 0; i < count; i++) {
        const version *v = is_live(m, ids[i]) ? &m->versions[m->newest[ids[i]]] : NULL;

        check_item(m, &answer.records.items[i], ids[i], v);
    }
    ourdb_free_records(&answer.records);
    CHECK_ZERO(answer.records);
    ourdb_free_records(&answer.records);
}

/* The value as of the time of one of the versions: that version, or a later one of that time. */
static void
read_as_of(const model *m, uint32_t id, const ourdb_records *history)
{
    size_t i = below((uint32_t)history->count);
    ourdb_buf buf;
    int expected;

    while (i > 0 && history->items[i - 1].time_us == history->items[i].time_us) {
        i--;
    }
    expected = history->items[i].flags == 0 ? OURDB_OK : OURDB_NOT_FOUND;
    CALL(ourdb_get_at(m->handle, id, history->items[i].time_us, &buf), expected);
    if (expected == OURDB_OK) {
        CHECK_BYTES(buf.data, buf.len, history->items[i].data, history->items[i].len);
    }
    ourdb_free_buf(&buf);
}

static void
call_history(model *m)
{
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    size_t max = below(3) == 0 ? below(4) : 0;
    int expected = id >= ID_LIMIT          ? OURDB_ID_OUT_OF_RANGE
                   : m->newest[id] < 0 ? OURDB_NOT_FOUND
                                           : OURDB_OK;
    size_t i;
    int at;

    TEST_GARBAGE(answer);
    CALL(ourdb_history(some_handle(m), id, max, out), expected);
    if (NO_ANSWER(expected, out, records)) {
        return;
    }
    at = m->newest[id];
    for (i = 0; i < answer.records.count; i++) {
        CHECK(at >= 0);
        check_item(m, &answer.records.items[i], id, &m->versions[at]);
        CHECK(i == 0 || answer.records.items[i].time_us <= answer.records.items[i - 1].time_us);
        at = m->versions[at].before;
    }
    CHECK(at < 0 || answer.records.count == max);
    if (max == 0) {
        read_as_of(m, id, &answer.records);
    }
    ourdb_free_records(&answer.records);
}

static void
call_get_version(model *m)
{
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    uint64_t commit = below(30) == 0 ? UINT64_MAX : below((uint32_t)m->commits + 2);
    int at = id < ID_LIMIT ? m->newest[id] : -1;
    int expected;

    TEST_GARBAGE(answer);
    while (at >= 0 && m->versions[at].commit > commit) {
        at = m->versions[at].before;
    }
    expected = id >= ID_LIMIT                           ? OURDB_ID_OUT_OF_RANGE
               : at < 0 || m->versions[at].deleted ? OURDB_NOT_FOUND
                                                        : OURDB_OK;
    CALL(ourdb_get_version(some_handle(m), id, commit, out), expected);
    if (NO_ANSWER(expected, out, buf)) {
        return;
    }
    check_value(&m->versions[at], answer.buf.data, answer.buf.len);
    ourdb_free_buf(&answer.buf);
}

static void
call_get_at(model *m)
{
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    int now = below(2) == 0;
    int expected = now ? live_or_why_not(m, id) : id >= ID_LIMIT ? OURDB_ID_OUT_OF_RANGE : OURDB_NOT_FOUND;

    TEST_GARBAGE(answer);
    CALL(ourdb_get_at(some_handle(m), id, now ? UINT64_MAX : 1, out), expected);
    if (NO_ANSWER(expected, out, buf)) {
        return;
    }
    check_value(&m->versions[m->newest[id]], answer.buf.data, answer.buf.len);
    ourdb_free_buf(&answer.buf);
}

/* The nearest live id from `from` on, in steps of `step`; ID_LIMIT if there is none. */
static uint32_t
nearest(const model *m, int64_t from, int step)
{
    for (; from >= 0 && from < ID_LIMIT; from += step) {
        if (is_live(m, (uint32_t)from)) {
            return (uint32_t)from;
        }
    }
    return ID_LIMIT;
}

static void
call_neighbour(model *m)
{
    place answer;
    void *out = some_place(&answer);
    uint32_t id = any_id();
    uint32_t expected_id;
    int expected;

    TEST_GARBAGE(answer);
#define NEIGHBOUR(call, from, step)                                                           \
    do {                                                                                      \
        expected_id = nearest(m, (from), (step));                                             \
        expected = expected_id == ID_LIMIT ? OURDB_NOT_FOUND : OURDB_OK;                      \
        CALL(call, expected);                                                                 \
    } while (0)
    switch (below(4)) {
    case 0:
        NEIGHBOUR(ourdb_first(some_handle(m), out), 0, 1);
        break;
    case 1:
        NEIGHBOUR(ourdb_last(some_handle(m), out), ID_LIMIT - 1, -1);
        break;
    case 2:
        NEIGHBOUR(ourdb_above(some_handle(m), id, out), (int64_t)id + 1, 1);
        break;
    default:
        NEIGHBOUR(ourdb_below(some_handle(m), id, out),
                  id > ID_LIMIT ? ID_LIMIT - 1 : (int64_t)id - 1, -1);
        break;
    }
#undef NEIGHBOUR
    if (!NO_ANSWER(expected, out, id)) {
        CHECK_NUMBER(answer.id, expected_id);
    }
}

static void
call_counter(model *m)
{
    place answer;
    void *out = some_place(&answer);
    int expected;

    TEST_GARBAGE(answer);
    switch (below(3)) {
    case 0:
        CALL(ourdb_count(some_handle(m), out), OURDB_OK);
        if (!NO_ANSWER(OURDB_OK, out, number)) {
            CHECK_NUMBER(answer.number, live_records(m));
        }
        break;
    case 1:
        CALL(ourdb_last_commit(some_handle(m), out), OURDB_OK);
        if (!NO_ANSWER(OURDB_OK, out, number)) {
            CHECK_NUMBER(answer.number, m->commits);
        }
        break;
    default:
        expected = m->flags & OURDB_OPEN_KEY_VALUE ? OURDB_WRONG_MODE
                   : m->next_id >= ID_LIMIT      ? OURDB_FULL
                                                 : OURDB_OK;
        CALL(ourdb_next_id(some_handle(m), out), expected);
        if (!NO_ANSWER(expected, out, id)) {
            CHECK_NUMBER(answer.id, m->next_id);
        }
    }
}

/* ---- the library --------------------------------------------------------------------------- */

static void
call_library(model *m)
{
    ourdb_options options;
    static const size_t sizes[] = {0, 1, sizeof options - 1, SIZE_MAX};

    (void)m;
    switch (below(8)) {
    case 0:
        CHECK(ourdb_strerror((int)(uint32_t)test_random(&seed))[0] != '\0');
        break;
    case 1:
        CHECK(ourdb_strerror(-(int)below(30))[0] != '\0');
        break;
    case 2:
        CHECK(ourdb_version()[0] != '\0' && ourdb_version_number() == OURDB_VERSION_NUMBER);
        break;
    case 3:
        CHECK(ourdb_errmsg() != NULL);
        (void)ourdb_os_error();
        break;
    case 4:
        ourdb_free_buf(NULL);
        ourdb_free_records(NULL);
        CALL(ourdb_close(NULL), OURDB_OK);
        break;
    case 5:
        CALL(ourdb_options_init(&options, sizes[below(4)]), OURDB_INVALID_ARGUMENT);
        break;
    case 6:
        CALL(ourdb_options_init(NULL, sizeof options), OURDB_INVALID_ARGUMENT);
        break;
    default:
        if (closed_handle != NULL && opens - closed_at < STALE_FOR) {
            CALL(ourdb_close(closed_handle), OURDB_INVALID_ARGUMENT);
            CALL(ourdb_destroy(closed_handle), OURDB_INVALID_ARGUMENT);
        }
        break;
    }
    calls++;
}

static void
call_sync(model *m)
{
    /* On a disk a sync takes as long as ten thousand other calls. */
    if (m->path[0] == '\0' || below(300) == 0) {
        CALL(ourdb_sync(some_handle(m)), OURDB_OK);
    }
}

static void
call_check(model *m)
{
    if (below(20) == 0) {
        CALL(ourdb_check(some_handle(m), NULL, NULL), OURDB_OK);
    }
}

/* ---- opening and closing ------------------------------------------------------------------- */

static ourdb_options
good_options(const model *m, uint32_t flags)
{
    ourdb_options options = test_options(NULL, m->flags | flags);

    options.record_nr_max = ID_LIMIT;
    options.record_size_max = VALUE_LIMIT;
    options.file_size = 20000;
    return options;
}

static void
open_model(model *m, uint32_t flags)
{
    ourdb_options options = good_options(m, flags);

    if (m->path[0] != '\0' && !(flags & OURDB_OPEN_READ_ONLY)) {
        options.lookup = below(2);
        options.io = below(3);
    }
    m->handle = OPEN(m->path[0] == '\0' ? NULL : m->path, &options);
    m->read_only = (flags & OURDB_OPEN_READ_ONLY) != 0;
    opens++;
}

/* Every open that can't be: each with its one code, and nothing is changed. */
static void
call_open_wrongly(model *m)
{
    ourdb_options options = good_options(m, 0);
    const char *path = m->path[0] == '\0' ? NULL : m->path;
    const void *given = &options;
    int expected = OURDB_INVALID_ARGUMENT;
    place answer;
    void *out = &answer;

    TEST_GARBAGE(answer);
    switch (below(12)) {
    case 0:
        out = NULL;
        break;
    case 1:
        out = (char *)&answer + 1;
        break;
    case 2:
        options.flags |= UINT32_C(256) << below(24);
        break;
    case 3:
        options.lookup = 2 + below(100);
        break;
    case 4:
        options.sync = 3 + below(100);
        break;
    case 5:
        options.io = 3 + below(100);
        break;
    case 6:
        options.size = below((uint32_t)offsetof(ourdb_options, auto_compact_percent));
        break;
    case 7:
        options.record_size_max = (UINT32_C(1) << 31) + below(10);
        break;
    case 8:
        options.flags |= OURDB_OPEN_RESET
                         | (below(2) == 0 ? OURDB_OPEN_READ_ONLY : OURDB_OPEN_SALVAGE);
        break;
    case 9:
        given = (const char *)&options + 1;
        break;
    case 10:
        path = below(2) == 0 ? NULL : "";
        options.flags &= ~(uint32_t)OURDB_OPEN_MEMORY;
        break;
    default:
        if (path == NULL) {
            options.flags |= OURDB_OPEN_MUST_EXIST;
        } else if (m->read_only || below(2) == 0) {
            path = test_path("nothing here");
            options.flags |= OURDB_OPEN_MUST_EXIST;
            expected = OURDB_NOT_FOUND;
        } else {
            expected = OURDB_LOCKED;
        }
        break;
    }
    CALL(ourdb_open(path, (const ourdb_options *)given, (ourdb **)out), expected);
    if (out == &answer) {
        CHECK_ZERO(answer.handle);
    }
}

/* Everything that a database holds is what the model holds. */
static void
compare(model *m)
{
    uint32_t id;
    int at;

    CHECK_COUNT(m->handle, live_records(m));
    CHECK_LAST_COMMIT(m->handle, m->commits);
    for (id = 0; id < ID_LIMIT; id++) {
        ourdb_records records;
        size_t i = 0;

        if (m->newest[id] < 0) {
            CHECK_CODE(ourdb_history(m->handle, id, 0, &records), OURDB_NOT_FOUND);
            continue;
        }
        CHECK_OK(ourdb_history(m->handle, id, 0, &records));
        for (at = m->newest[id]; at >= 0; at = m->versions[at].before) {
            CHECK(i < records.count);
            check_item(m, &records.items[i++], id, &m->versions[at]);
        }
        CHECK_NUMBER(records.count, i);
        ourdb_free_records(&records);
    }
}

static void
close_model(model *m, int destroy)
{
    if (destroy) {
        CALL(ourdb_destroy(m->handle), OURDB_OK);
    } else {
        CALL(ourdb_close(m->handle), OURDB_OK);
    }
    closed_handle = m->handle;
    closed_at = opens;
    m->handle = NULL;
}

static void
open_again(model *m)
{
    uint32_t flags = 0;
    int destroy = m->count >= VERSION_LIMIT && below(2) == 0;
    int empty = m->count >= VERSION_LIMIT || m->path[0] == '\0';

    if (m->read_only) {
        CALL(ourdb_destroy(m->handle), OURDB_READ_ONLY);
        destroy = 0;
    }
    compare(m);
    close_model(m, destroy);
    if (empty) {
        forget_all(m);
        flags = m->path[0] != '\0' && !destroy ? OURDB_OPEN_RESET : 0;
    } else if (!m->read_only && below(3) == 0) {
        flags = OURDB_OPEN_READ_ONLY;
    }
    open_model(m, flags);
    compare(m);
}

/* ---- all of it ----------------------------------------------------------------------------- */

typedef struct choice {
    const char *name;
    void (*call)(model *m);
    uint32_t weight;
} choice;

static const choice choices[] = {
    {"insert", call_insert, 8},
    {"set", call_set, 12},
    {"delete", call_delete, 6},
    {"insert_many", call_insert_many, 3},
    {"set_many", call_set_many, 4},
    {"delete_many", call_delete_many, 3},
    {"get", call_get, 12},
    {"get_into", call_get_into, 12},
    {"contains", call_contains, 6},
    {"get_many", call_get_many, 6},
    {"history", call_history, 4},
    {"get_version", call_get_version, 6},
    {"get_at", call_get_at, 4},
    {"first, last, above, below", call_neighbour, 10},
    {"count, last_commit, next_id", call_counter, 6},
    {"sync", call_sync, 2},
    {"check", call_check, 1},
    {"open", call_open_wrongly, 3},
    {"the library", call_library, 4}
};

static const choice *
choose(void)
{
    uint32_t total = 0;
    uint32_t drawn;
    size_t i;

    for (i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        total += choices[i].weight;
    }
    drawn = below(total);
    for (i = 0; drawn >= choices[i].weight; i++) {
        drawn -= choices[i].weight;
    }
    return &choices[i];
}

static model models[] = {
    {.name = "incremental, in memory", .flags = OURDB_OPEN_MEMORY},
    {.name = "key-value, in memory", .flags = OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE},
    {.name = "incremental, on disk", .flags = 0},
    {.name = "key-value, on disk", .flags = OURDB_OPEN_KEY_VALUE | OURDB_OPEN_NATIVE}
};

#define MODELS (sizeof models / sizeof models[0])

int
main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    unsigned long most = test_scaled(CALLS);
    size_t i;

    test_begin("fuzz");
    seed = first;
    for (i = 0; i < MODELS; i++) {
        if (!(models[i].flags & OURDB_OPEN_MEMORY)) {
            test_join_into(models[i].path, test_directory, i % 2 == 0 ? "even" : "odd");
        }
        forget_all(&models[i]);
        open_model(&models[i], 0);
    }
    while (calls < most) {
        model *m = &models[below(MODELS)];
        const choice *chosen = choose();

        test_phase("seed %" PRIu64 ", call %lu: %s, %s", first, calls, chosen->name, m->name);
        faulty = 0;
        chosen->call(m);
        faulty = 0;
        if (m->count >= VERSION_LIMIT || below(m->path[0] == '\0' ? 1500 : 8000) == 0) {
            open_again(m);
        }
    }
    for (i = 0; i < MODELS; i++) {
        compare(&models[i]);
        close_model(&models[i], 0);
    }
    printf("fuzz: %lu calls\n", calls);
    return test_end();
}
