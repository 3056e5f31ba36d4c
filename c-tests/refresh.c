/*
 * refresh: readers in other processes follow the writer.
 *
 * Promise: a handle for reading only sees the moment of its opening until ourdb_refresh() takes it to
 * the present: whole commits, never back, over roll-overs, compactions and reopenings of the writer,
 * whether that is on disk or not. Snapshots and iterators keep their moment. It disturbs nobody, and
 * on a writer's handle it does nothing.
 */
#include "harness.h"

static void
in_one_process(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_options reading = test_options(variant, OURDB_OPEN_READ_ONLY);
    const char *path = test_path("one-process");
    ourdb *db = OPEN(path, &options);
    ourdb *reader;
    ourdb_txn *snapshot;
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t id;
    uint64_t round;

    test_phase("%s: beside the writer", variant->name);
    CHECK_OK(ourdb_refresh(db));
    CHECK_OK(ourdb_set(db, 1, "first", 5));
    CHECK_OK(ourdb_refresh(db));
    CHECK_VALUE(db, 1, "first", 5);
    reader = OPEN(path, &reading);
    CHECK_VALUE(reader, 1, "first", 5);
    CHECK_OK(ourdb_refresh(reader));
    CHECK_LAST_COMMIT(reader, 1);
    CHECK_OK(ourdb_set(db, 1, "second", 6));
    CHECK_OK(ourdb_set(db, 2, "two", 3));
    CHECK_VALUE(reader, 1, "first", 5);
    CHECK_ABSENT(reader, 2);
    CHECK_LAST_COMMIT(reader, 1);
    snapshot = SNAPSHOT(reader);
    CHECK_OK(ourdb_iter_open(reader, 0, UINT32_MAX, 0, &iter));
    CHECK_OK(ourdb_refresh(reader));
    CHECK_VALUE(reader, 1, "second", 6);
    CHECK_VALUE(reader, 2, "two", 3);
    CHECK_COUNT(reader, 2);
    CHECK_LAST_COMMIT(reader, 3);
    CHECK_TXN_VALUE(snapshot, 1, "first", 5);
    CHECK_TXN_ABSENT(snapshot, 2);
    CHECK_OK(ourdb_iter_next(iter, &record));
    CHECK_BYTES(record.data, record.len, "first", 5);
    CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
    ourdb_iter_close(iter);
    ourdb_txn_abort(snapshot);
    CHECK_CODE(ourdb_set(reader, 1, "x", 1), OURDB_READ_ONLY);

    test_phase("%s: over data files and compactions", variant->name);
    for (round = 0; round < 8; round++) {
        ourdb_txn *before = SNAPSHOT(reader);
        uint64_t commit = test_last_commit(reader);

        for (id = 0; id < 300; id++) {
            CHECK_OK(ourdb_set(db, id, &round, sizeof round));
        }
        CHECK_OK(ourdb_delete(db, (uint32_t)(round * 7)));
        if (round % 2 == 1) {
            COMPACT(db, round == 7 ? 0 : 1);
            CHECK_OK(ourdb_set(db, 299, "after", 5));
        }
        if (round % 3 == 2) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
        CHECK_LAST_COMMIT(reader, commit);
        CHECK_OK(ourdb_refresh(reader));
        CHECK_SAME(db, reader);
        CHECK_COUNT(reader, test_count(db));
        CHECK_ABSENT(reader, (uint32_t)(round * 7));
        if (round > 0) {
            uint64_t old = round - 1;

            CHECK_TXN_VALUE(before, 200, &old, sizeof old);
        }
        ourdb_txn_abort(before);
    }
    CHECK_OK(ourdb_check(reader, NULL, NULL));
    CHECK_OK(ourdb_close(reader));

    test_phase("%s: several compactions without a refresh", variant->name);
    reader = OPEN(path, &reading);
    for (round = 0; round < 3; round++) {
        CHECK_OK(ourdb_clear(db));
        CHECK_OK(ourdb_set(db, 5, &round, sizeof round));
        COMPACT(db, 0);
    }
    CHECK_COUNT(reader, 299);
    CHECK_ABSENT(reader, 49);
    CHECK_OK(ourdb_refresh(reader));
    round = 2;
    CHECK_VALUE(reader, 5, &round, sizeof round);
    CHECK_COUNT(reader, 1);
    CHECK_OK(ourdb_close(reader));
    CHECK_OK(ourdb_destroy(db));
}

