/*
 * persistence: what is there again after reopening, and what is on disk.
 *
 * Promise: a closed database opens with every value, version, count, next id and commit number, in
 * both modes and however it is opened; limits and mode are stored, limits can be raised later, a
 * clash is OURDB_INCOMPATIBLE; reset and destroy remove the database's own files and nothing else;
 * nothing is created where nothing may be; read-only changes no byte; a database in memory touches
 * no file; data files roll over at file_size by the hundred; values of several MiB are kept.
 */
#include "harness.h"

/* ---- the same content, however it is opened ------------------------------------------------ */

#define RECORDS 400

/* What fill() leaves: version of each record, 0 for one that was deleted. */
static uint64_t
expected_version(uint32_t id)
{
    return id % 7 == 0 ? 0 : id % 3 == 0 ? 2 : 1;
}

static void
fill(ourdb *db, int key_value)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;
    uint32_t given;
    size_t len;

    for (id = 1; id <= RECORDS; id++) {
        len = test_value(id, 1, value);
        if (key_value) {
            CHECK_OK(ourdb_set(db, id, value, len));
        } else {
            CHECK_OK(ourdb_insert(db, value, len, &given));
            CHECK_NUMBER(given, id);
        }
    }
    for (id = 3; id <= RECORDS; id += 3) {
        len = test_value(id, 2, value);
        CHECK_OK(ourdb_set(db, id, value, len));
    }
    for (id = 7; id <= RECORDS; id += 7) {
        CHECK_OK(ourdb_delete(db, id));
    }
}

static void
check_filled(const ourdb *db, int key_value)
{
    uint8_t value[TEST_VALUE_MAX];
    ourdb_records records;
    uint32_t id;
    size_t len;

    for (id = 1; id <= RECORDS; id++) {
        uint64_t version = expected_version(id);
        size_t versions = 1 + (id % 3 == 0 ? 1 : 0) + (id % 7 == 0 ? 1 : 0);

        if (version == 0) {
            CHECK_ABSENT(db, id);
        } else {
            len = test_value(id, version, value);
            CHECK_VALUE(db, id, value, len);
        }
        CHECK_OK(ourdb_history(db, id, 0, &records));
        CHECK_NUMBER(records.count, versions);
        len = test_value(id, 1, value);
        CHECK_NUMBER(records.items[versions - 1].commit, id);
        CHECK_BYTES(records.items[versions - 1].data, records.items[versions - 1].len, value, len);
        ourdb_free_records(&records);
    }
    CHECK_COUNT(db, RECORDS - RECORDS / 7);
    CHECK_LAST_COMMIT(db, RECORDS + RECORDS / 3 + RECORDS / 7);
    if (!key_value) {
        CHECK_NEXT_ID(db, RECORDS + 1);
    }
}

/* Made in one way, read in every other: lookup and I/O are a matter of the open, not the files. */
static void
however_opened(uint32_t mode)
{
    const char *mode_name = mode == 0 ? "incremental" : "key-value";
    char path[TEST_PATH_MAX];
    size_t made;
    size_t opened;
    uint32_t sync;

    test_join_into(path, test_directory, "however-opened");
    for (made = 0; made < TEST_VARIANT_COUNT; made++) {
        ourdb_options options = test_options(&test_variants[made], mode);
        ourdb *db;

        if (!test_on_disk(&test_variants[made])) {
            continue;
        }
        test_phase("%s, made %s", mode_name, test_variants[made].name);
        db = OPEN(path, &options);
        fill(db, mode != 0);
        check_filled(db, mode != 0);
        CHECK_OK(ourdb_close(db));
        for (opened = 0; opened < TEST_VARIANT_COUNT; opened++) {
            if (!test_on_disk(&test_variants[opened])) {
                continue;
            }
            for (sync = OURDB_SYNC_OS; sync <= OURDB_SYNC_INTERVAL; sync++) {
                test_phase("%s, made %s, opened %s, sync %" PRIu32, mode_name,
                           test_variants[made].name, test_variants[opened].name, sync);
                options = test_options(&test_variants[opened], 0);
                options.sync = sync;
                options.sync_interval_ms = 5;
                db = OPEN(path, &options);
                check_filled(db, mode != 0);
                CHECK_OK(ourdb_close(db));
            }
        }
        test_phase("%s, made %s, opened without options", mode_name, test_variants[made].name);
        db = OPEN(path, NULL);
        check_filled(db, mode != 0);
        CHECK_OK(ourdb_destroy(db));
        CHECK(!test_exists(path));
    }
}

