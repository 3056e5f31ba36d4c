/*
 * What the programs here that measure time have in common: a table of measured values, and what
 * fills it. A program defines PROGRAM, its name, before it includes this.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include "checks.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_ROUNDS = 99 };

/* ---- the table ------------------------------------------------------------------------------ */

/* A row of it, with a value of each round. */
struct row {
    const char *name;
    const char *unit;
    size_t count;
    double values[MAX_ROUNDS];
};

static void sample(struct row *row, double value)
{
    row->values[row->count++] = value;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

/* Median, lowest and highest of each row that has values. */
static void print_table(struct row *rows, size_t count)
{
    struct row *row;

    printf("%-41s %10s %10s %10s\n", "", "median", "lowest", "highest");
    for (row = rows; row < rows + count; row++) {
        double *values = row->values;
        size_t n = row->count;

        if (n == 0)
            continue;
        qsort(values, n, sizeof *values, by_value);
        printf("%-41s %10.2f %10.2f %10.2f %s\n", row->name,
               (values[(n - 1) / 2] + values[n / 2]) / 2, values[0], values[n - 1], row->unit);
    }
}

/* ---- memory, time, chance and arguments ----------------------------------------------------- */

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    expect(memory != NULL, "out of memory");
    return memory;
}

static double now(void) /* in nanoseconds */
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static uint64_t mix(uint64_t x) /* SplitMix64 */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* The number from 1 to `highest` that an argument is. */
static uint32_t number(const char *text, uint32_t highest)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value == 0 || value > highest) {
        fprintf(stderr, PROGRAM ": %s: not a number from 1 to %" PRIu32 "\n", text, highest);
        exit(EXIT_FAILURE);
    }
    return (uint32_t)value;
}

#endif
