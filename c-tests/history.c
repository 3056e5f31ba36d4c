/*
 * history: every version is kept.
 *
 * Promise: a record's versions come back newest first, each with its value, commit number and time;
 * a deletion is a version too, and the history of a deleted record stays; the value as of any
 * commit and any moment can be read; times never go back; nothing of this changes by reopening, by
 * chains that run over hundreds of data files, or by the way in which the engine runs.
 */
#include "harness.h"

/* What the history of one record must be, oldest first. */
typedef struct version {
    uint64_t commit;
    uint64_t time_us;
    uint64_t seed;
    int deleted;
} version;

typedef struct chain {
    version *versions;
    size_t count;
} chain;

static void
push(chain *of, version added)
{
    version *versions = realloc(of->versions, (of->count + 1) * sizeof *versions);

    CHECK(versions != NULL);
    of->versions = versions;
    of->versions[of->count++] = added;
}

static int
is_live(const chain *of)
{
    return of->count > 0 && !of->versions[of->count - 1].deleted;
}

/* One item of a history, of the version that it must be. */
static void
check_item(const ourdb_record *item, uint32_t id, const version *expected)
{
    uint8_t value[TEST_VALUE_MAX];
    size_t len;

    CHECK_NUMBER(item->id, id);
    CHECK_NUMBER(item->commit, expected->commit);
    CHECK_NUMBER(item->time_us, expected->time_us);
    if (expected->deleted) {
        CHECK_NUMBER(item->flags, OURDB_RECORD_DELETED);
        CHECK(item->data == NULL);
        CHECK_NUMBER(item->len, 0);
    } else {
        CHECK_NUMBER(item->flags, 0);
        len = test_value(id, expected->seed, value);
        CHECK_BYTES(item->data, item->len, value, len);
    }
}

static void
check_history(const ourdb *db, uint32_t id, const chain *expected, size_t max)
{
    ourdb_records records;
    size_t count = max == 0 || max > expected->count ? expected->count : max;
    size_t i;

    if (expected->count == 0) {
        TEST_GARBAGE(records);
        CHECK_CODE(ourdb_history(db, id, max, &records), OURDB_NOT_FOUND);
        CHECK_ZERO(records);
        return;
    }
    CHECK_OK(ourdb_history(db, id, max, &records));
    CHECK_NUMBER(records.count, count);
    for (i = 0; i < count; i++) {
        check_item(&records.items[i], id, &expected->versions[expected->count - 1 - i]);
    }
    ourdb_free_records(&records);
    CHECK_ZERO(records);
}

/* `expected` NULL: there is nothing, or a deletion. */
static void
check_past(int code, ourdb_buf *buf, uint32_t id, const version *expected)
{
    uint8_t value[TEST_VALUE_MAX];
    size_t len;

    if (expected == NULL || expected->deleted) {
        CHECK_CODE(code, OURDB_NOT_FOUND);
        CHECK_ZERO(*buf);
    } else {
        CHECK_CODE(code, OURDB_OK);
        len = test_value(id, expected->seed, value);
        CHECK_BYTES(buf->data, buf->len, value, len);
        ourdb_free_buf(buf);
    }
}

static void
check_version(const ourdb *db, uint32_t id, const chain *of, uint64_t commit)
{
    const version *expected = NULL;
    ourdb_buf buf;
    size_t i;
    int code;

    for (i = 0; i < of->count && of->versions[i].commit <= commit; i++) {
        expected = &of->versions[i];
    }
    TEST_GARBAGE(buf);
    code = ourdb_get_version(db, id, commit, &buf);
    check_past(code, &buf, id, expected);
}

static void
check_at(const ourdb *db, uint32_t id, const chain *of, uint64_t time_us)
{
    const version *expected = NULL;
    ourdb_buf buf;
    size_t i;
    int code;

    for (i = 0; i < of->count && of->versions[i].time_us <= time_us; i++) {
        expected = &of->versions[i];
    }
    TEST_GARBAGE(buf);
    code = ourdb_get_at(db, id, time_us, &buf);
    check_past(code, &buf, id, expected);
}

