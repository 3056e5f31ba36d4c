/*
 * order: the nearest live id.
 *
 * Promise: first, last, above and below give the nearest id that holds a live record, for every id
 * that can be asked about, at the boundaries of the range and of anything that an index could be
 * made of, after any sequence of writes, and after reopening; a gap of millions of ids costs
 * microseconds, not a scan.
 */
#include "harness.h"

/* The reference: one byte for each id, 1 where a live record is. */
typedef struct reference {
    uint8_t *live;
    uint32_t limit;
    uint64_t count;
} reference;

static reference
make_reference(uint32_t limit)
{
    reference made;

    made.live = calloc(limit, 1);
    made.limit = limit;
    made.count = 0;
    CHECK(made.live != NULL);
    return made;
}

static void
mark(reference *in, uint32_t id, uint8_t live)
{
    in->count += live;
    in->count -= in->live[id];
    in->live[id] = live;
}

/* The nearest live id at or above `id`, or UINT64_MAX. */
static uint64_t
at_or_above(const reference *in, uint64_t id)
{
    const uint8_t *found;

    if (id >= in->limit) {
        return UINT64_MAX;
    }
    found = memchr(in->live + id, 1, (size_t)(in->limit - id));
    return found == NULL ? UINT64_MAX : (uint64_t)(found - in->live);
}

/* The nearest live id below `id`, or UINT64_MAX. */
static uint64_t
below(const reference *in, uint64_t id)
{
    for (id = id > in->limit ? in->limit : id; id-- > 0;) {
        if (in->live[id]) {
            return id;
        }
    }
    return UINT64_MAX;
}

static void
check_answer(int code, uint32_t id, uint64_t expected)
{
    if (expected == UINT64_MAX) {
        CHECK_CODE(code, OURDB_NOT_FOUND);
        CHECK_ZERO(id);
    } else {
        CHECK_CODE(code, OURDB_OK);
        CHECK_NUMBER(id, expected);
    }
}

static void
check_around(const ourdb *db, const reference *in, uint32_t id)
{
    uint32_t found;
    int code;

    TEST_GARBAGE(found);
    code = ourdb_above(db, id, &found);
    check_answer(code, found, at_or_above(in, (uint64_t)id + 1));
    TEST_GARBAGE(found);
    code = ourdb_below(db, id, &found);
    check_answer(code, found, below(in, id));
}

static void
check_ends(const ourdb *db, const reference *in)
{
    uint32_t found;
    int code;

    TEST_GARBAGE(found);
    code = ourdb_first(db, &found);
    check_answer(code, found, at_or_above(in, 0));
    TEST_GARBAGE(found);
    code = ourdb_last(db, &found);
    check_answer(code, found, below(in, in->limit));
    CHECK_COUNT(db, in->count);
    check_around(db, in, 0);
    check_around(db, in, in->limit - 1);
    check_around(db, in, in->limit);
    check_around(db, in, UINT32_MAX);
    check_around(db, in, UINT32_MAX - 1);
}

/* From the first to the last and back, seeing each live id once. */
static void
check_walk(const ourdb *db, const reference *in)
{
    uint64_t seen;
    uint64_t expected;
    uint32_t id;
    int code;

    expected = at_or_above(in, 0);
    seen = 0;
    for (code = ourdb_first(db, &id); code == OURDB_OK; code = ourdb_above(db, id, &id)) {
        CHECK_NUMBER(id, expected);
        expected = at_or_above(in, (uint64_t)id + 1);
        seen++;
    }
    CHECK_CODE(code, OURDB_NOT_FOUND);
    CHECK_NUMBER(seen, in->count);

    expected = below(in, in->limit);
    seen = 0;
    for (code = ourdb_last(db, &id); code == OURDB_OK; code = ourdb_below(db, id, &id)) {
        CHECK_NUMBER(id, expected);
        expected = below(in, id);
        seen++;
    }
    CHECK_CODE(code, OURDB_NOT_FOUND);
    CHECK_NUMBER(seen, in->count);
}

