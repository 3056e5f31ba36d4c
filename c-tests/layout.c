/*
 * layout: what a program compiled against the header relies on.
 *
 * Promise: the public structs have the fields, order, sizes and offsets of the contract; every
 * constant has its number; the version macros agree with each other and with the library; every
 * function has its exact type. All of it holds in C89 to C23, and in C++ too; most of it is checked
 * by compiling this file.
 *
 * It stands by itself, without harness.h, so that it compiles as C89.
 */
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "ourdb.h"
#include "ourdb.h"

/* Fails to compile when the condition doesn't hold: an array can't have -1 elements. */
#define STATIC_CHECK(name, condition) typedef char static_check_##name[(condition) ? 1 : -1]

/* ---- constants: in #if, so that they are integer macros and nothing else -------------------- */

#if OURDB_OK != 0 || OURDB_NOT_FOUND != -1 || OURDB_INVALID_ARGUMENT != -2                         \
    || OURDB_ID_NOT_ASSIGNED != -3 || OURDB_ID_OUT_OF_RANGE != -4 || OURDB_RECORD_TOO_LARGE != -5  \
    || OURDB_FULL != -6 || OURDB_CONFLICT != -7 || OURDB_LOCKED != -8 || OURDB_READ_ONLY != -9     \
    || OURDB_CORRUPT != -10 || OURDB_INCOMPATIBLE != -11 || OURDB_IO != -12                        \
    || OURDB_NO_SPACE != -13 || OURDB_OUT_OF_MEMORY != -14 || OURDB_BUSY != -15                    \
    || OURDB_BUFFER_TOO_SMALL != -16 || OURDB_POISONED != -17 || OURDB_CANCELLED != -18            \
    || OURDB_FORKED != -19 || OURDB_WRONG_MODE != -20 || OURDB_PANIC != -21
#error "a code was renumbered"
#endif

#if OURDB_OPEN_KEY_VALUE != 1 || OURDB_OPEN_READ_ONLY != 2 || OURDB_OPEN_MUST_EXIST != 4 \
    || OURDB_OPEN_RESET != 8 || OURDB_OPEN_MEMORY != 16 || OURDB_OPEN_SALVAGE != 32      \
    || OURDB_OPEN_NATIVE != 64 || OURDB_OPEN_ADOPT != 128
#error "a flag of ourdb_open was renumbered"
#endif

#if OURDB_LOOKUP_MEMORY != 0 || OURDB_LOOKUP_DISK != 1
#error "a lookup was renumbered"
#endif

#if OURDB_SYNC_OS != 0 || OURDB_SYNC_COMMIT != 1 || OURDB_SYNC_INTERVAL != 2
#error "a sync mode was renumbered"
#endif

#if OURDB_IO_AUTO != 0 || OURDB_IO_MAP != 1 || OURDB_IO_FILE != 2
#error "an I/O mode was renumbered"
#endif

#if OURDB_RECORD_DELETED != 1 || OURDB_RECORD_MISSING != 2 || OURDB_RECORD_ERASED != 4
#error "a flag of a record was renumbered"
#endif

#if OURDB_TXN_READ_ONLY != 1 || OURDB_ITER_REVERSE != 1 || OURDB_ITER_KEYS != 2
#error "a flag of a transaction or an iterator was renumbered"
#endif

#if OURDB_VERSION_NUMBER \
    != OURDB_VERSION_MAJOR * 1000000 + OURDB_VERSION_MINOR * 1000 + OURDB_VERSION_PATCH
#error "OURDB_VERSION_NUMBER is not made of its parts"
#endif

/* ---- structs ------------------------------------------------------------------------------- */

/* What a pointer and a size_t take decides all the rest. */
#define WORD sizeof(size_t)
STATIC_CHECK(pointer_is_a_word, sizeof(void *) == WORD);

STATIC_CHECK(slice_size, sizeof(ourdb_slice) == 2 * WORD);
STATIC_CHECK(slice_data, offsetof(ourdb_slice, data) == 0);
STATIC_CHECK(slice_len, offsetof(ourdb_slice, len) == WORD);

