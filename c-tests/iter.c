/*
 * iter: ordered scans.
 *
 * Promise: an iterator gives the live records of a range of ids in order, up or down, with their
 * values, commits and times or ids only, one by one, many at a time or as ids alone, as of the
 * moment of its opening, whatever is written meanwhile; on a transaction with the transaction's
 * writes. Over is over, again and again. A database isn't closed as long as one is open; one that is
 * closed is noticed.
 */
#include "harness.h"

#define IDS 2000

/* The version that each id holds; 0: none. */
typedef struct model {
    uint64_t versions[IDS];
} model;

static void
check_record(const ourdb_record *record, const model *of, uint32_t id, uint32_t flags)
{
    uint8_t value[TEST_VALUE_MAX];

    CHECK_NUMBER(record->id, id);
    CHECK_NUMBER(record->flags, 0);
    if ((flags & OURDB_ITER_KEYS) != 0) {
        CHECK(record->data == NULL);
        CHECK_NUMBER(record->len, 0);
        CHECK_NUMBER(record->commit, 0);
        CHECK_NUMBER(record->time_us, 0);
        return;
    }
    CHECK(record->commit > 0 && record->time_us > 0);
    CHECK_BYTES(record->data, record->len, value, test_value(id, of->versions[id], value));
}

/* Walks over an iterator that was just opened, one by one or `many` at a time, and closes it. */
static void
check_walk(ourdb_iter *iter, const model *of, uint32_t lower, uint32_t upper, uint32_t flags,
           size_t many)
{
    int down = (flags & OURDB_ITER_REVERSE) != 0;
    int64_t id = down ? (upper < IDS ? upper : IDS - 1) : lower;
    ourdb_records records = {NULL, 0, NULL};
    ourdb_record record;
    size_t at = 0;
    int i;

    for (; down ? id >= (int64_t)lower : id <= (int64_t)upper && id < IDS; id += down ? -1 : 1) {
        if (of->versions[id] == 0) {
            continue;
        }
        if (many == 0) {
            TEST_GARBAGE(record);
            CHECK_OK(ourdb_iter_next(iter, &record));
            check_record(&record, of, (uint32_t)id, flags);
            continue;
        }
        if (at == records.count) {
            ourdb_free_records(&records);
            CHECK_OK(ourdb_iter_next_many(iter, many, &records));
            CHECK(records.count > 0 && records.count <= many);
            at = 0;
        }
        check_record(&records.items[at++], of, (uint32_t)id, flags);
    }
    CHECK_NUMBER(records.count, at);
    ourdb_free_records(&records);
    for (i = 0; i < 3; i++) {
        TEST_GARBAGE(record);
        CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
        CHECK_ZERO(record);
        TEST_GARBAGE(records);
        CHECK_CODE(ourdb_iter_next_many(iter, 10, &records), OURDB_NOT_FOUND);
        CHECK_ZERO(records);
    }
    ourdb_iter_close(iter);
}

/* The same for the ids alone, up to `cap` at a time, at most 1,000; with `turns` every other step is another one. */
static void
check_walk_ids(ourdb_iter *iter, const model *of, uint32_t lower, uint32_t upper, uint32_t flags,
               size_t cap, int turns)
{
    int down = (flags & OURDB_ITER_REVERSE) != 0;
    int64_t id = down ? (upper < IDS ? upper : IDS - 1) : lower;
    uint32_t ids[1001];
    size_t count = 0;
    size_t at = 0;

    for (; down ? id >= (int64_t)lower : id <= (int64_t)upper && id < IDS; id += down ? -1 : 1) {
        ourdb_record record;

        if (of->versions[id] == 0) {
            continue;
        }
        if (at == count && turns && id % 2 == 0) {
            CHECK_OK(ourdb_iter_next(iter, &record));
            check_record(&record, of, (uint32_t)id, flags);
            continue;
        }
        if (at == count) {
            memset(ids, 0xA5, sizeof ids);
            TEST_GARBAGE(count);
            CHECK_OK(ourdb_iter_next_ids(iter, ids, cap, &count));
            CHECK(count > 0 && count <= cap);
            CHECK_NUMBER(ids[count], 0xA5A5A5A5); /* behind them nothing was touched */
            at = 0;
        }
        CHECK_NUMBER(ids[at++], id);
    }
    CHECK_NUMBER(at, count);
    TEST_GARBAGE(count);
    CHECK_CODE(ourdb_iter_next_ids(iter, ids, cap, &count), OURDB_NOT_FOUND);
    CHECK_NUMBER(count, 0);
    ourdb_iter_close(iter);
}

