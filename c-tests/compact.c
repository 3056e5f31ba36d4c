/*
 * compact: data files become shorter, and what is to be kept is kept.
 *
 * Promise: a compaction keeps exactly the versions that its retention says, with their commits and
 * times, and the newest version of each live record always; the past before it is gone as a whole,
 * and says so; files shrink; commit numbers, times and ids go on; the same handle, open snapshots
 * and iterators, and readers in other threads go on; it may be cancelled, and then nothing has
 * changed; one runs at a time; all of it holds after reopening, and again later. The background
 * does the same by itself.
 */
#include "harness.h"

#include <pthread.h>

#define IDS 40

typedef struct version {
    uint64_t commit;
    uint64_t time_us;
    uint64_t seed; /* 0: a deletion */
} version;

typedef struct record {
    version versions[64]; /* oldest first */
    size_t count;
} record;

typedef struct model {
    record records[IDS];
    uint64_t live;
} model;

static void
learn(const ourdb *db, model *of, uint32_t id, uint64_t seed)
{
    record *to = &of->records[id];
    ourdb_records history;

    CHECK(to->count < sizeof to->versions / sizeof to->versions[0]);
    CHECK_OK(ourdb_history(db, id, 1, &history));
    to->versions[to->count].commit = history.items[0].commit;
    to->versions[to->count].time_us = history.items[0].time_us;
    to->versions[to->count].seed = seed;
    to->count++;
    ourdb_free_records(&history);
}

static int
is_live(const record *of)
{
    return of->count > 0 && of->versions[of->count - 1].seed != 0;
}

/* Random writes, so that most records have several versions, and some are deleted. */
static void
fill(ourdb *db, model *of, unsigned long writes, uint64_t seed)
{
    unsigned long i;

    for (i = 0; i < writes; i++) {
        uint32_t id = test_random_below(&seed, IDS - 1); /* the last one is never used */
        uint64_t version = test_random(&seed) | 1;
        uint8_t value[TEST_VALUE_MAX];

        if (of->records[id].count >= 60) {
            continue;
        }
        if (is_live(&of->records[id]) && test_random_below(&seed, 4) == 0) {
            CHECK_OK(ourdb_delete(db, id));
            learn(db, of, id, 0);
        } else {
            CHECK_OK(ourdb_set(db, id, value, test_value(id, version, value)));
            learn(db, of, id, version);
        }
        if (i % 64 == 0) {
            test_sleep_us(50); /* so that not all times are the same */
        }
    }
}

/* What the rules leave. */
static void
retain(model *of, const ourdb_retention *rules)
{
    uint32_t id;

    for (id = 0; id < IDS; id++) {
        record *in = &of->records[id];
        record kept = {{{0, 0, 0}}, 0};
        size_t i;

        for (i = 0; i < in->count; i++) {
            const version *one = &in->versions[i];
            size_t newer = in->count - 1 - i;

            if (newer < rules->keep_versions
                || (rules->keep_since_us != 0 && one->time_us >= rules->keep_since_us)
                || (rules->keep_since_commit != 0 && one->commit >= rules->keep_since_commit)
                || (newer == 0 && one->seed != 0)) {
                kept.versions[kept.count++] = *one;
            }
        }
        *in = kept;
    }
}

static void
check_all(const ourdb *db, const model *of)
{
    uint64_t live = 0;
    uint32_t id;

    for (id = 0; id < IDS; id++) {
        const record *expected = &of->records[id];
        ourdb_records history;
        uint8_t value[TEST_VALUE_MAX];
        size_t i;

        if (is_live(expected)) {
            uint64_t seed = expected->versions[expected->count - 1].seed;

            CHECK_VALUE(db, id, value, test_value(id, seed, value));
            live++;
        } else {
            CHECK_ABSENT(db, id);
        }
        if (expected->count == 0) {
            CHECK_CODE(ourdb_history(db, id, 0, &history), OURDB_NOT_FOUND);
            CHECK_ZERO(history);
            continue;
        }
        CHECK_OK(ourdb_history(db, id, 0, &history));
        CHECK_NUMBER(history.count, expected->count);
        for (i = 0; i < history.count; i++) {
            const ourdb_record *item = &history.items[i];
            const version *one = &expected->versions[expected->count - 1 - i];
            ourdb_buf buf;

            CHECK_NUMBER(item->commit, one->commit);
            CHECK_NUMBER(item->time_us, one->time_us);
            if (one->seed == 0) {
                CHECK_NUMBER(item->flags, OURDB_RECORD_DELETED);
                continue;
            }
            CHECK_NUMBER(item->flags, 0);
            CHECK_BYTES(item->data, item->len, value, test_value(id, one->seed, value));
            CHECK_OK(ourdb_get_version(db, id, one->commit, &buf));
            CHECK_BYTES(buf.data, buf.len, value, test_value(id, one->seed, value));
            ourdb_free_buf(&buf);
        }
        ourdb_free_records(&history);
    }
    CHECK_COUNT(db, live);
    CHECK_OK(ourdb_check(db, NULL, NULL));
}

