/*
 * What operations cost in instructions: tests/instructions.rs runs this under callgrind, which counts
 * what happens in the functions here whose names begin with "counted_", one after the other.
 *
 *     instructions DIRECTORY
 *
 * All work on one new database of 100-byte values with OURDB_SYNC_OS. Prints the name of each
 * workload and how many operations it was. Nothing depends on time or chance, so neither do the
 * counts. The loops around the calls are in them, some ten instructions for each call.
 */
#define PROGRAM "instructions"

#include "checks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VALUE = 100,
    RECORDS = 10000,
    STRIDE = 7919, /* a prime: steps of it come to every record once, far from the one before */
    GET_MANY = 100,
    INSERT_MANY = 1000,
    NEXT_MANY = 1000
};

static ourdb *db;
static ourdb_iter *iter;
static uint32_t ids[RECORDS]; /* those that insert gave, in the order of the strides */
static uint8_t value[VALUE];
static uint8_t newer[VALUE];

/* ---- what is counted: RECORDS operations each ------------------------------------------------- */

static void counted_insert(void)
{
    uint32_t i, id;

    for (i = 0; i < RECORDS; i++)
        ok(ourdb_insert(db, value, VALUE, &id), "insert");
}

static void counted_insert_many(void)
{
    static ourdb_slice values[INSERT_MANY];
    static uint32_t given[INSERT_MANY];
    uint32_t i;

    for (i = 0; i < INSERT_MANY; i++)
        values[i] = (ourdb_slice){value, VALUE};
    for (i = 0; i < RECORDS; i += INSERT_MANY)
        ok(ourdb_insert_many(db, values, INSERT_MANY, given), "insert_many");
}

static void counted_get_into(void)
{
    uint8_t buffer[VALUE];
    uint32_t i;
    size_t len;

    for (i = 0; i < RECORDS; i++)
        ok(ourdb_get_into(db, ids[i], buffer, VALUE, &len), "get_into");
}

static void counted_get(void)
{
    ourdb_buf buffer;
    uint32_t i;

    for (i = 0; i < RECORDS; i++) {
        ok(ourdb_get(db, ids[i], &buffer), "get");
        ourdb_free_buf(&buffer);
    }
}

static void counted_get_many(void)
{
    ourdb_records records;
    uint32_t i;

    for (i = 0; i < RECORDS; i += GET_MANY) {
        ok(ourdb_get_many(db, ids + i, GET_MANY, &records), "get_many");
        ourdb_free_records(&records);
    }
}

static void counted_iter_next(void)
{
    ourdb_record record;
    uint32_t i;

    for (i = 0; i < RECORDS; i++)
        ok(ourdb_iter_next(iter, &record), "iter_next");
}

static void counted_iter_next_many(void)
{
    ourdb_records records;
    uint32_t i;

    for (i = 0; i < RECORDS; i += NEXT_MANY) {
        ok(ourdb_iter_next_many(iter, NEXT_MANY, &records), "iter_next_many");
        expect(records.count == NEXT_MANY, "count of iter_next_many");
        ourdb_free_records(&records);
    }
}

static void counted_iter_next_ids(void)
{
    uint32_t next[NEXT_MANY];
    uint32_t i;
    size_t count;

    for (i = 0; i < RECORDS; i += NEXT_MANY) {
        ok(ourdb_iter_next_ids(iter, next, NEXT_MANY, &count), "iter_next_ids");
        expect(count == NEXT_MANY, "count of iter_next_ids");
    }
}

static void counted_set(void)
{
    uint32_t i;

    for (i = 0; i < RECORDS; i++)
        ok(ourdb_set(db, ids[i], newer, VALUE), "set");
}

static void counted_delete(void)
{
    uint32_t i;

    for (i = 0; i < RECORDS; i++)
        ok(ourdb_delete(db, ids[i]), "delete");
}

/* ---- what is around it ------------------------------------------------------------------------ */

static void begin_scan(void)
{
    ok(ourdb_iter_open(db, 0, UINT32_MAX, 0, &iter), "iter_open");
}

static void end_scan(void)
{
    ourdb_iter_close(iter);
}

static void expect_all(const uint8_t *expected)
{
    uint8_t buffer[VALUE];
    uint32_t i;
    size_t len;

    for (i = 0; i < RECORDS; i++) {
        ok(ourdb_get_into(db, ids[i], buffer, VALUE, &len), "get_into");
        expect(len == VALUE && memcmp(buffer, expected, VALUE) == 0, "value");
    }
}

static void expect_count(uint64_t expected)
{
    uint64_t count;

    ok(ourdb_count(db, &count), "count");
    expect(count == expected, "count");
}

static void after_insert(void)
{
    expect_count(RECORDS);
    expect_all(value);
}

static void after_insert_many(void)
{
    expect_count(2 * RECORDS);
}

static void after_set(void)
{
    expect_all(newer);
}

static void after_delete(void)
{
    expect_count(RECORDS);
}

static const struct workload {
    const char *name;
    void (*before)(void);
    void (*counted)(void);
    void (*after)(void);
} workloads[] = {
    {"insert", NULL, counted_insert, after_insert},
    {"insert_many", NULL, counted_insert_many, after_insert_many},
    {"get_into", NULL, counted_get_into, NULL},
    {"get", NULL, counted_get, NULL},
    {"get_many", NULL, counted_get_many, NULL},
    {"iter_next", begin_scan, counted_iter_next, end_scan},
    {"iter_next_many", begin_scan, counted_iter_next_many, end_scan},
    {"iter_next_ids", begin_scan, counted_iter_next_ids, end_scan},
    {"set", NULL, counted_set, after_set},
    {"delete", NULL, counted_delete, after_delete},
};

int main(int argc, char **argv)
{
    ourdb_options options;
    size_t i;

    if (argc != 2) {
        fprintf(stderr, "usage: instructions DIRECTORY\n");
        return EXIT_FAILURE;
    }
    for (i = 0; i < RECORDS; i++)
        ids[i] = (uint32_t)(i * STRIDE % RECORDS) + 1;
    memset(value, 'v', VALUE);
    memset(newer, 'n', VALUE);

    ok(ourdb_options_init(&options, sizeof options), "options_init");
    options.flags = OURDB_OPEN_RESET;
    ok(ourdb_open(argv[1], &options, &db), "open");
    for (i = 0; i < sizeof workloads / sizeof *workloads; i++) {
        const struct workload *workload = &workloads[i];

        if (workload->before != NULL)
            workload->before();
        workload->counted();
        if (workload->after != NULL)
            workload->after();
        printf("%s %d\n", workload->name, RECORDS);
    }
    ok(ourdb_destroy(db), "destroy");
    return EXIT_SUCCESS;
}