static void
sync_modes(void)
{
    uint32_t sync;

    for (sync = OURDB_SYNC_OS; sync <= OURDB_SYNC_INTERVAL; sync++) {
        ourdb_options options = test_options(NULL, 0);
        unsigned long count = test_scaled(100);
        unsigned long i;
        uint32_t id;
        ourdb *db;

        test_phase("sync mode %" PRIu32, sync);
        options.sync = sync;
        options.sync_interval_ms = sync == OURDB_SYNC_INTERVAL ? 1 : 0;
        db = OPEN(test_path("sync-modes"), &options);
        for (i = 0; i < count; i++) {
            CHECK_OK(ourdb_insert(db, &i, sizeof i, &id));
            if (i % 10 == 0) {
                CHECK_OK(ourdb_sync(db));
                CHECK_OK(ourdb_sync(db));
                test_sleep_us(500);
            }
        }
        CHECK_OK(ourdb_close(db));
        options.sync_interval_ms = 0;
        db = OPEN(test_path("sync-modes"), &options);
        CHECK_COUNT(db, count);
        CHECK_LAST_COMMIT(db, count);
        for (i = 0; i < count; i++) {
            CHECK_VALUE(db, (uint32_t)i + 1, &i, sizeof i);
        }
        CHECK_OK(ourdb_destroy(db));
    }
}

/* ---- what is stored ------------------------------------------------------------------------ */