/* The writer commits pairs; a reader in another process never sees half of one, nor an older one. */
static void
in_another_process(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_options reading = test_options(variant, OURDB_OPEN_READ_ONLY);
    test_pipe ready = test_make_pipe();
    char path[TEST_PATH_MAX];
    uint64_t rounds = test_scaled(3000);
    uint64_t number = 0;
    uint64_t last = 0;
    uint64_t until = test_monotonic_ns() + UINT64_C(100000000000);
    pid_t child;
    ourdb *reader;

    test_phase("%s: in another process", variant->name);
    test_join_into(path, test_directory, "two-processes");
    child = test_fork();
    if (child == 0) {
        ourdb *db = OPEN(path, &options);
        uint32_t ids[2] = {1, 1000};
        ourdb_slice values[2];

        values[0].data = values[1].data = (const uint8_t *)&number;
        values[0].len = values[1].len = sizeof number;
        CHECK_OK(ourdb_set_many(db, ids, values, 2));
        test_signal(&ready);
        while (number < rounds) {
            number++;
            CHECK_OK(ourdb_set_many(db, ids, values, 2));
            if (number % 500 == 0) {
                COMPACT(db, 1);
            }
            if (number % 700 == 0) {
                CHECK_OK(ourdb_close(db));
                db = OPEN(path, &options);
            }
        }
        CHECK_OK(ourdb_close(db));
        _exit(0);
    }
    test_await(&ready);
    reader = OPEN(path, &reading);
    while (last < rounds) {
        uint64_t seen[2];
        uint64_t commit;
        size_t len;

        VERIFY(test_monotonic_ns() < until);
        VERIFY_OK(ourdb_refresh(reader));
        VERIFY_OK(ourdb_last_commit(reader, &commit));
        VERIFY_OK(ourdb_get_into(reader, 1, &seen[0], sizeof seen[0], &len));
        VERIFY_OK(ourdb_get_into(reader, 1000, &seen[1], sizeof seen[1], &len));
        VERIFY(seen[0] == seen[1] && seen[0] >= last && seen[0] + 1 == commit);
        last = seen[0];
        VERIFY(test_count(reader) == 2);
    }
    test_wait(child);
    CHECK_OK(ourdb_refresh(reader));
    CHECK_LAST_COMMIT(reader, rounds + 1);
    CHECK_OK(ourdb_close(reader));
    reader = OPEN(path, &options);
    CHECK_OK(ourdb_destroy(reader));
    test_close_pipe(&ready);
}

/* Ids that are set and erased again and again; of each all bytes are alike, and none is 0. */
enum { ERASED_IDS = 3, LONGEST_ERASED = 3000, DONE_ID = 9 };

static const size_t erased_lens[ERASED_IDS] = {100, 600, LONGEST_ERASED};

static void
check_erased(const ourdb_record *record)
{
    size_t i;

    if (record->flags != 0) {
        VERIFY(record->data == NULL && record->len == 0);
        return;
    }
    VERIFY(record->id < ERASED_IDS && record->len == erased_lens[record->id]);
    for (i = 0; i < record->len; i++) {
        VERIFY(record->data[i] == record->data[0] && record->data[i] != 0);
    }
}

static void
check_erased_list(int code, ourdb_records *records)
{
    size_t i;

    VERIFY(code == OURDB_OK || code == OURDB_NOT_FOUND);
    for (i = 0; i < records->count; i++) {
        check_erased(&records->items[i]);
    }
    ourdb_free_records(records);
}

/* What is left of a record is found or not, and in a buffer there is all of it or what was before. */
static void
read_one(const ourdb *db, const ourdb_txn *txn, uint32_t id)
{
    uint8_t value[LONGEST_ERASED];
    ourdb_record record;
    ourdb_buf buf;
    int code;

    memset(&record, 0, sizeof record);
    record.id = id;
    memset(value, 0xA5, sizeof value);
    code = txn == NULL ? ourdb_get_into(db, id, value, sizeof value, &record.len)
                       : ourdb_txn_get_into(txn, id, value, sizeof value, &record.len);
    VERIFY(code == OURDB_OK || code == OURDB_NOT_FOUND);
    record.data = value;
    if (code == OURDB_NOT_FOUND) {
        record.len = erased_lens[id];
    }
    check_erased(&record);
    code = txn == NULL ? ourdb_get(db, id, &buf) : ourdb_txn_get(txn, id, &buf);
    VERIFY(code == OURDB_OK || code == OURDB_NOT_FOUND);
    if (code == OURDB_OK) {
        record.data = buf.data;
        record.len = buf.len;
        check_erased(&record);
        ourdb_free_buf(&buf);
    }
}

static void
read_all(ourdb *db, const char *copy, uint64_t turn)
{
    static const uint32_t ids[] = {0, 1, 2, 0, 1, 2};
    uint64_t last = test_last_commit(db);
    uint64_t since;
    ourdb_records records;
    ourdb_record record;
    ourdb_iter *iter;
    ourdb_txn *txn;
    ourdb_buf buf;
    uint32_t id;
    size_t i;
    int code;

    switch (turn % 8) {
    case 0:
    case 1:
        for (i = 0; i < 100; i++) {
            for (id = 0; id < ERASED_IDS; id++) {
                read_one(db, NULL, id);
            }
        }
        break;
    case 2:
        txn = SNAPSHOT(db);
        for (id = 0; id < ERASED_IDS; id++) {
            read_one(db, txn, id);
        }
        VERIFY_OK(ourdb_txn_iter_open(txn, 0, ERASED_IDS - 1, 0, &iter));
        check_erased_list(ourdb_iter_next_many(iter, 10, &records), &records);
        ourdb_iter_close(iter);
        ourdb_txn_abort(txn);
        break;
    case 3:
        check_erased_list(ourdb_get_many(db, ids, 6, &records), &records);
        break;
    case 4:
        VERIFY_OK(ourdb_iter_open(db, 0, ERASED_IDS - 1, OURDB_ITER_REVERSE, &iter));
        while ((code = ourdb_iter_next(iter, &record)) == OURDB_OK) {
            check_erased(&record);
        }
        VERIFY(code == OURDB_NOT_FOUND);
        ourdb_iter_close(iter);
        break;
    case 5:
        for (id = 0; id < ERASED_IDS; id++) {
            check_erased_list(ourdb_history(db, id, 3, &records), &records);
        }
        break;
    case 6:
        since = last > 5 ? last - 5 : 0;
        code = ourdb_changes(db, since, 1 << 20, &buf, &since);
        VERIFY(code == OURDB_OK || code == OURDB_BUSY);
        ourdb_free_buf(&buf);
        break;
    default:
        code = turn / 8 % 8 == 0 ? ourdb_backup(db, copy, NULL, NULL) : ourdb_check(db, NULL, NULL);
        VERIFY(code == OURDB_OK || code == OURDB_BUSY);
        break;
    }
}