static void
check_reopened(ourdb **db, const char *path, const ourdb_options *options, const model *of)
{
    check_all(*db, of);
    if ((options->flags & OURDB_OPEN_MEMORY) == 0) {
        CHECK_OK(ourdb_close(*db));
        *db = OPEN(path, options);
        check_all(*db, of);
    }
}

/* Each rule, then all together, one compaction after the other with writes in between. */
static void
rules(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("rules");
    ourdb *db = OPEN(path, &options);
    static model of;
    ourdb_retention keep;
    ourdb_txn *txn;
    uint64_t commit;
    int rule;

    memset(&of, 0, sizeof of);
    test_phase("%s: an empty database", variant->name);
    COMPACT(db, 1);
    check_reopened(&db, path, &options, &of);
    CHECK_LAST_COMMIT(db, 0);
    for (rule = 0; rule < 7; rule++) {
        test_phase("%s: retention %d", variant->name, rule);
        fill(db, &of, test_scaled(400), (uint64_t)rule + 1);
        commit = test_last_commit(db);
        keep = test_retention(0);
        switch (rule) {
        case 0:
            keep.keep_versions = 3;
            break;
        case 1:
            keep.keep_since_commit = commit - commit / 10;
            break;
        case 2:
            keep.keep_since_us = test_stats(db).last_time_us - 1000;
            break;
        case 3:
            keep.keep_versions = 2;
            keep.keep_since_commit = commit - commit / 10;
            keep.keep_since_us = test_stats(db).last_time_us;
            break;
        case 4:
            keep.keep_versions = UINT64_MAX;
            break;
        case 5:
            keep.keep_versions = 1;
            break;
        default: /* nothing but live records */
            break;
        }
        CHECK_OK(ourdb_compact(db, &keep, NULL, NULL));
        retain(&of, &keep);
        CHECK_LAST_COMMIT(db, commit);
        check_reopened(&db, path, &options, &of);
        CHECK_LAST_COMMIT(db, commit);
        /* A second time there is nothing more to drop. */
        CHECK_OK(ourdb_compact(db, &keep, NULL, NULL));
        retain(&of, &keep);
        check_reopened(&db, path, &options, &of);
    }

    test_phase("%s: the past is gone", variant->name);
    commit = test_stats(db).oldest_commit;
    CHECK(commit > 0 && commit <= test_last_commit(db));
    txn = BEGIN_AT(db, commit);
    ourdb_txn_abort(txn);
    CHECK_CODE(ourdb_txn_begin_at(db, commit - 1, &txn), OURDB_NOT_FOUND);
    CHECK(txn == NULL);
    CHECK_CODE(ourdb_txn_begin_at(db, 1, &txn), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_destroy(db));
}