STATIC_CHECK(buf_size, sizeof(ourdb_buf) == 2 * WORD);
STATIC_CHECK(buf_data, offsetof(ourdb_buf, data) == 0);
STATIC_CHECK(buf_len, offsetof(ourdb_buf, len) == WORD);

STATIC_CHECK(record_size, sizeof(ourdb_record) == 24 + 2 * WORD);
STATIC_CHECK(record_id, offsetof(ourdb_record, id) == 0);
STATIC_CHECK(record_flags, offsetof(ourdb_record, flags) == 4);
STATIC_CHECK(record_commit, offsetof(ourdb_record, commit) == 8);
STATIC_CHECK(record_time_us, offsetof(ourdb_record, time_us) == 16);
STATIC_CHECK(record_data, offsetof(ourdb_record, data) == 24);
STATIC_CHECK(record_len, offsetof(ourdb_record, len) == 24 + WORD);

STATIC_CHECK(records_size, sizeof(ourdb_records) == 3 * WORD);
STATIC_CHECK(records_items, offsetof(ourdb_records, items) == 0);
STATIC_CHECK(records_count, offsetof(ourdb_records, count) == WORD);
STATIC_CHECK(records_owner, offsetof(ourdb_records, owner) == 2 * WORD);

STATIC_CHECK(options_size,
             sizeof(ourdb_options) == offsetof(ourdb_options, auto_keep_versions) + 8);
STATIC_CHECK(options_own_size, offsetof(ourdb_options, size) == 0);
STATIC_CHECK(options_flags, offsetof(ourdb_options, flags) == WORD);
STATIC_CHECK(options_record_nr_max, offsetof(ourdb_options, record_nr_max) == WORD + 4);
STATIC_CHECK(options_record_size_max, offsetof(ourdb_options, record_size_max) == WORD + 8);
STATIC_CHECK(options_file_size, offsetof(ourdb_options, file_size) == WORD + 12);
STATIC_CHECK(options_lookup, offsetof(ourdb_options, lookup) == WORD + 16);
STATIC_CHECK(options_sync, offsetof(ourdb_options, sync) == WORD + 20);
STATIC_CHECK(options_sync_interval_ms, offsetof(ourdb_options, sync_interval_ms) == WORD + 24);
STATIC_CHECK(options_io, offsetof(ourdb_options, io) == WORD + 28);
STATIC_CHECK(options_percent, offsetof(ourdb_options, auto_compact_percent) == WORD + 32);
STATIC_CHECK(options_reserved, offsetof(ourdb_options, reserved) == WORD + 36);
STATIC_CHECK(options_keep, offsetof(ourdb_options, auto_keep_versions) % 8 == 0);

/* Only 64-bit numbers after the size. */
#define NTH(n) ((WORD < 8 ? 8 : WORD) + 8 * ((n) - 1))
STATIC_CHECK(retention_size, sizeof(ourdb_retention) == NTH(4));
STATIC_CHECK(retention_own_size, offsetof(ourdb_retention, size) == 0);
STATIC_CHECK(retention_versions, offsetof(ourdb_retention, keep_versions) == NTH(1));
STATIC_CHECK(retention_us, offsetof(ourdb_retention, keep_since_us) == NTH(2));
STATIC_CHECK(retention_commit, offsetof(ourdb_retention, keep_since_commit) == NTH(3));

STATIC_CHECK(stats_size, sizeof(ourdb_stats) == NTH(14));
STATIC_CHECK(stats_own_size, offsetof(ourdb_stats, size) == 0);
STATIC_CHECK(stats_live, offsetof(ourdb_stats, live) == NTH(1));
STATIC_CHECK(stats_versions, offsetof(ourdb_stats, versions) == NTH(2));
STATIC_CHECK(stats_deletions, offsetof(ourdb_stats, deletions) == NTH(3));
STATIC_CHECK(stats_bytes_live, offsetof(ourdb_stats, bytes_live) == NTH(4));
STATIC_CHECK(stats_bytes_dead, offsetof(ourdb_stats, bytes_dead) == NTH(5));
STATIC_CHECK(stats_data_files, offsetof(ourdb_stats, data_files) == NTH(6));
STATIC_CHECK(stats_bytes_on_disk, offsetof(ourdb_stats, bytes_on_disk) == NTH(7));
STATIC_CHECK(stats_last_commit, offsetof(ourdb_stats, last_commit) == NTH(8));
STATIC_CHECK(stats_synced_commit, offsetof(ourdb_stats, synced_commit) == NTH(9));
STATIC_CHECK(stats_oldest_commit, offsetof(ourdb_stats, oldest_commit) == NTH(10));
STATIC_CHECK(stats_next_id, offsetof(ourdb_stats, next_id) == NTH(11));
STATIC_CHECK(stats_transactions, offsetof(ourdb_stats, transactions) == NTH(12));
STATIC_CHECK(stats_last_time_us, offsetof(ourdb_stats, last_time_us) == NTH(13));

