/*
 * inject: makes the operating system fail, for a program that runs under LD_PRELOAD=libinject.so.
 *
 * The library stands between the program and the C library, counts the calls below, and lets one
 * of them, or all from one on, fail with an errno. What it does follows from the plan that the
 * program hands over with inject_use(), which it finds with dlsym(). A program that knows nothing
 * of it is given a plan by the environment:
 *
 *   OURDB_INJECT=storm          every call that a signal can interrupt is, once each time
 *   OURDB_INJECT=longest=7      no read or write moves more than 7 bytes
 *   OURDB_INJECT=no-reserve     space can't be reserved (fallocate is EOPNOTSUPP)
 *   OURDB_INJECT=no-map         files can't be mapped (mmap of one is ENODEV)
 *
 * and several of them with commas between.
 */
#ifndef OURDB_INJECT_H
#define OURDB_INJECT_H

#include <stdint.h>

enum inject_call {
    INJECT_OPEN,
    INJECT_READ,
    INJECT_WRITE,
    INJECT_TRUNCATE,
    INJECT_ALLOCATE,
    INJECT_FSYNC,
    INJECT_FDATASYNC,
    INJECT_RENAME,
    INJECT_UNLINK,
    INJECT_MKDIR,
    INJECT_RMDIR,
    INJECT_STAT,
    INJECT_FSTAT,
    INJECT_OPENDIR,
    INJECT_READDIR,
    INJECT_CLOSE,
    INJECT_MMAP,
    INJECT_MPROTECT,
    INJECT_MADVISE,
    INJECT_LOCK,
    INJECT_RANDOM,
    INJECT_THREAD,
    INJECT_CALLS
};

enum inject_mode {
    INJECT_NOTHING,
    INJECT_ONCE,       /* the first call of kind `kind` from number `at` on fails */
    INJECT_KIND,       /* all of them do */
    INJECT_EVERYTHING, /* all calls from number `at` on */
    INJECT_FULL,       /* those of them that need space on disk */
    INJECT_KILL        /* the process dies, by SIGKILL, before call number `at` */
};

typedef struct inject_plan {
    volatile int armed; /* without it nothing is counted and nothing fails */
    enum inject_mode mode;
    uint32_t at;
    uint8_t kind;
    int error;

    int storm;
    uint32_t longest; /* 0: as long as asked for */
    int no_reserve;
    int no_map;

    /* What came of it. */
    volatile uint32_t calls;     /* so many were counted */
    volatile uint32_t fired;     /* so many of them failed */
    volatile uint32_t kinds;     /* bits 1 << kind of those; the program may clear them */
    volatile uint32_t interrupted;
    uint8_t *trace; /* the kinds of the first `trace_room` calls, if not NULL */
    uint32_t trace_room;
} inject_plan;

/* Follows `plan` from here on; it may lie in shared memory. */
void inject_use(inject_plan *plan);

#endif
