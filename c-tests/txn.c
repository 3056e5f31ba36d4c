/*
 * txn: transactions and snapshots.
 *
 * Promise: a transaction sees the moment of its beginning and its own writes, and nobody sees those
 * before it commits; then all of them are there, in one commit, or none. It conflicts exactly if
 * something that it has read was changed since: by id, as a neighbour, in a count, in a scan, found
 * or not; writes alone never conflict. Snapshots see one moment, of the present or of the past, and
 * don't write. A database isn't closed as long as one is open; one that has ended is noticed.
 */
#include "harness.h"

#include <pthread.h>

static uint32_t
first_of(const ourdb_txn *txn)
{
    uint32_t id = 0;

    CHECK_OK(ourdb_txn_first(txn, &id));
    return id;
}

static uint32_t
last_of(const ourdb_txn *txn)
{
    uint32_t id = 0;

    CHECK_OK(ourdb_txn_last(txn, &id));
    return id;
}

static uint32_t
above_in(const ourdb_txn *txn, uint32_t id)
{
    uint32_t found = 0;

    CHECK_OK(ourdb_txn_above(txn, id, &found));
    return found;
}

static uint32_t
below_in(const ourdb_txn *txn, uint32_t id)
{
    uint32_t found = 0;

    CHECK_OK(ourdb_txn_below(txn, id, &found));
    return found;
}

/* ---- its own writes ------------------------------------------------------------------------ */