static void
stored_options(uint32_t lookup)
{
    char path[TEST_PATH_MAX];
    ourdb_options options = test_options(NULL, 0);
    uint8_t value[300] = {0};
    uint32_t id;
    size_t files;
    ourdb *db;

    test_phase("limits are stored");
    test_join_into(path, test_directory, "stored-options");
    options.lookup = lookup;
    options.record_nr_max = 1000;
    options.record_size_max = 200;
    options.file_size = 1000;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, value, 200, &id));
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, NULL);
    CHECK_CODE(ourdb_contains(db, 999), OURDB_NOT_FOUND);
    CHECK_CODE(ourdb_set(db, 999, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 1000, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_MESSAGE("1000");
    CHECK_CODE(ourdb_insert(db, value, 201, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_MESSAGE("200");
    files = test_data_files(path);
    for (id = 0; id < 50; id++) {
        CHECK_OK(ourdb_set(db, 1, value, 200));
    }
    CHECK_OK(ourdb_close(db));
    CHECK(test_data_files(path) >= files + 9);

    test_phase("limits can be raised, and the raised ones are stored");
    options.record_nr_max = 2000;
    options.record_size_max = 300;
    options.file_size = 1000000;
    db = OPEN(path, &options);
    CHECK_CODE(ourdb_set(db, 1999, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 2000, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, NULL);
    CHECK_CODE(ourdb_set(db, 1999, "x", 1), OURDB_ID_NOT_ASSIGNED);
    CHECK_CODE(ourdb_set(db, 2000, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_OK(ourdb_insert(db, value, 300, &id));
    files = test_data_files(path);
    for (id = 0; id < 50; id++) {
        CHECK_OK(ourdb_set(db, 1, value, 200));
    }
    CHECK(test_data_files(path) <= files + 1);
    CHECK_VALUE(db, 2, value, 300);
    CHECK_OK(ourdb_close(db));

    test_phase("record_nr_max can't be lowered, by however little");
    options = test_options(NULL, 0);
    options.record_nr_max = 1999;
    CHECK_OPEN_FAILS(path, &options, OURDB_INCOMPATIBLE);
    CHECK_MESSAGE("1999");
    CHECK_MESSAGE("2000");
    options.record_nr_max = 2000;
    db = OPEN(path, &options);
    CHECK_VALUE(db, 2, value, 300);
    CHECK_OK(ourdb_destroy(db));
}

/* Ids beyond what was the limit once, with what a lookup may have been laid out for before. */
static void
raised_ids(uint32_t lookup)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    const char *path = test_path("raised-ids");
    uint32_t id;
    ourdb *db;

    test_phase("ids above the old limit, lookup %" PRIu32, lookup);
    options.lookup = lookup;
    options.record_nr_max = 1000;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_set(db, 0, "zero", 4));
    CHECK_OK(ourdb_set(db, 999, "the last of the old", 19));
    CHECK_OK(ourdb_close(db));
    options.record_nr_max = 5000000;
    db = OPEN(path, &options);
    CHECK_VALUE(db, 999, "the last of the old", 19);
    CHECK_ABSENT(db, 1000);
    CHECK_OK(ourdb_set(db, 1000, "the first of the new", 20));
    CHECK_OK(ourdb_set(db, 4999999, "the last of the new", 19));
    CHECK_CODE(ourdb_set(db, 5000000, "x", 1), OURDB_ID_OUT_OF_RANGE);
    CHECK_OK(ourdb_close(db));
    options.record_nr_max = 0;
    db = OPEN(path, &options);
    CHECK_VALUE(db, 0, "zero", 4);
    CHECK_VALUE(db, 1000, "the first of the new", 20);
    CHECK_VALUE(db, 4999999, "the last of the new", 19);
    CHECK_OK(ourdb_above(db, 1000, &id));
    CHECK_NUMBER(id, 4999999);
    CHECK_COUNT(db, 4);
    CHECK_OK(ourdb_destroy(db));
}

static void
modes(void)
{
    char path[TEST_PATH_MAX];
    ourdb_options incremental = test_options(NULL, 0);
    ourdb_options key_value = test_options(NULL, OURDB_OPEN_KEY_VALUE);
    uint32_t id;
    ourdb *db;

    test_phase("the mode is stored");
    test_join_into(path, test_directory, "modes");
    db = OPEN(path, &key_value);
    CHECK_OK(ourdb_set(db, 5, "five", 4));
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &incremental);
    CHECK_VALUE(db, 5, "five", 4);
    CHECK_OK(ourdb_set(db, 6, "six", 3));
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_WRONG_MODE);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &key_value);
    CHECK_VALUE(db, 6, "six", 3);
    CHECK_OK(ourdb_destroy(db));

    test_phase("a mode that clashes");
    db = OPEN(path, NULL);
    CHECK_OK(ourdb_insert(db, "one", 3, &id));
    CHECK_OK(ourdb_close(db));
    CHECK_OPEN_FAILS(path, &key_value, OURDB_INCOMPATIBLE);
    key_value.flags |= OURDB_OPEN_READ_ONLY;
    CHECK_OPEN_FAILS(path, &key_value, OURDB_INCOMPATIBLE);
    db = OPEN(path, NULL);
    CHECK_VALUE(db, 1, "one", 3);
    CHECK_OK(ourdb_close(db));

    test_phase("reset may change the mode");
    key_value.flags = OURDB_OPEN_KEY_VALUE | OURDB_OPEN_RESET;
    db = OPEN(path, &key_value);
    CHECK_OK(ourdb_set(db, 9, "nine", 4));
    CHECK_ABSENT(db, 1);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, NULL);
    CHECK_CODE(ourdb_next_id(db, &id), OURDB_WRONG_MODE);
    CHECK_VALUE(db, 9, "nine", 4);
    CHECK_OK(ourdb_destroy(db));
}

/* ---- reset and destroy --------------------------------------------------------------------- */

/* Files that look nearly like the database's own, and a directory. */
static const char *const junk[] = {"a.db",   "00.db",     "01.db",     "0.db.bak", "1.dbx",
                                   "x0.db",  "notes.txt", ".hidden",   "index2",   "MANIFEST.old",
                                   "-1.db",  "0x1.db",    "1.0.db"};
#define JUNK_COUNT (sizeof junk / sizeof junk[0])

static void
make_junk(const char *path)
{
    size_t i;

    for (i = 0; i < JUNK_COUNT; i++) {
        test_write_file(test_join(path, junk[i]), junk[i], strlen(junk[i]));
    }
    test_make_directory(test_join(path, "sub"));
    test_write_file(test_join(path, "sub/0.db"), "not yours", 9);
}

