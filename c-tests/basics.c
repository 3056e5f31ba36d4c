/*
 * basics: what a first program does.
 *
 * Promise: records are stored, read, overwritten and deleted under 32-bit ids, in both modes, and
 * what is read is byte for byte what was stored; ids are given out from 1 in order and never again;
 * counts, next id and commit numbers follow; buffers belong to the caller until freed, once or
 * twice; a random sequence of calls agrees with a plain array, across reopening too. All of it in
 * every way in which the engine runs: on disk, lookup on disk, by system calls, small data files,
 * in memory.
 */
#include "harness.h"

#include <limits.h>

static void
the_library(void)
{
    char number[32];
    int code;
    int other;

    test_phase("the library");
    snprintf(number, sizeof number, "%d.%d.%d", OURDB_VERSION_NUMBER / 1000000,
             OURDB_VERSION_NUMBER / 1000 % 1000, OURDB_VERSION_NUMBER % 1000);
    CHECK(strcmp(ourdb_version(), number) == 0);
    CHECK_NUMBER(ourdb_version_number(), OURDB_VERSION_NUMBER);
    CHECK(ourdb_errmsg() != NULL);

    for (code = OURDB_OK; code >= OURDB_PANIC; code--) {
        CHECK(ourdb_strerror(code) != NULL && ourdb_strerror(code)[0] != '\0');
        for (other = OURDB_OK; other > code; other--) {
            CHECK(strcmp(ourdb_strerror(code), ourdb_strerror(other)) != 0);
        }
        CHECK(ourdb_strerror(code) == ourdb_strerror(code));
    }
    CHECK(ourdb_strerror(1) != NULL && ourdb_strerror(1)[0] != '\0');
    CHECK(ourdb_strerror(OURDB_PANIC - 1) != NULL && ourdb_strerror(OURDB_PANIC - 1)[0] != '\0');
    CHECK(ourdb_strerror(INT_MAX) != NULL && ourdb_strerror(INT_MAX)[0] != '\0');
    CHECK(ourdb_strerror(INT_MIN) != NULL && ourdb_strerror(INT_MIN)[0] != '\0');
}

static void
freeing(void)
{
    ourdb_buf buf = {NULL, 0};
    ourdb_records records = {NULL, 0, NULL};

    test_phase("freeing nothing");
    ourdb_free_buf(NULL);
    ourdb_free_buf(&buf);
    CHECK_ZERO(buf);
    ourdb_free_records(NULL);
    ourdb_free_records(&records);
    CHECK_ZERO(records);
    CHECK_OK(ourdb_close(NULL));
}

