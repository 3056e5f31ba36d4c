/*
 * memory: each allocation that grows with the data fails once.
 *
 * Promise: where there is no memory, a call is OURDB_OUT_OF_MEMORY and has done nothing; the process
 * goes on, and so does the handle; what was acknowledged is there when the database is opened again.
 *
 *   memory
 *
 * The last line but one is how many allocations failed. Of those that the library makes, it fails the
 * ones of at least 8 KiB: smaller ones don't grow with the data, or not that far.
 */
#define _GNU_SOURCE
#include "../harness.h"

#ifndef __GLIBC__

int
main(void)
{
    test_begin("memory");
    puts("SKIPPED: allocations that fail: needs glibc");
    puts("0");
    return test_end();
}

#else

#define LARGE (8 << 10)
#define IDS 5000u
#define VALUE 40
/* So many of anything take an allocation that fails. */
#define MANY 550u
#define MANY_MORE 100u

/* While it is set, the allocation of that number fails, counted from 1. */
static int armed;
static unsigned long allocations;
static unsigned long failing;

extern void *__libc_malloc(size_t len);
extern void *__libc_calloc(size_t count, size_t len);
extern void *__libc_realloc(void *memory, size_t len);
extern void *__libc_memalign(size_t alignment, size_t len);

static int
fails(size_t len)
{
    if (!armed || len < LARGE || ++allocations != failing) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *
malloc(size_t len)
{
    return fails(len) ? NULL : __libc_malloc(len);
}

void *
calloc(size_t count, size_t len)
{
    return fails(count * len) ? NULL : __libc_calloc(count, len);
}

void *
realloc(void *memory, size_t len)
{
    return fails(len) ? NULL : __libc_realloc(memory, len);
}

int
posix_memalign(void **memory, size_t alignment, size_t len)
{
    *memory = fails(len) ? NULL : __libc_memalign(alignment, len);
    return *memory == NULL ? ENOMEM : 0;
}

/* A call during which an allocation may fail; whether it was OURDB_OK. */
static int
worked(const char *what, int code)
{
    armed = 0;
    if (code != OURDB_OK && (code != OURDB_OUT_OF_MEMORY || ourdb_errmsg()[0] == '\0')) {
        test_fail(__FILE__, __LINE__, "%s gave %d: %s", what, code, ourdb_errmsg());
    }
    return code == OURDB_OK;
}

#define TRY(call) (armed = 1, worked(#call, call))

/* The same for a call that makes a commit: there is one more, or the last one is that of before. */
#define TRY_COMMIT(call)                               \
    do {                                               \
        uint64_t before = test_last_commit(db);        \
        uint64_t one = TRY(call) ? 1 : 0;              \
                                                       \
        CHECK_NUMBER(test_last_commit(db), before + one); \
    } while (0)

static uint32_t ids[IDS];
static ourdb_slice values[IDS];
static char path[TEST_PATH_MAX];
static char copy[TEST_PATH_MAX];
static char backup[TEST_PATH_MAX];

static ourdb_options
key_value(uint32_t file_size)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);

    options.file_size = file_size;
    return options;
}

/* Opens the database, perhaps at the second attempt. */
static ourdb *
try_open(const ourdb_options *options)
{
    ourdb *db = NULL;

    return TRY(ourdb_open(path, options, &db)) ? db : OPEN(path, options);
}

/* What was committed is there again, and nothing is damaged. */
static void
check_again(const char *directory, uint64_t last, uint64_t count)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(directory, &options);

    CHECK_LAST_COMMIT(db, last);
    CHECK_COUNT(db, count);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
}

static void
close_and_check(ourdb *db)
{
    uint64_t last = test_last_commit(db);
    uint64_t count = test_count(db);

    TRY(ourdb_close(db));
    check_again(path, last, count);
}

static void
close_copy_and_check(ourdb *to)
{
    uint64_t last = test_last_commit(to);
    uint64_t count = test_count(to);

    CHECK_OK(ourdb_close(to));
    check_again(copy, last, count);
}

/* Two commits of all records. */
static void
make_records(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);

    CHECK_OK(ourdb_set_many(db, ids, values, IDS));
    CHECK_OK(ourdb_set_many(db, ids, values, IDS));
}

static void
make_versions(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);
    uint32_t i;

    for (i = 0; i < MANY; i++) {
        CHECK_OK(ourdb_set(db, 1, values[i].data, VALUE));
    }
}

static void
make_erasures(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);
    uint32_t i;

    CHECK_OK(ourdb_set_many(db, ids, values, IDS));
    for (i = 0; i < MANY; i++) {
        CHECK_OK(ourdb_erase(db, ids[i]));
    }
}

/* Each record has a data file of its own. */
static void
make_files(void)
{
    ourdb_options options = key_value(100);
    ourdb *db = OPEN(path, &options);
    uint32_t i;

    for (i = 0; i < MANY; i++) {
        CHECK_OK(ourdb_set(db, i, values[i].data, VALUE));
    }
}

