/*
 * erase: a record's values are gone for good.
 *
 * Promise: after ourdb_erase() the record is not there, none of its values can be read in any way,
 * and no file of the database has a byte of them; the history says that it was erased; other records
 * are as they were; so it stays over reopening, compaction and check; there is nothing to erase
 * twice; a key-value id can be set again.
 */
#include "harness.h"

static const char secret[] = "this is the secret that nobody may read again";
static const char older[] = "this is what the secret was before it was changed";

/* Whether any file below `path` has these bytes. */
static int
is_in_files(const char *path, const char *text)
{
    test_list list = test_list_directory(path);
    size_t wanted = strlen(text);
    int found = 0;
    size_t i;

    for (i = 0; i < list.count && !found; i++) {
        char child[TEST_PATH_MAX];
        struct stat status;
        uint8_t *bytes;
        size_t len;
        size_t k;

        test_join_into(child, path, list.names[i]);
        if (lstat(child, &status) == 0 && S_ISDIR(status.st_mode)) {
            found = is_in_files(child, text);
            continue;
        }
        bytes = test_read_file(child, &len);
        for (k = 0; k + wanted <= len && !found; k++) {
            found = bytes[k] == (uint8_t)text[0] && memcmp(bytes + k, text, wanted) == 0;
        }
        free(bytes);
    }
    test_free_list(&list);
    return found;
}

/* Nothing of record `id` can be read; its newest version says why. */
static void
check_erased(const ourdb *db, uint32_t id, uint64_t commit)
{
    ourdb_records history;
    ourdb_buf buf;
    uint64_t at;
    size_t i;

    CHECK_ABSENT(db, id);
    CHECK_OK(ourdb_history(db, id, 0, &history));
    CHECK(history.count >= 1);
    CHECK_NUMBER(history.items[0].flags, OURDB_RECORD_DELETED | OURDB_RECORD_ERASED);
    CHECK_NUMBER(history.items[0].commit, commit);
    for (i = 0; i < history.count; i++) {
        CHECK((history.items[i].flags & OURDB_RECORD_DELETED) != 0);
        CHECK(history.items[i].data == NULL);
        CHECK_NUMBER(history.items[i].len, 0);
    }
    ourdb_free_records(&history);
    for (at = 0; at <= test_last_commit(db); at++) {
        CHECK_CODE(ourdb_get_version(db, id, at, &buf), OURDB_NOT_FOUND);
        CHECK_ZERO(buf);
    }
    CHECK_CODE(ourdb_get_at(db, id, UINT64_MAX, &buf), OURDB_NOT_FOUND);
}

