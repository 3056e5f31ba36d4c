/*
 * locking: one writer, any number of readers.
 *
 * Promise: a second open for writing is OURDB_LOCKED, in the same process and in another, under
 * whatever name the directory goes, and changes nothing; readers open beside the writer, see what
 * was committed before, and keep nobody out; the lock goes with close, with a failed open, and with
 * the process, killed or not, and then every acknowledged record is there.
 */
#include "harness.h"

#include <pthread.h>

static char path[TEST_PATH_MAX];

static void
check_locked(const char *name)
{
    ourdb_options options = test_options(NULL, 0);

    CHECK_OPEN_FAILS(name, &options, OURDB_LOCKED);
    CHECK_MESSAGE("locking-db");
    options.flags = OURDB_OPEN_RESET;
    CHECK_OPEN_FAILS(name, &options, OURDB_LOCKED);
    options.flags = OURDB_OPEN_MUST_EXIST;
    CHECK_OPEN_FAILS(name, &options, OURDB_LOCKED);
    options.flags = OURDB_OPEN_KEY_VALUE | OURDB_OPEN_RESET;
    CHECK_OPEN_FAILS(name, &options, OURDB_LOCKED);
    CHECK_OPEN_FAILS(name, NULL, OURDB_LOCKED);
}

static void
second_open(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    char relative[TEST_PATH_MAX];
    char before[TEST_PATH_MAX];
    uint32_t id;
    pid_t child;
    ourdb *db;

    test_phase("%s: a second open", variant->name);
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    check_locked(path);
    CHECK(symlink(path, test_path("locking-db-link")) == 0);
    check_locked(test_path("locking-db-link"));
    check_locked(test_path("locking-db/"));
    check_locked(test_path("./locking-db/."));
    CHECK(getcwd(before, sizeof before) != NULL);
    CHECK(chdir(test_directory) == 0);
    snprintf(relative, sizeof relative, "locking-db");
    check_locked(relative);
    CHECK(chdir(before) == 0);

    child = test_fork();
    if (child == 0) {
        CHECK_CODE(ourdb_close(db), OURDB_FORKED);
        check_locked(path);
        _exit(0);
    }
    test_wait(child);

    /* None of those that were refused took anything away. */
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_insert(db, "two", 3, &id));
    CHECK_OK(ourdb_sync(db));
    check_locked(path);
    CHECK_OK(ourdb_close(db));

    test_phase("%s: the lock goes with close", variant->name);
    db = OPEN(test_path("locking-db-link"), &options);
    CHECK_COUNT(db, 2);
    check_locked(path);
    CHECK_OK(ourdb_close(db));
    child = test_fork();
    if (child == 0) {
        db = OPEN(path, &options);
        CHECK_OK(ourdb_insert(db, "three", 5, &id));
        CHECK_OK(ourdb_close(db));
        _exit(0);
    }
    test_wait(child);
    db = OPEN(path, &options);
    CHECK_VALUE(db, 3, "three", 5);
    CHECK_OK(ourdb_destroy(db));
    test_remove(test_path("locking-db-link"));

    test_phase("%s: the lock goes with destroy", variant->name);
    db = OPEN(path, &options);
    CHECK_COUNT(db, 0);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(path));
}

/* An open that fails after it took the lock gives it back. */
static void
failed_open(void)
{
    ourdb_options clash = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    uint32_t id;
    ourdb *db;

    test_phase("the lock goes with an open that fails");
    db = OPEN(path, NULL);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_close(db));
    CHECK_OPEN_FAILS(path, &clash, OURDB_INCOMPATIBLE);
    db = OPEN(path, NULL);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_destroy(db));
}

static void
check_reader(const ourdb *reader, uint32_t committed)
{
    uint8_t value[TEST_VALUE_MAX];
    ourdb_records history;
    uint32_t id;
    size_t len;

    for (id = 1; id <= committed; id++) {
        len = test_value(id, 1, value);
        CHECK_VALUE(reader, id, value, len);
        CHECK_OK(ourdb_history(reader, id, 0, &history));
        CHECK_NUMBER(history.count, 1);
        CHECK_NUMBER(history.items[0].commit, id);
        ourdb_free_records(&history);
    }
    CHECK(test_count(reader) >= committed);
    CHECK(test_last_commit(reader) >= committed);
}

static void
insert_values(ourdb *db, uint32_t first, uint32_t last)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;
    uint32_t given;

    for (id = first; id <= last; id++) {
        CHECK_OK(ourdb_insert(db, value, test_value(id, 1, value), &given));
        CHECK_NUMBER(given, id);
    }
}

