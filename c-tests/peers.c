/*
 * peers: what other small stores promise in their tests, and where they failed, in OurDB's terms.
 *
 * AssemblageKV, hmdb and its successor db-rs, and yakvdb set out for something like this. What their
 * tests check is checked here, one function for each behaviour, whose comment says where it comes
 * from; and what was found wrong in them when they were tried.
 */
#include "harness.h"

#include <pthread.h>

static ourdb *
open_at(const char *name, uint32_t flags)
{
    ourdb_options options = test_options(NULL, flags);

    return OPEN(test_path(name), &options);
}

static ourdb *
reopen(ourdb *db, const char *name)
{
    CHECK_OK(ourdb_close(db));
    return open_at(name, 0);
}

/* Copies a directory of files, as a backup by hand of a database that is closed, or killed. */
static void
copy_files(const char *from, const char *to)
{
    test_list list = test_list_directory(from);
    size_t i;

    test_remove(to);
    test_make_directory(to);
    for (i = 0; i < list.count; i++) {
        char source[TEST_PATH_MAX];
        char copy[TEST_PATH_MAX];
        struct stat status;

        test_join_into(source, from, list.names[i]);
        test_join_into(copy, to, list.names[i]);
        if (lstat(source, &status) == 0 && S_ISREG(status.st_mode)) {
            size_t len;
            uint8_t *bytes = test_read_file(source, &len);

            test_write_file(copy, bytes, len);
            free(bytes);
        }
    }
    test_free_list(&list);
}

/* Where the records of the only data file end: behind them it is zero. */
static size_t
log_end(const char *directory)
{
    size_t len;
    uint8_t *bytes = test_read_file(test_join(directory, "0.db"), &len);

    while (len > 0 && bytes[len - 1] == 0) {
        len--;
    }
    free(bytes);
    return len;
}

static void
cut(const char *directory, size_t len)
{
    if (truncate(test_join(directory, "0.db"), (off_t)len) != 0) {
        test_fail(__FILE__, __LINE__, "truncate: %s", strerror(errno));
    }
}

static void
flip(const char *directory, size_t at, size_t count)
{
    const char *name = test_join(directory, "0.db");
    size_t len;
    uint8_t *bytes = test_read_file(name, &len);

    CHECK(at + count <= len);
    while (count-- > 0) {
        bytes[at + count] ^= 0xFF;
    }
    test_write_file(name, bytes, len);
    free(bytes);
}

/* Does `work` in a child that is killed after it, so that nothing is closed. */
static void
killed_after(const char *name, uint32_t flags, void (*work)(ourdb *))
{
    test_pipe ready = test_make_pipe();
    pid_t child = test_fork();

    if (child == 0) {
        ourdb *db = open_at(name, flags);

        work(db);
        test_signal(&ready);
        test_wait_to_be_killed();
    }
    test_await(&ready);
    test_kill(child);
    test_close_pipe(&ready);
}

static void
check_versions(const ourdb *db, uint32_t id, const char *const *newest_first, size_t count)
{
    ourdb_records history;
    size_t i;

    CHECK_OK(ourdb_history(db, id, 0, &history));
    CHECK_NUMBER(history.count, count);
    for (i = 0; i < count; i++) {
        if (newest_first[i] == NULL) {
            CHECK_NUMBER(history.items[i].flags, OURDB_RECORD_DELETED);
            CHECK(history.items[i].data == NULL);
        } else {
            CHECK_NUMBER(history.items[i].flags, 0);
            CHECK_BYTES(history.items[i].data, history.items[i].len, newest_first[i],
                        strlen(newest_first[i]));
        }
        CHECK(i == 0 || history.items[i].commit < history.items[i - 1].commit);
        CHECK(i == 0 || history.items[i].time_us <= history.items[i - 1].time_us);
    }
    ourdb_free_records(&history);
}

/* ==== From AssemblageKV ======================================================================== */

