/*
 * What all programs here have in common: checks that end the program. A program defines PROGRAM, its
 * name, before it includes this.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include <ourdb.h>
#include <stdio.h>
#include <stdlib.h>

static void ok(int code, const char *what)
{
    if (code != OURDB_OK) {
        fprintf(stderr, PROGRAM ": %s: %s\n", what, ourdb_errmsg());
        exit(EXIT_FAILURE);
    }
}

static void expect(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, PROGRAM ": wrong: %s\n", what);
        exit(EXIT_FAILURE);
    }
}

#endif