static void
empty(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    reference in = make_reference(1000);
    ourdb *db;

    test_phase("%s: an empty database", variant->name);
    options.record_nr_max = in.limit;
    db = OPEN(test_path("empty"), &options);
    check_ends(db, &in);
    check_around(db, &in, 500);
    test_phase("%s: empty again", variant->name);
    CHECK_OK(ourdb_set(db, 500, "x", 1));
    CHECK_OK(ourdb_delete(db, 500));
    check_ends(db, &in);
    check_around(db, &in, 500);
    CHECK_OK(ourdb_destroy(db));
    free(in.live);
}

/* One record alone, at each place where an index over 64-bit words could have a boundary. */
static void
alone(const test_variant *variant)
{
    static const uint32_t places[] = {0,     1,     2,      62,     63,     64,     65,
                                      127,   128,   511,    512,    4094,   4095,   4096,
                                      4097,  32767, 32768,  65535,  65536,  262143, 262144,
                                      262145, 299997, 299998, 299999};
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    reference in = make_reference(300000);
    size_t i;
    size_t k;
    ourdb *db;

    test_phase("%s: one record alone", variant->name);
    options.record_nr_max = in.limit;
    db = OPEN(test_path("alone"), &options);
    for (i = 0; i < sizeof places / sizeof places[0]; i++) {
        CHECK_OK(ourdb_set(db, places[i], "x", 1));
        mark(&in, places[i], 1);
        check_ends(db, &in);
        for (k = 0; k < sizeof places / sizeof places[0]; k++) {
            check_around(db, &in, places[k]);
        }
        CHECK_OK(ourdb_delete(db, places[i]));
        mark(&in, places[i], 0);
    }
    for (i = 0; i < sizeof places / sizeof places[0]; i++) {
        CHECK_OK(ourdb_set(db, places[i], "x", 1));
        mark(&in, places[i], 1);
    }
    check_walk(db, &in);
    CHECK_OK(ourdb_destroy(db));
    free(in.live);
}

/* Ids spread evenly, or crowded around a few places, or nearly all; written and deleted. */
static uint32_t
draw_id(uint64_t *random, uint32_t limit, int crowded)
{
    if (crowded) {
        uint32_t place = test_random_below(random, 5) * (limit / 5);
        uint32_t width = limit / 5 < 70 ? limit / 5 : 70;

        return place + test_random_below(random, width);
    }
    return test_random_below(random, limit);
}

static void
against_a_reference(const test_variant *variant, uint32_t limit, int crowded, unsigned long writes)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("reference");
    reference in = make_reference(limit);
    uint64_t random = limit + (uint64_t)crowded;
    unsigned long steps = test_scaled(writes);
    unsigned long step;
    ourdb *db;

    test_phase("%s: %" PRIu32 " ids%s, against a reference", variant->name, limit,
               crowded ? ", crowded" : "");
    options.record_nr_max = limit;
    db = OPEN(path, &options);
    for (step = 0; step < steps; step++) {
        uint32_t id = draw_id(&random, limit, crowded);

        /* Waves: the database fills for a while, then empties. */
        if (test_random_below(&random, 10) < (step * 4 / steps % 2 == 0 ? 8u : 3u)) {
            CHECK_OK(ourdb_set(db, id, "x", 1));
            mark(&in, id, 1);
        } else {
            CHECK_CODE(ourdb_delete(db, id), in.live[id] ? OURDB_OK : OURDB_NOT_FOUND);
            mark(&in, id, 0);
        }
        check_around(db, &in, id);
        check_around(db, &in, draw_id(&random, limit, crowded));
        if (step % 64 == 0) {
            check_ends(db, &in);
        }
        if (test_on_disk(variant) && step % (steps / 3 + 1) == steps / 4) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
            check_ends(db, &in);
            check_walk(db, &in);
        }
    }
    check_walk(db, &in);
    CHECK_OK(ourdb_destroy(db));
    free(in.live);
}

