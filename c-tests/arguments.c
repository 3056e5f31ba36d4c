/*
 * arguments: every impossible argument, one after the other.
 *
 * Promise: each pointer argument of each function as NULL, each unknown flag bit and value, each
 * size one off and each combination of options that can't be meant gives a code and a message of
 * its own; every out parameter of a call that failed is left zeroed, a caller's buffer untouched;
 * the database is as it was before, nothing was made on disk, and the program goes on.
 */
#include "harness.h"

/*
 * One row of the table: the call gives `code`, and a message that is about it. Before each call
 * another one fails on an id that occurs nowhere else, so that a message left over is found out.
 */
#define ROW(db, call, code) \
    (test_checks += 2, row(__LINE__, #call, (leave_a_message(db), (call)), (code)))
#define REFUSED(db, call) ROW(db, call, OURDB_INVALID_ARGUMENT)

#define STALE_ID 12345677
#define STALE_TEXT "12345677"

static void
leave_a_message(const ourdb *db)
{
    ourdb_buf buf;

    VERIFY_CODE(ourdb_get(db, STALE_ID, &buf), OURDB_NOT_FOUND);
    VERIFY(strstr(ourdb_errmsg(), STALE_TEXT) != NULL);
}

static void
row(int line, const char *call, int code, int expected)
{
    const char *message = ourdb_errmsg();

    test_code(__FILE__, line, call, code, expected);
    if (message == NULL || message[0] == '\0') {
        test_fail(__FILE__, line, "%s failed without a message", call);
    }
    if (strstr(message, STALE_TEXT) != NULL) {
        test_fail(__FILE__, line, "%s failed and left the message of an earlier call: %s", call,
                  message);
    }
}

/* ---- NULL ---------------------------------------------------------------------------------- */

/* `db` is the database to see that nothing happened, `none` is NULL where a handle is needed. */
static void
no_handle(const ourdb *db, ourdb *none)
{
    const ourdb_slice slice = {(const uint8_t *)"a", 1};
    uint32_t ids[1] = {1};
    uint32_t id;
    uint64_t number;
    uint8_t into[4] = {1, 2, 3, 4};
    size_t len;
    ourdb_buf buf;
    ourdb_records records;
    ourdb_retention retention;
    ourdb_txn *txn;
    ourdb_iter *iter;

    test_phase("NULL for the database");
    REFUSED(db, ourdb_destroy(none));
    REFUSED(db, ourdb_sync(none));
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_insert(none, "a", 1, &id));
    CHECK_ZERO(id);
    REFUSED(db, ourdb_set(none, 1, "a", 1));
    TEST_GARBAGE(buf);
    REFUSED(db, ourdb_get(none, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(len);
    REFUSED(db, ourdb_get_into(none, 1, into, 4, &len));
    CHECK_ZERO(len);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    REFUSED(db, ourdb_delete(none, 1));
    REFUSED(db, ourdb_contains(none, 1));
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_next_id(none, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(number);
    REFUSED(db, ourdb_count(none, &number));
    CHECK_ZERO(number);
    REFUSED(db, ourdb_insert_many(none, &slice, 1, ids));
    REFUSED(db, ourdb_set_many(none, ids, &slice, 1));
    TEST_GARBAGE(records);
    REFUSED(db, ourdb_get_many(none, ids, 1, &records));
    CHECK_ZERO(records);
    REFUSED(db, ourdb_delete_many(none, ids, 1));
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_first(none, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_last(none, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_above(none, 1, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_below(none, 1, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(records);
    REFUSED(db, ourdb_history(none, 1, 0, &records));
    CHECK_ZERO(records);
    TEST_GARBAGE(buf);
    REFUSED(db, ourdb_get_version(none, 1, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    REFUSED(db, ourdb_get_at(none, 1, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(number);
    REFUSED(db, ourdb_last_commit(none, &number));
    CHECK_ZERO(number);
    REFUSED(db, ourdb_clear(none));
    REFUSED(db, ourdb_revert(none, 1, 1));
    REFUSED(db, ourdb_revert_all(none, 1));
    REFUSED(db, ourdb_erase(none, 1));
    REFUSED(db, ourdb_refresh(none));
    TEST_GARBAGE(txn);
    REFUSED(db, ourdb_txn_begin(none, 0, &txn));
    CHECK(txn == NULL);
    TEST_GARBAGE(txn);
    REFUSED(db, ourdb_txn_begin_at(none, 1, &txn));
    CHECK(txn == NULL);
    TEST_GARBAGE(iter);
    REFUSED(db, ourdb_iter_open(none, 0, 1, 0, &iter));
    CHECK(iter == NULL);
    CHECK_OK(ourdb_retention_init(&retention, sizeof retention));
    REFUSED(db, ourdb_compact(none, &retention, NULL, NULL));
    REFUSED(db, ourdb_backup(none, test_path("never"), NULL, NULL));
    TEST_GARBAGE(buf);
    TEST_GARBAGE(number);
    REFUSED(db, ourdb_changes(none, 0, 0, &buf, &number));
    CHECK_ZERO(buf);
    CHECK_ZERO(number);
    REFUSED(db, ourdb_apply(none, "a", 1));
}

static void
retention_and_stats_in_use(ourdb *db)
{
    struct {
        ourdb_retention retention;
        uint64_t unknown;
    } wide;
    ourdb_stats stats;

    test_phase("retention and stats that were not prepared");
    memset(&wide, 0, sizeof wide);
    REFUSED(db, ourdb_compact(db, NULL, NULL, NULL));
    REFUSED(db, ourdb_compact(db, &wide.retention, NULL, NULL));
    CHECK_OK(ourdb_retention_init(&wide.retention, sizeof wide));
    wide.unknown = 1;
    ROW(db, ourdb_compact(db, &wide.retention, NULL, NULL), OURDB_INCOMPATIBLE);
    REFUSED(db, ourdb_stats_get(db, NULL));
    memset(&stats, 0, sizeof stats);
    REFUSED(db, ourdb_stats_get(db, &stats));
    CHECK_ZERO(stats);
    memset(&stats, 0xA5, sizeof stats);
    stats.size = sizeof stats;
    REFUSED(db, ourdb_stats_get(NULL, &stats));
    CHECK_NUMBER(stats.size, sizeof stats);
    stats.size = 0;
    CHECK_ZERO(stats);
}

/* The same for a transaction and an iterator, which NULL and a database's handle are none of. */
static void
no_transaction(const ourdb *db, ourdb_txn *none, ourdb_iter *no_iter)
{
    uint32_t id;
    uint32_t before;
    uint64_t number;
    uint8_t into[4] = {1, 2, 3, 4};
    size_t len;
    size_t count;
    ourdb_buf buf;
    ourdb_record record;
    ourdb_records records;
    ourdb_iter *iter;

    test_phase("%s for the transaction and the iterator", none == NULL ? "NULL" : "a database");
    REFUSED(db, ourdb_txn_commit(none));
    ourdb_txn_abort(none);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_txn_insert(none, "a", 1, &id));
    CHECK_ZERO(id);
    REFUSED(db, ourdb_txn_set(none, 1, "a", 1));
    TEST_GARBAGE(buf);
    REFUSED(db, ourdb_txn_get(none, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(len);
    REFUSED(db, ourdb_txn_get_into(none, 1, into, 4, &len));
    CHECK_ZERO(len);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    REFUSED(db, ourdb_txn_delete(none, 1));
    REFUSED(db, ourdb_txn_contains(none, 1));
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_txn_first(none, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_txn_last(none, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_txn_above(none, 1, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_txn_below(none, 1, &id));
    CHECK_ZERO(id);
    TEST_GARBAGE(number);
    REFUSED(db, ourdb_txn_count(none, &number));
    CHECK_ZERO(number);
    TEST_GARBAGE(iter);
    REFUSED(db, ourdb_txn_iter_open(none, 0, 1, 0, &iter));
    CHECK(iter == NULL);
    TEST_GARBAGE(record);
    REFUSED(db, ourdb_iter_next(no_iter, &record));
    CHECK_ZERO(record);
    TEST_GARBAGE(records);
    REFUSED(db, ourdb_iter_next_many(no_iter, 1, &records));
    CHECK_ZERO(records);
    TEST_GARBAGE(id);
    TEST_GARBAGE(count);
    before = id;
    REFUSED(db, ourdb_iter_next_ids(no_iter, &id, 1, &count));
    CHECK_ZERO(count);
    CHECK_NUMBER(id, before);
    ourdb_iter_close(no_iter);
}

/* Every argument of a transaction's and an iterator's calls, on handles that are open. */
static void
in_a_transaction(ourdb *db)
{
    uint8_t into[4] = {1, 2, 3, 4};
    ourdb_buf buf;
    ourdb_txn *txn;
    ourdb_iter *iter;
    uint32_t id = 0;
    uint32_t bit;
    uint64_t number;
    size_t len;
    size_t count;

    test_phase("arguments of transactions and iterators");
    REFUSED(db, ourdb_txn_begin(db, 0, NULL));
    REFUSED(db, ourdb_txn_begin_at(db, 1, NULL));
    REFUSED(db, ourdb_iter_open(db, 0, 1, 0, NULL));
    for (bit = 1; bit < 32; bit++) {
        TEST_GARBAGE(txn);
        REFUSED(db, ourdb_txn_begin(db, UINT32_C(1) << bit, &txn));
        CHECK(txn == NULL);
        TEST_GARBAGE(iter);
        if (bit >= 2) {
            REFUSED(db, ourdb_iter_open(db, 0, 1, UINT32_C(1) << bit, &iter));
            CHECK(iter == NULL);
        }
    }
    CHECK_OK(ourdb_txn_begin(db, 0, &txn));
    REFUSED(db, ourdb_txn_insert(txn, "a", 1, NULL));
    REFUSED(db, ourdb_txn_set(txn, 1, NULL, 1));
    REFUSED(db, ourdb_txn_get(txn, 1, NULL));
    REFUSED(db, ourdb_txn_get_into(txn, 1, into, 4, NULL));
    TEST_GARBAGE(len);
    REFUSED(db, ourdb_txn_get_into(txn, 1, NULL, 1, &len));
    CHECK_ZERO(len);
    TEST_GARBAGE(len);
    ROW(db, ourdb_txn_get_into(txn, 1, into, 2, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 3);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    TEST_GARBAGE(buf);
    ROW(db, ourdb_txn_get(txn, UINT32_MAX, &buf), OURDB_ID_OUT_OF_RANGE);
    CHECK_ZERO(buf);
    REFUSED(db, ourdb_txn_first(txn, NULL));
    REFUSED(db, ourdb_txn_last(txn, NULL));
    REFUSED(db, ourdb_txn_above(txn, 1, NULL));
    REFUSED(db, ourdb_txn_below(txn, 1, NULL));
    REFUSED(db, ourdb_txn_count(txn, NULL));
    REFUSED(db, ourdb_txn_iter_open(txn, 0, 1, 0, NULL));
    REFUSED(db, ourdb_txn_iter_open(txn, 0, 1, 4, &iter));
    CHECK_OK(ourdb_txn_iter_open(txn, 0, 1, 0, &iter));
    REFUSED(db, ourdb_iter_next(iter, NULL));
    REFUSED(db, ourdb_iter_next_many(iter, 1, NULL));
    REFUSED(db, ourdb_iter_next_ids(iter, &id, 1, NULL));
    TEST_GARBAGE(count);
    REFUSED(db, ourdb_iter_next_ids(iter, NULL, 1, &count));
    CHECK_ZERO(count);
    TEST_GARBAGE(count);
    REFUSED(db, ourdb_iter_next_ids(iter, &id, 0, &count));
    CHECK_ZERO(count);
    TEST_GARBAGE(count);
    REFUSED(db, ourdb_iter_next_ids(iter, (uint32_t *)((char *)&id + 1), 1, &count));
    CHECK_ZERO(count);
    ourdb_iter_close(iter);
    ourdb_txn_abort(txn);

    test_phase("arguments of changes and backups");
    TEST_GARBAGE(number);
    REFUSED(db, ourdb_changes(db, 0, 0, NULL, &number));
    CHECK_ZERO(number);
    TEST_GARBAGE(buf);
    REFUSED(db, ourdb_changes(db, 0, 0, &buf, NULL));
    CHECK_ZERO(buf);
    REFUSED(db, ourdb_apply(db, NULL, 1));
    CHECK_OK(ourdb_apply(db, NULL, 0));
    REFUSED(db, ourdb_backup(db, NULL, NULL, NULL));
    REFUSED(db, ourdb_backup(db, "", NULL, NULL));
    retention_and_stats_in_use(db);
}

static void
no_out_parameter(ourdb *db)
{
    const ourdb_slice slice = {(const uint8_t *)"a", 1};
    uint32_t ids[1] = {1};
    uint8_t into[4] = {1, 2, 3, 4};

    test_phase("NULL for an out parameter");
    REFUSED(db, ourdb_insert(db, "a", 1, NULL));
    REFUSED(db, ourdb_get(db, 1, NULL));
    REFUSED(db, ourdb_get_into(db, 1, into, 4, NULL));
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    REFUSED(db, ourdb_next_id(db, NULL));
    REFUSED(db, ourdb_count(db, NULL));
    REFUSED(db, ourdb_insert_many(db, &slice, 1, NULL));
    REFUSED(db, ourdb_get_many(db, ids, 1, NULL));
    REFUSED(db, ourdb_first(db, NULL));
    REFUSED(db, ourdb_last(db, NULL));
    REFUSED(db, ourdb_above(db, 0, NULL));
    REFUSED(db, ourdb_below(db, 2, NULL));
    REFUSED(db, ourdb_history(db, 1, 0, NULL));
    REFUSED(db, ourdb_get_version(db, 1, 1, NULL));
    REFUSED(db, ourdb_get_at(db, 1, UINT64_MAX, NULL));
    REFUSED(db, ourdb_last_commit(db, NULL));
}

static void
no_input(ourdb *db)
{
    ourdb_slice slices[2] = {{(const uint8_t *)"a", 1}, {NULL, 1}};
    uint32_t ids[2] = {1, 2};
    uint32_t id;
    size_t len;
    ourdb_records records;

    test_phase("NULL for an input");
    TEST_GARBAGE(id);
    REFUSED(db, ourdb_insert(db, NULL, 1, &id));
    CHECK_ZERO(id);
    REFUSED(db, ourdb_set(db, 1, NULL, 1));
    TEST_GARBAGE(len);
    REFUSED(db, ourdb_get_into(db, 1, NULL, 1, &len));
    CHECK_ZERO(len);
    REFUSED(db, ourdb_insert_many(db, NULL, 1, ids));
    REFUSED(db, ourdb_insert_many(db, slices, 2, ids));
    REFUSED(db, ourdb_insert_many(db, slices + 1, 1, ids));
    ids[0] = 1;
    ids[1] = 2;
    REFUSED(db, ourdb_set_many(db, NULL, slices, 1));
    REFUSED(db, ourdb_set_many(db, ids, NULL, 1));
    REFUSED(db, ourdb_set_many(db, NULL, NULL, 1));
    REFUSED(db, ourdb_set_many(db, ids, slices, 2));
    TEST_GARBAGE(records);
    REFUSED(db, ourdb_get_many(db, NULL, 1, &records));
    CHECK_ZERO(records);
    REFUSED(db, ourdb_delete_many(db, NULL, 1));
}

/* Nothing at all is an empty value, or no work; languages with empty slices pass NULL for it. */
static void
nothing(ourdb *db)
{
    ourdb_slice empty = {NULL, 0};
    ourdb_records records;
    uint32_t id = 1;
    uint64_t commit = test_last_commit(db);

    test_phase("NULL where nothing is meant");
    CHECK_OK(ourdb_insert_many(db, NULL, 0, NULL));
    CHECK_OK(ourdb_set_many(db, NULL, NULL, 0));
    CHECK_OK(ourdb_delete_many(db, NULL, 0));
    TEST_GARBAGE(records);
    CHECK_OK(ourdb_get_many(db, NULL, 0, &records));
    CHECK_NUMBER(records.count, 0);
    ourdb_free_records(&records);
    CHECK_ZERO(records);
    CHECK_LAST_COMMIT(db, commit);
    CHECK_OK(ourdb_insert_many(db, &empty, 1, &id));
    CHECK_VALUE(db, id, "", 0);
    CHECK_OK(ourdb_set(db, id, NULL, 0));
    CHECK_OK(ourdb_set_many(db, &id, &empty, 1));
    CHECK_VALUE(db, id, "", 0);
    CHECK_LAST_COMMIT(db, commit + 3);
    CHECK_OK(ourdb_delete(db, id));
}

/* A count that no array in memory can have must be refused before a byte of it is read. */
static void
impossible_counts(ourdb *db)
{
    const ourdb_slice slice = {(const uint8_t *)"a", 1};
    uint32_t id = 1;
    ourdb_records records;

    test_phase("impossible counts");
    CHECK(ourdb_insert_many(db, &slice, SIZE_MAX, &id) != OURDB_OK);
    CHECK(ourdb_errmsg()[0] != '\0');
    CHECK(ourdb_set_many(db, &id, &slice, SIZE_MAX) != OURDB_OK);
    CHECK(ourdb_delete_many(db, &id, SIZE_MAX) != OURDB_OK);
    TEST_GARBAGE(records);
    CHECK(ourdb_get_many(db, &id, SIZE_MAX, &records) != OURDB_OK);
    CHECK_ZERO(records);
    /* A maximum is no count: it may be as large as one likes. */
    CHECK_OK(ourdb_history(db, 1, SIZE_MAX, &records));
    CHECK_NUMBER(records.count, 1);
    ourdb_free_records(&records);
}

/* Out parameters of calls whose arguments are fine and whose answer is no. */
static void
zeroed_on_failure(ourdb *db)
{
    uint32_t id;
    uint32_t ids[2] = {0x5A5A5A5A, 0x5A5A5A5A};
    uint8_t into[4] = {1, 2, 3, 4};
    size_t len;
    ourdb_buf buf;
    ourdb_records records;
    static uint8_t large[65536];
    ourdb_slice slices[2] = {{(const uint8_t *)"a", 1}, {large, sizeof large}};

    test_phase("out parameters after a failure");
    TEST_GARBAGE(buf);
    ROW(db, ourdb_get(db, 4000, &buf), OURDB_NOT_FOUND);
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    ROW(db, ourdb_get(db, UINT32_MAX, &buf), OURDB_ID_OUT_OF_RANGE);
    CHECK_ZERO(buf);
    TEST_GARBAGE(len);
    ROW(db, ourdb_get_into(db, 4000, into, 4, &len), OURDB_NOT_FOUND);
    CHECK_ZERO(len);
    TEST_GARBAGE(len);
    ROW(db, ourdb_get_into(db, UINT32_MAX, into, 4, &len), OURDB_ID_OUT_OF_RANGE);
    CHECK_ZERO(len);
    TEST_GARBAGE(len);
    ROW(db, ourdb_get_into(db, 1, into, 2, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 3);
    CHECK(into[0] == 1 && into[1] == 2 && into[2] == 3 && into[3] == 4);
    TEST_GARBAGE(id);
    ROW(db, ourdb_insert(db, large, sizeof large, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_ZERO(id);
    ROW(db, ourdb_insert_many(db, slices, 2, ids), OURDB_RECORD_TOO_LARGE);
    CHECK((ids[0] == 0 && ids[1] == 0) || (ids[0] == 0x5A5A5A5A && ids[1] == 0x5A5A5A5A));
    TEST_GARBAGE(id);
    ROW(db, ourdb_above(db, 1, &id), OURDB_NOT_FOUND);
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    ROW(db, ourdb_below(db, 1, &id), OURDB_NOT_FOUND);
    CHECK_ZERO(id);
    TEST_GARBAGE(records);
    ROW(db, ourdb_history(db, 4000, 0, &records), OURDB_NOT_FOUND);
    CHECK_ZERO(records);
    TEST_GARBAGE(buf);
    ROW(db, ourdb_get_version(db, 1, 0, &buf), OURDB_NOT_FOUND);
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    ROW(db, ourdb_get_at(db, 1, 0, &buf), OURDB_NOT_FOUND);
    CHECK_ZERO(buf);
}

static void
in_an_empty_database(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    uint32_t id;

    test_phase("out parameters in an empty database");
    TEST_GARBAGE(id);
    ROW(db, ourdb_first(db, &id), OURDB_NOT_FOUND);
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    ROW(db, ourdb_last(db, &id), OURDB_NOT_FOUND);
    CHECK_ZERO(id);
    CHECK_OK(ourdb_close(db));
}

static void
calls(uint32_t flags)
{
    ourdb_options options = test_options(NULL, flags);
    ourdb *db = OPEN(test_path("calls"), &options);
    uint32_t id;

    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    no_handle(db, NULL);
    no_transaction(db, NULL, NULL);
    no_transaction(db, (ourdb_txn *)db, (ourdb_iter *)db);
    in_a_transaction(db);
    no_out_parameter(db);
    no_input(db);
    impossible_counts(db);
    zeroed_on_failure(db);
    test_phase("all those refusals changed nothing");
    CHECK_COUNT(db, 1);
    CHECK_LAST_COMMIT(db, 1);
    CHECK_NEXT_ID(db, 2);
    CHECK_VALUE(db, 1, "one", 3);
    nothing(db);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- options ------------------------------------------------------------------------------- */

/* What the first header knew of the options: up to io. */
#define EARLIER_OPTIONS (offsetof(ourdb_options, io) + sizeof(uint32_t))

/* The options as a later version of the library may declare them: more fields behind ours. */
typedef union wide_options {
    ourdb_options options;
    uint8_t bytes[5000];
} wide_options;

static void
options_init(const ourdb *db)
{
    static wide_options wide;
    ourdb *opened;
    size_t i;

    test_phase("ourdb_options_init");
    REFUSED(db, ourdb_options_init(NULL, sizeof(ourdb_options)));
    REFUSED(db, ourdb_options_init(NULL, 0));
    memset(&wide, 0xA5, sizeof wide);
    for (i = 0; i < sizeof(ourdb_options); i++) {
        if (i != EARLIER_OPTIONS) {
            REFUSED(db, ourdb_options_init(&wide.options, i));
        }
    }
    /* No struct with our fields ends in the middle of a word. */
    for (i = sizeof(ourdb_options) + 1; i <= 4096 + 8; i++) {
        if (i % sizeof(uint64_t) != 0 || i > 4096) {
            REFUSED(db, ourdb_options_init(&wide.options, i));
        }
    }
    REFUSED(db, ourdb_options_init(&wide.options, SIZE_MAX));
    for (i = 0; i < sizeof wide; i++) {
        CHECK_NUMBER(wide.bytes[i], 0xA5);
    }

    for (i = sizeof(ourdb_options); i <= 4096; i += sizeof(uint64_t)) {
        memset(&wide, 0xA5, sizeof wide);
        CHECK_OK(ourdb_options_init(&wide.options, i));
        CHECK_NUMBER(wide.options.size, i);
        CHECK(test_is_zero(wide.bytes + sizeof(size_t), i - sizeof(size_t)));
        CHECK_NUMBER(wide.bytes[i], 0xA5);
    }
    memset(&wide, 0xA5, sizeof wide);
    CHECK_OK(ourdb_options_init(&wide.options, 4096));
    CHECK_NUMBER(wide.bytes[4096], 0xA5);

    test_phase("options of an earlier header");
    memset(&wide, 0xA5, sizeof wide);
    CHECK_OK(ourdb_options_init(&wide.options, EARLIER_OPTIONS));
    CHECK_NUMBER(wide.options.size, EARLIER_OPTIONS);
    CHECK(test_is_zero(wide.bytes + sizeof(size_t), EARLIER_OPTIONS - sizeof(size_t)));
    CHECK_NUMBER(wide.bytes[EARLIER_OPTIONS], 0xA5);
    /* What stands behind its end is nobody's business. */
    opened = OPEN(test_path("earlier"), &wide.options);
    CHECK_OK(ourdb_destroy(opened));
}

static void
retention_and_stats(ourdb *db)
{
    static union {
        ourdb_retention retention;
        ourdb_stats stats;
        uint8_t bytes[5000];
    } wide;
    size_t i;

    test_phase("ourdb_retention_init, ourdb_stats_init");
    REFUSED(db, ourdb_retention_init(NULL, sizeof(ourdb_retention)));
    REFUSED(db, ourdb_stats_init(NULL, sizeof(ourdb_stats)));
    memset(&wide, 0xA5, sizeof wide);
    for (i = 0; i < sizeof(ourdb_retention); i++) {
        REFUSED(db, ourdb_retention_init(&wide.retention, i));
    }
    for (i = 0; i < sizeof(ourdb_stats); i++) {
        REFUSED(db, ourdb_stats_init(&wide.stats, i));
    }
    for (i = 1; i < sizeof(uint64_t); i++) {
        REFUSED(db, ourdb_retention_init(&wide.retention, sizeof(ourdb_retention) + i));
        REFUSED(db, ourdb_stats_init(&wide.stats, sizeof(ourdb_stats) + i));
    }
    REFUSED(db, ourdb_retention_init(&wide.retention, 4097));
    REFUSED(db, ourdb_stats_init(&wide.stats, SIZE_MAX));
    for (i = 0; i < sizeof wide; i++) {
        CHECK_NUMBER(wide.bytes[i], 0xA5);
    }

    CHECK_OK(ourdb_retention_init(&wide.retention, sizeof(ourdb_retention) + 8));
    CHECK_NUMBER(wide.retention.size, sizeof(ourdb_retention) + 8);
    CHECK_NUMBER(wide.retention.keep_versions, 1);
    CHECK_NUMBER(wide.retention.keep_since_us, 0);
    CHECK_NUMBER(wide.retention.keep_since_commit, 0);
    CHECK(test_is_zero(wide.bytes + sizeof(ourdb_retention), 8));
    CHECK_NUMBER(wide.bytes[sizeof(ourdb_retention) + 8], 0xA5);

    memset(&wide, 0xA5, sizeof wide);
    CHECK_OK(ourdb_stats_init(&wide.stats, sizeof(ourdb_stats)));
    CHECK_NUMBER(wide.stats.size, sizeof(ourdb_stats));
    CHECK(test_is_zero(wide.bytes + sizeof(size_t), sizeof(ourdb_stats) - sizeof(size_t)));
    CHECK_NUMBER(wide.bytes[sizeof(ourdb_stats)], 0xA5);

    test_phase("the size of a retention and of stats");
    for (i = sizeof(ourdb_stats); i <= sizeof(ourdb_stats) + 64; i++) {
        memset(&wide, 0xA5, sizeof wide);
        wide.stats.size = i;
        if (i % sizeof(uint64_t) == 0) {
            CHECK_OK(ourdb_stats_get(db, &wide.stats));
            CHECK(test_is_zero(wide.bytes + sizeof(ourdb_stats), i - sizeof(ourdb_stats)));
        } else {
            REFUSED(db, ourdb_stats_get(db, &wide.stats));
            CHECK_NUMBER(wide.bytes[sizeof(size_t)], 0xA5);
            memset(&wide, 0, sizeof wide);
            wide.retention.size = i;
            REFUSED(db, ourdb_compact(db, &wide.retention, NULL, NULL));
            wide.bytes[i] = 0xA5;
        }
        CHECK_NUMBER(wide.stats.size, i);
        CHECK_NUMBER(wide.bytes[i], 0xA5);
    }
}

/* The open is refused with `code`, leaves no handle, and makes nothing on disk. */
#define OPEN_REFUSED(db, path, options, code)              \
    do {                                                   \
        ourdb *refused_;                                   \
        TEST_GARBAGE(refused_);                            \
        ROW(db, ourdb_open(path, options, &refused_), code); \
        CHECK(refused_ == NULL);                           \
        CHECK(!test_exists(test_path("never")));           \
    } while (0)

static void
option_sizes(const ourdb *db)
{
    static wide_options wide;
    ourdb *opened;
    size_t i;

    test_phase("the size of the options");
    memset(&wide, 0, sizeof wide);
    OPEN_REFUSED(db, test_path("never"), &wide.options, OURDB_INVALID_ARGUMENT);
    for (i = 0; i < sizeof(ourdb_options); i++) {
        if (i == EARLIER_OPTIONS) {
            continue;
        }
        wide.options.size = i;
        OPEN_REFUSED(db, test_path("never"), &wide.options, OURDB_INVALID_ARGUMENT);
    }
    for (i = sizeof(ourdb_options) + 1; i < 4096; i++) {
        if (i % sizeof(uint64_t) != 0) {
            wide.options.size = i;
            OPEN_REFUSED(db, test_path("never"), &wide.options, OURDB_INVALID_ARGUMENT);
        }
    }
    for (i = sizeof(ourdb_options) + 8; i < 4096; i += 8 * (1 + i / 64)) {
        memset(&wide, 0, sizeof wide);
        wide.options.size = i;
        wide.bytes[i] = 1; /* beyond the size: nobody's business */
        opened = OPEN(test_path("wide"), &wide.options);
        CHECK_OK(ourdb_destroy(opened));
        wide.bytes[i - 1] = 1;
        OPEN_REFUSED(db, test_path("never"), &wide.options, OURDB_INCOMPATIBLE);
        memset(&wide, 0, sizeof wide);
        wide.options.size = i;
        wide.bytes[sizeof(ourdb_options)] = 0x80;
        OPEN_REFUSED(db, test_path("never"), &wide.options, OURDB_INCOMPATIBLE);
    }
    /* No struct is that long: refused before a byte of it is read. */
    memset(&wide, 0, sizeof wide);
    wide.options.size = SIZE_MAX;
    opened = (ourdb *)&wide;
    CHECK(ourdb_open(test_path("never"), &wide.options, &opened) != OURDB_OK);
    CHECK(opened == NULL);
    wide.options.size = SIZE_MAX / 2 + 1;
    CHECK(ourdb_open(test_path("never"), &wide.options, &opened) != OURDB_OK);
    CHECK(!test_exists(test_path("never")));
}

static void
option_values(const ourdb *db)
{
    static const uint32_t clashes[] = {
        OURDB_OPEN_MEMORY | OURDB_OPEN_READ_ONLY,
        OURDB_OPEN_MEMORY | OURDB_OPEN_MUST_EXIST,
        OURDB_OPEN_MEMORY | OURDB_OPEN_SALVAGE,
        OURDB_OPEN_MEMORY | OURDB_OPEN_ADOPT,
        OURDB_OPEN_READ_ONLY | OURDB_OPEN_RESET,
        OURDB_OPEN_SALVAGE | OURDB_OPEN_RESET
    };
    ourdb_options options;
    uint32_t bit;
    uint32_t value;
    size_t i;

    test_phase("unknown flags");
    for (bit = 0; bit < 32; bit++) {
        uint32_t flag = UINT32_C(1) << bit;

        if (flag > OURDB_OPEN_ADOPT) {
            options = test_options(NULL, flag);
            OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
            options.flags |= OURDB_OPEN_MEMORY;
            OPEN_REFUSED(db, NULL, &options, OURDB_INVALID_ARGUMENT);
        }
    }
    options = test_options(NULL, UINT32_MAX);
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);

    test_phase("flags that don't go together");
    for (i = 0; i < sizeof clashes / sizeof clashes[0]; i++) {
        options = test_options(NULL, clashes[i]);
        OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
    }

    test_phase("unknown values");
    for (value = 1; value != 0; value = value == UINT32_MAX ? 0 : value * 2 + 1) {
        if (value > OURDB_LOOKUP_DISK) {
            options = test_options(NULL, 0);
            options.lookup = value;
            OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
        }
        if (value > OURDB_SYNC_INTERVAL) {
            options = test_options(NULL, 0);
            options.sync = value;
            OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
        }
        if (value > OURDB_IO_FILE) {
            options = test_options(NULL, 0);
            options.io = value;
            OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
        }
    }
    options = test_options(NULL, 0);
    options.lookup = OURDB_LOOKUP_DISK + 1;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
    options = test_options(NULL, 0);
    options.sync = OURDB_SYNC_INTERVAL + 1;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
    options = test_options(NULL, 0);
    options.io = OURDB_IO_FILE + 1;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);

    options = test_options(NULL, 0);
    options.reserved = 1;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INCOMPATIBLE);

    test_phase("a percentage one too large");
    options = test_options(NULL, 0);
    options.auto_compact_percent = 100;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
    options.auto_compact_percent = UINT32_MAX;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);

    test_phase("record_size_max one too large");
    options = test_options(NULL, 0);
    options.record_size_max = UINT32_C(0x80000000);
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
    options.record_size_max = UINT32_MAX;
    OPEN_REFUSED(db, test_path("never"), &options, OURDB_INVALID_ARGUMENT);
}

static void
paths(const ourdb *db)
{
    ourdb_options options = test_options(NULL, 0);
    ourdb *opened;

    test_phase("the path");
    OPEN_REFUSED(db, NULL, &options, OURDB_INVALID_ARGUMENT);
    OPEN_REFUSED(db, NULL, NULL, OURDB_INVALID_ARGUMENT);
    OPEN_REFUSED(db, "", &options, OURDB_INVALID_ARGUMENT);
    OPEN_REFUSED(db, "", NULL, OURDB_INVALID_ARGUMENT);
    REFUSED(db, ourdb_open(test_path("never"), &options, NULL));
    REFUSED(db, ourdb_open(test_path("never"), NULL, NULL));
    REFUSED(db, ourdb_open(NULL, NULL, NULL));
    CHECK(!test_exists(test_path("never")));
    options.flags = OURDB_OPEN_MEMORY;
    opened = OPEN(NULL, &options);
    CHECK_OK(ourdb_close(opened));
    opened = OPEN("", &options);
    CHECK_OK(ourdb_close(opened));
}

int
main(void)
{
    ourdb_options options;
    ourdb *db;

    test_begin("arguments");
    calls(0);
    calls(OURDB_OPEN_MEMORY);
    in_an_empty_database();

    /* A database to leave a message with before each refusal. */
    options = test_options(NULL, OURDB_OPEN_MEMORY);
    db = OPEN(NULL, &options);
    options_init(db);
    option_sizes(db);
    option_values(db);
    retention_and_stats(db);
    paths(db);
    test_phase("close accepts NULL");
    CHECK_OK(ourdb_close(NULL));
    CHECK_OK(ourdb_close(db));
    return test_end();
}
