/*
 * data_files: as many data files as there are numbers for, 65,536.
 *
 * Promise: with very many data files everything is still read as it was written; other databases of
 * the process have all that they need; when no number is left, writes are refused and change
 * nothing, and a compaction makes numbers free again, also where it drops nothing and no matter how
 * often that happens.
 */
#include "harness.h"

/* Inserts, each into a data file of its own, until it is refused or there are `most`; how many. */
static uint32_t
fill(ourdb *db, uint32_t from, uint32_t most)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;
    uint32_t i;
    int code;

    for (i = 0; i < most; i++) {
        size_t len = test_value(from + i, 1, value);

        code = ourdb_insert(db, value, len, &id);
        if (code != OURDB_OK) {
            CHECK_NUMBER(code, OURDB_FULL);
            CHECK_MESSAGE("compaction");
            break;
        }
        VERIFY(id == from + i);
    }
    return i;
}

static void
verify(ourdb *db, uint32_t count)
{
    uint8_t value[TEST_VALUE_MAX];
    uint32_t id;

    CHECK_COUNT(db, count);
    CHECK_NEXT_ID(db, count + 1);
    for (id = 1; id <= count; id += 1 + count / 1000) {
        size_t len = test_value(id, 1, value);

        CHECK_VALUE(db, id, value, len);
    }
}

/* A database in memory takes what address space there is for its files, and others get along. */
static void
beside(void)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    uint32_t count = test_scaled(20000);
    uint32_t filled;
    ourdb *other;
    ourdb *db;

    test_phase("many data files in memory, and another database");
    options.file_size = 1;
    db = OPEN(NULL, &options);
    filled = fill(db, 1, count);
    CHECK_NUMBER(filled, count);
    other = OPEN(test_path("other"), NULL);
    filled = fill(other, 1, 100);
    CHECK_NUMBER(filled, 100);
    verify(db, count);
    verify(other, 100);
    COMPACT(db, 1);
    verify(db, count);
    CHECK_OK(ourdb_destroy(other));
    CHECK_OK(ourdb_close(db));
}

/*
 * The numbers run out again and again, in a database whose first compaction was after `first`
 * data files. Under valgrind it would take minutes, and be the same.
 */
static void
no_number_left(uint32_t first)
{
    ourdb_options options = test_options(NULL, OURDB_OPEN_MEMORY);
    uint32_t count;
    int round;
    ourdb *db;

    if (test_scaled(10) < 10) {
        return;
    }
    options.file_size = 1;
    db = OPEN(NULL, &options);
    count = fill(db, 1, first);
    COMPACT(db, 1);
    for (round = 0; round < 4; round++) {
        uint32_t filled;

        test_phase("no number left after %u, round %d", (unsigned)first, round);
        filled = fill(db, count + 1, 70000);
        CHECK(filled > (round == 0 ? 60000 : 256) && filled < 65536);
        count += filled;
        verify(db, count);
        CHECK_CODE(ourdb_set(db, 1, "x", 1), OURDB_FULL);
        CHECK_CODE(ourdb_delete(db, 1), OURDB_FULL);
        verify(db, count);
        COMPACT(db, 1);
        verify(db, count);
    }
    CHECK_OK(ourdb_close(db));
}

int
main(void)
{
    test_begin("data_files");
    beside();
    no_number_left(0);
    no_number_left(600);
    no_number_left(2000);
    return test_end();
}