/* ---- functions: each assignment is refused by the compiler unless the types are the same ----- */

static const char *(*const version)(void) = ourdb_version;
static uint32_t (*const version_number)(void) = ourdb_version_number;
static const char *(*const strerror_)(int) = ourdb_strerror;
static const char *(*const errmsg)(void) = ourdb_errmsg;
static int (*const os_error)(void) = ourdb_os_error;

static int (*const options_init)(ourdb_options *, size_t) = ourdb_options_init;
static int (*const open_)(const char *, const ourdb_options *, ourdb **) = ourdb_open;
static int (*const close_)(ourdb *) = ourdb_close;
static int (*const destroy)(ourdb *) = ourdb_destroy;
static int (*const sync_)(ourdb *) = ourdb_sync;

static int (*const insert)(ourdb *, const void *, size_t, uint32_t *) = ourdb_insert;
static int (*const set)(ourdb *, uint32_t, const void *, size_t) = ourdb_set;
static int (*const get)(const ourdb *, uint32_t, ourdb_buf *) = ourdb_get;
static int (*const get_into)(const ourdb *, uint32_t, void *, size_t, size_t *) = ourdb_get_into;
static int (*const delete_)(ourdb *, uint32_t) = ourdb_delete;
static int (*const contains)(const ourdb *, uint32_t) = ourdb_contains;
static int (*const next_id)(const ourdb *, uint32_t *) = ourdb_next_id;
static int (*const count)(const ourdb *, uint64_t *) = ourdb_count;

static int (*const insert_many)(ourdb *, const ourdb_slice *, size_t, uint32_t *)
    = ourdb_insert_many;
static int (*const set_many)(ourdb *, const uint32_t *, const ourdb_slice *, size_t)
    = ourdb_set_many;
static int (*const get_many)(const ourdb *, const uint32_t *, size_t, ourdb_records *)
    = ourdb_get_many;
static int (*const delete_many)(ourdb *, const uint32_t *, size_t) = ourdb_delete_many;

static int (*const first)(const ourdb *, uint32_t *) = ourdb_first;
static int (*const last)(const ourdb *, uint32_t *) = ourdb_last;
static int (*const above)(const ourdb *, uint32_t, uint32_t *) = ourdb_above;
static int (*const below)(const ourdb *, uint32_t, uint32_t *) = ourdb_below;

static int (*const history)(const ourdb *, uint32_t, size_t, ourdb_records *) = ourdb_history;
static int (*const get_version)(const ourdb *, uint32_t, uint64_t, ourdb_buf *)
    = ourdb_get_version;
static int (*const get_at)(const ourdb *, uint32_t, uint64_t, ourdb_buf *) = ourdb_get_at;
static int (*const last_commit)(const ourdb *, uint64_t *) = ourdb_last_commit;

static int (*const clear)(ourdb *) = ourdb_clear;
static int (*const revert)(ourdb *, uint32_t, uint64_t) = ourdb_revert;
static int (*const revert_all)(ourdb *, uint64_t) = ourdb_revert_all;
static int (*const erase)(ourdb *, uint32_t) = ourdb_erase;
static int (*const refresh)(ourdb *) = ourdb_refresh;