/* Readers in this process and another, opened at different times of a writer's life. */
static void
readers(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb_options reading = test_options(variant, 0);
    uint8_t value[TEST_VALUE_MAX];
    ourdb *db;
    ourdb *early;
    ourdb *late;
    uint32_t id;
    size_t len;
    pid_t child;

    test_phase("%s: readers beside a writer", variant->name);
    reading.flags = OURDB_OPEN_READ_ONLY;
    db = OPEN(path, &options);
    insert_values(db, 1, 50);
    early = OPEN(path, &reading);
    check_reader(early, 50);
    CHECK_CODE(ourdb_insert(early, "x", 1, &id), OURDB_READ_ONLY);
    insert_values(db, 51, 150);
    late = OPEN(path, &reading);
    check_reader(late, 150);
    check_reader(early, 50);
    /* What the early one shows of what came later is right, if it shows it. */
    for (id = 51; id <= 150; id++) {
        ourdb_buf buf;
        int code = ourdb_get(early, id, &buf);

        CHECK(code == OURDB_OK || code == OURDB_NOT_FOUND);
        if (code == OURDB_OK) {
            len = test_value(id, 1, value);
            CHECK_BYTES(buf.data, buf.len, value, len);
            ourdb_free_buf(&buf);
        }
    }
    child = test_fork();
    if (child == 0) {
        ourdb *other;

        CHECK_CODE(ourdb_close(early), OURDB_FORKED);
        CHECK_CODE(ourdb_close(late), OURDB_FORKED);
        CHECK_CODE(ourdb_close(db), OURDB_FORKED);
        other = OPEN(path, &reading);
        check_reader(other, 150);
        CHECK_OK(ourdb_close(other));
        check_locked(path);
        _exit(0);
    }
    test_wait(child);
    insert_values(db, 151, 160);

    test_phase("%s: readers keep nobody out", variant->name);
    check_locked(path);
    CHECK_OK(ourdb_close(db));
    check_reader(late, 150);
    db = OPEN(path, &options);
    check_reader(early, 50);
    check_reader(db, 160);
    CHECK_OK(ourdb_close(early));
    check_locked(path);
    insert_values(db, 161, 170);
    CHECK_OK(ourdb_close(late));
    late = OPEN(path, &reading);
    check_reader(late, 170);
    CHECK_OK(ourdb_close(late));
    CHECK_OK(ourdb_destroy(db));
}

/* The writer is killed: the lock is free at once, and what it was told was done is done. */
static void
killed_writer(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb_options reading = test_options(variant, 0);
    uint32_t committed = 0;
    int round;
    pid_t child;
    ourdb *db;

    reading.flags = OURDB_OPEN_READ_ONLY;
    for (round = 1; round <= 4; round++) {
        test_pipe ready = test_make_pipe();

        test_phase("%s: the writer is killed, round %d", variant->name, round);
        child = test_fork();
        if (child == 0) {
            db = OPEN(path, &options);
            check_reader(db, committed);
            insert_values(db, committed + 1, committed + 100);
            test_signal(&ready);
            test_wait_to_be_killed();
        }
        test_await(&ready);
        committed += 100;
        check_locked(path);
        db = OPEN(path, &reading);
        check_reader(db, committed);
        CHECK_OK(ourdb_close(db));
        test_kill(child);
        test_close_pipe(&ready);
        /* First as it was left, then after an open for writing has put it right. */
        db = OPEN(path, &reading);
        check_reader(db, committed);
        CHECK_COUNT(db, committed);
        CHECK_OK(ourdb_close(db));
        if (round % 2 == 0) {
            db = OPEN(path, &options);
            check_reader(db, committed);
            CHECK_COUNT(db, committed);
            CHECK_LAST_COMMIT(db, committed);
            CHECK_NEXT_ID(db, committed + 1);
            check_locked(path);
            CHECK_OK(ourdb_close(db));
        }
    }
    db = OPEN(path, &options);
    CHECK_COUNT(db, committed);
    CHECK_OK(ourdb_destroy(db));
}

typedef struct racer {
    pthread_mutex_t *start;
    ourdb *db;
} racer;

static void *
race(void *argument)
{
    racer *self = argument;
    int code;

    pthread_mutex_lock(self->start);
    pthread_mutex_unlock(self->start);
    code = ourdb_open(path, NULL, &self->db);
    VERIFY(code == OURDB_OK || code == OURDB_LOCKED);
    VERIFY((code == OURDB_OK) == (self->db != NULL));
    return NULL;
}

static void
races(void)
{
    unsigned long rounds = test_scaled(20);
    unsigned long round;
    pthread_mutex_t start;
    pthread_t threads[8];
    racer racers[8];
    unsigned i;

    test_phase("8 threads open at once, one gets it");
    CHECK(pthread_mutex_init(&start, NULL) == 0);
    for (round = 0; round < rounds; round++) {
        ourdb *winner = NULL;
        uint32_t id;

        pthread_mutex_lock(&start);
        for (i = 0; i < 8; i++) {
            racers[i].start = &start;
            racers[i].db = NULL;
            CHECK(pthread_create(&threads[i], NULL, race, &racers[i]) == 0);
        }
        pthread_mutex_unlock(&start);
        for (i = 0; i < 8; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            if (racers[i].db != NULL) {
                CHECK(winner == NULL);
                winner = racers[i].db;
            }
        }
        CHECK(winner != NULL);
        CHECK_COUNT(winner, round % 5);
        CHECK_OK(ourdb_insert(winner, "x", 1, &id));
        if (round % 5 == 4) {
            CHECK_OK(ourdb_destroy(winner));
        } else {
            CHECK_OK(ourdb_close(winner));
        }
    }
    CHECK(pthread_mutex_destroy(&start) == 0);
    test_remove(path);
}

int
main(void)
{
    size_t i;

    test_begin("locking");
    test_join_into(path, test_directory, "locking-db");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        if (test_on_disk(&test_variants[i])) {
            second_open(&test_variants[i]);
            readers(&test_variants[i]);
            killed_writer(&test_variants[i]);
        }
    }
    failed_open();
    races();
    return test_end();
}
