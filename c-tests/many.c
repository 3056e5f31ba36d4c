/*
 * many: several records in one call.
 *
 * Promise: insert_many, set_many and delete_many are one commit, all or nothing, whatever the
 * number of records and wherever the one that is refused stands; get_many answers in the order
 * asked, for every length of the list, and says what is missing; of an id named twice the last
 * value counts.
 */
#include "harness.h"

#define MANY 2000

static uint8_t bytes[MANY][TEST_VALUE_MAX];
static ourdb_slice slices[MANY];
static uint32_t ids[MANY];

/* Fills `slices` with the values of version `version` of the first `count` of `ids`. */
static void
values_of(uint64_t version, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        slices[i].len = test_value(ids[i], version, bytes[i]);
        slices[i].data = bytes[i];
    }
}

static void
ids_from(uint32_t first, uint32_t step, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++) {
        ids[i] = first + step * (uint32_t)i;
    }
}

static void
check_live(const ourdb_record *item, uint32_t id, uint64_t version, uint64_t commit)
{
    uint8_t value[TEST_VALUE_MAX];
    size_t len = test_value(id, version, value);

    CHECK_NUMBER(item->id, id);
    CHECK_NUMBER(item->flags, 0);
    CHECK_NUMBER(item->commit, commit);
    CHECK(item->time_us != 0);
    CHECK_BYTES(item->data, item->len, value, len);
}

static void
check_missing(const ourdb_record *item, uint32_t id)
{
    CHECK_NUMBER(item->id, id);
    CHECK_NUMBER(item->flags, OURDB_RECORD_MISSING);
    CHECK(item->data == NULL);
    CHECK_NUMBER(item->len, 0);
}

static void
inserting(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("inserting"), &options);
    ourdb_records records;
    uint32_t expected = 1;
    uint64_t commit = 0;
    size_t counts[] = {1, 2, 3, 31, 32, 33, 64, 100, MANY};
    size_t i;
    size_t k;

    test_phase("%s: insert_many", variant->name);
    for (k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        size_t count = counts[k] > 100 ? test_scaled(counts[k]) : counts[k];

        ids_from(expected, 1, count);
        values_of(1, count);
        TEST_GARBAGE(ids);
        CHECK_OK(ourdb_insert_many(db, slices, count, ids));
        commit++;
        for (i = 0; i < count; i++) {
            CHECK_NUMBER(ids[i], expected + i);
        }
        CHECK_LAST_COMMIT(db, commit);
        CHECK_COUNT(db, expected + count - 1);
        CHECK_NEXT_ID(db, expected + count);
        CHECK_OK(ourdb_get_many(db, ids, count, &records));
        CHECK_NUMBER(records.count, count);
        for (i = 0; i < count; i++) {
            check_live(&records.items[i], expected + (uint32_t)i, 1, commit);
            CHECK_NUMBER(records.items[i].time_us, records.items[0].time_us);
        }
        ourdb_free_records(&records);
        expected += (uint32_t)count;
    }
    if (test_on_disk(variant)) {
        test_phase("%s: insert_many, after reopening", variant->name);
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("inserting"), &options);
        CHECK_COUNT(db, expected - 1);
        CHECK_LAST_COMMIT(db, commit);
        for (i = 1; i < expected; i += 1 + i / 30) {
            size_t len = test_value((uint32_t)i, 1, bytes[0]);

            CHECK_VALUE(db, (uint32_t)i, bytes[0], len);
        }
    }
    CHECK_OK(ourdb_destroy(db));
}

static void
setting(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db = OPEN(test_path("setting"), &options);
    size_t count = test_scaled(500);
    ourdb_records records;
    size_t i;

    test_phase("%s: set_many", variant->name);
    ids_from(10, 997, count);
    values_of(1, count);
    CHECK_OK(ourdb_set_many(db, ids, slices, count));
    CHECK_LAST_COMMIT(db, 1);
    CHECK_COUNT(db, count);
    ids_from(10 + 997 * (uint32_t)(count - 1), (uint32_t)-997, count); /* backwards, and half new */
    for (i = 0; i < count / 2; i++) {
        ids[i] += 1;
    }
    values_of(2, count);
    CHECK_OK(ourdb_set_many(db, ids, slices, count));
    CHECK_LAST_COMMIT(db, 2);
    CHECK_COUNT(db, count + count / 2);
    CHECK_OK(ourdb_get_many(db, ids, count, &records));
    CHECK_NUMBER(records.count, count);
    for (i = 0; i < count; i++) {
        check_live(&records.items[i], ids[i], 2, 2);
    }
    ourdb_free_records(&records);

    test_phase("%s: set_many with an id named more than once", variant->name);
    ids[0] = 3;
    ids[1] = 4;
    ids[2] = 3;
    ids[3] = 5;
    ids[4] = 3;
    for (i = 0; i < 5; i++) {
        slices[i].data = (const uint8_t *)"abcde" + i;
        slices[i].len = 1;
    }
    CHECK_OK(ourdb_set_many(db, ids, slices, 5));
    CHECK_VALUE(db, 3, "e", 1);
    CHECK_VALUE(db, 4, "b", 1);
    CHECK_VALUE(db, 5, "d", 1);
    CHECK_COUNT(db, count + count / 2 + 3);
    CHECK_LAST_COMMIT(db, 3);
    CHECK_OK(ourdb_history(db, 3, 0, &records));
    CHECK_NUMBER(records.count, 1);
    CHECK_NUMBER(records.items[0].commit, 3);
    ourdb_free_records(&records);
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("setting"), &options);
        CHECK_VALUE(db, 3, "e", 1);
        CHECK_COUNT(db, count + count / 2 + 3);
    }
    CHECK_OK(ourdb_destroy(db));
}