/* Everything that can be asked about a record's past, at the boundaries of its versions. */
static void
check_all_of(const ourdb *db, uint32_t id, const chain *of)
{
    size_t i;
    size_t step = of->count / 40 + 1;

    check_history(db, id, of, 0);
    check_history(db, id, of, 1);
    check_history(db, id, of, 2);
    check_history(db, id, of, of->count);
    check_history(db, id, of, of->count + 1);
    check_version(db, id, of, 0);
    check_version(db, id, of, UINT64_MAX);
    check_at(db, id, of, 0);
    check_at(db, id, of, UINT64_MAX);
    for (i = 0; i < of->count; i += step) {
        check_version(db, id, of, of->versions[i].commit - 1);
        check_version(db, id, of, of->versions[i].commit);
        check_version(db, id, of, of->versions[i].commit + 1);
        check_at(db, id, of, of->versions[i].time_us - 1);
        check_at(db, id, of, of->versions[i].time_us);
        check_at(db, id, of, of->versions[i].time_us + 1);
    }
}

/* What is known of the last commit of `id`, after looking that it could be so. */
static version
newest(const ourdb *db, uint32_t id, uint64_t seed, int deleted, uint64_t *last_time)
{
    ourdb_records records;
    version found;

    CHECK_OK(ourdb_history(db, id, 1, &records));
    CHECK_NUMBER(records.count, 1);
    found.commit = records.items[0].commit;
    found.time_us = records.items[0].time_us;
    found.seed = seed;
    found.deleted = deleted;
    ourdb_free_records(&records);
    CHECK_NUMBER(found.commit, test_last_commit(db));
    CHECK(found.time_us >= *last_time);
    *last_time = found.time_us;
    return found;
}