static void
check_range(const ourdb *db, const model *of, uint32_t lower, uint32_t upper)
{
    static const size_t sizes[] = {0, 1, 7, 1000, SIZE_MAX};
    uint32_t flags;
    size_t i;

    for (flags = 0; flags < 4; flags++) {
        for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            ourdb_iter *iter;

            CHECK_OK(ourdb_iter_open(db, lower, upper, flags, &iter));
            check_walk(iter, of, lower, upper, flags, sizes[i]);
        }
        for (i = 1; i < 4; i++) {
            ourdb_iter *iter;

            CHECK_OK(ourdb_iter_open(db, lower, upper, flags, &iter));
            check_walk_ids(iter, of, lower, upper, flags, sizes[i], i % 2);
        }
    }
}

static void
check_txn(const ourdb_txn *txn, const model *of, uint32_t lower, uint32_t upper)
{
    uint32_t flags;

    for (flags = 0; flags < 4; flags++) {
        ourdb_iter *iter;

        CHECK_OK(ourdb_txn_iter_open(txn, lower, upper, flags, &iter));
        check_walk(iter, of, lower, upper, flags, flags == 0 ? 5 : 0);
        CHECK_OK(ourdb_txn_iter_open(txn, lower, upper, flags, &iter));
        check_walk_ids(iter, of, lower, upper, flags, 300, flags == 0);
    }
}

static void
put(ourdb *db, model *of, uint32_t id, uint64_t version)
{
    uint8_t value[TEST_VALUE_MAX];

    CHECK_OK(ourdb_set(db, id, value, test_value(id, version, value)));
    of->versions[id] = version;
}

static void
put_in(ourdb_txn *txn, model *of, uint32_t id, uint64_t version)
{
    uint8_t value[TEST_VALUE_MAX];

    CHECK_OK(ourdb_txn_set(txn, id, value, test_value(id, version, value)));
    of->versions[id] = version;
}

static void
ranges(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("ranges");
    ourdb *db = OPEN(path, &options);
    static model of;
    uint64_t random = 11;
    unsigned long i;
    int again;

    test_phase("%s: nothing to walk over", variant->name);
    memset(&of, 0, sizeof of);
    check_range(db, &of, 0, UINT32_MAX);
    put(db, &of, 0, 1);
    check_range(db, &of, 0, UINT32_MAX);
    check_range(db, &of, 0, 0);
    check_range(db, &of, 1, UINT32_MAX);
    check_range(db, &of, 1, 0);
    check_range(db, &of, UINT32_MAX, 0);
    check_range(db, &of, UINT32_MAX, UINT32_MAX);

    test_phase("%s: ranges", variant->name);
    for (i = 0; i < test_scaled(600); i++) {
        uint32_t id = test_random_below(&random, IDS);

        /* Some regions dense, some empty. */
        if (id / 100 % 3 != 2) {
            put(db, &of, id, i + 2);
        }
        if (i % 5 == 0 && of.versions[id] != 0) {
            CHECK_OK(ourdb_delete(db, id));
            of.versions[id] = 0;
        }
    }
    put(db, &of, IDS - 1, 9);
    for (again = 0; again < 2; again++) {
        check_range(db, &of, 0, UINT32_MAX);
        check_range(db, &of, 0, IDS - 1);
        check_range(db, &of, 63, 64);
        check_range(db, &of, 512, 1023);
        check_range(db, &of, 511, 512);
        for (i = 0; i < 8; i++) {
            uint32_t lower = test_random_below(&random, IDS);

            check_range(db, &of, lower, lower + test_random_below(&random, 300));
        }
        if (test_on_disk(variant)) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
    }
    CHECK_OK(ourdb_destroy(db));
}