static void
check_junk(const char *path)
{
    size_t i;

    for (i = 0; i < JUNK_COUNT; i++) {
        size_t len;
        uint8_t *bytes;

        CHECK(test_exists(test_join(path, junk[i])));
        bytes = test_read_file(test_join(path, junk[i]), &len);
        CHECK_BYTES(bytes, len, junk[i], strlen(junk[i]));
        free(bytes);
    }
    CHECK(test_file_len(test_join(path, "sub/0.db")) == 9);
}

static void
reset_and_destroy(const test_variant *variant)
{
    char path[TEST_PATH_MAX];
    ourdb_options options = test_options(variant, 0);
    test_list list;
    uint32_t id;
    ourdb *db;

    test_phase("%s: destroy leaves nothing behind", variant->name);
    test_join_into(path, test_directory, "reset");
    db = OPEN(path, &options);
    fill(db, 0);
    CHECK_OK(ourdb_close(db));
    db = OPEN(path, &options);
    CHECK_OK(ourdb_set(db, 1, "x", 1));
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(path));

    test_phase("%s: other people's files are no hindrance", variant->name);
    test_make_directory(path);
    make_junk(path);
    db = OPEN(path, &options);
    fill(db, 0);
    CHECK_OK(ourdb_close(db));
    check_junk(path);
    db = OPEN(path, &options);
    check_filled(db, 0);
    CHECK_OK(ourdb_close(db));

    test_phase("%s: reset starts empty", variant->name);
    options.flags |= OURDB_OPEN_RESET;
    db = OPEN(path, &options);
    check_junk(path);
    CHECK_COUNT(db, 0);
    CHECK_NEXT_ID(db, 1);
    CHECK_LAST_COMMIT(db, 0);
    CHECK_ABSENT(db, 1);
    CHECK_CODE(ourdb_first(db, &id), OURDB_NOT_FOUND);
    CHECK_OK(ourdb_insert(db, "fresh", 5, &id));
    CHECK_NUMBER(id, 1);
    CHECK_OK(ourdb_close(db));
    CHECK_NUMBER(test_data_files(path), 1);
    options.flags &= ~(uint32_t)OURDB_OPEN_RESET;
    db = OPEN(path, &options);
    CHECK_VALUE(db, 1, "fresh", 5);
    CHECK_COUNT(db, 1);

    test_phase("%s: destroy takes its own files and nothing else", variant->name);
    CHECK_OK(ourdb_destroy(db));
    check_junk(path);
    list = test_list_directory(path);
    CHECK_NUMBER(list.count, JUNK_COUNT + 1);
    test_free_list(&list);

    test_phase("%s: reset of what isn't there makes it", variant->name);
    test_remove(path);
    options.flags |= OURDB_OPEN_RESET;
    db = OPEN(path, &options);
    CHECK_OK(ourdb_insert(db, "x", 1, &id));
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(path));
}

/* ---- what may be created ------------------------------------------------------------------- */