static int (*const txn_begin)(ourdb *, uint32_t, ourdb_txn **) = ourdb_txn_begin;
static int (*const txn_begin_at)(ourdb *, uint64_t, ourdb_txn **) = ourdb_txn_begin_at;
static int (*const txn_commit)(ourdb_txn *) = ourdb_txn_commit;
static void (*const txn_abort)(ourdb_txn *) = ourdb_txn_abort;
static int (*const txn_insert)(ourdb_txn *, const void *, size_t, uint32_t *) = ourdb_txn_insert;
static int (*const txn_set)(ourdb_txn *, uint32_t, const void *, size_t) = ourdb_txn_set;
static int (*const txn_get)(const ourdb_txn *, uint32_t, ourdb_buf *) = ourdb_txn_get;
static int (*const txn_get_into)(const ourdb_txn *, uint32_t, void *, size_t, size_t *)
    = ourdb_txn_get_into;
static int (*const txn_delete)(ourdb_txn *, uint32_t) = ourdb_txn_delete;
static int (*const txn_contains)(const ourdb_txn *, uint32_t) = ourdb_txn_contains;
static int (*const txn_first)(const ourdb_txn *, uint32_t *) = ourdb_txn_first;
static int (*const txn_last)(const ourdb_txn *, uint32_t *) = ourdb_txn_last;
static int (*const txn_above)(const ourdb_txn *, uint32_t, uint32_t *) = ourdb_txn_above;
static int (*const txn_below)(const ourdb_txn *, uint32_t, uint32_t *) = ourdb_txn_below;
static int (*const txn_count)(const ourdb_txn *, uint64_t *) = ourdb_txn_count;

static int (*const iter_open)(const ourdb *, uint32_t, uint32_t, uint32_t, ourdb_iter **)
    = ourdb_iter_open;
static int (*const txn_iter_open)(const ourdb_txn *, uint32_t, uint32_t, uint32_t, ourdb_iter **)
    = ourdb_txn_iter_open;
static int (*const iter_next)(ourdb_iter *, ourdb_record *) = ourdb_iter_next;
static int (*const iter_next_many)(ourdb_iter *, size_t, ourdb_records *) = ourdb_iter_next_many;
static int (*const iter_next_ids)(ourdb_iter *, uint32_t *, size_t, size_t *) = ourdb_iter_next_ids;
static void (*const iter_close)(ourdb_iter *) = ourdb_iter_close;

static int (*const retention_init)(ourdb_retention *, size_t) = ourdb_retention_init;
static int (*const compact)(ourdb *, const ourdb_retention *, ourdb_progress, void *)
    = ourdb_compact;
static int (*const backup)(const ourdb *, const char *, ourdb_progress, void *) = ourdb_backup;
static int (*const check_all)(const ourdb *, ourdb_progress, void *) = ourdb_check;
static int (*const stats_init)(ourdb_stats *, size_t) = ourdb_stats_init;
static int (*const stats_get)(const ourdb *, ourdb_stats *) = ourdb_stats_get;
static int (*const changes)(const ourdb *, uint64_t, size_t, ourdb_buf *, uint64_t *)
    = ourdb_changes;
static int (*const apply)(ourdb *, const void *, size_t) = ourdb_apply;

static void (*const free_buf)(ourdb_buf *) = ourdb_free_buf;
static void (*const free_records)(ourdb_records *) = ourdb_free_records;

/* ---- what only running shows ---------------------------------------------------------------- */

static unsigned long checks;
static int failed;

static void
check(int holds, const char *what)
{
    checks++;
    if (!holds) {
        fprintf(stderr, "layout: FAILED: %s\n", what);
        failed = 1;
    }
}