/* AssemblageKV 1: read your writes in a transaction; a missing id; the same after reopening. */
static void
assemblage_01_read_your_writes(void)
{
    ourdb *db = open_at("a01", OURDB_OPEN_KEY_VALUE);
    ourdb_txn *txn = BEGIN(db);

    CHECK_TXN_ABSENT(txn, 1);
    CHECK_OK(ourdb_txn_set(txn, 1, "one", 3));
    CHECK_TXN_VALUE(txn, 1, "one", 3);
    CHECK_TXN_ABSENT(txn, 2);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_VALUE(db, 1, "one", 3);
    db = reopen(db, "a01");
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_ABSENT(db, 2);
    txn = SNAPSHOT(db);
    CHECK_TXN_VALUE(txn, 1, "one", 3);
    CHECK_TXN_ABSENT(txn, 2);
    ourdb_txn_abort(txn);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 2: id 0 (its empty key) and the empty value are not the same as missing. */
static void
assemblage_02_empty_is_not_missing(void)
{
    ourdb *db = open_at("a02", OURDB_OPEN_KEY_VALUE);

    CHECK_ABSENT(db, 0);
    CHECK_OK(ourdb_set(db, 0, "", 0));
    CHECK_VALUE(db, 0, "", 0);
    CHECK_ABSENT(db, 1);
    db = reopen(db, "a02");
    CHECK_VALUE(db, 0, "", 0);
    CHECK_COUNT(db, 1);
    CHECK_OK(ourdb_delete(db, 0));
    CHECK_ABSENT(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 3: the same record set twice in a transaction is one version, the last. */
static void
assemblage_03_one_version_of_a_transaction(void)
{
    static const char *const expected[] = {"last"};
    ourdb *db = open_at("a03", OURDB_OPEN_KEY_VALUE);
    ourdb_txn *txn = BEGIN(db);

    CHECK_OK(ourdb_txn_set(txn, 1, "first", 5));
    CHECK_OK(ourdb_txn_set(txn, 1, "last", 4));
    CHECK_OK(ourdb_txn_commit(txn));
    check_versions(db, 1, expected, 1);
    db = reopen(db, "a03");
    check_versions(db, 1, expected, 1);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 3, by ourdb_set_many(). */
static void
assemblage_03_one_version_of_a_call(void)
{
    static const char *const expected[] = {"last"};
    ourdb *db = open_at("a03many", OURDB_OPEN_KEY_VALUE);
    const uint32_t ids[2] = {1, 1};
    const ourdb_slice values[2] = {{(const uint8_t *)"first", 5}, {(const uint8_t *)"last", 4}};

    CHECK_OK(ourdb_set_many(db, ids, values, 2));
    check_versions(db, 1, expected, 1);
    CHECK_OK(ourdb_destroy(db));
}

/*
 * AssemblageKV 4: deleted in a transaction it is not found, the history still has the last value;
 * so after commit and reopening; gone after compaction.
 */
static void
assemblage_04_deleted_and_remembered(void)
{
    static const char *const expected[] = {NULL, "value"};
    ourdb *db = open_at("a04", OURDB_OPEN_KEY_VALUE);
    ourdb_records history;
    ourdb_txn *txn;

    CHECK_OK(ourdb_set(db, 1, "value", 5));
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_delete(txn, 1));
    CHECK_TXN_ABSENT(txn, 1);
    check_versions(db, 1, expected + 1, 1);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_ABSENT(db, 1);
    check_versions(db, 1, expected, 2);
    db = reopen(db, "a04");
    check_versions(db, 1, expected, 2);
    COMPACT(db, 0);
    CHECK_CODE(ourdb_history(db, 1, 0, &history), OURDB_NOT_FOUND);
    db = reopen(db, "a04");
    CHECK_CODE(ourdb_history(db, 1, 0, &history), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 5: versions of a record that was deleted in between. */
static void
assemblage_05_all_versions(void)
{
    static const char *const expected[] = {"4", NULL, "2", "1"};
    ourdb *db = open_at("a05", OURDB_OPEN_KEY_VALUE);

    CHECK_OK(ourdb_set(db, 1, "1", 1));
    CHECK_OK(ourdb_set(db, 1, "2", 1));
    CHECK_OK(ourdb_delete(db, 1));
    CHECK_OK(ourdb_set(db, 1, "4", 1));
    check_versions(db, 1, expected, 4);
    db = reopen(db, "a05");
    check_versions(db, 1, expected, 4);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 5: and after compaction to one version and reopening, the last. */
static void
assemblage_05_the_last_version(void)
{
    static const char *const expected[] = {"4"};
    ourdb *db = open_at("a05c", OURDB_OPEN_KEY_VALUE);

    CHECK_OK(ourdb_set(db, 1, "1", 1));
    CHECK_OK(ourdb_set(db, 1, "2", 1));
    CHECK_OK(ourdb_delete(db, 1));
    CHECK_OK(ourdb_set(db, 1, "4", 1));
    COMPACT(db, 1);
    check_versions(db, 1, expected, 1);
    db = reopen(db, "a05c");
    check_versions(db, 1, expected, 1);
    CHECK_VALUE(db, 1, "4", 1);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 6: a later commit has a later time, kept over reopening. */
static void
assemblage_06_times(void)
{
    ourdb *db = open_at("a06", OURDB_OPEN_KEY_VALUE);
    uint64_t times[2];
    int again;

    CHECK_OK(ourdb_set(db, 1, "1", 1));
    test_sleep_us(2000);
    CHECK_OK(ourdb_set(db, 1, "2", 1));
    for (again = 0; again < 2; again++) {
        ourdb_records history;

        CHECK_OK(ourdb_history(db, 1, 0, &history));
        CHECK(history.items[1].time_us < history.items[0].time_us);
        if (again) {
            CHECK_NUMBER(history.items[0].time_us, times[0]);
            CHECK_NUMBER(history.items[1].time_us, times[1]);
        }
        times[0] = history.items[0].time_us;
        times[1] = history.items[1].time_us;
        ourdb_free_records(&history);
        db = reopen(db, "a06");
    }
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 6: one time for a transaction, however long it took. */
static void
assemblage_06_one_time_of_a_transaction(void)
{
    ourdb *db = open_at("a06t", OURDB_OPEN_KEY_VALUE);
    const uint32_t ids[2] = {1, 2};
    ourdb_records records;
    ourdb_txn *txn = BEGIN(db);

    CHECK_OK(ourdb_txn_set(txn, 1, "1", 1));
    test_sleep_us(5000);
    CHECK_OK(ourdb_txn_set(txn, 2, "2", 1));
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_OK(ourdb_get_many(db, ids, 2, &records));
    CHECK_NUMBER(records.items[0].time_us, records.items[1].time_us);
    CHECK_NUMBER(records.items[0].commit, records.items[1].commit);
    ourdb_free_records(&records);
    CHECK_OK(ourdb_destroy(db));
}

/*
 * AssemblageKV 7: times never go back, also after reopening and compaction. There the last commit of
 * a log is dated ahead; a clock that can be set is in tests/engine/model.rs.
 */
static void
assemblage_07_times_never_go_back(void)
{
    ourdb *db = open_at("a07", OURDB_OPEN_KEY_VALUE);
    uint64_t last = 0;
    uint32_t i;

    for (i = 0; i < 30; i++) {
        ourdb_records history;

        CHECK_OK(ourdb_set(db, 1, &i, sizeof i));
        CHECK_OK(ourdb_history(db, 1, 1, &history));
        CHECK(history.items[0].time_us >= last);
        last = history.items[0].time_us;
        ourdb_free_records(&history);
        if (i % 10 == 4) {
            db = reopen(db, "a07");
        }
        if (i % 10 == 8) {
            COMPACT(db, 1);
        }
        if (i % 10 == 9) {
            COMPACT(db, 1);
            db = reopen(db, "a07");
        }
    }
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 8: a snapshot of the same moment as a commit, before it, doesn't see it. */
static void
assemblage_08_snapshots_are_before_or_after(void)
{
    ourdb *db = open_at("a08", OURDB_OPEN_KEY_VALUE);
    uint32_t i;

    for (i = 0; i < 100; i++) {
        ourdb_txn *before = SNAPSHOT(db);
        ourdb_txn *after;
        uint32_t earlier = i - 1;

        CHECK_OK(ourdb_set(db, 1, &i, sizeof i));
        after = SNAPSHOT(db);
        if (i == 0) {
            CHECK_TXN_ABSENT(before, 1);
        } else {
            CHECK_TXN_VALUE(before, 1, &earlier, sizeof earlier);
        }
        CHECK_TXN_VALUE(after, 1, &i, sizeof i);
        ourdb_txn_abort(before);
        ourdb_txn_abort(after);
    }
    CHECK_OK(ourdb_destroy(db));
}

/*
 * AssemblageKV 9: transactions on different records both commit; one that has read what was changed
 * since, or was absent then, doesn't, the first value stays, and a retry succeeds.
 */
static void
assemblage_09_conflicts(void)
{
    ourdb *db = open_at("a09", OURDB_OPEN_KEY_VALUE);
    uint32_t id;

    for (id = 1; id <= 2; id++) { /* 1 is there, 2 is absent */
        ourdb_txn *first = BEGIN(db);
        ourdb_txn *second = BEGIN(db);
        ourdb_txn *third = BEGIN(db);

        if (id == 1) {
            CHECK_OK(ourdb_set(db, 1, "begin", 5));
            ourdb_txn_abort(first);
            ourdb_txn_abort(second);
            first = BEGIN(db);
            second = BEGIN(db);
        }
        (void)ourdb_txn_contains(first, id);
        (void)ourdb_txn_contains(second, id);
        CHECK_OK(ourdb_txn_set(first, id, "first", 5));
        CHECK_OK(ourdb_txn_set(second, id, "second", 6));
        CHECK_OK(ourdb_txn_set(third, 100 + id, "elsewhere", 9));
        CHECK_OK(ourdb_txn_commit(first));
        CHECK_OK(ourdb_txn_commit(third));
        CHECK_CODE(ourdb_txn_commit(second), OURDB_CONFLICT);
        CHECK_VALUE(db, id, "first", 5);
        CHECK_VALUE(db, 100 + id, "elsewhere", 9);
        second = BEGIN(db);
        CHECK_TXN_VALUE(second, id, "first", 5);
        CHECK_OK(ourdb_txn_set(second, id, "second", 6));
        CHECK_OK(ourdb_txn_commit(second));
        CHECK_VALUE(db, id, "second", 6);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 10: who looked for what another one had written, and not committed, conflicts too. */
static void
assemblage_10_uncommitted_counts_once_it_is(void)
{
    ourdb *db = open_at("a10", OURDB_OPEN_KEY_VALUE);
    ourdb_txn *writer = BEGIN(db);
    ourdb_txn *reader = BEGIN(db);

    CHECK_OK(ourdb_txn_set(writer, 1, "written", 7));
    CHECK_TXN_ABSENT(reader, 1);
    CHECK_OK(ourdb_txn_set(reader, 2, "because 1 is absent", 19));
    CHECK_OK(ourdb_txn_commit(writer));
    CHECK_CODE(ourdb_txn_commit(reader), OURDB_CONFLICT);
    CHECK_ABSENT(db, 2);
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 11: abort drops everything; a snapshot held across a deletion keeps the value. */
static void
assemblage_11_abort_and_snapshot(void)
{
    ourdb *db = open_at("a11", OURDB_OPEN_KEY_VALUE);
    ourdb_txn *txn = BEGIN(db);
    ourdb_txn *snapshot;

    CHECK_OK(ourdb_txn_set(txn, 1, "dropped", 7));
    ourdb_txn_abort(txn);
    CHECK_ABSENT(db, 1);
    CHECK_LAST_COMMIT(db, 0);
    CHECK_OK(ourdb_set(db, 1, "kept", 4));
    snapshot = SNAPSHOT(db);
    CHECK_OK(ourdb_delete(db, 1));
    CHECK_ABSENT(db, 1);
    CHECK_TXN_VALUE(snapshot, 1, "kept", 4);
    ourdb_txn_abort(snapshot);
    CHECK_OK(ourdb_destroy(db));
}

static void
three_commits(ourdb *db)
{
    const uint32_t ids[2] = {3, 4};
    const ourdb_slice values[2] = {{(const uint8_t *)"of the last commit, a", 21},
                                   {(const uint8_t *)"of the last commit, b", 21}};

    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_set(db, 2, "two", 3));
    CHECK_OK(ourdb_set_many(db, ids, values, 2));
}

/*
 * AssemblageKV 12 and 13: the last byte and the last ten bytes flipped: the last commit is wholly
 * gone, the earlier ones are intact; recovering twice gives the same; what is written then lasts.
 */
static void
assemblage_12_13_the_end_is_torn(void)
{
    static const size_t counts[] = {1, 10};
    size_t i;

    killed_after("a12", OURDB_OPEN_KEY_VALUE, three_commits);
    for (i = 0; i < 2; i++) {
        char path[TEST_PATH_MAX];
        size_t end;
        int again;
        ourdb *db;

        test_join_into(path, test_directory, "a12torn");
        copy_files(test_path("a12"), path);
        end = log_end(path);
        flip(path, end - counts[i], counts[i]);
        for (again = 0; again < 2; again++) {
            copy_files(test_path("a12"), test_path("a12twice"));
            flip(test_path("a12twice"), end - counts[i], counts[i]);
            db = open_at(again ? "a12torn" : "a12twice", 0);
            CHECK_VALUE(db, 1, "one", 3);
            CHECK_VALUE(db, 2, "two", 3);
            CHECK_ABSENT(db, 3);
            CHECK_ABSENT(db, 4);
            CHECK_LAST_COMMIT(db, 2);
            CHECK_OK(ourdb_close(db));
        }
        db = open_at("a12torn", 0);
        CHECK_LAST_COMMIT(db, 2);
        CHECK_OK(ourdb_set(db, 3, "after", 5));
        db = reopen(db, "a12torn");
        CHECK_VALUE(db, 3, "after", 5);
        CHECK_VALUE(db, 1, "one", 3);
        CHECK_ABSENT(db, 4);
        CHECK_LAST_COMMIT(db, 3);
        CHECK_OK(ourdb_destroy(db));
    }
}

/* AssemblageKV 14: compaction of overwritten, removed and untouched records. */
static void
assemblage_14_compaction_of_all_kinds(void)
{
    ourdb *db = open_at("a14", OURDB_OPEN_KEY_VALUE);
    int again;

    CHECK_OK(ourdb_set(db, 1, "old", 3));
    CHECK_OK(ourdb_set(db, 2, "removed", 7));
    CHECK_OK(ourdb_set(db, 3, "untouched", 9));
    CHECK_OK(ourdb_set(db, 1, "new", 3));
    CHECK_OK(ourdb_delete(db, 2));
    COMPACT(db, 1);
    for (again = 0; again < 2; again++) {
        CHECK_VALUE(db, 1, "new", 3);
        CHECK_ABSENT(db, 2);
        CHECK_VALUE(db, 3, "untouched", 9);
        CHECK_COUNT(db, 2);
        db = reopen(db, "a14");
    }
    CHECK_OK(ourdb_destroy(db));
}

/* AssemblageKV 15: values of 65,537 bytes; a buffer that is larger than the value. */
static void
assemblage_15_long_values(void)
{
    static uint8_t value[65537];
    static uint8_t into[70000];
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *db;
    size_t len;

    options.record_size_max = sizeof value;
    db = OPEN(test_path("a15"), &options);
    test_fill(value, sizeof value, 15);
    CHECK_OK(ourdb_set(db, 1, value, sizeof value));
    db = reopen(db, "a15");
    CHECK_VALUE(db, 1, value, sizeof value);
    memset(into, 0x5A, sizeof into);
    CHECK_OK(ourdb_get_into(db, 1, into, sizeof into, &len));
    CHECK_BYTES(into, len, value, sizeof value);
    CHECK_NUMBER(into[sizeof value], 0x5A);
    CHECK_OK(ourdb_destroy(db));
}

/* ==== From hmdb and db-rs ====================================================================== */

/* hmdb 1: get and contains through insert and delete. */
static void
hmdb_01_get_and_contains(void)
{
    ourdb *db = open_at("h01", 0);
    uint32_t id;

    CHECK_ABSENT(db, 1);
    CHECK_OK(ourdb_insert(db, "value", 5, &id));
    CHECK_VALUE(db, id, "value", 5);
    CHECK_OK(ourdb_delete(db, id));
    CHECK_ABSENT(db, id);
    db = reopen(db, "h01");
    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_destroy(db));
}

typedef struct slow {
    ourdb *db;
    pthread_mutex_t mutex;
    int over;
} slow;

/* Reads two records that only change together, until the transaction is over. */
static void *
read_beside(void *argument)
{
    slow *with = argument;
    int over = 0;

    while (!over) {
        const uint32_t ids[2] = {1, 2};
        ourdb_records records;

        VERIFY_OK(ourdb_get_many(with->db, ids, 2, &records));
        VERIFY(records.items[0].len == 1 && records.items[1].len == 1);
        VERIFY(records.items[0].data[0] == records.items[1].data[0]);
        ourdb_free_records(&records);
        pthread_mutex_lock(&with->mutex);
        over = with->over;
        pthread_mutex_unlock(&with->mutex);
    }
    return NULL;
}

/*
 * hmdb 2: read 5, write 6, and it lasts; a reader beside a transaction that takes a second never
 * sees the middle of it.
 */
static void
hmdb_02_read_modify_write(void)
{
    ourdb *db = open_at("h02", OURDB_OPEN_KEY_VALUE);
    uint8_t number = 5;
    pthread_t reader;
    ourdb_txn *txn;
    size_t len;
    slow with;

    CHECK_OK(ourdb_set(db, 1, &number, 1));
    CHECK_OK(ourdb_set(db, 2, &number, 1));
    with.db = db;
    with.over = 0;
    CHECK(pthread_mutex_init(&with.mutex, NULL) == 0);
    CHECK(pthread_create(&reader, NULL, read_beside, &with) == 0);
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_get_into(txn, 1, &number, 1, &len));
    number++;
    CHECK_OK(ourdb_txn_set(txn, 1, &number, 1));
    test_sleep_us(1000000 / (test_scaled(10) < 10 ? 10 : 1));
    CHECK_OK(ourdb_txn_set(txn, 2, &number, 1));
    CHECK_OK(ourdb_txn_commit(txn));
    pthread_mutex_lock(&with.mutex);
    with.over = 1;
    pthread_mutex_unlock(&with.mutex);
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK(pthread_mutex_destroy(&with.mutex) == 0);
    db = reopen(db, "h02");
    CHECK_VALUE(db, 1, "\6", 1);
    CHECK_VALUE(db, 2, "\6", 1);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 3: clear: at once, after reopening, and again. */
static void
hmdb_03_clear(void)
{
    ourdb *db = open_at("h03", OURDB_OPEN_KEY_VALUE);
    uint32_t i;
    int again;

    for (again = 0; again < 2; again++) {
        for (i = 0; i < 100; i++) {
            CHECK_OK(ourdb_set(db, i, "value", 5));
        }
        CHECK_OK(ourdb_clear(db));
        CHECK_COUNT(db, 0);
        CHECK_ABSENT(db, 50);
        db = reopen(db, "h03");
        CHECK_COUNT(db, 0);
        CHECK_ABSENT(db, 50);
    }
    CHECK_OK(ourdb_destroy(db));
}

/*
 * hmdb 4: compaction by hand shrinks the files and keeps the last values; it works on an empty
 * database, after clear, and again later. In the background: c-tests/compact.c.
 */
static void
hmdb_04_compaction(void)
{
    ourdb *db = open_at("h04", OURDB_OPEN_KEY_VALUE);
    uint8_t value[500];
    uint64_t before;
    uint32_t i;
    int again;

    memset(value, 4, sizeof value);
    COMPACT(db, 1);
    for (again = 0; again < 2; again++) {
        for (i = 0; i < 1000; i++) {
            CHECK_OK(ourdb_set(db, i % 10, value, sizeof value));
        }
        before = test_stats(db).bytes_on_disk;
        COMPACT(db, 1);
        for (i = 0; i < 10; i++) {
            CHECK_VALUE(db, i, value, sizeof value);
        }
        db = reopen(db, "h04");
        CHECK(test_stats(db).bytes_on_disk < before / 2);
        for (i = 0; i < 10; i++) {
            CHECK_VALUE(db, i, value, sizeof value);
        }
        CHECK_OK(ourdb_clear(db));
        COMPACT(db, 1);
        CHECK_COUNT(db, 0);
    }
    CHECK_OK(ourdb_destroy(db));
}

static void
forty_sets(ourdb *db)
{
    uint32_t i;

    for (i = 0; i < 40; i++) {
        CHECK_OK(ourdb_set(db, i, "forty bytes of a value that are all alike", 40));
    }
}

/* hmdb 5: the log cut to 1,000 bytes: it opens, says so by a file aside, and the prefix is intact. */
static void
hmdb_05_cut_to_a_thousand_bytes(void)
{
    const char *path = test_path("h05");
    uint32_t i;
    ourdb *db;

    killed_after("h05", OURDB_OPEN_KEY_VALUE, forty_sets);
    CHECK(log_end(path) > 2000);
    cut(path, 1000);
    db = open_at("h05", 0);
    /* A header of 64 bytes, and 80 for each record: eleven are whole, and a part of the twelfth. */
    CHECK_LAST_COMMIT(db, 11);
    for (i = 0; i < 40; i++) {
        if (i < 11) {
            CHECK_VALUE(db, i, "forty bytes of a value that are all alike", 40);
        } else {
            CHECK_ABSENT(db, i);
        }
    }
    {
        test_list list = test_list_directory(path);
        int aside = 0;
        size_t k;

        for (k = 0; k < list.count; k++) {
            aside |= strncmp(list.names[k], "torn-", 5) == 0;
        }
        CHECK(aside);
        test_free_list(&list);
    }
    CHECK_OK(ourdb_destroy(db));
}

static void
ten_and_twenty(ourdb *db)
{
    uint32_t ids[20];
    ourdb_slice values[20];
    uint32_t i;

    for (i = 0; i < 10; i++) {
        CHECK_OK(ourdb_set(db, i, "single", 6));
    }
    for (i = 0; i < 20; i++) {
        ids[i] = 5 + i; /* some of them again */
        values[i].data = (const uint8_t *)"of twenty";
        values[i].len = 9;
    }
    CHECK_OK(ourdb_set_many(db, ids, values, 20));
}

/* hmdb 6: ten single writes and twenty in one commit, cut in half: none of the twenty is there. */
static void
hmdb_06_half_a_commit_is_none(void)
{
    const char *path = test_path("h06");
    uint32_t i;
    ourdb *db;

    killed_after("h06", OURDB_OPEN_KEY_VALUE, ten_and_twenty);
    cut(path, 64 + 10 * 46 + 10 * 49);
    db = open_at("h06", 0);
    for (i = 0; i < 25; i++) {
        if (i < 10) {
            CHECK_VALUE(db, i, "single", 6);
        } else {
            CHECK_ABSENT(db, i);
        }
    }
    CHECK_LAST_COMMIT(db, 10);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 7: a compaction that was torn leaves the old data; killed at moments that nobody chose. */
static void
hmdb_07_a_torn_compaction(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    char path[TEST_PATH_MAX];
    unsigned long round;
    uint64_t random = 7;
    uint8_t value[1000];
    uint32_t i;
    ourdb *db;

    test_join_into(path, test_directory, "h07");
    memset(value, 7, sizeof value);
    db = OPEN(path, &options);
    for (i = 0; i < 2000; i++) {
        CHECK_OK(ourdb_set(db, i % 200, value, sizeof value));
    }
    CHECK_OK(ourdb_close(db));
    for (round = 0; round < test_scaled(20); round++) {
        test_pipe ready = test_make_pipe();
        pid_t child = test_fork();

        if (child == 0) {
            db = OPEN(path, &options);
            test_signal(&ready);
            for (;;) {
                COMPACT(db, 3);
                CHECK_OK(ourdb_set(db, 1, value, sizeof value));
                if (getppid() != test_parent) {
                    _exit(1);
                }
            }
        }
        test_await(&ready);
        test_sleep_us(test_random_below(&random, 20000));
        test_kill(child);
        test_close_pipe(&ready);
        db = OPEN(path, &options);
        CHECK_COUNT(db, 200);
        CHECK_OK(ourdb_check(db, NULL, NULL));
        for (i = 0; i < 200; i += 13) {
            CHECK_VALUE(db, i, value, sizeof value);
        }
        CHECK_OK(ourdb_close(db));
    }
    db = OPEN(path, &options);
    COMPACT(db, 1);
    CHECK_COUNT(db, 200);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 8: a second open fails. */
static void
hmdb_08_locked(void)
{
    ourdb *db = open_at("h08", 0);

    CHECK_OPEN_FAILS(test_path("h08"), NULL, OURDB_LOCKED);
    db = reopen(db, "h08");
    CHECK_OPEN_FAILS(test_path("h08"), NULL, OURDB_LOCKED);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 9: other processes: a writer excludes another one, also across a compaction; readers read. */
static void
hmdb_09_other_processes(void)
{
    ourdb *db = open_at("h09", OURDB_OPEN_KEY_VALUE);
    int compacted;

    CHECK_OK(ourdb_set(db, 1, "value", 5));
    for (compacted = 0; compacted < 2; compacted++) {
        pid_t child = test_fork();

        if (child == 0) {
            ourdb_options reading = test_options(NULL, OURDB_OPEN_READ_ONLY);
            ourdb *reader;

            CHECK_CODE(ourdb_close(db), OURDB_FORKED);
            CHECK_OPEN_FAILS(test_path("h09"), NULL, OURDB_LOCKED);
            reader = OPEN(test_path("h09"), &reading);
            CHECK_VALUE(reader, 1, "value", 5);
            CHECK_OK(ourdb_close(reader));
            _exit(0);
        }
        test_wait(child);
        COMPACT(db, 1);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 10: in memory the path is ignored and nothing is left; a bad path is an error. */
static void
hmdb_10_in_memory(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(test_path("h10"), &options);
    uint32_t id;

    CHECK_OK(ourdb_insert(db, "value", 5, &id));
    CHECK_OK(ourdb_close(db));
    CHECK(!test_exists(test_path("h10")));
    test_write_file(test_path("h10"), "a file", 6);
    CHECK_OPEN_FAILS(test_path("h10"), NULL, OURDB_IO);
    CHECK_OPEN_FAILS(test_path("h10/below"), NULL, OURDB_IO);
    CHECK_NUMBER(test_file_len(test_path("h10")), 6);
    test_remove(test_path("h10"));
}

/* hmdb 11: commits are numbered from 1, and an empty one makes none. */
static void
hmdb_11_commit_numbers(void)
{
    ourdb *db = open_at("h11", OURDB_OPEN_KEY_VALUE);

    CHECK_LAST_COMMIT(db, 0);
    CHECK_OK(ourdb_set_many(db, NULL, NULL, 0));
    CHECK_OK(ourdb_delete_many(db, NULL, 0));
    CHECK_LAST_COMMIT(db, 0);
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_LAST_COMMIT(db, 1);
    db = reopen(db, "h11");
    CHECK_LAST_COMMIT(db, 1);
    CHECK_OK(ourdb_set(db, 1, "two", 3));
    CHECK_LAST_COMMIT(db, 2);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 11: and they don't go back across an empty transaction, compaction and reopening. */
static void
hmdb_11_commit_numbers_go_on(void)
{
    ourdb *db = open_at("h11c", OURDB_OPEN_KEY_VALUE);
    ourdb_txn *txn;

    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_delete(db, 1));
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_LAST_COMMIT(db, 2);
    COMPACT(db, 0);
    CHECK_LAST_COMMIT(db, 2);
    db = reopen(db, "h11c");
    CHECK_LAST_COMMIT(db, 2);
    CHECK_OK(ourdb_set(db, 1, "three", 5));
    CHECK_LAST_COMMIT(db, 3);
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 12: a stale reader catches up over several compactions. */
static void
hmdb_12_a_stale_reader_catches_up(void)
{
    ourdb *db = open_at("h12", OURDB_OPEN_KEY_VALUE);
    ourdb_options reading = test_options(NULL, OURDB_OPEN_READ_ONLY);
    ourdb *reader;
    uint32_t i;

    CHECK_OK(ourdb_set(db, 1, "stale", 5));
    reader = OPEN(test_path("h12"), &reading);
    for (i = 0; i < 3; i++) {
        CHECK_OK(ourdb_set(db, 1, &i, sizeof i));
        COMPACT(db, 1);
    }
    CHECK_VALUE(reader, 1, "stale", 5);
    CHECK_OK(ourdb_refresh(reader));
    i = 2;
    CHECK_VALUE(reader, 1, &i, sizeof i);
    CHECK_LAST_COMMIT(reader, 4);
    CHECK_OK(ourdb_close(reader));
    CHECK_OK(ourdb_destroy(db));
}

/* hmdb 13: files of other names in the directory are ignored, and survive. */
static void
hmdb_13_other_files(void)
{
    static const char *const names[] = {"notes.txt", "0.db.bak", "-1.db", "00.db", ".hidden", "db"};
    ourdb *db = open_at("h13", OURDB_OPEN_KEY_VALUE);
    size_t i;

    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        test_write_file(test_join(test_path("h13"), names[i]), "mine", 4);
    }
    CHECK_OK(ourdb_set(db, 1, "value", 5));
    db = reopen(db, "h13");
    CHECK_VALUE(db, 1, "value", 5);
    CHECK_OK(ourdb_destroy(db));
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_NUMBER(test_file_len(test_join(test_path("h13"), names[i])), 4);
    }
    test_remove(test_path("h13"));
}

/* ==== From yakvdb ============================================================================== */

/* yakvdb 1: an empty one has no first, last, above, below. */
static void
yakvdb_01_empty(void)
{
    ourdb *db = open_at("y01", OURDB_OPEN_KEY_VALUE);
    uint32_t id;

    CHECK_CODE(ourdb_first(db, &id), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_last(db, &id), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_above(db, 0, &id), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_below(db, UINT32_MAX, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/* yakvdb 2: ten, shuffled: up is sorted, down its reverse; nothing above the last, below the first. */
static void
yakvdb_02_ten_shuffled(void)
{
    static const uint32_t shuffled[10] = {7, 2, 9, 0, 5, 3, 8, 1, 6, 4};
    ourdb *db = open_at("y02", OURDB_OPEN_KEY_VALUE);
    uint32_t id;
    uint32_t i;

    for (i = 0; i < 10; i++) {
        CHECK_OK(ourdb_set(db, shuffled[i] * 10, &i, sizeof i));
    }
    CHECK_OK(ourdb_first(db, &id));
    for (i = 0; i < 10; i++) {
        CHECK_NUMBER(id, i * 10);
        CHECK_CODE(ourdb_above(db, id, &id), i == 9 ? OURDB_NOT_FOUND : OURDB_OK);
    }
    CHECK_OK(ourdb_last(db, &id));
    for (i = 10; i-- > 0;) {
        CHECK_NUMBER(id, i * 10);
        CHECK_CODE(ourdb_below(db, id, &id), i == 0 ? OURDB_NOT_FOUND : OURDB_OK);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* yakvdb 3: a thousand at random: reopen, look up, walk both ways, delete all, empty. */
static void
yakvdb_03_a_thousand_random(void)
{
    static uint8_t there[100000];
    ourdb *db = open_at("y03", OURDB_OPEN_KEY_VALUE);
    uint64_t random = 3;
    uint32_t id;
    uint32_t at;
    uint32_t i;
    int code;

    memset(there, 0, sizeof there);
    for (i = 0; i < 1000; i++) {
        id = test_random_below(&random, sizeof there);
        CHECK_OK(ourdb_set(db, id, &id, sizeof id));
        there[id] = 1;
    }
    db = reopen(db, "y03");
    for (id = 0; id < sizeof there; id++) {
        if (there[id]) {
            CHECK_VALUE(db, id, &id, sizeof id);
        }
    }
    code = ourdb_first(db, &at);
    for (id = 0; id < sizeof there; id++) {
        if (there[id]) {
            CHECK_OK(code);
            CHECK_NUMBER(at, id);
            code = ourdb_above(db, at, &at);
        }
    }
    CHECK_CODE(code, OURDB_NOT_FOUND);
    code = ourdb_last(db, &at);
    for (id = sizeof there; id-- > 0;) {
        if (there[id]) {
            CHECK_OK(code);
            CHECK_NUMBER(at, id);
            code = ourdb_below(db, at, &at);
        }
    }
    CHECK_CODE(code, OURDB_NOT_FOUND);
    while (ourdb_first(db, &id) == OURDB_OK) {
        CHECK_OK(ourdb_delete(db, id));
    }
    CHECK_COUNT(db, 0);
    CHECK_CODE(ourdb_last(db, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/*
 * yakvdb 4: above and below ids that hold nothing, and at every boundary inside: its pages there,
 * here the words and blocks of the lookup and of the set of live ids. Removing what is not there.
 */
static void
yakvdb_04_boundaries(void)
{
    static const uint32_t steps[] = {64, 512, 4096, 262144};
    size_t i;

    for (i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        ourdb *db = open_at("y04", OURDB_OPEN_KEY_VALUE);
        uint32_t id;
        uint32_t k;

        for (k = 1; k < 8; k++) {
            CHECK_OK(ourdb_set(db, k * steps[i] - 1, "before", 6));
            CHECK_OK(ourdb_set(db, k * steps[i], "at", 2));
        }
        for (k = 1; k < 8; k++) {
            uint32_t boundary = k * steps[i];

            CHECK_OK(ourdb_above(db, boundary - 2, &id));
            CHECK_NUMBER(id, boundary - 1);
            CHECK_OK(ourdb_above(db, boundary - 1, &id));
            CHECK_NUMBER(id, boundary);
            CHECK_OK(ourdb_below(db, boundary + 1, &id));
            CHECK_NUMBER(id, boundary);
            CHECK_OK(ourdb_below(db, boundary, &id));
            CHECK_NUMBER(id, boundary - 1);
            CHECK_CODE(ourdb_above(db, boundary, &id), k == 7 ? OURDB_NOT_FOUND : OURDB_OK);
            CHECK_NUMBER(id, k == 7 ? 0 : boundary + steps[i] - 1);
            CHECK_CODE(ourdb_below(db, boundary - 1, &id), k == 1 ? OURDB_NOT_FOUND : OURDB_OK);
            CHECK_NUMBER(id, k == 1 ? 0 : boundary - steps[i]);
            CHECK_CODE(ourdb_delete(db, boundary + 1), OURDB_NOT_FOUND);
        }
        CHECK_OK(ourdb_destroy(db));
    }
}

/* yakvdb 5: large values replaced by small ones and back, with reopening. */
static void
yakvdb_05_large_and_small(void)
{
    static uint8_t large[60000];
    ourdb *db = open_at("y05", OURDB_OPEN_KEY_VALUE);
    uint32_t id;
    int round;

    test_fill(large, sizeof large, 5);
    for (round = 0; round < 4; round++) {
        size_t len = round % 2 == 0 ? sizeof large : 1;

        for (id = 0; id < 20; id++) {
            CHECK_OK(ourdb_set(db, id, large + id, len - id * (len > 1)));
        }
        for (id = 0; id < 20; id++) {
            CHECK_VALUE(db, id, large + id, len - id * (len > 1));
        }
        db = reopen(db, "y05");
        for (id = 0; id < 20; id++) {
            CHECK_VALUE(db, id, large + id, len - id * (len > 1));
        }
    }
    CHECK_OK(ourdb_destroy(db));
}

/* yakvdb 6: opening fails on a short file, a wrong magic number, a wrong size. */
static void
yakvdb_06_errors_of_open(void)
{
    ourdb *db = open_at("y06", OURDB_OPEN_KEY_VALUE);
    char broken[TEST_PATH_MAX];
    size_t len;
    uint8_t *bytes;
    int way;

    test_join_into(broken, test_directory, "y06broken");
    forty_sets(db);
    CHECK_OK(ourdb_close(db));
    for (way = 0; way < 4; way++) {
        copy_files(test_path("y06"), broken);
        if (way < 2) {
            bytes = test_read_file(test_join(broken, "MANIFEST"), &len);
            bytes[0] ^= 1;
            test_write_file(test_join(broken, "MANIFEST"), bytes, way == 0 ? 3 : len);
            free(bytes);
        } else if (way == 2) {
            cut(broken, 1000); /* shorter than the manifest says */
        } else {
            flip(broken, 1, 4);
        }
        CHECK_OPEN_FAILS(broken, NULL, OURDB_CORRUPT);
    }
    test_remove(broken);
    db = open_at("y06", 0);
    CHECK_OK(ourdb_destroy(db));
}

/* yakvdb 7: freed space comes back. */
static void
yakvdb_07_space_comes_back(void)
{
    ourdb *db = open_at("y07", OURDB_OPEN_KEY_VALUE);
    uint8_t value[1000];
    uint64_t most = 0;
    uint32_t i;
    int round;

    memset(value, 7, sizeof value);
    for (round = 0; round < 5; round++) {
        uint64_t bytes;

        for (i = 0; i < 500; i++) {
            CHECK_OK(ourdb_set(db, i, value, sizeof value));
        }
        for (i = 0; i < 500; i++) {
            CHECK_OK(ourdb_delete(db, i));
        }
        COMPACT(db, 0);
        db = reopen(db, "y07");
        bytes = test_stats(db).bytes_on_disk;
        CHECK(round == 0 || bytes <= most + 4096);
        most = bytes > most ? bytes : most;
        CHECK_NUMBER(test_stats(db).bytes_live, 0);
    }
    CHECK_OK(ourdb_destroy(db));
}

#define WORKERS 8
#define EACH 4000

typedef struct worker {
    ourdb *db;
    unsigned number;
    unsigned long each;
    uint32_t live;
} worker;

static void
run(void *(*body)(void *), worker *workers, unsigned count)
{
    pthread_t threads[WORKERS];
    unsigned i;

    for (i = 0; i < count; i++) {
        CHECK(pthread_create(&threads[i], NULL, body, &workers[i]) == 0);
    }
    for (i = 0; i < count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
}

static void *
insert_interleaved(void *argument)
{
    worker *self = argument;
    uint32_t i;

    for (i = 0; i < self->each; i++) {
        uint32_t id = i * WORKERS + self->number;

        VERIFY_OK(ourdb_set(self->db, id, &id, sizeof id));
    }
    return NULL;
}

/* Half of them write new records, the others read those that have always been there. */
static void *
write_or_read(void *argument)
{
    worker *self = argument;
    uint32_t i;

    for (i = 0; i < self->each; i++) {
        uint32_t found;
        size_t len;

        if (self->number < 4) {
            uint32_t id = 1000000 + i * 4 + self->number;

            VERIFY_OK(ourdb_set(self->db, id, &id, sizeof id));
        } else {
            uint32_t id = i * 7 % (uint32_t)(self->each * WORKERS);

            VERIFY_OK(ourdb_get_into(self->db, id, &found, sizeof found, &len));
            VERIFY(len == sizeof found && found == id);
        }
    }
    return NULL;
}

/* Each of four deletes the even ids of its part and overwrites the odd ones. */
static void *
delete_and_overwrite(void *argument)
{
    worker *self = argument;
    uint32_t part = (uint32_t)(self->each * WORKERS / 4);
    uint32_t id;

    for (id = self->number * part; id < (self->number + 1) * part; id++) {
        if (id % 2 == 0) {
            VERIFY_OK(ourdb_delete(self->db, id));
        } else {
            VERIFY_OK(ourdb_set(self->db, id, "odd", 3));
        }
    }
    return NULL;
}

/* Four go up, four down. */
static void *
walk(void *argument)
{
    worker *self = argument;
    int up = self->number % 2 == 0;
    uint32_t count = 0;
    uint32_t at;
    int code;

    for (code = up ? ourdb_first(self->db, &at) : ourdb_last(self->db, &at); code == OURDB_OK;) {
        uint32_t next;

        count++;
        code = up ? ourdb_above(self->db, at, &next) : ourdb_below(self->db, at, &next);
        VERIFY(code == OURDB_NOT_FOUND || (up ? next > at : next < at));
        at = next;
    }
    VERIFY_CODE(code, OURDB_NOT_FOUND);
    VERIFY(count == self->live);
    return NULL;
}

/*
 * yakvdb 8: eight threads with 4,000 interleaved inserts each, none lost; four writers and four
 * readers, what was there is always visible; four threads delete evens and overwrite odds; eight
 * walkers, four up and four down, strictly monotone, with the exact count.
 */
static void
yakvdb_08_threads(void)
{
    ourdb *db = open_at("y08", OURDB_OPEN_KEY_VALUE);
    worker workers[WORKERS];
    unsigned long each = test_scaled(EACH);
    uint32_t id;
    unsigned i;

    for (i = 0; i < WORKERS; i++) {
        workers[i].db = db;
        workers[i].number = i;
        workers[i].each = each;
    }
    run(insert_interleaved, workers, WORKERS);
    CHECK_COUNT(db, each * WORKERS);
    for (id = 0; id < each * WORKERS; id++) {
        VERIFY(ourdb_contains(db, id) == OURDB_OK);
    }
    run(write_or_read, workers, WORKERS);
    CHECK_COUNT(db, each * WORKERS + each * 4);
    run(delete_and_overwrite, workers, 4);
    CHECK_COUNT(db, each * WORKERS / 2 + each * 4);
    for (i = 0; i < WORKERS; i++) {
        workers[i].live = (uint32_t)(each * WORKERS / 2 + each * 4);
    }
    run(walk, workers, WORKERS);
    CHECK_OK(ourdb_destroy(db));
}

/* ==== From their faults ======================================================================== */

/* Faults 1 (AssemblageKV, hmdb): a torn tail, then a commit, then reopening: the commit is there. */
static void
faults_01_a_commit_after_a_torn_tail(void)
{
    char path[TEST_PATH_MAX];
    size_t end;
    size_t lost;
    ourdb *db;

    test_join_into(path, test_directory, "f01");
    killed_after("f01", OURDB_OPEN_KEY_VALUE, forty_sets);
    end = log_end(path);
    for (lost = 1; lost < 80; lost += 13) {
        copy_files(path, test_path("f01torn"));
        cut(test_path("f01torn"), end - lost);
        db = open_at("f01torn", 0);
        CHECK_LAST_COMMIT(db, 39);
        CHECK_OK(ourdb_set(db, 1000, "after", 5));
        db = reopen(db, "f01torn");
        CHECK_VALUE(db, 1000, "after", 5);
        CHECK_VALUE(db, 38, "forty bytes of a value that are all alike", 40);
        CHECK_ABSENT(db, 39);
        CHECK_LAST_COMMIT(db, 40);
        CHECK_OK(ourdb_destroy(db));
    }
}

/* Faults 2 (AssemblageKV): temporary files that a crash left, of whatever was being made. */
static void
faults_02_temporary_files(void)
{
    static const char *const names[] = {"MANIFEST.tmp", "index.tmp", "lookup.tmp", "base.1.tmp",
                                        "1.db.tmp"};
    ourdb *db = open_at("f02", OURDB_OPEN_KEY_VALUE);
    size_t i;

    CHECK_OK(ourdb_set(db, 1, "value", 5));
    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_OK(ourdb_close(db));
        test_write_file(test_join(test_path("f02"), names[i]), "half a file", 11);
        db = open_at("f02", 0);
        CHECK_VALUE(db, 1, "value", 5);
        CHECK_OK(ourdb_set(db, 2, names[i], strlen(names[i])));
        db = reopen(db, "f02");
        CHECK_VALUE(db, 2, names[i], strlen(names[i]));
    }
    CHECK_OK(ourdb_destroy(db));
    test_remove(test_path("f02"));
}

/* Faults 2: the same, and then a compaction, which makes files of its own. */
static void
faults_02_temporary_files_and_compaction(void)
{
    ourdb *db = open_at("f02c", OURDB_OPEN_KEY_VALUE);
    int i;

    for (i = 0; i < 3; i++) {
        CHECK_OK(ourdb_set(db, 1, "value", 5));
        CHECK_OK(ourdb_close(db));
        test_write_file(test_join(test_path("f02c"), "MANIFEST.tmp"), "half a file", 11);
        test_write_file(test_join(test_path("f02c"), "index.tmp"), "half a file", 11);
        db = open_at("f02c", 0);
        COMPACT(db, 1);
        CHECK_VALUE(db, 1, "value", 5);
        db = reopen(db, "f02c");
        CHECK_VALUE(db, 1, "value", 5);
    }
    CHECK_OK(ourdb_destroy(db));
    test_remove(test_path("f02c"));
}

/* Faults 3 (AssemblageKV): the same handle after a compaction lists what is there now. */
static void
faults_03_the_same_handle_after_compaction(void)
{
    static const char *const expected[] = {"2", "1"};
    ourdb *db = open_at("f03", OURDB_OPEN_KEY_VALUE);

    CHECK_OK(ourdb_set(db, 1, "1", 1));
    CHECK_OK(ourdb_set(db, 1, "2", 1));
    check_versions(db, 1, expected, 2);
    COMPACT(db, 1);
    check_versions(db, 1, expected, 1);
    CHECK_OK(ourdb_set(db, 1, "3", 1));
    CHECK_VALUE(db, 1, "3", 1);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_destroy(db));
}

/* Faults 4 (AssemblageKV): listing on an old snapshot, after records came and went. */
static void
faults_04_listing_on_an_old_snapshot(void)
{
    ourdb *db = open_at("f04", OURDB_OPEN_KEY_VALUE);
    ourdb_record record;
    ourdb_iter *iter;
    ourdb_txn *old;
    uint32_t id;

    for (id = 0; id < 10; id++) {
        CHECK_OK(ourdb_set(db, id * 2, "old", 3));
    }
    old = SNAPSHOT(db);
    for (id = 0; id < 20; id++) {
        CHECK_OK(ourdb_set(db, id, "new", 3));
    }
    for (id = 0; id < 20; id += 3) {
        CHECK_OK(ourdb_delete(db, id));
    }
    CHECK_OK(ourdb_txn_iter_open(old, 0, UINT32_MAX, 0, &iter));
    for (id = 0; id < 10; id++) {
        CHECK_OK(ourdb_iter_next(iter, &record));
        CHECK_NUMBER(record.id, id * 2);
        CHECK_BYTES(record.data, record.len, "old", 3);
    }
    CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
    ourdb_iter_close(iter);
    ourdb_txn_abort(old);
    CHECK_OK(ourdb_destroy(db));
}

/* Faults 5 (AssemblageKV): limits are enforced when writing, not found out when opening. */
static void
faults_05_limits_when_writing(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    static uint8_t value[101];
    ourdb *db;

    options.record_size_max = 100;
    options.record_nr_max = 50;
    db = OPEN(test_path("f05"), &options);
    CHECK_OK(ourdb_set(db, 49, value, 100));
    CHECK_CODE(ourdb_set(db, 49, value, 101), OURDB_RECORD_TOO_LARGE);
    CHECK_CODE(ourdb_set(db, 50, value, 1), OURDB_ID_OUT_OF_RANGE);
    db = reopen(db, "f05");
    CHECK_VALUE(db, 49, value, 100);
    CHECK_LAST_COMMIT(db, 1);
    CHECK_OK(ourdb_destroy(db));
}

/* Faults 6 (hmdb, db-rs): a flipped bit is an error, and not a value. */
static void
faults_06_a_flipped_bit(void)
{
    ourdb *db = open_at("f06", OURDB_OPEN_KEY_VALUE);
    ourdb_buf buf;

    CHECK_OK(ourdb_set(db, 1, "value", 5));
    CHECK_OK(ourdb_set(db, 2, "other", 5));
    CHECK_OK(ourdb_close(db));
    flip(test_path("f06"), 64 + 40 + 2, 1);
    db = open_at("f06", 0);
    TEST_GARBAGE(buf);
    CHECK_CODE(ourdb_get(db, 1, &buf), OURDB_CORRUPT);
    CHECK_ZERO(buf);
    CHECK_MESSAGE("0.db");
    CHECK_VALUE(db, 2, "other", 5);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- all of them --------------------------------------------------------------------------- */

#define ROW(function) {#function, function}

static const struct {
    const char *name;
    void (*run)(void);
} behaviours[] = {
    ROW(assemblage_01_read_your_writes),
    ROW(assemblage_02_empty_is_not_missing),
    ROW(assemblage_03_one_version_of_a_transaction),
    ROW(assemblage_03_one_version_of_a_call),
    ROW(assemblage_04_deleted_and_remembered),
    ROW(assemblage_05_all_versions),
    ROW(assemblage_05_the_last_version),
    ROW(assemblage_06_times),
    ROW(assemblage_06_one_time_of_a_transaction),
    ROW(assemblage_07_times_never_go_back),
    ROW(assemblage_08_snapshots_are_before_or_after),
    ROW(assemblage_09_conflicts),
    ROW(assemblage_10_uncommitted_counts_once_it_is),
    ROW(assemblage_11_abort_and_snapshot),
    ROW(assemblage_12_13_the_end_is_torn),
    ROW(assemblage_14_compaction_of_all_kinds),
    ROW(assemblage_15_long_values),
    ROW(hmdb_01_get_and_contains),
    ROW(hmdb_02_read_modify_write),
    ROW(hmdb_03_clear),
    ROW(hmdb_04_compaction),
    ROW(hmdb_05_cut_to_a_thousand_bytes),
    ROW(hmdb_06_half_a_commit_is_none),
    ROW(hmdb_07_a_torn_compaction),
    ROW(hmdb_08_locked),
    ROW(hmdb_09_other_processes),
    ROW(hmdb_10_in_memory),
    ROW(hmdb_11_commit_numbers),
    ROW(hmdb_11_commit_numbers_go_on),
    ROW(hmdb_12_a_stale_reader_catches_up),
    ROW(hmdb_13_other_files),
    ROW(yakvdb_01_empty),
    ROW(yakvdb_02_ten_shuffled),
    ROW(yakvdb_03_a_thousand_random),
    ROW(yakvdb_04_boundaries),
    ROW(yakvdb_05_large_and_small),
    ROW(yakvdb_06_errors_of_open),
    ROW(yakvdb_07_space_comes_back),
    ROW(yakvdb_08_threads),
    ROW(faults_01_a_commit_after_a_torn_tail),
    ROW(faults_02_temporary_files),
    ROW(faults_02_temporary_files_and_compaction),
    ROW(faults_03_the_same_handle_after_compaction),
    ROW(faults_04_listing_on_an_old_snapshot),
    ROW(faults_05_limits_when_writing),
    ROW(faults_06_a_flipped_bit)
};

/* `peers` runs all of them, `peers NAME...` those whose names begin so. */
int
main(int count, char **arguments)
{
    size_t i;
    int k;

    test_begin("peers");
    for (i = 0; i < sizeof behaviours / sizeof behaviours[0]; i++) {
        int wanted = count < 2;

        for (k = 1; k < count; k++) {
            wanted |= strncmp(behaviours[i].name, arguments[k], strlen(arguments[k])) == 0;
        }
        if (wanted) {
            test_phase("%s", behaviours[i].name);
            behaviours[i].run();
        }
    }
    return test_end();
}
