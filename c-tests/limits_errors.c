/*
 * limits_errors: what is refused, with which code, and what the message says.
 *
 * Promise: each limit is exact (the last value, id or record fits, the next doesn't), a call that
 * is refused changes nothing, the code says what to do and ourdb_errmsg() names the id, length,
 * limit or file; messages belong to the thread that failed; the operating system's reason comes
 * through; a damaged value is OURDB_CORRUPT and never another value, and what lies beside the
 * damage stays readable.
 */
#include "harness.h"

#include <pthread.h>
#include <sys/mman.h>

/* The state that a refused call must leave as it was. */
typedef struct state {
    uint64_t count;
    uint64_t last_commit;
} state;

static state
state_of(const ourdb *db)
{
    state now;

    now.count = test_count(db);
    now.last_commit = test_last_commit(db);
    return now;
}

#define CHECK_UNCHANGED(db, before)                  \
    do {                                             \
        CHECK_COUNT(db, (before).count);             \
        CHECK_LAST_COMMIT(db, (before).last_commit); \
    } while (0)

static void
too_large(const test_variant *variant)
{
    static uint8_t value[65537];
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("too-large");
    ourdb_slice slices[3];
    uint32_t ids[3] = {7, 7, 7};
    uint32_t id = 7;
    state before;
    ourdb *db;

    test_phase("%s: record_size_max", variant->name);
    test_fill(value, sizeof value, 1);
    options.record_size_max = 100;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, value, 100, &id));
    CHECK_OK(ourdb_insert(db, value, 99, &id));
    before = state_of(db);
    CHECK_CODE(ourdb_insert(db, value, 101, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("101");
    CHECK_MESSAGE("100");
    CHECK_ZERO(id);
    CHECK_CODE(ourdb_set(db, 1, value + 1, 101), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("101");
    slices[0].data = value;
    slices[0].len = 10;
    slices[1].data = value;
    slices[1].len = 20;
    slices[2].data = value;
    slices[2].len = 101;
    CHECK_CODE(ourdb_insert_many(db, slices, 3, ids), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("101");
    ids[0] = 1;
    ids[1] = 2;
    ids[2] = 1;
    CHECK_CODE(ourdb_set_many(db, ids, slices, 3), OURDB_RECORD_TOO_LARGE);
    CHECK_UNCHANGED(db, before);
    CHECK_NEXT_ID(db, 3);
    CHECK_VALUE(db, 1, value, 100);
    CHECK_VALUE(db, 2, value, 99);
    /* Lengths that no value has, and that wrap to small ones in 32 bits. */
    CHECK_CODE(ourdb_insert(db, value, SIZE_MAX, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_CODE(ourdb_insert(db, value, SIZE_MAX / 2 + 1, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_CODE(ourdb_set(db, 1, value, SIZE_MAX - 27), OURDB_RECORD_TOO_LARGE);
#if SIZE_MAX > UINT32_MAX
    CHECK_CODE(ourdb_insert(db, value, (size_t)UINT32_MAX + 6, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_CODE(ourdb_set(db, 1, value, (size_t)UINT32_MAX + 1), OURDB_RECORD_TOO_LARGE);
#endif
    slices[1].len = SIZE_MAX;
    CHECK_CODE(ourdb_insert_many(db, slices, 2, ids), OURDB_RECORD_TOO_LARGE);
    CHECK_UNCHANGED(db, before);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));

        test_phase("%s: a lower record_size_max leaves longer values readable", variant->name);
        options.record_size_max = 50;
        db = OPEN(path, &options);
        CHECK_VALUE(db, 1, value, 100);
        CHECK_CODE(ourdb_set(db, 1, value, 51), OURDB_RECORD_TOO_LARGE);
        CHECK_MESSAGE("50");
        CHECK_OK(ourdb_set(db, 1, value, 50));
        CHECK_VALUE(db, 1, value, 50);
    }
    CHECK_OK(ourdb_destroy(db));

    test_phase("%s: the default record_size_max", variant->name);
    options = test_options(variant, 0);
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, value, 65535, &id));
    CHECK_CODE(ourdb_insert(db, value, 65536, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("65535");
    CHECK_VALUE(db, 1, value, 65535);
    CHECK_OK(ourdb_destroy(db));
}

/*
 * Each value is allowed, the commit as a whole is not: over 4 GiB. The values are one sparse file,
 * mapped, of which nobody should read a byte.
 */
static void
commit_too_large(void)
{
#if SIZE_MAX > UINT32_MAX
    const size_t each = 0x7FFFFFFF;
    ourdb_options options = test_options(NULL, 0);
    ourdb_slice slices[3];
    uint32_t ids[3];
    uint32_t id;
    void *mapped;
    FILE *file;
    ourdb *db;
    int i;

    test_phase("a commit over 4 GiB");
    file = fopen(test_path("sparse"), "w+b");
    CHECK(file != NULL && ftruncate(fileno(file), (off_t)each) == 0);
    mapped = mmap(NULL, each, PROT_READ, MAP_SHARED, fileno(file), 0);
    CHECK(mapped != MAP_FAILED);
    fclose(file);
    for (i = 0; i < 3; i++) {
        slices[i].data = mapped;
        slices[i].len = each;
    }
    options.record_size_max = (uint32_t)each;
    db = OPEN(test_path("commit-too-large"), &options);
    CHECK_OK(ourdb_insert(db, "before", 6, &id));
    CHECK_CODE(ourdb_insert_many(db, slices, 3, ids), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("commit");
    CHECK_CODE(ourdb_insert(db, mapped, each + 1, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_COUNT(db, 1);
    CHECK_LAST_COMMIT(db, 1);
    CHECK_OK(ourdb_insert(db, "after", 5, &id));
    CHECK_NUMBER(id, 2);
    CHECK_OK(ourdb_close(db));
    db = OPEN(test_path("commit-too-large"), NULL);
    CHECK_COUNT(db, 2);
    CHECK_OK(ourdb_destroy(db));
    CHECK(munmap(mapped, each) == 0);
#endif
}

/* Every call that takes an id, with one that is not below record_nr_max. */
static void
refuse_id(ourdb *db, uint32_t id, const char *id_text, const char *limit_text)
{
    ourdb_slice slices[2] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"b", 1}};
    uint32_t ids[2];
    ourdb_records records;
    ourdb_buf buf;
    size_t len = 9;
    uint8_t into[1] = {9};
    state before = state_of(db);

#define REFUSED(call)                             \
    do {                                          \
        CHECK_CODE(call, OURDB_ID_OUT_OF_RANGE);  \
        CHECK_MESSAGE(id_text);                   \
        CHECK_MESSAGE(limit_text);                \
    } while (0)

    ids[0] = 1;
    ids[1] = id;
    REFUSED(ourdb_set(db, id, "x", 1));
    TEST_GARBAGE(buf);
    REFUSED(ourdb_get(db, id, &buf));
    CHECK_ZERO(buf);
    REFUSED(ourdb_get_into(db, id, into, 1, &len));
    CHECK_ZERO(len);
    CHECK_NUMBER(into[0], 9);
    REFUSED(ourdb_delete(db, id));
    TEST_GARBAGE(records);
    REFUSED(ourdb_history(db, id, 0, &records));
    CHECK_ZERO(records);
    TEST_GARBAGE(buf);
    REFUSED(ourdb_get_version(db, id, 1, &buf));
    CHECK_ZERO(buf);
    TEST_GARBAGE(buf);
    REFUSED(ourdb_get_at(db, id, UINT64_MAX, &buf));
    CHECK_ZERO(buf);
    REFUSED(ourdb_set_many(db, ids, slices, 2));
    REFUSED(ourdb_delete_many(db, ids, 2));
#undef REFUSED

    CHECK_CODE(ourdb_contains(db, id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_get_many(db, ids, 2, &records));
    CHECK_NUMBER(records.count, 2);
    CHECK_NUMBER(records.items[0].flags, 0);
    CHECK_NUMBER(records.items[1].id, id);
    CHECK_NUMBER(records.items[1].flags, OURDB_RECORD_MISSING);
    CHECK(records.items[1].data == NULL && records.items[1].len == 0);
    ourdb_free_records(&records);
    CHECK_UNCHANGED(db, before);
    CHECK_VALUE(db, 1, "one", 3);
}

static void
out_of_range(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db;

    test_phase("%s: record_nr_max", variant->name);
    options.record_nr_max = 100;
    db = OPEN(test_path("out-of-range"), &options);
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_set(db, 99, "the last", 8));
    CHECK_VALUE(db, 99, "the last", 8);
    refuse_id(db, 100, "100", "100");
    refuse_id(db, 101, "101", "100");
    refuse_id(db, 65636, "65636", "100");
    refuse_id(db, UINT32_MAX, "4294967295", "100");
    CHECK_OK(ourdb_destroy(db));

    test_phase("%s: the default record_nr_max", variant->name);
    options.record_nr_max = 0;
    db = OPEN(test_path("out-of-range"), &options);
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_set(db, 5, "five", 4));
    CHECK_OK(ourdb_set(db, 16777214, "the last", 8));
    refuse_id(db, 16777215, "16777215", "16777215");
    /* In herolib the location of this id wraps onto that of id 5. */
    refuse_id(db, UINT32_C(0x80000005), "2147483653", "16777215");
    CHECK_VALUE(db, 5, "five", 4);
    CHECK_OK(ourdb_destroy(db));
}

/* The widest range of ids that can be asked for. */
static void
all_ids(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db;
    uint32_t id;

    test_phase("%s: ids up to 4294967294", variant->name);
    options.record_nr_max = UINT32_MAX;
    db = OPEN(test_path("all-ids"), &options);
    CHECK_OK(ourdb_set(db, 1, "one", 3));
    CHECK_OK(ourdb_set(db, UINT32_C(0x80000005), "beyond 2^31", 11));
    CHECK_OK(ourdb_set(db, UINT32_MAX - 1, "the last", 8));
    refuse_id(db, UINT32_MAX, "4294967295", "4294967295");
    CHECK_ABSENT(db, 5);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("all-ids"), &options);
    }
    CHECK_VALUE(db, UINT32_C(0x80000005), "beyond 2^31", 11);
    CHECK_VALUE(db, UINT32_MAX - 1, "the last", 8);
    CHECK_OK(ourdb_last(db, &id));
    CHECK_NUMBER(id, UINT32_MAX - 1);
    CHECK_OK(ourdb_above(db, 1, &id));
    CHECK_NUMBER(id, UINT32_C(0x80000005));
    CHECK_COUNT(db, 3);
    CHECK_OK(ourdb_destroy(db));
}

static void
full(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb_slice slices[3] = {{(const uint8_t *)"a", 1},
                             {(const uint8_t *)"b", 1},
                             {(const uint8_t *)"c", 1}};
    uint32_t ids[3];
    uint32_t id;
    uint32_t i;
    state before;
    ourdb *db;

    test_phase("%s: no id is left", variant->name);
    options.record_nr_max = 10;
    db = OPEN(test_path("full"), &options);
    for (i = 1; i <= 7; i++) {
        CHECK_OK(ourdb_insert(db, "x", 1, &id));
        CHECK_NUMBER(id, i);
    }
    before = state_of(db);
    CHECK_CODE(ourdb_insert_many(db, slices, 3, ids), OURDB_FULL);
    CHECK_MESSAGE("10");
    CHECK_UNCHANGED(db, before);
    CHECK_NEXT_ID(db, 8);
    CHECK_OK(ourdb_insert_many(db, slices, 2, ids));
    CHECK_NUMBER(ids[0], 8);
    CHECK_NUMBER(ids[1], 9);
    before = state_of(db);
    TEST_GARBAGE(id);
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_FULL);
    CHECK_MESSAGE("10");
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    CHECK_CODE(ourdb_next_id(db, &id), OURDB_FULL);
    CHECK_MESSAGE("10");
    CHECK_ZERO(id);
    CHECK_CODE(ourdb_insert_many(db, slices, 1, ids), OURDB_FULL);
    CHECK_UNCHANGED(db, before);
    CHECK_OK(ourdb_delete(db, 4));
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_FULL);
    CHECK_OK(ourdb_set(db, 9, "still writable", 14));
    CHECK_VALUE(db, 9, "still writable", 14);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));

        test_phase("%s: a lower record_nr_max is refused, a higher one makes room", variant->name);
        options.record_nr_max = 9;
        CHECK_OPEN_FAILS(test_path("full"), &options, OURDB_INCOMPATIBLE);
        CHECK_MESSAGE("9");
        CHECK_MESSAGE("10");
        db = OPEN(test_path("full"), NULL);
        CHECK_CODE(ourdb_next_id(db, &id), OURDB_FULL);
        CHECK_OK(ourdb_close(db));
        options.record_nr_max = 11;
        db = OPEN(test_path("full"), &options);
        CHECK_NEXT_ID(db, 10);
        CHECK_OK(ourdb_insert(db, "more", 4, &id));
        CHECK_NUMBER(id, 10);
        CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_FULL);
        CHECK_ABSENT(db, 4);
    }
    CHECK_OK(ourdb_destroy(db));

    test_phase("%s: an incremental database without any id", variant->name);
    options.record_nr_max = 1;
    db = OPEN(test_path("full"), &options);
    CHECK_CODE(ourdb_next_id(db, &id), OURDB_FULL);
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_FULL);
    CHECK_CODE(ourdb_set(db, 1, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_COUNT(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

static void
wrong_mode(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb_slice slice = {(const uint8_t *)"a", 1};
    ourdb *db = OPEN(test_path("wrong-mode"), &options);
    uint32_t id;

    test_phase("%s: the mode", variant->name);
    TEST_GARBAGE(id);
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_WRONG_MODE);
    CHECK_MESSAGE("insert");
    CHECK_ZERO(id);
    TEST_GARBAGE(id);
    CHECK_CODE(ourdb_next_id(db, &id), OURDB_WRONG_MODE);
    CHECK_MESSAGE("next_id");
    CHECK_ZERO(id);
    CHECK_CODE(ourdb_insert_many(db, &slice, 1, &id), OURDB_WRONG_MODE);
    CHECK_COUNT(db, 0);
    CHECK_LAST_COMMIT(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

static void
not_assigned(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb_slice slices[2] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"b", 1}};
    ourdb *db = OPEN(test_path("not-assigned"), &options);
    uint32_t ids[2];
    uint32_t id;
    state before;

    test_phase("%s: set on an id that holds no live record", variant->name);
    CHECK_CODE(ourdb_set(db, 0, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 1, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    CHECK_OK(ourdb_delete(db, 2));
    before = state_of(db);
    CHECK_CODE(ourdb_set(db, 0, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 2, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 3, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 4321, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_MESSAGE("4321");
    ids[0] = 1;
    ids[1] = 2;
    CHECK_CODE(ourdb_set_many(db, ids, slices, 2), OURDB_ID_NOT_ASSIGNED);
    ids[1] = 0;
    CHECK_CODE(ourdb_set_many(db, ids, slices, 2), OURDB_ID_NOT_ASSIGNED);
    ids[1] = 8765;
    CHECK_CODE(ourdb_set_many(db, ids, slices, 2), OURDB_ID_NOT_ASSIGNED);
    CHECK_MESSAGE("8765");
    CHECK_UNCHANGED(db, before);
    CHECK_NEXT_ID(db, 3);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_ABSENT(db, 0);
    CHECK_ABSENT(db, 2);
    CHECK_OK(ourdb_destroy(db));
}

static void
not_found(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("not-found"), &options);
    uint32_t ids[3] = {1, 4711, 2};
    ourdb_records records;
    ourdb_buf buf;
    uint32_t id;
    size_t len;
    state before;

    test_phase("%s: not found", variant->name);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    before = state_of(db);
    CHECK_CODE(ourdb_get(db, 4711, &buf), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4711");
    CHECK_CODE(ourdb_get_into(db, 4712, NULL, 0, &len), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4712");
    CHECK_CODE(ourdb_delete(db, 4713), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4713");
    CHECK_CODE(ourdb_history(db, 4714, 0, &records), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4714");
    CHECK_CODE(ourdb_get_version(db, 4715, 1, &buf), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4715");
    CHECK_CODE(ourdb_get_at(db, 4716, UINT64_MAX, &buf), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4716");
    CHECK_CODE(ourdb_get_version(db, 2, 1, &buf), OURDB_NOT_FOUND);
    CHECK_MESSAGE("2");
    CHECK_CODE(ourdb_contains(db, 4717), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_above(db, 4718, &id), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4718");
    CHECK_CODE(ourdb_delete_many(db, ids, 3), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4711");
    CHECK_UNCHANGED(db, before);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_VALUE(db, 2, "two", 3);

    test_phase("%s: a buffer too small", variant->name);
    CHECK_CODE(ourdb_get_into(db, 1, &buf, 2, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 3);
    CHECK(ourdb_errmsg()[0] != '\0');
    CHECK_OK(ourdb_destroy(db));
}

static void
read_only(void)
{
    ourdb_options options = test_options(NULL, 0);
    ourdb_slice slice = {(const uint8_t *)"a", 1};
    uint32_t id = 1;
    uint64_t digest;
    ourdb *db;

    test_phase("read-only");
    db = OPEN(test_path("read-only"), &options);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_close(db));
    digest = test_digest(test_path("read-only"));
    options.flags = OURDB_OPEN_READ_ONLY;
    db = OPEN(test_path("read-only"), &options);
#define REFUSED(call)                       \
    do {                                    \
        CHECK_CODE(call, OURDB_READ_ONLY);  \
        CHECK_MESSAGE("read-only");         \
    } while (0)
    REFUSED(ourdb_insert(db, "x", 1, &id));
    CHECK_ZERO(id);
    REFUSED(ourdb_set(db, 1, "x", 1));
    REFUSED(ourdb_delete(db, 1));
    REFUSED(ourdb_insert_many(db, &slice, 1, &id));
    id = 1;
    REFUSED(ourdb_set_many(db, &id, &slice, 1));
    REFUSED(ourdb_delete_many(db, &id, 1));
    REFUSED(ourdb_destroy(db));
#undef REFUSED
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_close(db));
    CHECK(test_digest(test_path("read-only")) == digest);
}

/* What the operating system refuses comes through with its number and the path. */
static void
operating_system(void)
{
    ourdb_options options = test_options(NULL, 0);
    char long_name[400];

    test_phase("the operating system's reason");
    test_write_file(test_path("a-file"), "x", 1);
    CHECK_OPEN_FAILS(test_path("a-file/db"), &options, OURDB_IO);
    CHECK_NUMBER(ourdb_os_error(), ENOTDIR);
    CHECK_MESSAGE("a-file");
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    CHECK_OPEN_FAILS(test_path(long_name), &options, OURDB_IO);
    CHECK_NUMBER(ourdb_os_error(), ENAMETOOLONG);
}

static void *
fail_with_id_88(void *db)
{
    ourdb_buf buf;

    VERIFY_CODE(ourdb_get(db, 88888, &buf), OURDB_NOT_FOUND);
    VERIFY(strstr(ourdb_errmsg(), "88888") != NULL);
    return NULL;
}

static void *
fail_nothing(void *db)
{
    (void)db;
    VERIFY(ourdb_errmsg() != NULL);
    VERIFY(strstr(ourdb_errmsg(), "77777") == NULL);
    return NULL;
}

static void
messages_per_thread(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    ourdb *db = OPEN(NULL, &options);
    pthread_t thread;
    ourdb_buf buf;

    test_phase("messages belong to a thread");
    CHECK_CODE(ourdb_get(db, 77777, &buf), OURDB_NOT_FOUND);
    CHECK(pthread_create(&thread, NULL, fail_with_id_88, db) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_MESSAGE("77777");
    CHECK(pthread_create(&thread, NULL, fail_nothing, db) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK_MESSAGE("77777");
    CHECK_OK(ourdb_close(db));
}

/* ---- damage -------------------------------------------------------------------------------- */

/* Where `pattern` begins in the file; it must be there once. */
static size_t
find_in_file(const char *path, const void *pattern, size_t pattern_len)
{
    size_t len;
    uint8_t *bytes = test_read_file(path, &len);
    size_t found = SIZE_MAX;
    size_t i;

    for (i = 0; i + pattern_len <= len; i++) {
        if (memcmp(bytes + i, pattern, pattern_len) == 0) {
            CHECK(found == SIZE_MAX);
            found = i;
        }
    }
    CHECK(found != SIZE_MAX);
    free(bytes);
    return found;
}

static void
flip(const char *path, size_t position)
{
    size_t len;
    uint8_t *bytes = test_read_file(path, &len);

    CHECK(position < len);
    bytes[position] ^= 0x10;
    test_write_file(path, bytes, len);
    free(bytes);
}

/* One bit of a value's bytes turns on disk: CORRUPT when it is read, and only then. */
static void
damaged_value(uint32_t io)
{
    ourdb_options options = test_options(NULL, 0);
    const char *path = test_path("damaged-value");
    uint8_t values[4][64];
    uint32_t both[2] = {1, 2};
    ourdb_records records;
    ourdb_buf buf;
    uint8_t into[64];
    uint32_t id;
    size_t len;
    int i;
    ourdb *db;

    test_phase("a damaged value%s", io == OURDB_IO_FILE ? ", by system calls" : "");
    options.io = io;
    for (i = 0; i < 4; i++) {
        test_fill(values[i], sizeof values[i], 1000 + (uint64_t)i);
    }
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, values[0], 64, &id));
    CHECK_OK(ourdb_insert(db, values[3], 64, &id));
    CHECK_OK(ourdb_set(db, 1, values[1], 64));
    CHECK_OK(ourdb_close(db));
    flip(test_join(path, "0.db"), find_in_file(test_join(path, "0.db"), values[1], 64) + 40);

    db = OPEN(path, &options);
    TEST_GARBAGE(buf);
    CHECK_CODE(ourdb_get(db, 1, &buf), OURDB_CORRUPT);
    CHECK_MESSAGE("0.db");
    CHECK_ZERO(buf);
    memset(into, 9, sizeof into);
    len = 9;
    CHECK_CODE(ourdb_get_into(db, 1, into, sizeof into, &len), OURDB_CORRUPT);
    CHECK_ZERO(len);
    TEST_GARBAGE(records);
    CHECK_CODE(ourdb_get_many(db, both, 2, &records), OURDB_CORRUPT);
    CHECK_ZERO(records);
    TEST_GARBAGE(records);
    CHECK_CODE(ourdb_history(db, 1, 0, &records), OURDB_CORRUPT);
    CHECK_ZERO(records);
    CHECK_VALUE(db, 2, values[3], 64);
    CHECK_OK(ourdb_get_version(db, 1, 1, &buf));
    CHECK_BYTES(buf.data, buf.len, values[0], 64);
    ourdb_free_buf(&buf);

    test_phase("writing over a damaged value%s", io == OURDB_IO_FILE ? ", by system calls" : "");
    CHECK_OK(ourdb_set(db, 1, values[2], 64));
    CHECK_VALUE(db, 1, values[2], 64);
    CHECK_OK(ourdb_history(db, 1, 1, &records));
    CHECK_NUMBER(records.count, 1);
    CHECK_BYTES(records.items[0].data, records.items[0].len, values[2], 64);
    ourdb_free_records(&records);
    CHECK_CODE(ourdb_history(db, 1, 2, &records), OURDB_CORRUPT);
    CHECK_OK(ourdb_destroy(db));
}

/* Any byte of the manifest turned: the open fails, and leaves the files as they are. */
static void
damaged_manifest(void)
{
    ourdb_options options = test_options(NULL, 0);
    char manifest[TEST_PATH_MAX];
    uint8_t *bytes;
    uint32_t id;
    size_t len;
    size_t i;
    size_t step;
    ourdb *db = OPEN(test_path("damaged-manifest"), &options);

    test_phase("a damaged MANIFEST");
    CHECK_OK(ourdb_insert(db, "kept", 4, &id));
    CHECK_OK(ourdb_close(db));
    test_join_into(manifest, test_path("damaged-manifest"), "MANIFEST");
    bytes = test_read_file(manifest, &len);
    CHECK(len > 0);
    step = len / test_scaled(100) + 1;
    for (i = 0; i < len; i += step) {
        ourdb *damaged = NULL;
        int code;

        flip(manifest, i);
        code = ourdb_open(test_path("damaged-manifest"), &options, &damaged);
        CHECK(code == OURDB_CORRUPT || code == OURDB_INCOMPATIBLE);
        CHECK(damaged == NULL);
        CHECK_MESSAGE("MANIFEST");
        flip(manifest, i);
    }
    test_write_file(manifest, bytes, len / 2);
    CHECK_OPEN_FAILS(test_path("damaged-manifest"), &options, OURDB_CORRUPT);
    test_write_file(manifest, bytes, len);
    db = OPEN(test_path("damaged-manifest"), &options);
    CHECK_VALUE(db, 1, "kept", 4);
    CHECK_OK(ourdb_destroy(db));
    free(bytes);
}

/* The checkpoint is derived: damaged or gone, nothing wrong is ever read. */
static void
damaged_checkpoint(void)
{
    ourdb_options options = test_options(NULL, 0);
    char path[TEST_PATH_MAX];
    char checkpoint[TEST_PATH_MAX];
    uint8_t value[TEST_VALUE_MAX];
    uint64_t random = 5;
    uint8_t *bytes;
    size_t checkpoint_len;
    size_t len;
    uint32_t id;
    uint32_t i;
    unsigned long round;
    unsigned long rounds = test_scaled(40);
    ourdb *db;

    test_phase("a damaged checkpoint");
    test_join_into(path, test_directory, "damaged-checkpoint");
    test_join_into(checkpoint, path, "index");
    db = OPEN(path, &options);
    for (i = 1; i <= 500; i++) {
        len = test_value(i, 1, value);
        CHECK_OK(ourdb_insert(db, value, len, &id));
    }
    CHECK_OK(ourdb_delete(db, 7));
    CHECK_OK(ourdb_close(db));
    CHECK(test_exists(checkpoint));
    for (round = 0; round < rounds; round++) {
        int code;

        bytes = test_read_file(checkpoint, &checkpoint_len);
        bytes[round < 8 ? round * 8 : test_random(&random) % checkpoint_len] ^= 0x04;
        test_write_file(checkpoint, bytes, checkpoint_len);
        free(bytes);
        code = ourdb_open(path, &options, &db);
        if (code == OURDB_CORRUPT) {
            test_remove(checkpoint);
            db = OPEN(path, &options);
        } else {
            CHECK_CODE(code, OURDB_OK);
        }
        CHECK_COUNT(db, 499);
        CHECK_NEXT_ID(db, 501);
        for (i = 1; i <= 500; i += 1 + test_random_below(&random, 50)) {
            if (i == 7) {
                CHECK_ABSENT(db, 7);
            } else {
                len = test_value(i, 1, value);
                CHECK_VALUE(db, i, value, len);
            }
        }
        CHECK_OK(ourdb_close(db));
    }
}

int
main(void)
{
    size_t i;

    test_begin("limits_errors");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        too_large(&test_variants[i]);
        out_of_range(&test_variants[i]);
        full(&test_variants[i]);
        wrong_mode(&test_variants[i]);
        not_assigned(&test_variants[i]);
        not_found(&test_variants[i]);
    }
    commit_too_large();
    all_ids(&test_variants[0]);
    all_ids(&test_variants[2]);
    read_only();
    operating_system();
    messages_per_thread();
    damaged_value(OURDB_IO_AUTO);
    damaged_value(OURDB_IO_FILE);
    damaged_manifest();
    damaged_checkpoint();
    return test_end();
}