static void
creation(void)
{
    static const uint32_t refusing[] = {
        OURDB_OPEN_MUST_EXIST,
        OURDB_OPEN_READ_ONLY,
        OURDB_OPEN_SALVAGE,
        OURDB_OPEN_MUST_EXIST | OURDB_OPEN_READ_ONLY,
        OURDB_OPEN_MUST_EXIST | OURDB_OPEN_KEY_VALUE,
        OURDB_OPEN_MUST_EXIST | OURDB_OPEN_RESET
    };
    ourdb_options options;
    test_list list;
    uint32_t id;
    size_t i;
    ourdb *db;

    test_phase("directories without a database");
    test_make_directory(test_path("bare"));
    test_write_file(test_path("bare/notes.txt"), "x", 1);
    for (i = 0; i < sizeof refusing / sizeof refusing[0]; i++) {
        test_phase("nothing is created with flags %" PRIu32, refusing[i]);
        options = test_options(NULL, refusing[i]);
        CHECK_OPEN_FAILS(test_path("absent"), &options, OURDB_NOT_FOUND);
        CHECK_MESSAGE("absent");
        CHECK(!test_exists(test_path("absent")));
        CHECK_OPEN_FAILS(test_path("absent/deeper"), &options, OURDB_NOT_FOUND);
        CHECK(!test_exists(test_path("absent")));
        CHECK_OPEN_FAILS(test_path("bare"), &options, OURDB_NOT_FOUND);
        list = test_list_directory(test_path("bare"));
        CHECK_NUMBER(list.count, 1);
        test_free_list(&list);
    }

    test_phase("parents are created");
    options = test_options(NULL, 0);
    db = OPEN(test_path("a/b/c/d"), &options);
    CHECK_OK(ourdb_insert(db, "deep", 4, &id));
    CHECK_OK(ourdb_close(db));
    options.flags = OURDB_OPEN_MUST_EXIST;
    db = OPEN(test_path("a/b/c/d"), &options);
    CHECK_VALUE(db, 1, "deep", 4);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(test_path("a/b/c/d")));
    CHECK(test_exists(test_path("a/b/c")));

    test_phase("any bytes in a path");
    options.flags = 0;
    db = OPEN(test_path("space \xC3\xA9 \xFF\xFE\n'\"%s/"), &options);
    CHECK_OK(ourdb_insert(db, "x", 1, &id));
    CHECK_OK(ourdb_close(db));
    CHECK(test_exists(test_path("space \xC3\xA9 \xFF\xFE\n'\"%s")));
    db = OPEN(test_path("space \xC3\xA9 \xFF\xFE\n'\"%s"), &options);
    CHECK_VALUE(db, 1, "x", 1);
    CHECK_OK(ourdb_destroy(db));
}

/* A relative path means the directory at the time of the open, wherever the program goes later. */
static void
relative_path(void)
{
    ourdb_options options = test_options(NULL, 0);
    char before[TEST_PATH_MAX];
    uint8_t value[200] = {0};
    uint32_t id;
    int i;
    ourdb *db;

    test_phase("a relative path, and chdir() after the open");
    CHECK(getcwd(before, sizeof before) != NULL);
    test_make_directory(test_path("here"));
    test_make_directory(test_path("there"));
    options.file_size = 1000;
    CHECK(chdir(test_path("here")) == 0);
    db = OPEN("relative", &options);
    CHECK(chdir(test_path("there")) == 0);
    for (i = 0; i < 30; i++) {
        CHECK_OK(ourdb_insert(db, value, sizeof value, &id));
    }
    CHECK_OK(ourdb_close(db));
    CHECK(!test_exists(test_path("there/relative")));
    CHECK(test_exists(test_path("here/relative/3.db")));
    CHECK(chdir(test_path("here")) == 0);
    db = OPEN("./relative", &options);
    CHECK_COUNT(db, 30);
    CHECK(chdir(test_path("there")) == 0);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(test_path("here/relative")));
    CHECK(chdir(before) == 0);
}

/* ---- read-only and memory ------------------------------------------------------------------ */