static void
deleting(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    ourdb *db = OPEN(test_path("deleting"), &options);
    ourdb_records records;
    size_t i;

    test_phase("%s: delete_many", variant->name);
    ids_from(1, 1, 100);
    values_of(1, 100);
    CHECK_OK(ourdb_insert_many(db, slices, 100, ids));
    ids_from(2, 2, 50);
    ids[50] = 2; /* named twice, deleted once */
    CHECK_OK(ourdb_delete_many(db, ids, 51));
    CHECK_LAST_COMMIT(db, 2);
    CHECK_COUNT(db, 50);
    for (i = 1; i <= 100; i++) {
        if (i % 2 == 0) {
            CHECK_ABSENT(db, (uint32_t)i);
        } else {
            CHECK_VALUE(db, (uint32_t)i, slices[i - 1].data, slices[i - 1].len);
        }
    }
    CHECK_OK(ourdb_history(db, 2, 0, &records));
    CHECK_NUMBER(records.count, 2);
    CHECK_NUMBER(records.items[0].flags, OURDB_RECORD_DELETED);
    CHECK_NUMBER(records.items[0].commit, 2);
    ourdb_free_records(&records);

    test_phase("%s: delete_many with one that isn't there", variant->name);
    ids[0] = 1;
    ids[1] = 3;
    ids[2] = 4;
    CHECK_CODE(ourdb_delete_many(db, ids, 3), OURDB_NOT_FOUND);
    CHECK_MESSAGE("4");
    ids[2] = 1000;
    CHECK_CODE(ourdb_delete_many(db, ids, 3), OURDB_NOT_FOUND);
    CHECK_MESSAGE("1000");
    CHECK_COUNT(db, 50);
    CHECK_LAST_COMMIT(db, 2);
    CHECK_VALUE(db, 1, slices[0].data, slices[0].len);
    CHECK_VALUE(db, 3, slices[2].data, slices[2].len);
    CHECK_OK(ourdb_destroy(db));
}

/* The one that is refused stands first, in the middle, last: nothing of the others happens. */
static void
all_or_nothing(const test_variant *variant)
{
    static const size_t places[] = {0, 1, 31, 32, 63, 98, 99};
    ourdb_options options = test_options(variant, 0);
    ourdb *db;
    size_t i;
    size_t k;

    test_phase("%s: all or nothing", variant->name);
    options.record_size_max = TEST_VALUE_MAX;
    options.record_nr_max = 150;
    db = OPEN(test_path("all-or-nothing"), &options);
    ids_from(1, 1, 100);
    values_of(1, 100);
    CHECK_OK(ourdb_insert_many(db, slices, 100, ids));
    for (i = 0; i < sizeof places / sizeof places[0]; i++) {
        size_t at = places[i];
        uint32_t id;

        ids_from(1, 1, 100);
        values_of(2, 100);
        slices[at].len = TEST_VALUE_MAX + 1;
        slices[at].data = bytes[0];
        CHECK_CODE(ourdb_set_many(db, ids, slices, 100), OURDB_RECORD_TOO_LARGE);
        values_of(2, 40);
        slices[at % 40].len = TEST_VALUE_MAX + 1;
        CHECK_CODE(ourdb_insert_many(db, slices, 40, ids), OURDB_RECORD_TOO_LARGE);
        ids_from(1, 1, 100);
        values_of(2, 100);
        id = ids[at];
        ids[at] = 150;
        CHECK_CODE(ourdb_set_many(db, ids, slices, 100), OURDB_ID_OUT_OF_RANGE);
        CHECK_CODE(ourdb_delete_many(db, ids, 100), OURDB_ID_OUT_OF_RANGE);
        ids[at] = 101;
        CHECK_CODE(ourdb_set_many(db, ids, slices, 100), OURDB_ID_NOT_ASSIGNED);
        CHECK_CODE(ourdb_delete_many(db, ids, 100), OURDB_NOT_FOUND);
        ids[at] = id;
        slices[at].data = NULL;
        slices[at].len = 1;
        CHECK_CODE(ourdb_set_many(db, ids, slices, 100), OURDB_INVALID_ARGUMENT);
        CHECK_COUNT(db, 100);
        CHECK_LAST_COMMIT(db, 1);
        CHECK_NEXT_ID(db, 101);
        for (k = 0; k < 100; k++) {
            size_t len = test_value((uint32_t)k + 1, 1, bytes[k]);

            CHECK_VALUE(db, (uint32_t)k + 1, bytes[k], len);
        }
    }
    CHECK_OK(ourdb_destroy(db));
}

