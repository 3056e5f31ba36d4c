/*
 * backup: a copy of an open database.
 *
 * Promise: the copy holds what the database held at the moment of the call, with its whole history,
 * opens like any database, and doesn't change when the original does; a second backup into the same
 * directory brings it up to date; a directory that holds anything else is refused and untouched;
 * writers go on meanwhile; it may be cancelled. The original is as it was.
 */
#include "harness.h"

#include <pthread.h>

static void
fill(ourdb *db, uint32_t from, uint32_t to)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t i;

    for (i = from; i < to; i++) {
        CHECK_OK(ourdb_set(db, i % 50, value, test_value(i % 50, i, value)));
        if (i % 7 == 0) {
            CHECK_OK(ourdb_delete(db, i % 50));
        }
    }
}

static ourdb *
open_copy(const char *path, uint32_t flags)
{
    ourdb_options options = test_options(NULL, flags);

    return OPEN(path, &options);
}

static void
again_and_again(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("original");
    char to[TEST_PATH_MAX];
    ourdb *db = OPEN(path, &options);
    ourdb *copy;
    uint32_t round;

    test_join_into(to, test_directory, "copies/of/original");
    test_phase("%s: of an empty database", variant->name);
    CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    copy = open_copy(to, OURDB_OPEN_READ_ONLY);
    CHECK_COUNT(copy, 0);
    CHECK_LAST_COMMIT(copy, 0);
    CHECK_OK(ourdb_close(copy));
    for (round = 0; round < 5; round++) {
        uint64_t commit;

        test_phase("%s: backup %" PRIu32, variant->name, round);
        fill(db, round * 100, round * 100 + 100);
        if (round == 3) {
            COMPACT(db, 2);
        }
        CHECK_OK(ourdb_backup(db, to, NULL, NULL));
        commit = test_last_commit(db);
        copy = open_copy(to, OURDB_OPEN_READ_ONLY);
        CHECK_SAME(db, copy);
        CHECK_OK(ourdb_check(copy, NULL, NULL));
        CHECK_OK(ourdb_set(db, 49, "only in the original", 20));
        CHECK_LAST_COMMIT(copy, commit);
        CHECK_OK(ourdb_close(copy));
        /* Nothing of it is left open or locked. */
        CHECK_OK(ourdb_backup(db, to, NULL, NULL));
        CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    }

    test_phase("%s: the copy is a database", variant->name);
    copy = open_copy(to, OURDB_OPEN_MUST_EXIST);
    CHECK_SAME(db, copy);
    CHECK_OK(ourdb_set(copy, 1, "only in the copy", 16));
    CHECK_OK(ourdb_delete(copy, 49));
    CHECK_OK(ourdb_close(copy));
    copy = open_copy(to, 0);
    CHECK_VALUE(copy, 1, "only in the copy", 16);
    CHECK_OK(ourdb_close(copy));
    CHECK_VALUE(db, 49, "only in the original", 20);

    test_phase("%s: a backup that was written to", variant->name);
    CHECK_CODE(ourdb_backup(db, to, NULL, NULL), OURDB_INCOMPATIBLE);
    fill(db, 600, 650);
    CHECK_CODE(ourdb_backup(db, to, NULL, NULL), OURDB_INCOMPATIBLE);
    copy = open_copy(to, 0);
    CHECK_VALUE(copy, 1, "only in the copy", 16);
    CHECK_OK(ourdb_destroy(copy));
    CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    copy = open_copy(to, OURDB_OPEN_READ_ONLY);
    CHECK_SAME(db, copy);
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_destroy(db));
    test_remove(test_path("copies"));
}

static void
refused(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("source");
    ourdb *db = OPEN(path, &options);
    ourdb *other;
    char to[TEST_PATH_MAX];
    uint64_t digest;

    test_phase("a directory with something else in it");
    fill(db, 0, 60);
    test_join_into(to, test_directory, "occupied");
    test_make_directory(to);
    test_write_file(test_join(to, "0.db"), "mine", 4);
    digest = test_digest(to);
    CHECK_CODE(ourdb_backup(db, to, NULL, NULL), OURDB_INCOMPATIBLE);
    CHECK_NUMBER(test_digest(to), digest);
    test_remove(to);

    test_phase("another database");
    other = OPEN(to, &options);
    CHECK_OK(ourdb_set(other, 1, "other", 5));
    CHECK_OK(ourdb_close(other));
    digest = test_digest(to);
    CHECK_CODE(ourdb_backup(db, to, NULL, NULL), OURDB_INCOMPATIBLE);
    CHECK_NUMBER(test_digest(to), digest);
    test_remove(to);

    test_phase("itself");
    CHECK(ourdb_backup(db, path, NULL, NULL) != OURDB_OK);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_COUNT(db, test_count(db));

    test_phase("a file, and a place that can't be made");
    test_write_file(to, "file", 4);
    CHECK(ourdb_backup(db, to, NULL, NULL) != OURDB_OK);
    CHECK(ourdb_backup(db, test_join(to, "below"), NULL, NULL) != OURDB_OK);
    CHECK_NUMBER(test_file_len(to), 4);
    test_remove(to);

    test_phase("an empty directory");
    test_make_directory(to);
    CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    other = open_copy(to, 0); /* opened for writing, and not written to */
    CHECK_SAME(db, other);
    CHECK_CODE(ourdb_backup(db, to, NULL, NULL), OURDB_LOCKED);
    CHECK_OK(ourdb_close(other));

    test_phase("by a handle for reading only");
    CHECK_OK(ourdb_close(db));
    options.flags = OURDB_OPEN_READ_ONLY;
    db = OPEN(path, &options);
    test_remove(to);
    CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    other = open_copy(to, OURDB_OPEN_READ_ONLY);
    CHECK_SAME(db, other);
    CHECK_OK(ourdb_close(other));
    CHECK_OK(ourdb_close(db));
    test_remove(to);
}

