/*
 * memory: each allocation that grows with the data fails once.
 *
 * Promise: where there is no memory, a call is OURDB_OUT_OF_MEMORY and has done nothing; the process
 * goes on, and so does the handle; what was acknowledged is there when the database is opened again.
 *
 *   memory
 *
 * The last line but one is how many allocations failed. Of those that the library makes, it fails the
 * ones of at least 16 KiB: smaller ones don't grow with the data, or not that far.
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

#define LARGE (16 << 10)
#define IDS 5000u
#define VALUE 40

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

/* Two commits of all records, and an end without a close: opening it reads the log. */
static void
make_database(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    pid_t child = test_fork();

    if (child == 0) {
        ourdb *db = OPEN(path, &options);

        CHECK_OK(ourdb_set_many(db, ids, values, IDS));
        CHECK_OK(ourdb_set_many(db, ids, values, IDS));
        _exit(0);
    }
    test_wait(child);
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

/* Everything that takes memory, with one allocation failing. */
static void
use_it(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb_retention retention;
    ourdb *db = NULL;
    ourdb *to = OPEN(copy, &options);
    uint64_t last, count;

    if (!TRY(ourdb_open(path, &options, &db))) {
        db = OPEN(path, &options);
    }
    write_all(db);
    read_all(db);
    hand_on(db, to);
    TRY(ourdb_backup(db, backup, NULL, NULL));
    ourdb_retention_init(&retention, sizeof retention);
    TRY(ourdb_compact(db, &retention, NULL, NULL));
    TRY_COMMIT(ourdb_set_many(db, ids, values, IDS));
    hand_on(db, to);
    TRY(ourdb_check(db, NULL, NULL));
    last = test_last_commit(db);
    count = test_count(db);
    TRY(ourdb_close(db));
    CHECK_OK(ourdb_close(to));

    db = OPEN(path, &options);
    CHECK_LAST_COMMIT(db, last);
    CHECK_COUNT(db, count);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
    db = OPEN(copy, &options);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));
}

int
main(void)
{
    static uint8_t bytes[IDS][VALUE];
    uint32_t i;
    int reached;

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
    do {
        int status;
        pid_t child;

        failing++;
        test_phase("allocation %lu", failing);
        make_database();
        child = test_fork();
        if (child == 0) {
            use_it();
            _exit(allocations >= failing ? 0 : 2);
        }
        status = test_wait_status(child);
        reached = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        CHECK(reached || (WIFEXITED(status) && WEXITSTATUS(status) == 2));
        test_remove(path);
        test_remove(copy);
        test_remove(backup);
    } while (reached);
    printf("%lu\n", failing - 1);
    return test_end();
}

#endif