static void
incremental(const test_variant *variant)
{
    static const uint8_t binary[] = {0, 1, 0, 255, 0, 10, 13, 0};
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("incremental"), &options);
    uint32_t id;

    test_phase("%s: an empty database", variant->name);
    CHECK_COUNT(db, 0);
    CHECK_NEXT_ID(db, 1);
    CHECK_LAST_COMMIT(db, 0);
    CHECK_ABSENT(db, 0);
    CHECK_ABSENT(db, 1);
    CHECK_CODE(ourdb_delete(db, 1), OURDB_NOT_FOUND);
    CHECK_LAST_COMMIT(db, 0);

    test_phase("%s: insert", variant->name);
    CHECK_OK(ourdb_insert(db, "hello", 5, &id));
    CHECK_NUMBER(id, 1);
    CHECK_OK(ourdb_insert(db, binary, sizeof binary, &id));
    CHECK_NUMBER(id, 2);
    CHECK_OK(ourdb_insert(db, "", 0, &id));
    CHECK_NUMBER(id, 3);
    CHECK_OK(ourdb_insert(db, NULL, 0, &id));
    CHECK_NUMBER(id, 4);
    CHECK_VALUE(db, 1, "hello", 5);
    CHECK_VALUE(db, 2, binary, sizeof binary);
    CHECK_VALUE(db, 3, "", 0);
    CHECK_VALUE(db, 4, "", 0);
    CHECK_ABSENT(db, 0);
    CHECK_ABSENT(db, 5);
    CHECK_COUNT(db, 4);
    CHECK_NEXT_ID(db, 5);
    CHECK_LAST_COMMIT(db, 4);

    test_phase("%s: set", variant->name);
    CHECK_OK(ourdb_set(db, 1, "world!", 6));
    CHECK_OK(ourdb_set(db, 3, "no longer empty", 15));
    CHECK_OK(ourdb_set(db, 2, NULL, 0));
    CHECK_VALUE(db, 1, "world!", 6);
    CHECK_VALUE(db, 3, "no longer empty", 15);
    CHECK_VALUE(db, 2, "", 0);
    CHECK_COUNT(db, 4);
    CHECK_NEXT_ID(db, 5);
    CHECK_LAST_COMMIT(db, 7);

    test_phase("%s: delete", variant->name);
    CHECK_OK(ourdb_delete(db, 2));
    CHECK_ABSENT(db, 2);
    CHECK_COUNT(db, 3);
    CHECK_LAST_COMMIT(db, 8);
    CHECK_CODE(ourdb_delete(db, 2), OURDB_NOT_FOUND);
    CHECK_LAST_COMMIT(db, 8);
    CHECK_OK(ourdb_delete(db, 4));
    CHECK_NEXT_ID(db, 5);
    CHECK_OK(ourdb_insert(db, "after", 5, &id));
    CHECK_NUMBER(id, 5);
    CHECK_ABSENT(db, 2);
    CHECK_ABSENT(db, 4);
    CHECK_VALUE(db, 5, "after", 5);
    CHECK_COUNT(db, 3);
    CHECK_LAST_COMMIT(db, 10);

    test_phase("%s: sync and destroy", variant->name);
    CHECK_OK(ourdb_sync(db));
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(test_path("incremental")));
}

static void
key_value(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("key-value"), &options);

    test_phase("%s: key-value", variant->name);
    CHECK_COUNT(db, 0);
    CHECK_LAST_COMMIT(db, 0);
    CHECK_OK(ourdb_set(db, 0, "zero", 4));
    CHECK_OK(ourdb_set(db, 70000, "seventy thousand", 16));
    CHECK_OK(ourdb_set(db, 16777214, "the last", 8));
    CHECK_OK(ourdb_set(db, 5, "", 0));
    CHECK_VALUE(db, 0, "zero", 4);
    CHECK_VALUE(db, 70000, "seventy thousand", 16);
    CHECK_VALUE(db, 16777214, "the last", 8);
    CHECK_VALUE(db, 5, "", 0);
    CHECK_ABSENT(db, 1);
    CHECK_ABSENT(db, 69999);
    CHECK_COUNT(db, 4);
    CHECK_OK(ourdb_set(db, 0, "nought", 6));
    CHECK_VALUE(db, 0, "nought", 6);
    CHECK_COUNT(db, 4);
    CHECK_LAST_COMMIT(db, 5);

    CHECK_OK(ourdb_delete(db, 0));
    CHECK_ABSENT(db, 0);
    CHECK_COUNT(db, 3);
    CHECK_CODE(ourdb_delete(db, 0), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_set(db, 0, "again", 5));
    CHECK_VALUE(db, 0, "again", 5);
    CHECK_COUNT(db, 4);
    CHECK_LAST_COMMIT(db, 7);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(test_path("key-value")));
}

