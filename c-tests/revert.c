/*
 * revert: records as they were; and clear: no record at all.
 *
 * Promise: ourdb_revert() gives a record its value of a commit again, ourdb_revert_all() all records
 * in one commit; both add versions and take none away; what was not there then is OURDB_NOT_FOUND,
 * or is deleted with all the others. ourdb_clear() deletes every live record in one commit; ids are
 * not given out again. All of it lasts.
 */
#include "harness.h"

static void
one_record(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("one"), &options);
    ourdb_records history;
    uint32_t id;

    test_phase("%s: one record", variant->name);
    CHECK_OK(ourdb_insert(db, "first", 5, &id)); /* commit 1 */
    CHECK_OK(ourdb_set(db, 1, "", 0));           /* 2 */
    CHECK_OK(ourdb_delete(db, 1));               /* 3 */
    CHECK_OK(ourdb_insert(db, "other", 5, &id)); /* 4 */
    CHECK_OK(ourdb_revert(db, 1, 1));            /* 5: from the dead, under its id */
    CHECK_VALUE(db, 1, "first", 5);
    CHECK_OK(ourdb_revert(db, 1, 2)); /* 6 */
    CHECK_VALUE(db, 1, "", 0);
    CHECK_LAST_COMMIT(db, 6);
    CHECK_CODE(ourdb_revert(db, 1, 3), OURDB_NOT_FOUND); /* deleted then */
    CHECK_CODE(ourdb_revert(db, 1, 4), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_revert(db, 1, 0), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_revert(db, 2, 3), OURDB_NOT_FOUND); /* not there yet */
    CHECK_CODE(ourdb_revert(db, 9, 6), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_revert(db, UINT32_MAX, 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_LAST_COMMIT(db, 6);
    CHECK_OK(ourdb_history(db, 1, 0, &history));
    CHECK_NUMBER(history.count, 5);
    CHECK_NUMBER(history.items[2].flags, OURDB_RECORD_DELETED);
    CHECK_BYTES(history.items[4].data, history.items[4].len, "first", 5);
    ourdb_free_records(&history);
    CHECK_NEXT_ID(db, 3);
    CHECK_COUNT(db, 2);

    test_phase("%s: what was compacted away", variant->name);
    COMPACT(db, 1);
    CHECK_CODE(ourdb_revert(db, 1, 1), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_revert_all(db, 1), OURDB_NOT_FOUND);
    CHECK_VALUE(db, 1, "", 0);
    CHECK_OK(ourdb_destroy(db));
}

#define IDS 30

static void
all_records(const test_variant *variant)
{
    enum { COMMITS = 80 };
    static uint64_t written[COMMITS + 1][IDS];
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("all");
    ourdb *db = OPEN(path, &options);
    uint64_t random = 21;
    uint64_t at;
    uint64_t last;
    uint32_t id;

    test_phase("%s: all records", variant->name);
    memset(written, 0, sizeof written);
    for (at = 1; at <= COMMITS; at++) {
        memcpy(written[at], written[at - 1], sizeof written[at]);
        test_write_one(db, at, written[at], IDS, &random);
    }
    last = COMMITS;
    for (at = COMMITS - 1; at < COMMITS; at -= 13) { /* ends by going below 0 */
        uint64_t live = 0;
        int again;

        CHECK_OK(ourdb_revert_all(db, at));
        CHECK_LAST_COMMIT(db, ++last);
        for (again = 0; again < 2; again++) {
            for (id = 0, live = 0; id < IDS; id++) {
                uint8_t value[TEST_VALUE_MAX];

                if (written[at][id] == 0) {
                    CHECK_ABSENT(db, id);
                } else {
                    CHECK_VALUE(db, id, value, test_value(id, written[at][id], value));
                    live++;
                }
            }
            CHECK_COUNT(db, live);
            if (test_on_disk(variant)) {
                CHECK_OK(ourdb_close(db));
                db = OPEN(path, &options);
            }
        }
    }
    test_phase("%s: back and forth again", variant->name);
    CHECK_OK(ourdb_revert_all(db, 0));
    CHECK_COUNT(db, 0);
    last = test_last_commit(db);
    CHECK_OK(ourdb_revert_all(db, COMMITS));
    CHECK_LAST_COMMIT(db, last + 1);
    for (id = 0; id < IDS; id++) {
        uint8_t value[TEST_VALUE_MAX];

        if (written[COMMITS][id] != 0) {
            CHECK_VALUE(db, id, value, test_value(id, written[COMMITS][id], value));
        } else {
            CHECK_ABSENT(db, id);
        }
    }
    CHECK_CODE(ourdb_revert_all(db, last + 2), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_revert_all(db, UINT64_MAX), OURDB_NOT_FOUND);
    CHECK_LAST_COMMIT(db, last + 1);
    CHECK_OK(ourdb_destroy(db));
}

static void
cleared(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("cleared");
    ourdb *db = OPEN(path, &options);
    ourdb_records history;
    ourdb_txn *txn;
    uint32_t id;
    uint32_t i;
    int again;

    test_phase("%s: clear", variant->name);
    CHECK_OK(ourdb_clear(db));
    CHECK_LAST_COMMIT(db, 0); /* nothing to do */
    for (i = 1; i <= 1000; i++) {
        CHECK_OK(ourdb_insert(db, &i, sizeof i, &id));
    }
    CHECK_OK(ourdb_delete(db, 500));
    txn = SNAPSHOT(db);
    CHECK_OK(ourdb_clear(db));
    CHECK_TXN_COUNT(txn, 999);
    CHECK_TXN_VALUE(txn, id, &id, sizeof id);
    ourdb_txn_abort(txn);
    for (again = 0; again < 2; again++) {
        CHECK_COUNT(db, 0);
        CHECK_LAST_COMMIT(db, 1002);
        CHECK_CODE(ourdb_first(db, &id), OURDB_NOT_FOUND);
        CHECK_ABSENT(db, 1);
        CHECK_ABSENT(db, 1000);
        CHECK_NEXT_ID(db, 1001);
        CHECK_OK(ourdb_history(db, 1000, 0, &history));
        CHECK_NUMBER(history.count, 2);
        CHECK_NUMBER(history.items[0].flags, OURDB_RECORD_DELETED);
        CHECK_NUMBER(history.items[0].commit, 1002);
        ourdb_free_records(&history);
        if (test_on_disk(variant)) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
    }
    CHECK_OK(ourdb_insert(db, "after", 5, &id));
    CHECK_NUMBER(id, 1001);
    CHECK_OK(ourdb_clear(db));
    CHECK_OK(ourdb_clear(db));
    CHECK_LAST_COMMIT(db, 1004);
    CHECK_OK(ourdb_revert_all(db, 1001));
    CHECK_COUNT(db, 999);
    CHECK_OK(ourdb_destroy(db));
}

static void
read_only(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("read-only");
    ourdb *db = OPEN(path, &options);

    test_phase("on a handle for reading only");
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_close(db));
    options = test_options(NULL, OURDB_OPEN_READ_ONLY);
    db = OPEN(path, &options);
    CHECK_CODE(ourdb_revert(db, 1, 1), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_revert_all(db, 1), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_clear(db), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_erase(db, 1), OURDB_READ_ONLY);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_close(db));
}

int
main(void)
{
    size_t i;

    test_begin("revert");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        one_record(&test_variants[i]);
        all_records(&test_variants[i]);
        cleared(&test_variants[i]);
    }
    read_only();
    return test_end();
}