/* Ids given out in order, with some deleted: what an incremental database looks like. */
static void
incremental(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    reference in = make_reference(1 + (uint32_t)test_scaled(3000));
    uint64_t random = 3;
    uint32_t id = 0;
    ourdb *db;

    test_phase("%s: incremental", variant->name);
    options.record_nr_max = in.limit;
    db = OPEN(test_path("incremental"), &options);
    while (id < in.limit - 1) {
        CHECK_OK(ourdb_insert(db, "x", 1, &id));
        mark(&in, id, 1);
        check_around(db, &in, id);
        if (test_random_below(&random, 3) == 0) {
            uint32_t victim = 1 + test_random_below(&random, id);

            CHECK_CODE(ourdb_delete(db, victim), in.live[victim] ? OURDB_OK : OURDB_NOT_FOUND);
            mark(&in, victim, 0);
            check_around(db, &in, victim);
        }
    }
    check_ends(db, &in);
    check_walk(db, &in);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("incremental"), &options);
        check_ends(db, &in);
        check_walk(db, &in);
    }
    CHECK_OK(ourdb_destroy(db));
    free(in.live);
}

/* Two records with all the ids of a default database between them. */
static void
gap(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("gap");
    ourdb *db = OPEN(path, &options);
    unsigned long calls = test_scaled(1000);
    unsigned long i;
    uint64_t begin;
    uint64_t each;
    uint32_t id;

    test_phase("%s: a gap of 16 million ids", variant->name);
    CHECK_OK(ourdb_set(db, 1, "x", 1));
    CHECK_OK(ourdb_set(db, 16777214, "x", 1));
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
    }
    begin = test_monotonic_ns();
    for (i = 0; i < calls; i++) {
        CHECK_OK(ourdb_above(db, 1, &id));
        CHECK_NUMBER(id, 16777214);
        CHECK_OK(ourdb_below(db, 16777214, &id));
        CHECK_NUMBER(id, 1);
        CHECK_OK(ourdb_above(db, 0, &id));
        CHECK_NUMBER(id, 1);
        CHECK_OK(ourdb_below(db, UINT32_MAX, &id));
        CHECK_NUMBER(id, 16777214);
        CHECK_CODE(ourdb_above(db, 16777214, &id), OURDB_NOT_FOUND);
        CHECK_CODE(ourdb_below(db, 1, &id), OURDB_NOT_FOUND);
        CHECK_OK(ourdb_first(db, &id));
        CHECK_NUMBER(id, 1);
        CHECK_OK(ourdb_last(db, &id));
        CHECK_NUMBER(id, 16777214);
        CHECK_COUNT(db, 2);
    }
    each = (test_monotonic_ns() - begin) / calls / 9;
    /* Ten microseconds at most, though less than one is usual; under valgrind a hundred times. */
    if (each > (calls < 1000 ? 1000000u : 10000u)) {
        test_fail(__FILE__, __LINE__, "one call took %" PRIu64 " ns on average: a scan?", each);
    }
    CHECK_OK(ourdb_delete(db, 16777214));
    CHECK_OK(ourdb_last(db, &id));
    CHECK_NUMBER(id, 1);
    CHECK_CODE(ourdb_above(db, 1, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("order");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        empty(&test_variants[i]);
        alone(&test_variants[i]);
        against_a_reference(&test_variants[i], 2, 0, 100);
        against_a_reference(&test_variants[i], 64, 0, 500);
        against_a_reference(&test_variants[i], 65, 0, 500);
        against_a_reference(&test_variants[i], 1000, 0, 2000);
        against_a_reference(&test_variants[i], 5000, 1, 2000);
        against_a_reference(&test_variants[i], 70000, 0, 1500);
        against_a_reference(&test_variants[i], 300000, 1, 1500);
        incremental(&test_variants[i]);
        gap(&test_variants[i]);
    }
    return test_end();
}
