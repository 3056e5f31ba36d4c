/*
 * check: everything is read and compared, and what is damaged is named.
 *
 * Promise: a sound database is OURDB_OK in every way in which the engine runs; progress goes up to
 * the total and can stop the work; a damaged record is OURDB_CORRUPT with file, offset and id, also
 * on what salvage opened; the other records stay readable.
 */
#include "harness.h"

#define RECORDS 300
#define VALUE 100

static void
fill(ourdb *db)
{
    uint8_t value[VALUE];
    uint32_t i;
    uint32_t id;

    for (i = 1; i <= RECORDS; i++) {
        memset(value, (int)(i % 255) + 1, sizeof value);
        CHECK_OK(ourdb_insert(db, value, sizeof value, &id));
        CHECK_NUMBER(id, i);
    }
    for (i = 2; i <= RECORDS; i += 2) {
        CHECK_OK(ourdb_set(db, i, "second", 6));
    }
    for (i = 3; i <= RECORDS; i += 30) {
        CHECK_OK(ourdb_delete(db, i));
    }
}

static int
on_progress(void *context, uint64_t done, uint64_t total)
{
    test_watch *seen = context;

    CHECK(seen->total == 0 || seen->total == total);
    /* A callback may use the database, but not end it. */
    CHECK_OK(ourdb_contains(seen->db, 1));
    CHECK_CODE(ourdb_close(seen->db), OURDB_BUSY);
    return test_watch_progress(seen, done, total);
}

static void
sound_and_watched(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("sound");
    test_watch seen = {0};
    ourdb *db;

    test_phase("%s: a sound database", variant->name);
    db = OPEN(path, &options);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    fill(db);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    seen.db = db;
    CHECK_OK(ourdb_check(db, on_progress, &seen));
    CHECK(seen.calls > 0);
    seen.calls = seen.done = 0;
    seen.stop_at = 1;
    CHECK_CODE(ourdb_check(db, on_progress, &seen), OURDB_CANCELLED);
    CHECK_NUMBER(seen.calls, 1);
    CHECK_MESSAGE("progress");
    CHECK_OK(ourdb_check(db, NULL, NULL));
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        options.flags |= OURDB_OPEN_READ_ONLY;
        db = OPEN(path, &options);
        CHECK_OK(ourdb_check(db, NULL, NULL));
        CHECK_OK(ourdb_close(db));
        options.flags = OURDB_OPEN_SALVAGE;
        db = OPEN(path, &options);
        CHECK_OK(ourdb_check(db, NULL, NULL));
        CHECK_OK(ourdb_close(db));
        options.flags = variant->flags;
        db = OPEN(path, &options);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Flips a bit of the first data file. */
static void
flip(const char *path, long offset)
{
    char name[TEST_PATH_MAX];
    FILE *file;
    int byte;

    CHECK((size_t)snprintf(name, sizeof name, "%s/0.db", path) < sizeof name);
    file = fopen(name, "r+b");
    CHECK(file != NULL && fseek(file, offset, SEEK_SET) == 0 && (byte = fgetc(file)) != EOF);
    CHECK(fseek(file, offset, SEEK_SET) == 0 && fputc(byte ^ 4, file) != EOF && fclose(file) == 0);
}

static void
damaged_and_named(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const char *path = test_path("damaged");
    /* The value of record 2: behind the file's header, a record, and its own head. */
    const long second = 64 + (40 + VALUE) + 40;
    ourdb_buf value;
    ourdb *db;

    test_phase("%s: a damaged record", variant->name);
    db = OPEN(path, &options);
    fill(db);
    flip(path, second + 7);
    CHECK_CODE(ourdb_check(db, NULL, NULL), OURDB_CORRUPT);
    CHECK_MESSAGE("1 damaged");
    CHECK_MESSAGE("0.db at offset 204");
    CHECK_MESSAGE("id 2,");
    CHECK_CODE(ourdb_get_version(db, 2, 2, &value), OURDB_CORRUPT);
    CHECK_OK(ourdb_get(db, 1, &value));
    ourdb_free_buf(&value);
    CHECK_OK(ourdb_get(db, 2, &value));
    ourdb_free_buf(&value);
    flip(path, second + 7);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_close(db));

    flip(path, second - 30);
    options.flags = OURDB_OPEN_SALVAGE;
    db = OPEN(path, &options);
    CHECK_CODE(ourdb_check(db, NULL, NULL), OURDB_CORRUPT);
    CHECK_MESSAGE("0.db at offset 204");
    CHECK_OK(ourdb_get(db, 1, &value));
    ourdb_free_buf(&value);
    CHECK_OK(ourdb_close(db));
    flip(path, second - 30);
    options.flags = variant->flags;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("check");
    test_phase("wrong arguments");
    CHECK_CODE(ourdb_check(NULL, NULL, NULL), OURDB_INVALID_ARGUMENT);
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        sound_and_watched(&test_variants[i]);
        if (test_on_disk(&test_variants[i])) {
            damaged_and_named(&test_variants[i]);
        }
    }
    return test_end();
}