static void
own_writes(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("own-writes");
    ourdb *db = OPEN(path, &options);
    ourdb_records records;
    ourdb_txn *txn;
    uint8_t into[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint32_t id;
    size_t len;
    int again;

    test_phase("%s: its own writes", variant->name);
    CHECK_OK(ourdb_set(db, 10, "ten", 3));
    CHECK_OK(ourdb_set(db, 20, "twenty", 6));
    txn = BEGIN(db);
    CHECK_TXN_VALUE(txn, 10, "ten", 3);
    CHECK_TXN_ABSENT(txn, 15);
    CHECK_OK(ourdb_txn_set(txn, 15, "fifteen", 7));
    CHECK_TXN_VALUE(txn, 15, "fifteen", 7);
    CHECK_OK(ourdb_txn_set(txn, 15, "", 0));
    CHECK_TXN_VALUE(txn, 15, "", 0);
    CHECK_OK(ourdb_txn_set(txn, 15, "15", 2));
    CHECK_OK(ourdb_txn_delete(txn, 10));
    CHECK_TXN_ABSENT(txn, 10);
    CHECK_CODE(ourdb_txn_delete(txn, 10), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_txn_set(txn, 5, "five", 4));
    CHECK_OK(ourdb_txn_delete(txn, 5));
    CHECK_OK(ourdb_txn_set(txn, 25, "twenty-five", 11));
    CHECK_TXN_COUNT(txn, 3);
    CHECK_NUMBER(first_of(txn), 15);
    CHECK_NUMBER(last_of(txn), 25);
    CHECK_NUMBER(above_in(txn, 15), 20);
    CHECK_NUMBER(above_in(txn, 20), 25);
    CHECK_NUMBER(below_in(txn, 25), 20);
    CHECK_NUMBER(below_in(txn, 20), 15);
    CHECK_CODE(ourdb_txn_below(txn, 15, &id), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_txn_above(txn, 25, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_txn_get_into(txn, 15, into, 2, &len));
    CHECK_BYTES(into, len, "15", 2);
    CHECK_CODE(ourdb_txn_get_into(txn, 20, into, 5, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 6);
    CHECK(into[0] == '1');
    CHECK_CODE(ourdb_txn_get_into(txn, 10, into, 5, &len), OURDB_NOT_FOUND);
    CHECK_NUMBER(len, 0);
    CHECK_CODE(ourdb_txn_set(txn, UINT32_MAX, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_CODE(ourdb_txn_delete(txn, UINT32_MAX), OURDB_ID_OUT_OF_RANGE);
    CHECK_CODE(ourdb_txn_insert(txn, "x", 1, &id), OURDB_WRONG_MODE);
    CHECK_NUMBER(id, 0);

    test_phase("%s: nobody else sees them", variant->name);
    CHECK_VALUE(db, 10, "ten", 3);
    CHECK_ABSENT(db, 15);
    CHECK_COUNT(db, 2);
    CHECK_LAST_COMMIT(db, 2);

    test_phase("%s: all at once", variant->name);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_LAST_COMMIT(db, 3);
    for (again = 0; again < 2; again++) {
        CHECK_ABSENT(db, 10);
        CHECK_VALUE(db, 15, "15", 2);
        CHECK_VALUE(db, 20, "twenty", 6);
        CHECK_VALUE(db, 25, "twenty-five", 11);
        CHECK_ABSENT(db, 5);
        CHECK_COUNT(db, 3);
        CHECK_OK(ourdb_history(db, 15, 0, &records));
        CHECK_NUMBER(records.count, 1);
        CHECK_NUMBER(records.items[0].commit, 3);
        ourdb_free_records(&records);
        CHECK_OK(ourdb_history(db, 10, 0, &records));
        CHECK_NUMBER(records.count, 2);
        CHECK_NUMBER(records.items[0].flags, OURDB_RECORD_DELETED);
        CHECK_NUMBER(records.items[0].commit, 3);
        CHECK_BYTES(records.items[1].data, records.items[1].len, "ten", 3);
        ourdb_free_records(&records);
        if (test_on_disk(variant)) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
    }

    test_phase("%s: aborted", variant->name);
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_set(txn, 20, "changed", 7));
    CHECK_OK(ourdb_txn_delete(txn, 15));
    ourdb_txn_abort(txn);
    CHECK_VALUE(db, 20, "twenty", 6);
    CHECK_VALUE(db, 15, "15", 2);
    CHECK_LAST_COMMIT(db, 3);

    test_phase("%s: nothing written, nothing committed", variant->name);
    txn = BEGIN(db);
    CHECK_TXN_VALUE(txn, 20, "twenty", 6);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_LAST_COMMIT(db, 3);
    CHECK_OK(ourdb_destroy(db));
}

static void
incremental(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("incremental"), &options);
    ourdb_txn *txn;
    ourdb_txn *other;
    uint32_t id;
    uint32_t outside;

    test_phase("%s: ids are given out", variant->name);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    txn = BEGIN(db);
    CHECK_CODE(ourdb_txn_set(txn, 9, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_txn_set(txn, 0, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_txn_delete(txn, 9), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_txn_insert(txn, "inside", 6, &id));
    CHECK_TXN_VALUE(txn, id, "inside", 6);
    CHECK_OK(ourdb_txn_set(txn, id, "again", 5));
    CHECK_OK(ourdb_insert(db, "outside", 7, &outside));
    CHECK(outside != id && outside > 1 && id > 1);
    other = BEGIN(db);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_VALUE(db, id, "again", 5);
    CHECK_VALUE(db, outside, "outside", 7);
    CHECK_COUNT(db, 3);

    test_phase("%s: an id that was not committed is not given out again", variant->name);
    CHECK_OK(ourdb_txn_insert(other, "lost", 4, &id));
    ourdb_txn_abort(other);
    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_insert(db, "next", 4, &outside));
    CHECK(outside > 3);

    test_phase("%s: set and delete see whether the record is live", variant->name);
    CHECK_OK(ourdb_insert(db, "to be deleted", 13, &id));
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_set(txn, id, "overwritten", 11));
    CHECK_OK(ourdb_delete(db, id));
    CHECK_CODE(ourdb_txn_commit(txn), OURDB_CONFLICT);
    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_insert(db, "to be changed", 13, &id));
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_set(txn, id, "the last word", 13));
    CHECK_OK(ourdb_set(db, id, "meanwhile", 9));
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_VALUE(db, id, "the last word", 13);
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_delete(txn, id));
    CHECK_OK(ourdb_set(db, id, "meanwhile", 9));
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- conflicts ----------------------------------------------------------------------------- */

/* The records before each trial are 10, 20, 30, 40. What a transaction reads: */
typedef enum reading {
    GET_20,
    GET_INTO_20,
    CONTAINS_20,
    GET_25_ABSENT,
    CONTAINS_25_ABSENT,
    FIRST,
    LAST,
    ABOVE_20, /* 30, and that 21 to 29 are free */
    BELOW_30, /* 20, and that 21 to 29 are free */
    ABOVE_40_NONE,
    COUNT,
    SCAN_15_TO_30,
    SCAN_KEYS_15_TO_30,
    NOTHING,
    SET_20_ONLY,
    DELETE_20_ONLY,
    READINGS
} reading;

/* What is committed meanwhile: */
typedef enum change {
    SET_20,
    DELETE_20,
    MAKE_25,
    MAKE_5,
    MAKE_50,
    SET_40,
    MAKE_AND_DELETE_60,
    CHANGES
} change;

/* Whether the one is changed by the other. */
static int
conflicts(reading read, change made)
{
    switch (read) {
    case GET_20:
    case GET_INTO_20:
        return made == SET_20 || made == DELETE_20;
    case CONTAINS_20: /* a record that it has read, in whatever way */
        return made == SET_20 || made == DELETE_20;
    case GET_25_ABSENT:
    case CONTAINS_25_ABSENT:
        return made == MAKE_25;
    case FIRST:
        return made == MAKE_5;
    case LAST:
        return made == MAKE_50 || made == SET_40;
    case ABOVE_20:
    case BELOW_30:
        return made == MAKE_25 || (read == BELOW_30 && (made == SET_20 || made == DELETE_20));
    case ABOVE_40_NONE:
        return made == MAKE_50;
    case COUNT:
        return made == DELETE_20 || made == MAKE_25 || made == MAKE_5 || made == MAKE_50;
    case SCAN_15_TO_30:
    case SCAN_KEYS_15_TO_30:
        return made == SET_20 || made == DELETE_20 || made == MAKE_25;
    case DELETE_20_ONLY:
        return made == DELETE_20;
    default:
        return 0;
    }
}

/*
 * Where a change of a value may count or not: neighbours, counts, and what asks only whether a record
 * is there, read no value.
 */
static int
is_left_open(reading read, change made)
{
    int value_only = made == SET_20 || made == SET_40;
    int nothing_left = made == MAKE_AND_DELETE_60;

    switch (read) {
    case CONTAINS_20:
    case LAST:
    case BELOW_30:
    case SCAN_KEYS_15_TO_30:
    case DELETE_20_ONLY:
        return value_only || (nothing_left && read == LAST);
    case COUNT:
        return value_only || nothing_left;
    case ABOVE_40_NONE:
        return nothing_left;
    default:
        return 0;
    }
}

static void
do_read(ourdb_txn *txn, reading read)
{
    ourdb_iter *iter;
    ourdb_record record;
    uint8_t into[8];
    uint32_t id;
    size_t len;

    switch (read) {
    case GET_20:
        CHECK_TXN_VALUE(txn, 20, "20", 2);
        break;
    case GET_INTO_20:
        CHECK_OK(ourdb_txn_get_into(txn, 20, into, sizeof into, &len));
        break;
    case CONTAINS_20:
        CHECK_OK(ourdb_txn_contains(txn, 20));
        break;
    case GET_25_ABSENT:
        CHECK_CODE(ourdb_txn_get_into(txn, 25, into, sizeof into, &len), OURDB_NOT_FOUND);
        break;
    case CONTAINS_25_ABSENT:
        CHECK_CODE(ourdb_txn_contains(txn, 25), OURDB_NOT_FOUND);
        break;
    case FIRST:
        CHECK_NUMBER(first_of(txn), 10);
        break;
    case LAST:
        CHECK_NUMBER(last_of(txn), 40);
        break;
    case ABOVE_20:
        CHECK_NUMBER(above_in(txn, 20), 30);
        break;
    case BELOW_30:
        CHECK_NUMBER(below_in(txn, 30), 20);
        break;
    case ABOVE_40_NONE:
        CHECK_CODE(ourdb_txn_above(txn, 40, &id), OURDB_NOT_FOUND);
        break;
    case COUNT:
        CHECK_TXN_COUNT(txn, 4);
        break;
    case SCAN_15_TO_30:
    case SCAN_KEYS_15_TO_30:
        CHECK_OK(ourdb_txn_iter_open(txn, 15, 30, read == SCAN_15_TO_30 ? 0 : OURDB_ITER_KEYS,
                                     &iter));
        CHECK_OK(ourdb_iter_next(iter, &record));
        CHECK_NUMBER(record.id, 20);
        CHECK_OK(ourdb_iter_next(iter, &record));
        CHECK_NUMBER(record.id, 30);
        CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
        ourdb_iter_close(iter);
        break;
    case SET_20_ONLY:
        CHECK_OK(ourdb_txn_set(txn, 20, "blind", 5));
        break;
    case DELETE_20_ONLY:
        CHECK_OK(ourdb_txn_delete(txn, 20));
        break;
    default:
        break;
    }
}

static void
do_change(ourdb *db, change made)
{
    switch (made) {
    case SET_20:
        CHECK_OK(ourdb_set(db, 20, "changed", 7));
        break;
    case DELETE_20:
        CHECK_OK(ourdb_delete(db, 20));
        break;
    case MAKE_25:
        CHECK_OK(ourdb_set(db, 25, "made", 4));
        break;
    case MAKE_5:
        CHECK_OK(ourdb_set(db, 5, "made", 4));
        break;
    case MAKE_50:
        CHECK_OK(ourdb_set(db, 50, "made", 4));
        break;
    case SET_40:
        CHECK_OK(ourdb_set(db, 40, "changed", 7));
        break;
    default:
        CHECK_OK(ourdb_set(db, 60, "made", 4));
        CHECK_OK(ourdb_delete(db, 60));
        break;
    }
}

static void
all_conflicts(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    int read;
    int made;

    for (read = 0; read < READINGS; read++) {
        for (made = 0; made < CHANGES; made++) {
            ourdb *db = OPEN(NULL, &options);
            ourdb_txn *txn;
            uint64_t commit;
            int code;

            test_phase("conflicts: read %d, change %d", read, made);
            CHECK_OK(ourdb_set(db, 10, "10", 2));
            CHECK_OK(ourdb_set(db, 20, "20", 2));
            CHECK_OK(ourdb_set(db, 30, "30", 2));
            CHECK_OK(ourdb_set(db, 40, "40", 2));
            txn = BEGIN(db);
            do_read(txn, (reading)read);
            CHECK_OK(ourdb_txn_set(txn, 1000, "written", 7));
            do_change(db, (change)made);
            commit = test_last_commit(db);
            code = ourdb_txn_commit(txn);
            if (!is_left_open((reading)read, (change)made)) {
                CHECK_CODE(code, conflicts((reading)read, (change)made) ? OURDB_CONFLICT
                                                                        : OURDB_OK);
            }
            CHECK(code == OURDB_OK || code == OURDB_CONFLICT);
            if (code == OURDB_CONFLICT) {
                CHECK_MESSAGE("ourdb_txn_commit");
                CHECK_ABSENT(db, 1000);
                CHECK_LAST_COMMIT(db, commit);
                /* The same again, on what is there now. */
                txn = BEGIN(db);
                CHECK_OK(ourdb_txn_set(txn, 1000, "written", 7));
                CHECK_OK(ourdb_txn_commit(txn));
            }
            CHECK_VALUE(db, 1000, "written", 7);
            CHECK_LAST_COMMIT(db, commit + 1);
            CHECK_OK(ourdb_close(db));
        }
    }
}

static void
transactions_against_each_other(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("each-other"), &options);
    ourdb_txn *first;
    ourdb_txn *second;

    test_phase("both read, both write: the second fails");
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    first = BEGIN(db);
    second = BEGIN(db);
    CHECK_TXN_VALUE(first, 1, "one", 3);
    CHECK_TXN_VALUE(second, 1, "one", 3);
    CHECK_OK(ourdb_txn_set(first, 1, "of the first", 12));
    CHECK_OK(ourdb_txn_set(second, 1, "of the second", 13));
    CHECK_OK(ourdb_txn_commit(first));
    CHECK_CODE(ourdb_txn_commit(second), OURDB_CONFLICT);
    CHECK_VALUE(db, 1, "of the first", 12);

    test_phase("write skew is a conflict");
    CHECK_OK(ourdb_set(db, 2, "on call", 7));
    CHECK_OK(ourdb_set(db, 3, "on call", 7));
    first = BEGIN(db);
    second = BEGIN(db);
    CHECK_TXN_VALUE(first, 3, "on call", 7);
    CHECK_TXN_VALUE(second, 2, "on call", 7);
    CHECK_OK(ourdb_txn_set(first, 2, "off", 3));
    CHECK_OK(ourdb_txn_set(second, 3, "off", 3));
    CHECK_OK(ourdb_txn_commit(first));
    CHECK_CODE(ourdb_txn_commit(second), OURDB_CONFLICT);
    CHECK_VALUE(db, 3, "on call", 7);

    test_phase("one that writes nothing, and a snapshot, which never fails");
    first = BEGIN(db);
    second = SNAPSHOT(db);
    CHECK_TXN_VALUE(first, 3, "on call", 7);
    CHECK_TXN_VALUE(second, 3, "on call", 7);
    CHECK_OK(ourdb_set(db, 3, "changed", 7));
    CHECK_TXN_VALUE(first, 3, "on call", 7);
    CHECK_TXN_VALUE(second, 3, "on call", 7);
    CHECK_CODE(ourdb_txn_commit(first), OURDB_CONFLICT);
    CHECK_OK(ourdb_txn_commit(second));

    test_phase("its own write of what it has read");
    first = BEGIN(db);
    CHECK_OK(ourdb_txn_set(first, 4, "its own", 7));
    CHECK_TXN_VALUE(first, 4, "its own", 7); /* reads nobody else's */
    CHECK_OK(ourdb_set(db, 4, "meanwhile", 9));
    CHECK_OK(ourdb_txn_commit(first));
    CHECK_VALUE(db, 4, "its own", 7);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- snapshots ----------------------------------------------------------------------------- */

#define PAST_IDS 20

static void
check_past(ourdb_txn *txn, uint64_t at, const uint64_t (*written)[PAST_IDS], uint32_t flags)
{
    uint64_t live = 0;
    uint32_t below = 0;
    uint32_t id;
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t found;

    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, flags, &iter));
    for (id = 0; id < PAST_IDS; id++) {
        uint8_t value[TEST_VALUE_MAX];

        if (written[at][id] == 0) {
            CHECK_TXN_ABSENT(txn, id);
            continue;
        }
        CHECK_TXN_VALUE(txn, id, value, test_value(id, written[at][id], value));
        CHECK_OK(ourdb_iter_next(iter, &record));
        CHECK_NUMBER(record.id, id);
        if (live > 0) {
            CHECK_NUMBER(above_in(txn, below), id);
            CHECK_NUMBER(below_in(txn, id), below);
        } else {
            CHECK_NUMBER(first_of(txn), id);
        }
        below = id;
        live++;
    }
    CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
    ourdb_iter_close(iter);
    CHECK_TXN_COUNT(txn, live);
    if (live > 0) {
        CHECK_NUMBER(last_of(txn), below);
    } else {
        CHECK_CODE(ourdb_txn_first(txn, &found), OURDB_NOT_FOUND);
    }
}