/* The story of one record, told step by step. */
static void
one_record(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("one-record");
    ourdb *db = OPEN(path, &options);
    uint64_t before = test_now_us();
    uint64_t times[5];
    ourdb_records records;
    ourdb_buf buf;
    int i;

    test_phase("%s: one record", variant->name);
    CHECK_OK(ourdb_set(db, 7, "first", 5));
    CHECK_OK(ourdb_set(db, 8, "another record", 14));
    CHECK_OK(ourdb_set(db, 7, "", 0));
    CHECK_OK(ourdb_delete(db, 7));
    CHECK_OK(ourdb_set(db, 7, "back", 4));

    CHECK_OK(ourdb_history(db, 7, 0, &records));
    CHECK_NUMBER(records.count, 4);
    CHECK_NUMBER(records.items[0].commit, 5);
    CHECK_BYTES(records.items[0].data, records.items[0].len, "back", 4);
    CHECK_NUMBER(records.items[1].commit, 4);
    CHECK_NUMBER(records.items[1].flags, OURDB_RECORD_DELETED);
    CHECK(records.items[1].data == NULL);
    CHECK_NUMBER(records.items[1].len, 0);
    CHECK_NUMBER(records.items[2].commit, 3);
    CHECK_NUMBER(records.items[2].flags, 0);
    CHECK_BYTES(records.items[2].data, records.items[2].len, "", 0);
    CHECK_NUMBER(records.items[3].commit, 1);
    CHECK_BYTES(records.items[3].data, records.items[3].len, "first", 5);
    for (i = 0; i < 4; i++) {
        CHECK_NUMBER(records.items[i].id, 7);
        times[i] = records.items[i].time_us;
    }
    CHECK(times[3] <= times[2] && times[2] <= times[1] && times[1] <= times[0]);
    /* Of this day: the clock may have been set meanwhile, by an hour at most. */
    CHECK(times[3] + UINT64_C(3600000000) > before);
    CHECK(times[0] < test_now_us() + UINT64_C(3600000000));
    ourdb_free_records(&records);

    test_phase("%s: as of a commit", variant->name);
    CHECK_CODE(ourdb_get_version(db, 7, 0, &buf), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_get_version(db, 7, 1, &buf));
    CHECK_BYTES(buf.data, buf.len, "first", 5);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_get_version(db, 7, 2, &buf));
    CHECK_BYTES(buf.data, buf.len, "first", 5);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_get_version(db, 7, 3, &buf));
    CHECK_BYTES(buf.data, buf.len, "", 0);
    ourdb_free_buf(&buf);
    CHECK_CODE(ourdb_get_version(db, 7, 4, &buf), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_get_version(db, 7, 5, &buf));
    CHECK_BYTES(buf.data, buf.len, "back", 4);
    ourdb_free_buf(&buf);
    CHECK_OK(ourdb_get_version(db, 7, 1000000, &buf));
    CHECK_BYTES(buf.data, buf.len, "back", 4);
    ourdb_free_buf(&buf);
    CHECK_CODE(ourdb_get_version(db, 8, 1, &buf), OURDB_NOT_FOUND);

    test_phase("%s: a deleted record keeps its history", variant->name);
    CHECK_OK(ourdb_delete(db, 7));
    CHECK_ABSENT(db, 7);
    CHECK_OK(ourdb_history(db, 7, 2, &records));
    CHECK_NUMBER(records.count, 2);
    CHECK_NUMBER(records.items[0].flags, OURDB_RECORD_DELETED);
    CHECK_NUMBER(records.items[0].commit, 6);
    CHECK_BYTES(records.items[1].data, records.items[1].len, "back", 4);
    ourdb_free_records(&records);
    CHECK_CODE(ourdb_get_version(db, 7, 6, &buf), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_get_at(db, 7, UINT64_MAX, &buf), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/* One record with many versions, among others: its chain runs over all data files. */
static void
long_chain(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("long-chain");
    ourdb *db;
    chain of = {NULL, 0};
    uint64_t last_time = 0;
    uint64_t seed;
    unsigned long versions = test_scaled(300);
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;
    size_t len;

    test_phase("%s: a long chain", variant->name);
    if (options.file_size != 0) {
        options.file_size = 500;
    }
    db = OPEN(path, &options);
    len = test_value(1, 1, value);
    CHECK_OK(ourdb_insert(db, value, len, &id));
    CHECK_NUMBER(id, 1);
    push(&of, newest(db, 1, 1, 0, &last_time));
    for (seed = 2; seed <= versions; seed++) {
        if (seed % 3 == 0) {
            CHECK_OK(ourdb_insert(db, "between", 7, &id));
        }
        if (seed % 50 == 0) {
            test_sleep_us(200); /* so that not all times are the same */
        }
        len = test_value(1, seed, value);
        CHECK_OK(ourdb_set(db, 1, value, len));
        push(&of, newest(db, 1, seed, 0, &last_time));
    }
    check_all_of(db, 1, &of);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        if (options.file_size != 0) {
            CHECK(test_data_files(path) > versions / 8);
        }
        test_phase("%s: a long chain, after reopening", variant->name);
        db = OPEN(path, &options);
        check_all_of(db, 1, &of);

        test_phase("%s: a long chain goes on after reopening", variant->name);
        CHECK_OK(ourdb_set(db, 1, value, test_value(1, seed, value)));
        push(&of, newest(db, 1, seed, 0, &last_time));
        CHECK_OK(ourdb_delete(db, 1));
        push(&of, newest(db, 1, 0, 1, &last_time));
        check_all_of(db, 1, &of);
        CHECK_OK(ourdb_close(db));

        options.flags = OURDB_OPEN_READ_ONLY;
        db = OPEN(path, &options);
        check_all_of(db, 1, &of);
        CHECK_OK(ourdb_close(db));
        options.flags = 0;
        db = OPEN(path, &options);
    }
    CHECK_OK(ourdb_destroy(db));
    free(of.versions);
}

#define MODEL_IDS 24