/* It goes on in its own moment. */
static void
moments(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("moments"), &options);
    static model before;
    static model now;
    ourdb_iter *iters[4];
    ourdb_iter *of_ids[4];
    ourdb_record record;
    uint32_t id;
    uint32_t flags;

    test_phase("%s: writing while it walks", variant->name);
    memset(&before, 0, sizeof before);
    for (id = 0; id < 300; id += 3) {
        put(db, &before, id, 1);
    }
    now = before;
    for (flags = 0; flags < 4; flags++) {
        CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, flags, &iters[flags]));
        CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, flags, &of_ids[flags]));
    }
    for (id = 0; id < 300; id += 2) {
        put(db, &now, id, 2);
    }
    for (id = 0; id < 300; id += 9) {
        if (now.versions[id] != 0) {
            CHECK_OK(ourdb_delete(db, id));
            now.versions[id] = 0;
        }
    }
    put(db, &now, IDS - 1, 2);
    for (flags = 0; flags < 4; flags++) {
        check_walk(iters[flags], &before, 0, UINT32_MAX, flags, flags == 1 ? 10 : 0);
        check_walk_ids(of_ids[flags], &before, 0, UINT32_MAX, flags, 8, 0);
    }
    check_range(db, &now, 0, UINT32_MAX);

    test_phase("%s: deleting what it has come to", variant->name);
    CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iters[0]));
    before = now;
    for (id = 0; ourdb_iter_next(iters[0], &record) == OURDB_OK; id = record.id + 1) {
        while (before.versions[id] == 0) {
            id++;
        }
        check_record(&record, &before, id, 0);
        CHECK_OK(ourdb_delete(db, record.id));
        now.versions[record.id] = 0;
    }
    ourdb_iter_close(iters[0]);
    CHECK_COUNT(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

static void
in_transactions(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("in-transactions"), &options);
    static model outside;
    static model inside;
    static model later;
    ourdb_iter *iter;
    ourdb_txn *txn;
    uint64_t commit;
    uint32_t id;

    test_phase("%s: with a transaction's writes", variant->name);
    memset(&outside, 0, sizeof outside);
    for (id = 10; id < 200; id += 10) {
        put(db, &outside, id, 1);
    }
    commit = test_last_commit(db);
    inside = outside;
    txn = BEGIN(db);
    check_txn(txn, &inside, 0, UINT32_MAX);
    put_in(txn, &inside, 5, 2);   /* before the first */
    put_in(txn, &inside, 55, 2);  /* between */
    put_in(txn, &inside, 100, 2); /* over one */
    put_in(txn, &inside, 500, 2); /* after the last */
    CHECK_OK(ourdb_txn_delete(txn, 10));
    CHECK_OK(ourdb_txn_delete(txn, 150));
    inside.versions[10] = inside.versions[150] = 0;
    put_in(txn, &inside, 7, 2);
    CHECK_OK(ourdb_txn_delete(txn, 7));
    inside.versions[7] = 0;
    /* Not yet in the database: no commit, no time. */
    CHECK_OK(ourdb_txn_iter_open(txn, 5, 5, 0, &iter));
    {
        ourdb_record record;
        uint8_t value[TEST_VALUE_MAX];

        CHECK_OK(ourdb_iter_next(iter, &record));
        CHECK_BYTES(record.data, record.len, value, test_value(5, 2, value));
        CHECK_NUMBER(record.commit, 0);
        CHECK_NUMBER(record.time_us, 0);
    }
    ourdb_iter_close(iter);
    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, OURDB_ITER_KEYS, &iter));
    later = inside;
    put_in(txn, &later, 56, 3);
    CHECK_OK(ourdb_txn_delete(txn, 20));
    later.versions[20] = 0;
    check_walk(iter, &inside, 0, UINT32_MAX, OURDB_ITER_KEYS, 0);
    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, OURDB_ITER_KEYS | OURDB_ITER_REVERSE, &iter));
    check_walk(iter, &later, 0, UINT32_MAX, OURDB_ITER_KEYS | OURDB_ITER_REVERSE, 3);
    CHECK_OK(ourdb_txn_iter_open(txn, 50, 60, OURDB_ITER_KEYS, &iter));
    check_walk(iter, &later, 50, 60, OURDB_ITER_KEYS, 0);

    test_phase("%s: an iterator that outlives its transaction", variant->name);
    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, OURDB_ITER_KEYS, &iter));
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_OK(ourdb_delete(db, 500));
    check_walk(iter, &later, 0, UINT32_MAX, OURDB_ITER_KEYS, 0);
    later.versions[500] = 0;
    check_range(db, &later, 0, UINT32_MAX);

    test_phase("%s: in a snapshot of the past", variant->name);
    txn = BEGIN_AT(db, commit);
    check_txn(txn, &outside, 0, UINT32_MAX);
    check_txn(txn, &outside, 55, 150);
    ourdb_txn_abort(txn);
    CHECK_OK(ourdb_destroy(db));
}