/* The functions for versions, on an empty database whose last commit is 6. */
static void
check_versions(ourdb *db)
{
    ourdb_txn *txn = NULL;
    ourdb_iter *iter = NULL;
    ourdb_record record;
    ourdb_records records;
    ourdb_retention retention;
    ourdb_stats stats;
    ourdb_buf buf;
    uint32_t id = 0;
    uint64_t number = 0;
    size_t len = 0;
    size_t count = 0;
    uint8_t into[4];

    check(txn_begin(db, 0, &txn) == OURDB_OK && txn != NULL, "ourdb_txn_begin");
    check(txn_insert(txn, "abc", 3, &id) == OURDB_OK && id == 3, "ourdb_txn_insert");
    check(txn_set(txn, 3, "abcd", 4) == OURDB_OK, "ourdb_txn_set");
    check(txn_get(txn, 3, &buf) == OURDB_OK && buf.len == 4, "ourdb_txn_get");
    free_buf(&buf);
    check(txn_get_into(txn, 3, into, 4, &len) == OURDB_OK && len == 4, "ourdb_txn_get_into");
    check(txn_contains(txn, 3) == OURDB_OK, "ourdb_txn_contains");
    check(txn_first(txn, &id) == OURDB_OK && id == 3, "ourdb_txn_first");
    check(txn_last(txn, &id) == OURDB_OK && id == 3, "ourdb_txn_last");
    check(txn_above(txn, 2, &id) == OURDB_OK && id == 3, "ourdb_txn_above");
    check(txn_below(txn, 4, &id) == OURDB_OK && id == 3, "ourdb_txn_below");
    check(txn_count(txn, &number) == OURDB_OK && number == 1, "ourdb_txn_count");
    check(txn_iter_open(txn, 0, 9, 0, &iter) == OURDB_OK, "ourdb_txn_iter_open");
    check(iter_next(iter, &record) == OURDB_OK && record.id == 3, "ourdb_iter_next");
    iter_close(iter);
    check(txn_commit(txn) == OURDB_OK, "ourdb_txn_commit");
    check(iter_open(db, 0, 9, 0, &iter) == OURDB_OK, "ourdb_iter_open");
    check(iter_next_many(iter, 9, &records) == OURDB_OK && records.count == 1,
          "ourdb_iter_next_many");
    free_records(&records);
    iter_close(iter);
    check(iter_open(db, 0, 9, 0, &iter) == OURDB_OK, "ourdb_iter_open");
    check(iter_next_ids(iter, &id, 1, &count) == OURDB_OK && count == 1, "ourdb_iter_next_ids");
    iter_close(iter);
    check(txn_begin_at(db, 6, &txn) == OURDB_OK, "ourdb_txn_begin_at");
    check(txn_delete(txn, 3) == OURDB_READ_ONLY, "ourdb_txn_delete");
    txn_abort(txn);
    check(clear(db) == OURDB_OK, "ourdb_clear");
    check(revert(db, 3, 7) == OURDB_OK, "ourdb_revert");
    check(revert_all(db, 6) == OURDB_OK, "ourdb_revert_all");
    check(erase(db, 3) == OURDB_OK, "ourdb_erase");
    check(refresh(db) == OURDB_OK, "ourdb_refresh");
    check(retention_init(&retention, sizeof retention) == OURDB_OK
              && retention.size == sizeof retention && retention.keep_versions == 1,
          "ourdb_retention_init");
    check(compact(db, &retention, NULL, NULL) == OURDB_OK, "ourdb_compact");
    check(check_all(db, NULL, NULL) == OURDB_OK, "ourdb_check");
    check(backup(db, NULL, NULL, NULL) == OURDB_INVALID_ARGUMENT, "ourdb_backup");
    check(stats_init(&stats, sizeof stats) == OURDB_OK && stats.size == sizeof stats,
          "ourdb_stats_init");
    check(stats_get(db, &stats) == OURDB_OK && stats.live == 0 && stats.next_id == 4,
          "ourdb_stats_get");
    check(changes(db, stats.last_commit, 0, &buf, &number) == OURDB_OK && buf.len == 0
              && number == stats.last_commit,
          "ourdb_changes");
    check(apply(db, buf.data, buf.len) == OURDB_OK, "ourdb_apply");
    free_buf(&buf);
}