/* Every commit is looked at from a snapshot that was taken right after it, and from one of later. */
static void
the_past(const test_variant *variant)
{
    enum { COMMITS = 60 };
    static uint64_t written[COMMITS + 1][PAST_IDS];
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("past");
    ourdb *db = OPEN(path, &options);
    ourdb_txn *held[COMMITS + 1];
    ourdb_txn *txn;
    uint64_t random = 5;
    uint64_t at;
    uint32_t id;

    test_phase("%s: snapshots of each commit", variant->name);
    memset(written, 0, sizeof written);
    held[0] = SNAPSHOT(db);
    for (at = 1; at <= COMMITS; at++) {
        memcpy(written[at], written[at - 1], sizeof written[at]);
        test_write_one(db, at, written[at], PAST_IDS, &random);
        held[at] = SNAPSHOT(db);
    }
    for (at = 0; at <= COMMITS; at += 7) {
        check_past(held[at], at, (const uint64_t(*)[PAST_IDS])written, 0);
    }
    CHECK_CODE(ourdb_txn_set(held[3], 1, "x", 1), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_txn_delete(held[3], 1), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_txn_insert(held[3], "x", 1, &id), OURDB_READ_ONLY);
    CHECK_NUMBER(test_stats(db).transactions, COMMITS + 1);
    CHECK_CODE(ourdb_close(db), OURDB_BUSY);
    CHECK_MESSAGE("ourdb_close");
    CHECK_CODE(ourdb_destroy(db), OURDB_BUSY);
    for (at = 0; at <= COMMITS; at++) {
        if (at % 2 == 0) {
            ourdb_txn_abort(held[at]);
        } else {
            CHECK_OK(ourdb_txn_commit(held[at]));
        }
    }
    CHECK_NUMBER(test_stats(db).transactions, 0);

    test_phase("%s: snapshots of the past", variant->name);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
    }
    for (at = 0; at <= COMMITS; at += 3) {
        txn = BEGIN_AT(db, at);
        check_past(txn, at, (const uint64_t(*)[PAST_IDS])written, 0);
        CHECK_CODE(ourdb_txn_set(txn, 1, "x", 1), OURDB_READ_ONLY);
        ourdb_txn_abort(txn);
    }
    txn = (ourdb_txn *)&txn;
    CHECK_CODE(ourdb_txn_begin_at(db, COMMITS + 1, &txn), OURDB_NOT_FOUND);
    CHECK(txn == NULL);
    CHECK_CODE(ourdb_txn_begin_at(db, UINT64_MAX, &txn), OURDB_NOT_FOUND);
    CHECK_LAST_COMMIT(db, COMMITS);

    if (test_on_disk(variant)) {
        test_phase("%s: snapshots of a handle for reading only", variant->name);
        CHECK_OK(ourdb_close(db));
        options.flags = OURDB_OPEN_READ_ONLY;
        db = OPEN(path, &options);
        txn = (ourdb_txn *)&txn;
        CHECK_CODE(ourdb_txn_begin(db, 0, &txn), OURDB_READ_ONLY);
        CHECK(txn == NULL);
        txn = SNAPSHOT(db);
        check_past(txn, COMMITS, (const uint64_t(*)[PAST_IDS])written, 0);
        CHECK_CODE(ourdb_close(db), OURDB_BUSY);
        CHECK_OK(ourdb_txn_commit(txn));
        txn = BEGIN_AT(db, COMMITS / 2);
        check_past(txn, COMMITS / 2, (const uint64_t(*)[PAST_IDS])written, 0);
        ourdb_txn_abort(txn);
        CHECK_OK(ourdb_close(db));
        options = test_options(variant, OURDB_OPEN_KEY_VALUE);
        db = OPEN(path, &options);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* ---- handles ------------------------------------------------------------------------------- */

static void
ended_ones_are_noticed(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(NULL, &options);
    ourdb_txn *committed = BEGIN(db);
    ourdb_txn *aborted = BEGIN(db);
    ourdb_txn *conflicting = BEGIN(db);
    ourdb_txn *many[300];
    ourdb_buf buf;
    size_t i;
    size_t k;

    test_phase("transactions that have ended");
    CHECK_TXN_ABSENT(conflicting, 1);
    CHECK_OK(ourdb_txn_set(conflicting, 2, "x", 1));
    CHECK_OK(ourdb_txn_set(committed, 1, "one", 3));
    CHECK_OK(ourdb_txn_commit(committed));
    CHECK_CODE(ourdb_txn_commit(conflicting), OURDB_CONFLICT);
    ourdb_txn_abort(aborted);
    for (i = 0; i < 30; i++) {
        ourdb_txn *other = BEGIN(db);

        CHECK(other != committed && other != aborted && other != conflicting);
        CHECK_CODE(ourdb_txn_commit(committed), OURDB_INVALID_ARGUMENT);
        CHECK_CODE(ourdb_txn_commit(aborted), OURDB_INVALID_ARGUMENT);
        CHECK_CODE(ourdb_txn_commit(conflicting), OURDB_INVALID_ARGUMENT);
        CHECK_CODE(ourdb_txn_set(committed, 1, "x", 1), OURDB_INVALID_ARGUMENT);
        TEST_GARBAGE(buf);
        CHECK_CODE(ourdb_txn_get(aborted, 1, &buf), OURDB_INVALID_ARGUMENT);
        CHECK_ZERO(buf);
        ourdb_txn_abort(aborted);
        ourdb_txn_abort(NULL);
        CHECK_TXN_VALUE(other, 1, "one", 3);
        ourdb_txn_abort(other);
    }

    test_phase("many at once");
    for (i = 0; i < 300; i++) {
        many[i] = i % 2 == 0 ? BEGIN(db) : SNAPSHOT(db);
        for (k = 0; k < i; k++) {
            CHECK(many[k] != many[i]);
        }
    }
    for (i = 0; i < 300; i++) {
        CHECK_TXN_VALUE(many[i], 1, "one", 3);
        ourdb_txn_abort(many[i]);
    }
    CHECK_OK(ourdb_close(db));
    CHECK_CODE(ourdb_txn_begin(db, 0, &committed), OURDB_INVALID_ARGUMENT);
    CHECK(committed == NULL);
}

/* ---- threads ------------------------------------------------------------------------------- */

#define ADDERS 4

typedef struct adder {
    ourdb *db;
    unsigned long rounds;
    unsigned long conflicts;
} adder;

/* Adds 1 to one record and takes 1 from another, again after each conflict. */
static void *
add(void *argument)
{
    adder *self = argument;
    unsigned long done = 0;

    while (done < self->rounds) {
        ourdb_txn *txn;
        int64_t up;
        int64_t down;
        size_t len;
        int code;

        VERIFY_OK(ourdb_txn_begin(self->db, 0, &txn));
        VERIFY_OK(ourdb_txn_get_into(txn, 1, &up, sizeof up, &len));
        VERIFY_OK(ourdb_txn_get_into(txn, 2, &down, sizeof down, &len));
        VERIFY(up + down == 0);
        up++;
        down--;
        VERIFY_OK(ourdb_txn_set(txn, 1, &up, sizeof up));
        VERIFY_OK(ourdb_txn_set(txn, 2, &down, sizeof down));
        code = ourdb_txn_commit(txn);
        if (code == OURDB_CONFLICT) {
            self->conflicts++;
        } else {
            VERIFY_CODE(code, OURDB_OK);
            done++;
        }
    }
    return NULL;
}

static void
threads(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("threads"), &options);
    pthread_t running[ADDERS];
    adder adders[ADDERS];
    int64_t number = 0;
    unsigned long rounds = test_scaled(500);
    unsigned i;

    test_phase("%s: threads that add", variant->name);
    CHECK_OK(ourdb_set(db, 1, &number, sizeof number));
    CHECK_OK(ourdb_set(db, 2, &number, sizeof number));
    for (i = 0; i < ADDERS; i++) {
        adders[i].db = db;
        adders[i].rounds = rounds;
        adders[i].conflicts = 0;
        CHECK(pthread_create(&running[i], NULL, add, &adders[i]) == 0);
    }
    for (i = 0; i < ADDERS; i++) {
        CHECK(pthread_join(running[i], NULL) == 0);
    }
    number = (int64_t)(rounds * ADDERS);
    CHECK_VALUE(db, 1, &number, sizeof number);
    number = -number;
    CHECK_VALUE(db, 2, &number, sizeof number);
    CHECK_LAST_COMMIT(db, 2 + rounds * ADDERS);
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("txn");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        own_writes(&test_variants[i]);
        incremental(&test_variants[i]);
        the_past(&test_variants[i]);
        threads(&test_variants[i]);
    }
    all_conflicts();
    transactions_against_each_other();
    ended_ones_are_noticed();
    return test_end();
}