static void
make_clears(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);
    uint32_t i;

    for (i = 0; i < MANY; i++) {
        CHECK_OK(ourdb_set(db, i, values[i].data, VALUE));
        CHECK_OK(ourdb_clear(db));
    }
    CHECK_OK(ourdb_set(db, 1, "one", 3));
}

/* Hands on what the copy lacks, or as much as there is memory for. */
static void
hand_on(const ourdb *db, ourdb *to)
{
    for (;;) {
        ourdb_buf changes;
        uint64_t upto;

        if (!TRY(ourdb_changes(db, test_last_commit(to), 1 << 20, &changes, &upto))) {
            return;
        }
        if (changes.len == 0) {
            ourdb_free_buf(&changes);
            return;
        }
        if (!TRY(ourdb_apply(to, changes.data, changes.len))) {
            ourdb_free_buf(&changes);
            return;
        }
        ourdb_free_buf(&changes);
    }
}

static void
read_all(ourdb *db)
{
    ourdb_records records;
    ourdb_iter *iter;
    uint64_t found = 0;
    int code;

    if (TRY(ourdb_get_many(db, ids, IDS, &records))) {
        ourdb_free_records(&records);
    }
    if (TRY(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter))) {
        do {
            armed = 1;
            code = ourdb_iter_next_many(iter, 0, &records);
            armed = 0;
            /* Those that could not be handed out come again. */
            if (code != OURDB_NOT_FOUND && worked("ourdb_iter_next_many", code)) {
                found += records.count;
                ourdb_free_records(&records);
            }
        } while (code != OURDB_NOT_FOUND);
        CHECK(found == test_count(db));
        ourdb_iter_close(iter);
    }
}

static void
write_all(ourdb *db)
{
    ourdb_txn *txn;
    uint32_t i;

    TRY_COMMIT(ourdb_set_many(db, ids, values, IDS));
    TRY_COMMIT(ourdb_delete_many(db, ids, IDS / 2));
    CHECK_OK(ourdb_txn_begin(db, 0, &txn));
    for (i = 0; i < IDS; i++) {
        armed = 1;
        CHECK(ourdb_txn_contains(txn, ids[i] + 1) != OURDB_OK);
        TRY(ourdb_txn_set(txn, ids[i], values[i].data, values[i].len));
    }
    TRY_COMMIT(ourdb_txn_commit(txn));
    TRY_COMMIT(ourdb_revert_all(db, 1));
    TRY_COMMIT(ourdb_set(db, 1, "one", 3));
    TRY_COMMIT(ourdb_clear(db));
    TRY_COMMIT(ourdb_revert_all(db, 2));
}

/* Everything that takes memory for many records. */
static void
use_records(void)
{
    ourdb_options options = key_value(0);
    ourdb_retention retention;
    ourdb *to = OPEN(copy, &options);
    ourdb *db = try_open(&options);

    write_all(db);
    read_all(db);
    hand_on(db, to);
    TRY(ourdb_backup(db, backup, NULL, NULL));
    ourdb_retention_init(&retention, sizeof retention);
    TRY(ourdb_compact(db, &retention, NULL, NULL));
    TRY_COMMIT(ourdb_set_many(db, ids, values, IDS));
    hand_on(db, to);
    TRY(ourdb_check(db, NULL, NULL));
    close_and_check(db);
    close_copy_and_check(to);
}

/* A transaction with a long value, and with iterators, with which it shares its writes. */
static void
use_transactions(void)
{
    static const uint8_t large[2 * LARGE];
    static ourdb_iter *iters[MANY];
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);
    ourdb_txn *txn = BEGIN(db);
    uint64_t count, next;
    uint32_t i, id;

    count = test_txn_count(txn);
    count += TRY(ourdb_txn_set(txn, 1, large, sizeof large)) ? 1 : 0;
    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, 0, &iters[0]));
    count += TRY(ourdb_txn_set(txn, 2, "two", 3)) ? 1 : 0;
    CHECK_TXN_COUNT(txn, count);
    ourdb_iter_close(iters[0]);
    for (i = 0; i < MANY; i++) {
        if (!TRY(ourdb_txn_iter_open(txn, 0, UINT32_MAX, 0, &iters[i]))) {
            CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, 0, &iters[i]));
        }
    }
    for (i = 0; i < MANY; i++) {
        ourdb_iter_close(iters[i]);
    }
    if (count > IDS) {
        TRY_COMMIT(ourdb_txn_commit(txn));
    } else {
        ourdb_txn_abort(txn);
    }
    close_and_check(db);

    /* An id that can't be written isn't taken either. */
    options.flags = 0;
    db = OPEN(copy, &options);
    txn = BEGIN(db);
    CHECK_OK(ourdb_txn_insert(txn, large, sizeof large, &id));
    CHECK_OK(ourdb_txn_iter_open(txn, 0, UINT32_MAX, 0, &iters[0]));
    next = test_next_id(db);
    next += TRY(ourdb_txn_insert(txn, "one", 3, &id)) ? 1 : 0;
    CHECK_NEXT_ID(db, next);
    ourdb_iter_close(iters[0]);
    CHECK_OK(ourdb_txn_commit(txn));
    CHECK_OK(ourdb_close(db));
}