/* Random writes, one or many at once; then everything that can be asked about every record. */
static void
against_a_model(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("model");
    ourdb *db = OPEN(path, &options);
    chain chains[MODEL_IDS];
    uint8_t values[4][TEST_VALUE_MAX];
    ourdb_slice slices[4];
    uint32_t ids[4];
    uint64_t random = 99;
    uint64_t last_time = 0;
    unsigned long steps = test_scaled(1200);
    unsigned long step;
    uint32_t id;
    size_t i;
    size_t count;

    test_phase("%s: random writes against a model", variant->name);
    memset(chains, 0, sizeof chains);
    for (step = 1; step <= steps; step++) {
        uint32_t draw = test_random_below(&random, 100);

        id = test_random_below(&random, MODEL_IDS);
        if (draw < 60) {
            CHECK_OK(ourdb_set(db, id, values[0], test_value(id, step, values[0])));
            push(&chains[id], newest(db, id, step, 0, &last_time));
        } else if (draw < 75) {
            if (is_live(&chains[id])) {
                CHECK_OK(ourdb_delete(db, id));
                push(&chains[id], newest(db, id, 0, 1, &last_time));
            } else {
                CHECK_CODE(ourdb_delete(db, id), OURDB_NOT_FOUND);
            }
        } else if (draw < 90) {
            count = 1 + test_random_below(&random, 4);
            for (i = 0; i < count; i++) {
                ids[i] = (uint32_t)((id + i * 5) % MODEL_IDS);
                slices[i].data = values[i];
                slices[i].len = test_value(ids[i], step, values[i]);
            }
            CHECK_OK(ourdb_set_many(db, ids, slices, count));
            for (i = 0; i < count; i++) {
                uint64_t time_before = last_time;

                push(&chains[ids[i]], newest(db, ids[i], step, 0, &last_time));
                CHECK(i == 0 || last_time == time_before); /* one commit, one time */
            }
        } else if (draw < 98) {
            for (count = 0, i = 0; i < 4; i++) {
                ids[count] = (uint32_t)((id + i * 7) % MODEL_IDS);
                count += is_live(&chains[ids[count]]) ? 1 : 0;
            }
            CHECK_OK(ourdb_delete_many(db, ids, count));
            for (i = 0; i < count; i++) {
                push(&chains[ids[i]], newest(db, ids[i], 0, 1, &last_time));
            }
        } else if (test_on_disk(variant)) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
        if (step % 16 == 0) {
            check_history(db, id, &chains[id], test_random_below(&random, 6));
            check_version(db, id, &chains[id], test_random(&random) % (test_last_commit(db) + 2));
        }
    }
    for (id = 0; id < MODEL_IDS; id++) {
        check_all_of(db, id, &chains[id]);
    }
    if (test_on_disk(variant)) {
        test_phase("%s: random writes against a model, after reopening", variant->name);
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
        for (id = 0; id < MODEL_IDS; id++) {
            check_all_of(db, id, &chains[id]);
        }
    }
    CHECK_OK(ourdb_destroy(db));
    for (id = 0; id < MODEL_IDS; id++) {
        free(chains[id].versions);
    }
}

/* Each of many reopenings adds one version; commit numbers and times go on. */
static void
over_reopenings(void)
{
    ourdb_options options = test_options(NULL, 0);
    const char *path = test_path("over-reopenings");
    ourdb_records records;
    uint64_t last_time = UINT64_MAX;
    unsigned long opens = test_scaled(20);
    unsigned long i;
    uint32_t id;
    ourdb *db;

    test_phase("one version for each of many reopenings");
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, "0", 1, &id));
    for (i = 1; i < opens; i++) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
        CHECK_LAST_COMMIT(db, i);
        CHECK_OK(ourdb_set(db, id, &i, sizeof i));
    }
    CHECK_OK(ourdb_history(db, id, 0, &records));
    CHECK_NUMBER(records.count, opens);
    for (i = 0; i < opens; i++) {
        CHECK_NUMBER(records.items[i].commit, opens - i);
        CHECK(records.items[i].time_us <= last_time);
        last_time = records.items[i].time_us;
    }
    ourdb_free_records(&records);
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("history");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        one_record(&test_variants[i]);
        long_chain(&test_variants[i]);
        against_a_model(&test_variants[i]);
    }
    over_reopenings();
    return test_end();
}
