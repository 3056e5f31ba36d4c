/*
 * stats: numbers about a database.
 *
 * Promise: what ourdb_stats_get() says agrees with what was done and with what lies on disk, over
 * reopening and compaction; a caller with a shorter or a longer struct gets what it knows.
 */
#include "harness.h"

static void
numbers(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("numbers");
    ourdb *db = OPEN(path, &options);
    uint8_t value[100] = {1};
    ourdb_records history;
    ourdb_stats stats;
    ourdb_stats again;
    ourdb_txn *txn;
    ourdb_iter *iter;
    uint32_t id;
    uint32_t i;

    test_phase("%s: of an empty database", variant->name);
    stats = test_stats(db);
    CHECK_NUMBER(stats.size, sizeof stats);
    CHECK_NUMBER(stats.live, 0);
    CHECK_NUMBER(stats.versions, 0);
    CHECK_NUMBER(stats.deletions, 0);
    CHECK_NUMBER(stats.bytes_live, 0);
    CHECK_NUMBER(stats.last_commit, 0);
    CHECK_NUMBER(stats.oldest_commit, 0);
    CHECK_NUMBER(stats.next_id, 1);
    CHECK_NUMBER(stats.transactions, 0);
    CHECK_NUMBER(stats.last_time_us, 0);

    test_phase("%s: of a used one", variant->name);
    for (i = 0; i < 200; i++) {
        CHECK_OK(ourdb_insert(db, value, sizeof value, &id));
    }
    for (i = 1; i <= 100; i++) {
        CHECK_OK(ourdb_set(db, i, value, sizeof value));
    }
    for (i = 1; i <= 50; i++) {
        CHECK_OK(ourdb_delete(db, i));
    }
    CHECK_OK(ourdb_sync(db));
    stats = test_stats(db);
    CHECK_NUMBER(stats.live, 150);
    CHECK_NUMBER(stats.versions, 350);
    CHECK_NUMBER(stats.deletions, 50);
    CHECK_NUMBER(stats.bytes_live, 150 * 140);
    CHECK(stats.bytes_dead >= 150 * 140 + 50 * 40 && stats.bytes_dead < 150 * 140 + 50 * 40 + 60000);
    CHECK_NUMBER(stats.last_commit, 350);
    CHECK_NUMBER(stats.synced_commit, 350);
    CHECK_NUMBER(stats.oldest_commit, 0);
    CHECK_NUMBER(stats.next_id, 201);
    CHECK_OK(ourdb_history(db, 50, 1, &history));
    CHECK_NUMBER(stats.last_time_us, history.items[0].time_us);
    ourdb_free_records(&history);
    if (test_on_disk(variant)) {
        CHECK_NUMBER(stats.data_files, test_data_files(path));
        CHECK(stats.bytes_on_disk > 0);
    }

    test_phase("%s: what is open", variant->name);
    txn = BEGIN(db);
    CHECK_NUMBER(test_stats(db).transactions, 1);
    CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter));
    CHECK_NUMBER(test_stats(db).transactions, 2);
    ourdb_iter_close(iter);
    ourdb_txn_abort(txn);
    CHECK_NUMBER(test_stats(db).transactions, 0);

    if (test_on_disk(variant)) {
        test_phase("%s: after reopening", variant->name);
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, &options);
        again = test_stats(db);
        CHECK_NUMBER(again.live, stats.live);
        CHECK_NUMBER(again.versions, stats.versions);
        CHECK_NUMBER(again.deletions, stats.deletions);
        CHECK_NUMBER(again.bytes_live, stats.bytes_live);
        CHECK_NUMBER(again.last_commit, stats.last_commit);
        CHECK_NUMBER(again.synced_commit, stats.last_commit);
        CHECK_NUMBER(again.next_id, stats.next_id);
        CHECK_NUMBER(again.last_time_us, stats.last_time_us);
    }

    test_phase("%s: after a compaction", variant->name);
    COMPACT(db, 1);
    again = test_stats(db);
    CHECK_NUMBER(again.live, 150);
    CHECK_NUMBER(again.versions, 200);
    CHECK_NUMBER(again.deletions, 50);
    CHECK_NUMBER(again.bytes_live, 150 * 140);
    CHECK(again.bytes_dead < stats.bytes_dead);
    CHECK(again.oldest_commit > 0 && again.oldest_commit <= 350);
    CHECK_NUMBER(again.last_commit, 350);
    CHECK_OK(ourdb_destroy(db));
}

static void
other_sizes(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(NULL, &options);
    struct {
        ourdb_stats known;
        uint64_t later[3];
    } wide;

    test_phase("a program of a later header");
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    memset(&wide, 0xA5, sizeof wide);
    CHECK_OK(ourdb_stats_init(&wide.known, sizeof wide - 8));
    wide.later[0] = 7;
    CHECK_OK(ourdb_stats_get(db, &wide.known));
    CHECK_NUMBER(wide.known.size, sizeof wide - 8);
    CHECK_NUMBER(wide.known.live, 1);
    CHECK_NUMBER(wide.known.next_id, 2); /* after the highest that was chosen */
    CHECK_NUMBER(wide.later[0], 0);
    CHECK_NUMBER(wide.later[1], 0);
    CHECK_NUMBER(wide.later[2], UINT64_C(0xA5A5A5A5A5A5A5A5));
    CHECK_OK(ourdb_close(db));
}

int
main(void)
{
    size_t i;

    test_begin("stats");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        numbers(&test_variants[i]);
    }
    other_sizes();
    return test_end();
}