/* What get hands out is a copy: it stays what it was, whatever happens to the record and handle. */
static void
ownership(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("ownership"), &options);
    ourdb_buf first;
    ourdb_buf empty;
    ourdb_records history;
    uint8_t into[8];
    size_t len;
    uint32_t id;

    test_phase("%s: buffers are the caller's", variant->name);
    CHECK_OK(ourdb_insert(db, "first", 5, &id));
    CHECK_OK(ourdb_get(db, id, &first));
    CHECK_OK(ourdb_set(db, id, "", 0));
    CHECK_OK(ourdb_get(db, id, &empty));
    CHECK_OK(ourdb_set(db, id, "third", 5));
    CHECK_OK(ourdb_history(db, id, 0, &history));
    first.data[0] = 'F'; /* the caller's to change */
    CHECK_VALUE(db, id, "third", 5);

    test_phase("%s: get_into", variant->name);
    memset(into, 9, sizeof into);
    CHECK_OK(ourdb_get_into(db, id, into, sizeof into, &len));
    CHECK_BYTES(into, len, "third", 5);
    CHECK(into[5] == 9 && into[6] == 9 && into[7] == 9);
    memset(into, 9, sizeof into);
    CHECK_CODE(ourdb_get_into(db, id, into, 4, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 5);
    CHECK(into[0] == 9 && into[1] == 9 && into[2] == 9 && into[3] == 9);
    len = 0;
    CHECK_CODE(ourdb_get_into(db, id, NULL, 0, &len), OURDB_BUFFER_TOO_SMALL);
    CHECK_NUMBER(len, 5);
    CHECK_OK(ourdb_set(db, id, NULL, 0));
    CHECK_OK(ourdb_get_into(db, id, NULL, 0, &len));
    CHECK_NUMBER(len, 0);
    CHECK_OK(ourdb_destroy(db));

    test_phase("%s: buffers outlive the handle", variant->name);
    CHECK_BYTES(first.data, first.len, "First", 5);
    CHECK_BYTES(empty.data, empty.len, "", 0);
    CHECK_NUMBER(history.count, 3);
    CHECK_BYTES(history.items[0].data, history.items[0].len, "third", 5);
    CHECK_BYTES(history.items[1].data, history.items[1].len, "", 0);
    CHECK_BYTES(history.items[2].data, history.items[2].len, "first", 5);
    ourdb_free_buf(&first);
    ourdb_free_buf(&first);
    CHECK_ZERO(first);
    ourdb_free_buf(&empty);
    ourdb_free_buf(&empty);
    CHECK_ZERO(empty);
    ourdb_free_records(&history);
    ourdb_free_records(&history);
    CHECK_ZERO(history);
}