static int
on_progress(void *context, uint64_t done, uint64_t total)
{
    test_watch *seen = context;
    int stops = test_watch_progress(seen, done, total);

    CHECK_OK(ourdb_set(seen->db, 20, &seen->calls, sizeof seen->calls));
    CHECK_CODE(ourdb_close(seen->db), OURDB_BUSY);
    return stops;
}

static void
watched(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("watched"), &options);
    const char *to = test_path("watched-copy");
    test_watch seen = {0};
    ourdb *copy;

    test_phase("progress");
    seen.db = db;
    seen.stop_at = 1;
    fill(db, 0, 300);
    CHECK_CODE(ourdb_backup(db, to, on_progress, &seen), OURDB_CANCELLED);
    CHECK_NUMBER(seen.calls, 1);
    memset(&seen, 0, sizeof seen);
    seen.db = db;
    CHECK_OK(ourdb_backup(db, to, on_progress, &seen));
    CHECK(seen.calls > 0);
    CHECK_NUMBER(seen.done, seen.total);
    CHECK_OK(ourdb_backup(db, to, NULL, NULL));
    copy = open_copy(to, OURDB_OPEN_READ_ONLY);
    CHECK_SAME(db, copy);
    CHECK_OK(ourdb_close(copy));
    CHECK_OK(ourdb_destroy(db));
}

/* Pairs of records are written in one commit each; no copy has half of one. */
typedef struct scene {
    ourdb *db;
    pthread_mutex_t mutex;
    int over;
} scene;

static void *
write_pairs(void *argument)
{
    scene *in = argument;
    uint64_t number = 0;
    int over = 0;

    while (!over) {
        uint32_t ids[2] = {1, 2};
        ourdb_slice values[2];

        number++;
        values[0].data = values[1].data = (const uint8_t *)&number;
        values[0].len = values[1].len = sizeof number;
        VERIFY_OK(ourdb_set_many(in->db, ids, values, 2));
        if (number % 16 == 0) {
            /* Else there are data files by the ten thousand before the last backup is made. */
            test_sleep_us(500);
        }
        pthread_mutex_lock(&in->mutex);
        over = in->over;
        pthread_mutex_unlock(&in->mutex);
    }
    return NULL;
}

static void
beside_a_writer(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    const char *to = test_path("pairs-copy");
    uint64_t last = 0;
    unsigned long i;
    pthread_t writer;
    scene in;

    test_phase("%s: beside a writer", variant->name);
    in.db = OPEN(test_path("pairs"), &options);
    in.over = 0;
    CHECK(pthread_mutex_init(&in.mutex, NULL) == 0);
    CHECK(pthread_create(&writer, NULL, write_pairs, &in) == 0);
    for (i = 0; i < test_scaled(20); i++) {
        uint64_t numbers[2] = {0, 0};
        uint64_t commit;
        size_t len;
        ourdb *copy;

        CHECK_OK(ourdb_backup(in.db, to, NULL, NULL));
        copy = open_copy(to, OURDB_OPEN_READ_ONLY);
        commit = test_last_commit(copy);
        CHECK(commit >= last);
        last = commit;
        if (commit > 0) {
            CHECK_OK(ourdb_get_into(copy, 1, &numbers[0], sizeof numbers[0], &len));
            CHECK_OK(ourdb_get_into(copy, 2, &numbers[1], sizeof numbers[1], &len));
        }
        CHECK_NUMBER(numbers[0], commit);
        CHECK_NUMBER(numbers[1], commit);
        CHECK_OK(ourdb_close(copy));
        test_sleep_us(500);
    }
    pthread_mutex_lock(&in.mutex);
    in.over = 1;
    pthread_mutex_unlock(&in.mutex);
    CHECK(pthread_join(writer, NULL) == 0);
    CHECK(pthread_mutex_destroy(&in.mutex) == 0);
    CHECK_OK(ourdb_destroy(in.db));
    test_remove(to);
}

int
main(void)
{
    size_t i;

    test_begin("backup");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        again_and_again(&test_variants[i]);
        beside_a_writer(&test_variants[i]);
    }
    refused();
    watched();
    return test_end();
}