/* The writer overwrites what is just being read, and doesn't know of who reads: that is found, as it
   was, or not found. */
static void
beside_erasures(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_options reading = test_options(variant, OURDB_OPEN_READ_ONLY);
    test_pipe ready = test_make_pipe();
    char path[TEST_PATH_MAX];
    char copy[TEST_PATH_MAX];
    uint64_t rounds = test_scaled(200);
    uint64_t turn = 0;
    pid_t child;
    ourdb *reader;

    test_phase("%s: beside erasures in another process", variant->name);
    test_join_into(path, test_directory, "erasing");
    test_join_into(copy, test_directory, "erasing-copy");
    child = test_fork();
    if (child == 0) {
        ourdb *db = OPEN(path, &options);
        uint8_t value[LONGEST_ERASED];
        uint64_t round;
        uint32_t id;

        for (round = 0; round < rounds; round++) {
            memset(value, (int)(1 + round % 255), sizeof value);
            for (id = 0; id < ERASED_IDS; id++) {
                CHECK_OK(ourdb_set(db, id, value, erased_lens[id]));
                CHECK_OK(ourdb_set(db, id, value, erased_lens[id]));
            }
            if (round == 0) {
                test_signal(&ready);
            }
            test_sleep_us(round * 131 % 500);
            for (id = 0; id < ERASED_IDS; id++) {
                CHECK_OK(ourdb_erase(db, id));
            }
            if (round % 100 == 99) {
                COMPACT(db, 1);
            }
        }
        CHECK_OK(ourdb_set(db, DONE_ID, "", 0));
        CHECK_OK(ourdb_close(db));
        _exit(0);
    }
    test_await(&ready);
    reader = OPEN(path, &reading);
    while (ourdb_contains(reader, DONE_ID) != OURDB_OK) {
        read_all(reader, copy, turn++);
        VERIFY_OK(ourdb_refresh(reader));
    }
    test_wait(child);
    CHECK_COUNT(reader, 1);
    CHECK_OK(ourdb_check(reader, NULL, NULL));
    CHECK_OK(ourdb_close(reader));
    reader = OPEN(path, &options);
    CHECK_OK(ourdb_destroy(reader));
    test_remove(copy);
    test_close_pipe(&ready);
}

/* What a killed writer left is seen as the next writer will find it, and then on. */
static void
after_a_kill(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb_options reading = test_options(NULL, OURDB_OPEN_READ_ONLY);
    test_pipe ready = test_make_pipe();
    char path[TEST_PATH_MAX];
    ourdb *db;
    ourdb *reader;
    pid_t child;

    test_phase("a writer that was killed");
    test_join_into(path, test_directory, "killed");
    child = test_fork();
    if (child == 0) {
        db = OPEN(path, &options);
        CHECK_OK(ourdb_set(db, 1, "first", 5));
        test_signal(&ready);
        test_wait_to_be_killed();
    }
    test_await(&ready);
    reader = OPEN(path, &reading);
    CHECK_VALUE(reader, 1, "first", 5);
    test_kill(child);
    CHECK_OK(ourdb_refresh(reader));
    CHECK_VALUE(reader, 1, "first", 5);
    db = OPEN(path, &options);
    CHECK_OK(ourdb_set(db, 1, "second", 6));
    CHECK_OK(ourdb_refresh(reader));
    CHECK_VALUE(reader, 1, "second", 6);
    CHECK_OK(ourdb_destroy(db));

    test_phase("a database that was removed");
    CHECK_CODE(ourdb_refresh(reader), OURDB_NOT_FOUND);
    CHECK_VALUE(reader, 1, "second", 6);
    CHECK_OK(ourdb_close(reader));
    test_close_pipe(&ready);
}

int
main(void)
{
    size_t i;

    test_begin("refresh");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        if (test_on_disk(&test_variants[i])) {
            in_one_process(&test_variants[i]);
            in_another_process(&test_variants[i]);
            beside_erasures(&test_variants[i]);
        }
    }
    after_a_kill();
    return test_end();
}