/* Salvage is for damaged databases; a sound one it reads like any, and only reads. */
static void
read_only(uint32_t flags)
{
    char path[TEST_PATH_MAX];
    ourdb_options options = test_options(&test_variants[1], 0);
    ourdb_options reading = test_options(NULL, flags);
    uint64_t digest;
    uint32_t id;
    ourdb *db;
    ourdb *second;

    test_phase("open for reading with flags %" PRIu32, flags);
    test_join_into(path, test_directory, "read-only");
    db = OPEN(path, &options);
    fill(db, 0);
    CHECK_OK(ourdb_close(db));
    digest = test_digest(path);
    db = OPEN(path, &reading);
    check_filled(db, 0);
    second = OPEN(path, &reading);
    check_filled(second, 0);
    CHECK_CODE(ourdb_set(db, 1, "x", 1), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_insert(db, "x", 1, &id), OURDB_READ_ONLY);
    CHECK_CODE(ourdb_destroy(db), OURDB_READ_ONLY);
    CHECK_OK(ourdb_close(second));
    CHECK_OK(ourdb_close(db));
    CHECK(test_digest(path) == digest);

    test_phase("open for reading with flags %" PRIu32 " and other options", flags);
    reading.lookup = OURDB_LOOKUP_DISK;
    reading.io = OURDB_IO_FILE;
    reading.record_nr_max = 20000000;
    reading.file_size = 77;
    db = OPEN(path, &reading);
    check_filled(db, 0);
    CHECK_OK(ourdb_close(db));
    CHECK(test_digest(path) == digest);
    db = OPEN(path, NULL);
    check_filled(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

static void
in_memory(void)
{
    uint32_t mode;

    for (mode = 0; mode <= OURDB_OPEN_KEY_VALUE; mode += OURDB_OPEN_KEY_VALUE) {
        ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY | mode);
        ourdb *db;
        ourdb *second;

        test_phase("in memory, %s", mode == 0 ? "incremental" : "key-value");
        db = OPEN(test_path("no-such-file"), &options);
        second = OPEN(test_path("no-such-file"), &options);
        fill(db, mode != 0);
        check_filled(db, mode != 0);
        CHECK_COUNT(second, 0);
        CHECK_OK(ourdb_sync(db));
        CHECK_OK(ourdb_close(db));
        CHECK_OK(ourdb_destroy(second));
        CHECK(!test_exists(test_path("no-such-file")));
        options.sync = OURDB_SYNC_COMMIT;
        options.file_size = 1000;
        db = OPEN(NULL, &options);
        CHECK_COUNT(db, 0);
        CHECK_LAST_COMMIT(db, 0);
        fill(db, mode != 0);
        check_filled(db, mode != 0);
        CHECK_OK(ourdb_close(db));
    }
}

/* ---- data files ---------------------------------------------------------------------------- */

static void
roll_over(uint32_t lookup, uint32_t io)
{
    char path[TEST_PATH_MAX];
    char name[32];
    ourdb_options options = test_options(NULL, 0);
    unsigned long records = test_scaled(1500);
    unsigned long i;
    uint8_t value[100];
    uint32_t id;
    size_t files;
    size_t k;
    ourdb *db;

    test_phase("hundreds of data files%s%s", lookup == OURDB_LOOKUP_DISK ? ", lookup on disk" : "",
               io == OURDB_IO_FILE ? ", by system calls" : "");
    test_join_into(path, test_directory, "roll-over");
    options.file_size = 1000;
    options.lookup = lookup;
    options.io = io;
    db = OPEN(path, &options);
    for (i = 1; i <= records; i++) {
        test_fill(value, sizeof value, i);
        CHECK_OK(ourdb_insert(db, value, sizeof value, &id));
        if (i > 1 && i % 10 == 0) {
            test_fill(value, sizeof value, i + 1000000);
            CHECK_OK(ourdb_set(db, (uint32_t)i / 2, value, sizeof value));
        }
    }
    CHECK_OK(ourdb_close(db));

    /* Numbered from 0 without a gap; closed when file_size was reached, not long after. */
    files = test_data_files(path);
    CHECK(files >= records / 12);
    CHECK(files <= records / 4 + 1);
    for (k = 0; k < files; k++) {
        long long len;

        snprintf(name, sizeof name, "%lu.db", (unsigned long)k);
        len = test_file_len(test_join(path, name));
        CHECK(len > 0);
        CHECK(len < 1000 + 300);
        CHECK(k == files - 1 || len >= 1000);
    }

    for (k = 0; k < 3; k++) {
        ourdb_records history;

        db = OPEN(path, &options);
        for (i = 1; i <= records; i++) {
            int updated = i % 5 == 0 && i * 2 <= records;

            test_fill(value, sizeof value, updated ? i * 2 + 1000000 : i);
            CHECK_VALUE(db, (uint32_t)i, value, sizeof value);
            if (updated) {
                CHECK_OK(ourdb_history(db, (uint32_t)i, 0, &history));
                CHECK_NUMBER(history.count, 2);
                test_fill(value, sizeof value, i);
                CHECK_BYTES(history.items[1].data, history.items[1].len, value, sizeof value);
                ourdb_free_records(&history);
            }
        }
        CHECK_COUNT(db, records);
        CHECK_OK(ourdb_close(db));
    }
    db = OPEN(path, &options);
    CHECK_OK(ourdb_destroy(db));
    CHECK(!test_exists(path));
}

#define LARGEST 8388608

static void
large_values(const test_variant *variant)
{
    static const size_t lengths[] = {65535, 65536, 65537, 1048576, 0, 3000001, LARGEST};
    static uint8_t bytes[LARGEST + 1000];
    const size_t count = sizeof lengths / sizeof lengths[0];
    ourdb_options options = test_options(variant, 0);
    ourdb_slice slices[sizeof lengths / sizeof lengths[0]];
    uint32_t ids[sizeof lengths / sizeof lengths[0]];
    ourdb_records records;
    uint32_t id;
    size_t i;
    ourdb *db;

    test_phase("%s: values of several MiB", variant->name);
    test_fill(bytes, sizeof bytes, 5);
    options.record_size_max = LARGEST;
    db = OPEN(test_path("large"), &options);
    for (i = 0; i < count; i++) {
        slices[i].data = bytes + i;
        slices[i].len = lengths[i];
        CHECK_OK(ourdb_insert(db, slices[i].data, slices[i].len, &id));
        CHECK_VALUE(db, id, slices[i].data, slices[i].len);
    }
    CHECK_CODE(ourdb_insert(db, bytes, LARGEST + 1, &id), OURDB_RECORD_TOO_LARGE);
    CHECK_OK(ourdb_insert_many(db, slices, count, ids));
    CHECK_NUMBER(ids[count - 1], 2 * count);
    CHECK_OK(ourdb_set(db, 1, bytes + 500, 3000000));
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("large"), &options);
    }
    CHECK_OK(ourdb_get_many(db, ids, count, &records));
    for (i = 0; i < count; i++) {
        CHECK_BYTES(records.items[i].data, records.items[i].len, slices[i].data, slices[i].len);
    }
    ourdb_free_records(&records);
    for (i = 1; i < count; i++) {
        CHECK_VALUE(db, (uint32_t)i + 1, slices[i].data, slices[i].len);
    }
    CHECK_OK(ourdb_history(db, 1, 0, &records));
    CHECK_NUMBER(records.count, 2);
    CHECK_BYTES(records.items[0].data, records.items[0].len, bytes + 500, 3000000);
    CHECK_BYTES(records.items[1].data, records.items[1].len, slices[0].data, slices[0].len);
    ourdb_free_records(&records);
    CHECK_OK(ourdb_destroy(db));
}

