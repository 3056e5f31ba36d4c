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

#if OURDB_RECORD_DELETED != 1 || OURDB_RECORD_MISSING != 2
#error "a flag of a record was renumbered"
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

STATIC_CHECK(options_size, sizeof(ourdb_options) == 32 + WORD);
STATIC_CHECK(options_own_size, offsetof(ourdb_options, size) == 0);
STATIC_CHECK(options_flags, offsetof(ourdb_options, flags) == WORD);
STATIC_CHECK(options_record_nr_max, offsetof(ourdb_options, record_nr_max) == WORD + 4);
STATIC_CHECK(options_record_size_max, offsetof(ourdb_options, record_size_max) == WORD + 8);
STATIC_CHECK(options_file_size, offsetof(ourdb_options, file_size) == WORD + 12);
STATIC_CHECK(options_lookup, offsetof(ourdb_options, lookup) == WORD + 16);
STATIC_CHECK(options_sync, offsetof(ourdb_options, sync) == WORD + 20);
STATIC_CHECK(options_sync_interval_ms, offsetof(ourdb_options, sync_interval_ms) == WORD + 24);
STATIC_CHECK(options_io, offsetof(ourdb_options, io) == WORD + 28);

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
              && options.io == OURDB_IO_AUTO,
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
    check(destroy(db) == OURDB_OK, "ourdb_destroy");
    check(close_(NULL) == OURDB_OK, "ourdb_close");

    if (failed) {
        return 1;
    }
    printf("layout: %lu checks passed\n", checks);
    return 0;
}