/* Lists of every length up to where batches of any usual size have begun and ended. */
static void
getting(const test_variant *variant)
{
    ourdb_options options = test_options(variant, OURDB_OPEN_KEY_VALUE);
    ourdb *db;
    ourdb_records records;
    uint64_t random = 11;
    size_t count;
    size_t i;
    uint32_t asked[140];

    test_phase("%s: get_many", variant->name);
    options.record_nr_max = 1000;
    db = OPEN(test_path("getting"), &options);
    ids_from(0, 1, 200);
    values_of(1, 200);
    CHECK_OK(ourdb_set_many(db, ids, slices, 200));
    ids_from(1, 4, 50);
    values_of(2, 50);
    CHECK_OK(ourdb_set_many(db, ids, slices, 50));
    ids_from(2, 4, 50);
    CHECK_OK(ourdb_delete_many(db, ids, 50));
    for (count = 0; count <= sizeof asked / sizeof asked[0]; count++) {
        for (i = 0; i < count; i++) {
            uint32_t draw = test_random_below(&random, 20);

            asked[i] = draw == 0   ? 999
                       : draw == 1 ? 1000
                       : draw == 2 ? UINT32_MAX
                                   : test_random_below(&random, 200);
        }
        TEST_GARBAGE(records);
        CHECK_OK(ourdb_get_many(db, asked, count, &records));
        CHECK_NUMBER(records.count, count);
        for (i = 0; i < count; i++) {
            const ourdb_record *item = &records.items[i];

            if (asked[i] >= 200) {
                check_missing(item, asked[i]);
            } else if (asked[i] % 4 == 2) {
                /* Deleted is not there either; the answer may say which of the two it is. */
                CHECK_NUMBER(item->id, asked[i]);
                CHECK(item->flags == OURDB_RECORD_MISSING || item->flags == OURDB_RECORD_DELETED);
                CHECK(item->data == NULL && item->len == 0);
            } else {
                uint64_t version = asked[i] % 4 == 1 ? 2 : 1;

                check_live(item, asked[i], version, version);
            }
        }
        ourdb_free_records(&records);
        CHECK_ZERO(records);
    }

    test_phase("%s: get_many of what was just written, one id again and again", variant->name);
    CHECK_OK(ourdb_set(db, 500, "new", 3));
    for (i = 0; i < 100; i++) {
        asked[i] = 500;
    }
    CHECK_OK(ourdb_get_many(db, asked, 100, &records));
    for (i = 0; i < 100; i++) {
        CHECK_BYTES(records.items[i].data, records.items[i].len, "new", 3);
        CHECK_NUMBER(records.items[i].commit, 4);
    }
    ourdb_free_records(&records);
    CHECK_OK(ourdb_destroy(db));
}

/* A commit of several MiB, far larger than a data file is meant to become. */
static void
large_commit(const test_variant *variant)
{
    ourdb_options options = test_options(variant, 0);
    const size_t each = 65535;
    const size_t count = 60;
    uint8_t *all = malloc(each * count);
    ourdb_records records;
    ourdb *db;
    size_t i;

    test_phase("%s: a commit of several MiB", variant->name);
    CHECK(all != NULL);
    options.file_size = 10000;
    db = OPEN(test_path("large-commit"), &options);
    CHECK_OK(ourdb_insert(db, "before", 6, ids));
    test_fill(all, each * count, 77);
    for (i = 0; i < count; i++) {
        slices[i].data = all + i * each;
        slices[i].len = each;
    }
    CHECK_OK(ourdb_insert_many(db, slices, count, ids));
    CHECK_LAST_COMMIT(db, 2);
    CHECK_OK(ourdb_set(db, 1, "after", 5));
    if (test_on_disk(variant)) {
        CHECK_OK(ourdb_close(db));
        db = OPEN(test_path("large-commit"), &options);
    }
    ids_from(2, 1, count);
    CHECK_OK(ourdb_get_many(db, ids, count, &records));
    for (i = 0; i < count; i++) {
        CHECK_NUMBER(records.items[i].commit, 2);
        CHECK_BYTES(records.items[i].data, records.items[i].len, all + i * each, each);
    }
    ourdb_free_records(&records);
    CHECK_VALUE(db, 1, "after", 5);
    CHECK_OK(ourdb_destroy(db));
    free(all);
}

int
main(void)
{
    size_t i;

    test_begin("many");
    for (i = 0; i < TEST_VARIANT_COUNT; i++) {
        inserting(&test_variants[i]);
        setting(&test_variants[i]);
        deleting(&test_variants[i]);
        all_or_nothing(&test_variants[i]);
        getting(&test_variants[i]);
        large_commit(&test_variants[i]);
    }
    return test_end();
}