/* Every length around the sizes at which something could change. */
static void
lengths(const test_variant *variant)
{
    static const size_t around[] = {0, 256, 512, 1024, 4096, 8192, 32768, 65535 - 2};
    static uint8_t value[65536];
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("lengths"), &options);
    size_t i;
    size_t len;
    uint32_t id;
    uint32_t expected = 0;
    int pass;

    test_phase("%s: lengths", variant->name);
    for (pass = 0; pass < 2; pass++) {
        for (i = 0; i < sizeof around / sizeof around[0]; i++) {
            for (len = around[i] < 3 ? 0 : around[i] - 2; len <= around[i] + 2; len++) {
                test_fill(value, len, len);
                if (pass == 0) {
                    CHECK_OK(ourdb_insert(db, value, len, &id));
                    CHECK_NUMBER(id, ++expected);
                } else {
                    CHECK_VALUE(db, ++expected, value, len);
                }
            }
        }
        expected = 0;
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Two databases in one process know nothing of each other. */
static void
two_at_once(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *one = OPEN(test_path("one"), &options);
    ourdb *two = OPEN(test_path("two"), &options);
    uint32_t id;

    test_phase("%s: two databases at once", variant->name);
    CHECK_OK(ourdb_insert(one, "one", 3, &id));
    CHECK_ABSENT(two, 1);
    CHECK_OK(ourdb_insert(two, "two", 3, &id));
    CHECK_NUMBER(id, 1);
    CHECK_VALUE(one, 1, "one", 3);
    CHECK_VALUE(two, 1, "two", 3);
    CHECK_OK(ourdb_destroy(one));
    CHECK_VALUE(two, 1, "two", 3);
    CHECK_OK(ourdb_destroy(two));
}

#define MODEL_IDS 100

static void
check_model(const ourdb *db, const uint64_t *versions, uint32_t id)
{
    uint8_t value[TEST_VALUE_MAX];

    if (versions[id] == 0) {
        CHECK_ABSENT(db, id);
    } else {
        size_t len = test_value(id, versions[id], value);

        CHECK_VALUE(db, id, value, len);
    }
}

/* Random calls against an array that holds each record's version; 0 is no live record. */
static void
against_a_model(const test_variant *variant, uint32_t mode)
{
    const char *path = test_path("model");
    ourdb_options options = test_options(variant, mode);
    ourdb *db = OPEN(path, &options);
    uint64_t versions[MODEL_IDS] = {0};
    uint64_t random = 42 + mode;
    uint64_t commits = 0;
    uint64_t live = 0;
    uint32_t next_id = 1;
    unsigned long steps = test_scaled(2000);
    unsigned long step;
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;

    test_phase("%s: %s against a model", variant->name, mode == 0 ? "incremental" : "key-value");
    for (step = 1; step <= steps; step++) {
        uint32_t draw = test_random_below(&random, 100);
        size_t len;

        id = test_random_below(&random, MODEL_IDS);
        if (draw < 20 && mode == 0 && next_id < MODEL_IDS) {
            len = test_value(next_id, step, value);
            CHECK_OK(ourdb_insert(db, value, len, &id));
            CHECK_NUMBER(id, next_id);
            versions[next_id++] = step;
            live++;
            commits++;
        } else if (draw < 75) {
            len = test_value(id, step, value);
            if (mode == 0 && versions[id] == 0) {
                CHECK_CODE(ourdb_set(db, id, value, len), OURDB_ID_NOT_ASSIGNED);
            } else {
                CHECK_OK(ourdb_set(db, id, value, len));
                live += versions[id] == 0 ? 1 : 0;
                versions[id] = step;
                commits++;
            }
        } else if (draw < 90) {
            if (versions[id] == 0) {
                CHECK_CODE(ourdb_delete(db, id), OURDB_NOT_FOUND);
            } else {
                CHECK_OK(ourdb_delete(db, id));
                versions[id] = 0;
                live--;
                commits++;
            }
        } else if (draw == 99 && test_on_disk(variant) && step % 7 == 0) {
            CHECK_OK(ourdb_close(db));
            db = OPEN(path, &options);
        }
        check_model(db, versions, id);
        CHECK_COUNT(db, live);
        CHECK_LAST_COMMIT(db, commits);
    }
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(path, NULL);
    }
    for (id = 0; id < MODEL_IDS; id++) {
        check_model(db, versions, id);
    }
    if (mode == 0) {
        CHECK_NEXT_ID(db, next_id);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Mappings or nothing: a file system may refuse, and then says so; it must not fall back. */
static void
mappings_only(void)
{
    ourdb_options options = test_options(NULL, 0);
    ourdb *db = NULL;
    uint32_t id;
    int code;

    test_phase("mappings only");
    options.io = OURDB_IO_MAP;
    code = ourdb_open(test_path("mapped"), &options, &db);
    if (code != OURDB_OK) {
        CHECK(db == NULL && ourdb_errmsg()[0] != '\0');
        fprintf(stderr, "basics: OURDB_IO_MAP refused here: %s\n", ourdb_errmsg());
        return;
    }
    CHECK_OK(ourdb_insert(db, "mapped", 6, &id));
    CHECK_OK(ourdb_close(db));
    db = OPEN(test_path("mapped"), &options);
    CHECK_VALUE(db, 1, "mapped", 6);
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("basics");
    the_library();
    freeing();
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        incremental(&test_variants[i]);
        key_value(&test_variants[i]);
        ownership(&test_variants[i]);
        lengths(&test_variants[i]);
        two_at_once(&test_variants[i]);
        against_a_model(&test_variants[i], 0);
        against_a_model(&test_variants[i], OURDB_OPEN_KEY_VALUE);
    }
    mappings_only();
    return test_end();
}