/* Files shrink, also those of a handle that goes on; everything that counts goes on. */
static void
space(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("space");
    ourdb *db = OPEN(path, &options);
    ourdb_stats before;
    ourdb_stats after;
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;
    uint32_t next;
    unsigned long i;

    test_phase("%s: space", variant->name);
    for (i = 0; i < 50; i++) {
        CHECK_OK(ourdb_insert(db, value, test_value((uint32_t)i, 1, value), &id));
    }
    memset(value, 7, sizeof value);
    for (i = 0; i < 3000; i++) {
        CHECK_OK(ourdb_set(db, (uint32_t)(i % 50) + 1, value, sizeof value));
    }
    CHECK_OK(ourdb_delete(db, 50));
    CHECK_OK(ourdb_sync(db));
    before = test_stats(db);
    COMPACT(db, 0);
    after = test_stats(db);
    CHECK_NUMBER(after.live, 49);
    CHECK_NUMBER(after.versions, 49);
    CHECK_NUMBER(after.deletions, 0);
    CHECK(after.bytes_dead < before.bytes_dead / 10);
    CHECK(after.bytes_live + after.bytes_dead < 100000);
    CHECK(before.bytes_live + before.bytes_dead > 600000);
    CHECK_NUMBER(after.last_commit, before.last_commit);
    CHECK_NUMBER(after.last_time_us, before.last_time_us);
    CHECK_NUMBER(after.next_id, before.next_id);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        CHECK(test_file_len(test_join(path, "0.db")) < 100000);
        db = OPEN(path, &options);
    }
    next = test_next_id(db);
    CHECK_NUMBER(next, 51);
    CHECK_OK(ourdb_insert(db, "next", 4, &id));
    CHECK_NUMBER(id, 51);
    CHECK_LAST_COMMIT(db, before.last_commit + 1);
    CHECK_CODE(ourdb_set(db, 50, "x", 1), OURDB_ID_NOT_ASSIGNED);

    test_phase("%s: after clear", variant->name);
    CHECK_OK(ourdb_clear(db));
    COMPACT(db, 0);
    CHECK_COUNT(db, 0);
    CHECK_NUMBER(test_stats(db).versions, 0);
    CHECK_OK(ourdb_insert(db, "after", 5, &id));
    CHECK_NUMBER(id, 52);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
        CHECK_VALUE(db, 52, "after", 5);
        CHECK_COUNT(db, 1);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* What is open keeps what it sees. */
static void
what_is_open(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("open");
    ourdb *db = OPEN(path, &options);
    ourdb_txn *past;
    ourdb_txn *snapshot;
    ourdb_txn *writer;
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t id;
    uint64_t count;

    test_phase("%s: snapshots, transactions and iterators across it", variant->name);
    for (id = 0; id < 300; id++) {
        CHECK_OK(ourdb_set(db, id, "old", 3));
    }
    past = BEGIN_AT(db, 200);
    for (id = 0; id < 300; id++) {
        CHECK_OK(ourdb_set(db, id, "middle", 6));
    }
    snapshot = SNAPSHOT(db);
    writer = BEGIN(db);
    CHECK_TXN_VALUE(writer, 5, "middle", 6);
    CHECK_OK(ourdb_txn_set(writer, 5, "written", 7));
    CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter));
    CHECK_OK(ourdb_iter_next(iter, &record));
    for (id = 100; id < 300; id++) {
        CHECK_OK(ourdb_set(db, id, "new", 3));
    }
    CHECK_OK(ourdb_delete(db, 299));
    COMPACT(db, 0);
    CHECK_VALUE(db, 7, "middle", 6);
    CHECK_VALUE(db, 298, "new", 3);
    CHECK_TXN_VALUE(past, 199, "old", 3);
    CHECK_TXN_ABSENT(past, 200);
    CHECK_TXN_COUNT(past, 200);
    CHECK_TXN_VALUE(snapshot, 299, "middle", 6);
    CHECK_OK(ourdb_set(db, 7, "newest", 6));
    COMPACT(db, 1);
    CHECK_TXN_VALUE(past, 7, "old", 3);
    CHECK_TXN_VALUE(snapshot, 7, "middle", 6);
    for (count = 1; ourdb_iter_next(iter, &record) == OURDB_OK; count++) {
        CHECK_NUMBER(record.id, count);
        CHECK_BYTES(record.data, record.len, "middle", 6);
    }
    CHECK_NUMBER(count, 300);
    ourdb_iter_close(iter);
    ourdb_txn_abort(past);
    ourdb_txn_abort(snapshot);
    CHECK_OK(ourdb_txn_commit(writer));
    CHECK_VALUE(db, 5, "written", 7);

    test_phase("%s: a conflict across it", variant->name);
    writer = BEGIN(db);
    CHECK_TXN_VALUE(writer, 5, "written", 7);
    CHECK_OK(ourdb_txn_set(writer, 6, "x", 1));
    CHECK_OK(ourdb_set(db, 5, "meanwhile", 9));
    COMPACT(db, 1);
    CHECK_CODE(ourdb_txn_commit(writer), OURDB_CONFLICT);
    writer = BEGIN(db);
    CHECK_TXN_VALUE(writer, 5, "meanwhile", 9);
    CHECK_OK(ourdb_txn_set(writer, 6, "x", 1));
    COMPACT(db, 1);
    CHECK_OK(ourdb_txn_commit(writer));
    CHECK_VALUE(db, 6, "x", 1);

    test_phase("%s: a deletion that it dropped is a conflict all the same", variant->name);
    writer = BEGIN(db);
    CHECK_TXN_VALUE(writer, 8, "middle", 6);
    CHECK_OK(ourdb_txn_set(writer, 9, "y", 1));
    CHECK_OK(ourdb_delete(db, 8));
    COMPACT(db, 0);
    CHECK_CODE(ourdb_txn_commit(writer), OURDB_CONFLICT);
    CHECK_OK(ourdb_destroy(db));
}