/* One record of many versions. */
static void
use_versions(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = try_open(&options);
    ourdb_retention retention = test_retention(2 * MANY);
    ourdb_records records;

    if (TRY(ourdb_history(db, 1, 0, &records))) {
        ourdb_free_records(&records);
    }
    TRY(ourdb_compact(db, &retention, NULL, NULL));
    TRY_COMMIT(ourdb_erase(db, 1));
    TRY_COMMIT(ourdb_set(db, 1, "one", 3));
    close_and_check(db);
}

/* Many erasures, one after the other and in one call. */
static void
use_erasures(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = try_open(&options);
    ourdb *to = OPEN(copy, &options);
    uint32_t i;

    hand_on(db, to);
    for (i = MANY; i < 2 * MANY; i++) {
        CHECK_OK(ourdb_erase(db, ids[i]));
    }
    hand_on(db, to);
    CHECK_OK(ourdb_set(to, 1, "one", 3));
    close_and_check(db);
    close_copy_and_check(to);
}

/* Many data files, or many clears: what goes through their lists. */
static void
use_lists(void)
{
    ourdb_options options = key_value(0);
    ourdb_options reading = test_options(NULL, OURDB_OPEN_READ_ONLY);
    ourdb *to = OPEN(copy, &options);
    ourdb *db = try_open(&options);
    ourdb *reader;
    uint32_t i;

    TRY_COMMIT(ourdb_set(db, 1, "one", 3));
    TRY_COMMIT(ourdb_clear(db));
    reader = try_open(&reading);
    for (i = 0; i < MANY_MORE; i++) {
        CHECK_OK(ourdb_set(db, i, values[i].data, VALUE));
    }
    TRY(ourdb_refresh(reader));
    CHECK_OK(ourdb_close(reader));
    hand_on(db, to);
    TRY(ourdb_check(db, NULL, NULL));
    close_and_check(db);
    CHECK_OK(ourdb_close(to));
}

/* What writes other lists of them. */
static void
compact_lists(void)
{
    ourdb_options options = key_value(0);
    ourdb_retention retention = test_retention(2 * MANY);
    ourdb *db = OPEN(path, &options);

    TRY(ourdb_compact(db, &retention, NULL, NULL));
    TRY_COMMIT(ourdb_set(db, 1, "one", 3));
    close_and_check(db);
}

static void
back_up_lists(void)
{
    ourdb_options options = key_value(0);
    ourdb *db = OPEN(path, &options);

    if (TRY(ourdb_backup(db, backup, NULL, NULL))) {
        CHECK_OK(ourdb_set(db, 1, "one", 3));
        TRY(ourdb_backup(db, backup, NULL, NULL));
    }
    CHECK_OK(ourdb_backup(db, backup, NULL, NULL));
    check_again(backup, test_last_commit(db), test_count(db));
    CHECK_OK(ourdb_close(db));
}

/* What is there, made by a process that ends without a close, so that opening it reads the log; and what
   is done with it while an allocation fails. */
static const struct {
    const char *name;
    void (*make)(void);
    void (*use)(void);
} cases[] = {
    {"records", make_records, use_records},
    {"transactions", make_records, use_transactions},
    {"versions", make_versions, use_versions},
    {"erasures", make_erasures, use_erasures},
    {"files", make_files, use_lists},
    {"clears", make_clears, use_lists},
    {"files, compacted", make_files, compact_lists},
    {"files, backed up", make_files, back_up_lists},
    {"clears, backed up", make_clears, back_up_lists},
};

static void
in_child(void (*make)(void))
{
    pid_t child = test_fork();

    if (child == 0) {
        make();
        _exit(0);
    }
    test_wait(child);
}

/* Whether there is an allocation of that number, which has failed. */
static int
fails_well(size_t at)
{
    pid_t child;
    int status;

    test_phase("%s, allocation %lu", cases[at].name, failing);
    in_child(cases[at].make);
    child = test_fork();
    if (child == 0) {
        cases[at].use();
        _exit(allocations >= failing ? 0 : 2);
    }
    status = test_wait_status(child);
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2));
    test_remove(path);
    test_remove(copy);
    test_remove(backup);
    return WEXITSTATUS(status) == 0;
}

int
main(void)
{
    static uint8_t bytes[IDS][VALUE];
    unsigned long failed = 0;
    uint32_t i;
    size_t at;

    test_begin("memory");
    test_join_into(path, test_directory, "memory-db");
    test_join_into(copy, test_directory, "memory-copy");
    test_join_into(backup, test_directory, "memory-backup");
    for (i = 0; i < IDS; i++) {
        ids[i] = 3 * i;
        values[i].data = bytes[i];
        values[i].len = VALUE;
        test_fill(bytes[i], VALUE, i);
    }
    for (at = 0; at < sizeof cases / sizeof *cases; at++) {
        for (failing = 1; fails_well(at); failing++) {
            failed++;
        }
    }
    printf("%lu\n", failed);
    return test_end();
}

#endif