static void
handles(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("handles"), &options);
    ourdb_iter *many[200];
    ourdb_iter *closed;
    ourdb_record record;
    ourdb_records records;
    uint32_t id;
    size_t i;

    test_phase("iterators that are closed");
    CHECK_OK(ourdb_set(db, 1, "", 0));
    CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &closed));
    CHECK_OK(ourdb_iter_next(closed, &record));
    CHECK_BYTES(record.data, record.len, "", 0);
    CHECK_CODE(ourdb_close(db), OURDB_BUSY);
    CHECK_CODE(ourdb_destroy(db), OURDB_BUSY);
    ourdb_iter_close(closed);
    ourdb_iter_close(closed);
    ourdb_iter_close(NULL);
    TEST_GARBAGE(record);
    CHECK_CODE(ourdb_iter_next(closed, &record), OURDB_INVALID_ARGUMENT);
    CHECK_ZERO(record);
    CHECK_CODE(ourdb_iter_next_many(closed, 1, &records), OURDB_INVALID_ARGUMENT);
    CHECK_ZERO(records);
    TEST_GARBAGE(i);
    CHECK_CODE(ourdb_iter_next_ids(closed, &id, 1, &i), OURDB_INVALID_ARGUMENT);
    CHECK_NUMBER(i, 0);
    for (i = 0; i < 200; i++) {
        CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &many[i]));
    }
    for (i = 0; i < 200; i++) {
        CHECK_OK(ourdb_iter_next_many(many[i], 0, &records)); /* all */
        CHECK_NUMBER(records.count, 1);
        ourdb_iter_close(many[i]);
        CHECK_BYTES(records.items[0].data, records.items[0].len, "", 0);
        ourdb_free_records(&records);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Without a number a list has an end, also where no values fill it. */
static void
any_number(void)
{
    enum { MANY = 65536, MORE = 100 };
    static uint32_t ids[MANY + MORE];
    static ourdb_slice values[MANY + MORE];
    ourdb_options options = test_options(&test_variants[0], 0);
    ourdb *db = OPEN(test_path("any-number"), &options);
    ourdb_records records;
    ourdb_iter *iter;
    int keys;

    test_phase("any number");
    CHECK_OK(ourdb_insert_many(db, values, MANY + MORE, ids));
    for (keys = 0; keys < 2; keys++) {
        CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, keys ? OURDB_ITER_KEYS : 0, &iter));
        CHECK_OK(ourdb_iter_next_many(iter, 0, &records));
        CHECK_NUMBER(records.count, MANY);
        ourdb_free_records(&records);
        CHECK_OK(ourdb_iter_next_many(iter, 0, &records));
        CHECK_NUMBER(records.count, MORE);
        CHECK_NUMBER(records.items[MORE - 1].id, ids[MANY + MORE - 1]);
        ourdb_free_records(&records);
        CHECK_CODE(ourdb_iter_next_many(iter, 0, &records), OURDB_NOT_FOUND);
        ourdb_iter_close(iter);
    }
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("iter");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        ranges(&test_variants[i]);
        moments(&test_variants[i]);
        in_transactions(&test_variants[i]);
    }
    handles();
    any_number();
    return test_end();
}