static int
on_progress(void *context, uint64_t done, uint64_t total)
{
    test_watch *seen = context;
    ourdb_retention keep = test_retention(1);
    int stops = test_watch_progress(seen, done, total);

    /* It may use the database, and one compaction is enough. */
    CHECK_OK(ourdb_set(seen->db, 30, &seen->calls, sizeof seen->calls));
    CHECK_CODE(ourdb_compact(seen->db, &keep, NULL, NULL), OURDB_BUSY);
    CHECK_CODE(ourdb_close(seen->db), OURDB_BUSY);
    CHECK_MESSAGE("at work");
    CHECK_CODE(ourdb_destroy(seen->db), OURDB_BUSY);
    return stops;
}

static void
watched(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("watched");
    ourdb *db = OPEN(path, &options);
    ourdb_retention keep = test_retention(1);
    ourdb_records history;
    test_watch seen = {0};
    uint32_t i;

    test_phase("%s: progress", variant->name);
    seen.db = db;
    for (i = 0; i < 300; i++) {
        CHECK_OK(ourdb_set(db, i % 30, &i, sizeof i));
    }
    seen.stop_at = 1;
    CHECK_CODE(ourdb_compact(db, &keep, on_progress, &seen), OURDB_CANCELLED);
    CHECK_NUMBER(seen.calls, 1);
    CHECK_OK(ourdb_history(db, 3, 0, &history));
    CHECK_NUMBER(history.count, 10);
    ourdb_free_records(&history);
    CHECK_NUMBER(test_stats(db).oldest_commit, 0);
    CHECK_VALUE(db, 30, &seen.calls, sizeof seen.calls);
    memset(&seen, 0, sizeof seen);
    seen.db = db;
    CHECK_OK(ourdb_compact(db, &keep, on_progress, &seen));
    CHECK(seen.calls > 0);
    CHECK_NUMBER(seen.done, seen.total);
    CHECK_OK(ourdb_history(db, 3, 0, &history));
    CHECK_NUMBER(history.count, 1);
    ourdb_free_records(&history);
    CHECK_VALUE(db, 30, &seen.calls, sizeof seen.calls);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        options.flags = OURDB_OPEN_READ_ONLY;
        db = OPEN(path, &options);
        CHECK_CODE(ourdb_compact(db, &keep, NULL, NULL), OURDB_READ_ONLY);
        CHECK_VALUE(db, 30, &seen.calls, sizeof seen.calls);
        CHECK_OK(ourdb_close(db));
        options = test_options(variant, OURDB_OPEN_KEY_VALUE);
        db = OPEN(path, &options);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* ---- beside threads ------------------------------------------------------------------------ */

typedef struct scene {
    ourdb *db;
    pthread_mutex_t mutex;
    int over;
    uint32_t written; /* the version that all records have had */
} scene;

static int
is_over(scene *in)
{
    int over;

    pthread_mutex_lock(&in->mutex);
    over = in->over;
    pthread_mutex_unlock(&in->mutex);
    return over;
}

static void *
read_on(void *argument)
{
    scene *in = argument;
    uint32_t newest[IDS] = {0};
    uint64_t random = 3;

    while (!is_over(in)) {
        uint32_t id = test_random_below(&random, IDS);
        uint32_t found = 0;
        ourdb_txn *snapshot;
        size_t len;

        VERIFY_OK(ourdb_get_into(in->db, id, &found, sizeof found, &len));
        VERIFY(len == sizeof found && found >= newest[id]);
        newest[id] = found;
        VERIFY_OK(ourdb_txn_begin(in->db, OURDB_TXN_READ_ONLY, &snapshot));
        VERIFY_OK(ourdb_txn_get_into(snapshot, 0, &found, sizeof found, &len));
        for (id = 1; id < IDS; id++) {
            uint32_t other;

            VERIFY_OK(ourdb_txn_get_into(snapshot, id, &other, sizeof other, &len));
            VERIFY(other == found);
        }
        ourdb_txn_abort(snapshot);
    }
    return NULL;
}

static void *
write_on(void *argument)
{
    scene *in = argument;

    while (!is_over(in)) {
        uint32_t version = in->written + 1;
        uint32_t ids[IDS];
        ourdb_slice values[IDS];
        uint32_t i;

        for (i = 0; i < IDS; i++) {
            ids[i] = i;
            values[i].data = (const uint8_t *)&version;
            values[i].len = sizeof version;
        }
        VERIFY_OK(ourdb_set_many(in->db, ids, values, IDS));
        in->written = version;
        /* The machine may have one processor. */
        test_sleep_us(20);
    }
    return NULL;
}

static void
beside_threads(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("threads");
    scene in;
    pthread_t reader;
    pthread_t writer;
    uint32_t zero = 0;
    unsigned long i;
    uint32_t id;

    test_phase("%s: beside a reader and a writer", variant->name);
    in.db = OPEN(path, &options);
    in.over = 0;
    in.written = 0;
    for (id = 0; id < IDS; id++) {
        CHECK_OK(ourdb_set(in.db, id, &zero, sizeof zero));
    }
    CHECK(pthread_mutex_init(&in.mutex, NULL) == 0);
    CHECK(pthread_create(&reader, NULL, read_on, &in) == 0);
    CHECK(pthread_create(&writer, NULL, write_on, &in) == 0);
    for (i = 0; i < test_scaled(30); i++) {
        test_sleep_us(1000);
        COMPACT(in.db, i % 3);
    }
    pthread_mutex_lock(&in.mutex);
    in.over = 1;
    pthread_mutex_unlock(&in.mutex);
    CHECK(pthread_join(reader, NULL) == 0);
    CHECK(pthread_join(writer, NULL) == 0);
    for (i = 0; i < 2; i++) {
        for (id = 0; id < IDS; id++) {
            CHECK_VALUE(in.db, id, &in.written, sizeof in.written);
        }
        CHECK_LAST_COMMIT(in.db, IDS + in.written);
        if (test_on_disk(variant)) {
            CHECK_OK(ourdb_close(in.db));
            in.db = OPEN(path, &options);
        }
    }
    CHECK(pthread_mutex_destroy(&in.mutex) == 0);
    CHECK_OK(ourdb_destroy(in.db));
}

/* ---- in the background --------------------------------------------------------------------- */

static void
in_the_background(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("background");
    uint64_t until = test_monotonic_ns() + UINT64_C(60000000000);
    uint8_t value[1000];
    ourdb *db;
    uint32_t i;

    test_phase("in the background");
    options.auto_compact_percent = 50;
    options.auto_keep_versions = 2;
    db = OPEN(path, &options);
    memset(value, 1, sizeof value);
    for (i = 0; test_stats(db).oldest_commit == 0; i++) {
        CHECK(test_monotonic_ns() < until);
        CHECK_OK(ourdb_set(db, i % 100, value, sizeof value));
    }
    CHECK_COUNT(db, i < 100 ? i : 100);
    for (i = 0; i < 100; i++) {
        CHECK_VALUE(db, i, value, sizeof value);
    }
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, NULL);
    CHECK_COUNT(db, 100);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("compact");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        rules(&test_variants[i]);
        space(&test_variants[i]);
        what_is_open(&test_variants[i]);
        watched(&test_variants[i]);
        beside_threads(&test_variants[i]);
    }
    in_the_background();
    return test_end();
}