static void
story(const test_variant *variant, uint32_t mode)
{
    ourdb_options options = test_options(variant, mode);
    const char *path = test_path("story");
    ourdb *db;
    ourdb_slice values[5];
    uint32_t ids[5] = {1, 2, 3, 4, 5};
    uint64_t erased;
    int again;
    size_t i;

    test_phase("%s, mode %" PRIu32 ": a record with a past", variant->name, mode);
    /* All files are looked through, a lookup on disk is one of them. */
    options.record_nr_max = 2000;
    db = OPEN(path, &options);
    for (i = 0; i < 5; i++) {
        values[i].data = (const uint8_t *)(i == 1 ? older : "another");
        values[i].len = i == 1 ? strlen(older) : 7;
    }
    if (mode == OURDB_OPEN_KEY_VALUE) {
        CHECK_OK(ourdb_set_many(db, ids, values, 5));
    } else {
        CHECK_OK(ourdb_insert_many(db, values, 5, ids));
    }
    CHECK_OK(ourdb_set(db, 1, "neighbour", 9));
    CHECK_OK(ourdb_set(db, 2, secret, strlen(secret)));
    CHECK_OK(ourdb_set(db, 3, "neighbour", 9));
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_sync(db));
        CHECK(is_in_files(path, secret) && is_in_files(path, older));
    }
    CHECK_OK(ourdb_erase(db, 2));
    erased = test_last_commit(db);
    for (again = 0; again < 2; again++) {
        check_erased(db, 2, erased);
        CHECK_VALUE(db, 1, "neighbour", 9);
        CHECK_VALUE(db, 3, "neighbour", 9);
        CHECK_VALUE(db, 4, "another", 7);
        CHECK_COUNT(db, 4);
        CHECK_CODE(ourdb_erase(db, 2), OURDB_NOT_FOUND);
        CHECK_LAST_COMMIT(db, erased);
        CHECK_OK(ourdb_check(db, NULL, NULL));
        if (test_on_disk(variant)) {
            CHECK(!is_in_files(path, secret) && !is_in_files(path, older));
            CHECK_OK(ourdb_close(db));
            CHECK(!is_in_files(path, secret) && !is_in_files(path, older));
            db = OPEN(path, &options);
        }
    }

    test_phase("%s, mode %" PRIu32 ": a deleted record", variant->name, mode);
    CHECK_OK(ourdb_set(db, 4, secret, strlen(secret)));
    CHECK_OK(ourdb_delete(db, 4));
    CHECK_OK(ourdb_erase(db, 4));
    check_erased(db, 4, test_last_commit(db));
    if (test_on_disk(variant)) {
        CHECK(!is_in_files(path, secret));
    }

    test_phase("%s, mode %" PRIu32 ": nothing to erase", variant->name, mode);
    CHECK_CODE(ourdb_erase(db, 1000), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_erase(db, UINT32_MAX), OURDB_ID_OUT_OF_RANGE);
    CHECK_CODE(ourdb_revert(db, 2, 3), OURDB_NOT_FOUND);

    test_phase("%s, mode %" PRIu32 ": what comes after", variant->name, mode);
    if (mode == OURDB_OPEN_KEY_VALUE) {
        ourdb_records history;

        CHECK_OK(ourdb_set(db, 2, "new", 3));
        CHECK_VALUE(db, 2, "new", 3);
        CHECK_OK(ourdb_history(db, 2, 0, &history));
        CHECK_BYTES(history.items[0].data, history.items[0].len, "new", 3);
        CHECK((history.items[1].flags & OURDB_RECORD_ERASED) != 0);
        ourdb_free_records(&history);
        CHECK_OK(ourdb_delete(db, 2));
        CHECK_OK(ourdb_erase(db, 2));
    } else {
        CHECK_CODE(ourdb_set(db, 2, "new", 3), OURDB_ID_NOT_ASSIGNED);
    }
    COMPACT(db, 5);
    CHECK_ABSENT(db, 2);
    CHECK_VALUE(db, 3, "neighbour", 9);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    COMPACT(db, 0);
    CHECK_ABSENT(db, 2);
    CHECK_COUNT(db, 3);
    CHECK_OK(ourdb_check(db, NULL, NULL));
    CHECK_OK(ourdb_destroy(db));
}

/* What an iterator has read ahead is not handed out any more once it is erased. */
static void
read_ahead(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("ahead"), &options);
    ourdb_iter *iter;
    ourdb_record record;
    uint32_t begun;
    uint32_t id;

    test_phase("%s: what was read ahead", variant->name);
    for (begun = 1; begun < 15; begun += begun / 2 + 1) {
        uint32_t erased = begun + 1;

        for (id = 1; id <= 20; id++) {
            CHECK_OK(ourdb_set(db, id, secret, strlen(secret)));
        }
        CHECK_OK(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter));
        for (id = 1; id <= 20; id++) {
            if (id == erased) {
                continue;
            }
            CHECK_OK(ourdb_iter_next(iter, &record));
            CHECK_NUMBER(record.id, id);
            CHECK_BYTES(record.data, record.len, secret, strlen(secret));
            if (id == begun) {
                CHECK_OK(ourdb_erase(db, erased));
            }
        }
        CHECK_CODE(ourdb_iter_next(iter, &record), OURDB_NOT_FOUND);
        ourdb_iter_close(iter);
    }
    CHECK_OK(ourdb_destroy(db));
}

/* A kill after it returned brings nothing back. */
static void
killed_after(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    test_pipe ready = test_make_pipe();
    char path[TEST_PATH_MAX];
    pid_t child;
    ourdb *db;

    test_phase("kill -9 after an erasure");
    test_join_into(path, test_directory, "killed");
    child = test_fork();
    if (child == 0) {
        db = OPEN(path, &options);
        CHECK_OK(ourdb_set(db, 1, older, strlen(older)));
        CHECK_OK(ourdb_set(db, 1, secret, strlen(secret)));
        CHECK_OK(ourdb_set(db, 2, "another", 7));
        CHECK_OK(ourdb_erase(db, 1));
        test_signal(&ready);
        test_wait_to_be_killed();
    }
    test_await(&ready);
    test_kill(child);
    CHECK(!is_in_files(path, secret) && !is_in_files(path, older));
    db = OPEN(path, &options);
    check_erased(db, 1, 4);
    CHECK_VALUE(db, 2, "another", 7);
    CHECK_OK(ourdb_destroy(db));
    test_close_pipe(&ready);
}

int
main(void)
{
    size_t i;

    test_begin("erase");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        story(&test_variants[i], 0);
        story(&test_variants[i], OURDB_OPEN_KEY_VALUE);
        read_ahead(&test_variants[i]);
    }
    killed_after();
    return test_end();
}