int
main(void)
{
    ourdb_options options;
    ourdb_slice slice;
    ourdb_records records;
    ourdb_buf buf;
    ourdb *db = NULL;
    uint32_t id = 0;
    uint64_t number = 0;
    size_t len = 0;
    char text[64];
    uint8_t into[4];

    sprintf(text, "%d.%d.%d", OURDB_VERSION_MAJOR, OURDB_VERSION_MINOR, OURDB_VERSION_PATCH);
    check(strcmp(version(), text) == 0, "ourdb_version() is the version macros in words");
    check(version_number() == OURDB_VERSION_NUMBER, "the library is the version of the header");
    check(strerror_(OURDB_OK) != NULL && strerror_(INT_MIN) != NULL, "ourdb_strerror of any int");
    check(errmsg() != NULL, "ourdb_errmsg() before any failure");
    check(os_error() == 0, "ourdb_os_error() before any failure");

    check(options_init(&options, sizeof options) == OURDB_OK, "ourdb_options_init");
    check(options.size == sizeof options, "the size of the options");
    check(options.flags == 0 && options.record_nr_max == 0 && options.record_size_max == 0
              && options.file_size == 0 && options.lookup == OURDB_LOOKUP_MEMORY
              && options.sync == OURDB_SYNC_OS && options.sync_interval_ms == 0
              && options.io == OURDB_IO_AUTO && options.auto_compact_percent == 0
              && options.reserved == 0 && options.auto_keep_versions == 0,
          "fresh options are all defaults");

    /* Each function once through its pointer: it is there to be linked and does its work. */
    options.flags = OURDB_OPEN_MEMORY;
    check(open_(NULL, &options, &db) == OURDB_OK && db != NULL, "ourdb_open");
    check(insert(db, "abc", 3, &id) == OURDB_OK && id == 1, "ourdb_insert");
    check(set(db, 1, "abcd", 4) == OURDB_OK, "ourdb_set");
    check(get(db, 1, &buf) == OURDB_OK && buf.len == 4 && memcmp(buf.data, "abcd", 4) == 0,
          "ourdb_get");
    free_buf(&buf);
    check(buf.data == NULL && buf.len == 0, "ourdb_free_buf");
    check(get_into(db, 1, into, sizeof into, &len) == OURDB_OK && len == 4, "ourdb_get_into");
    check(contains(db, 1) == OURDB_OK, "ourdb_contains");
    check(next_id(db, &id) == OURDB_OK && id == 2, "ourdb_next_id");
    check(count(db, &number) == OURDB_OK && number == 1, "ourdb_count");
    slice.data = into;
    slice.len = 2;
    check(insert_many(db, &slice, 1, &id) == OURDB_OK && id == 2, "ourdb_insert_many");
    check(set_many(db, &id, &slice, 1) == OURDB_OK, "ourdb_set_many");
    check(get_many(db, &id, 1, &records) == OURDB_OK && records.count == 1
              && records.items[0].len == 2 && memcmp(records.items[0].data, "ab", 2) == 0,
          "ourdb_get_many");
    free_records(&records);
    check(records.items == NULL && records.count == 0 && records.owner == NULL,
          "ourdb_free_records");
    check(first(db, &id) == OURDB_OK && id == 1, "ourdb_first");
    check(last(db, &id) == OURDB_OK && id == 2, "ourdb_last");
    check(above(db, 1, &id) == OURDB_OK && id == 2, "ourdb_above");
    check(below(db, 2, &id) == OURDB_OK && id == 1, "ourdb_below");
    check(history(db, 1, 0, &records) == OURDB_OK && records.count == 2, "ourdb_history");
    free_records(&records);
    check(get_version(db, 1, 1, &buf) == OURDB_OK && buf.len == 3, "ourdb_get_version");
    free_buf(&buf);
    check(get_at(db, 1, (uint64_t)-1, &buf) == OURDB_OK && buf.len == 4, "ourdb_get_at");
    free_buf(&buf);
    id = 2;
    check(delete_many(db, &id, 1) == OURDB_OK, "ourdb_delete_many");
    check(delete_(db, 1) == OURDB_OK, "ourdb_delete");
    check(last_commit(db, &number) == OURDB_OK && number == 6, "ourdb_last_commit");
    check(sync_(db) == OURDB_OK, "ourdb_sync");
    check_versions(db);
    check(destroy(db) == OURDB_OK, "ourdb_destroy");
    check(close_(NULL) == OURDB_OK, "ourdb_close");

    if (failed) {
        return 1;
    }
    printf("layout: %lu checks passed\n", checks);
    return 0;
}