/* Opening and closing without a write changes nothing that can be seen, however often. */
static void
idle_opens(void)
{
    char path[TEST_PATH_MAX];
    unsigned long opens = test_scaled(50);
    unsigned long i;
    size_t files;
    ourdb *db;

    test_phase("idle opens");
    test_join_into(path, test_directory, "idle");
    db = OPEN(path, NULL);
    fill(db, 0);
    CHECK_OK(ourdb_close(db));
    files = test_data_files(path);
    for (i = 0; i < opens; i++) {
        db = OPEN(path, NULL);
        CHECK_LAST_COMMIT(db, RECORDS + RECORDS / 3 + RECORDS / 7);
        CHECK_OK(ourdb_close(db));
    }
    CHECK_NUMBER(test_data_files(path), files);
    db = OPEN(path, NULL);
    check_filled(db, 0);
    CHECK_OK(ourdb_destroy(db));
}

int
main(void)
{
    size_t i;

    test_begin("persistence");
    however_opened(0);
    however_opened(OURDB_OPEN_KEY_VALUE);
    sync_modes();
    stored_options(OURDB_LOOKUP_MEMORY);
    stored_options(OURDB_LOOKUP_DISK);
    raised_ids(OURDB_LOOKUP_MEMORY);
    raised_ids(OURDB_LOOKUP_DISK);
    modes();
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        if (test_on_disk(&test_variants[i])) {
            reset_and_destroy(&test_variants[i]);
        }
        large_values(&test_variants[i]);
    }
    creation();
    relative_path();
    read_only(OURDB_OPEN_READ_ONLY);
    read_only(OURDB_OPEN_SALVAGE);
    read_only(OURDB_OPEN_READ_ONLY | OURDB_OPEN_SALVAGE);
    in_memory();
    roll_over(OURDB_LOOKUP_MEMORY, OURDB_IO_AUTO);
    roll_over(OURDB_LOOKUP_DISK, OURDB_IO_AUTO);
    roll_over(OURDB_LOOKUP_MEMORY, OURDB_IO_FILE);
    idle_opens();
    return test_end();
}
