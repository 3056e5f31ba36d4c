/*
 * The library of inject.h. Only what libourdb.so itself calls is counted and fails: not what the
 * test program does, nor what the C library does inside, as mapping memory for malloc().
 */
#define _GNU_SOURCE

#include "inject.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static inject_plan from_environment;
static inject_plan *plan = &from_environment;
/* Kinds of call of which this thread's last one was interrupted: the next one goes through. */
static __thread uint32_t let_through;

void
inject_use(inject_plan *new_plan)
{
    plan = new_plan;
}

/* Where libourdb.so lies in memory. */
static uintptr_t ourdb_begin;
static uintptr_t ourdb_end;

static int
find_ourdb(struct dl_phdr_info *info, size_t size, void *unused)
{
    int i;

    (void)size;
    (void)unused;
    if (strstr(info->dlpi_name, "libourdb.so") == NULL) {
        return 0;
    }
    ourdb_begin = UINTPTR_MAX;
    for (i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        uintptr_t end = begin + info->dlpi_phdr[i].p_memsz;

        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            ourdb_begin = begin < ourdb_begin ? begin : ourdb_begin;
            ourdb_end = end > ourdb_end ? end : ourdb_end;
        }
    }
    return 1;
}

__attribute__((constructor)) static void
begin(void)
{
    const char *text = getenv("OURDB_INJECT");
    const char *longest;

    dl_iterate_phdr(find_ourdb, NULL);
    if (text == NULL) {
        return;
    }
    longest = strstr(text, "longest=");
    from_environment.storm = strstr(text, "storm") != NULL;
    from_environment.longest =
        longest == NULL ? 0 : (uint32_t)strtoul(longest + strlen("longest="), NULL, 10);
    from_environment.no_reserve = strstr(text, "no-reserve") != NULL;
    from_environment.no_map = strstr(text, "no-map") != NULL;
    from_environment.armed = 1;
}

/* ---- what fails ---------------------------------------------------------------------------- */

#define BIT(kind) (UINT32_C(1) << (kind))

/* What a signal may interrupt. A file system in user space may let it interrupt nearly any call. */
static const uint32_t interruptible =
    BIT(INJECT_OPEN) | BIT(INJECT_READ) | BIT(INJECT_WRITE) | BIT(INJECT_TRUNCATE) |
    BIT(INJECT_ALLOCATE) | BIT(INJECT_FSYNC) | BIT(INJECT_FDATASYNC) | BIT(INJECT_RENAME) |
    BIT(INJECT_UNLINK) | BIT(INJECT_MKDIR) | BIT(INJECT_RMDIR) | BIT(INJECT_OPENDIR) |
    BIT(INJECT_CLOSE) | BIT(INJECT_LOCK) | BIT(INJECT_RANDOM);

/* Whether call number `number`, of kind `kind`, is to fail; `grows` says that it needs space. */
static int
is_hit(const inject_plan *by, uint32_t number, enum inject_call kind, int grows)
{
    switch (by->mode) {
    case INJECT_ONCE:
        return number >= by->at && kind == by->kind && by->fired == 0;
    case INJECT_KIND:
        return number >= by->at && kind == by->kind;
    case INJECT_EVERYTHING:
        return number >= by->at;
    case INJECT_FULL:
        return number >= by->at && grows;
    case INJECT_KILL:
        if (number == by->at) {
            kill(getpid(), SIGKILL);
        }
        return 0;
    default:
        return 0;
    }
}

/* Whether a call from `caller` is of interest. */
static int
concerns(const void *caller)
{
    return plan->armed && (uintptr_t)caller - ourdb_begin < ourdb_end - ourdb_begin;
}

/* Counts a call from `caller`; non-zero, with errno set, where it is to fail. */
static int
fails_for(const void *caller, enum inject_call kind, int grows)
{
    inject_plan *by = plan;
    uint32_t number;

    if (!concerns(caller)) {
        return 0;
    }
    number = __atomic_add_fetch(&by->calls, 1, __ATOMIC_RELAXED);
    if (by->trace != NULL && number <= by->trace_room) {
        by->trace[number - 1] = (uint8_t)kind;
    }
    if (is_hit(by, number, kind, grows)) {
        __atomic_fetch_or(&by->kinds, BIT(kind), __ATOMIC_RELAXED);
        __atomic_add_fetch(&by->fired, 1, __ATOMIC_RELAXED);
        errno = by->error;
        return 1;
    }
    if (by->storm && (interruptible & BIT(kind)) != 0) {
        let_through ^= BIT(kind);
        if ((let_through & BIT(kind)) != 0) {
            __atomic_add_fetch(&by->interrupted, 1, __ATOMIC_RELAXED);
            errno = EINTR;
            return 1;
        }
    }
    return 0;
}

static size_t
shortened_for(const void *caller, size_t len)
{
    uint32_t longest = plan->longest;

    return concerns(caller) && longest != 0 && len > longest ? longest : len;
}

/* In the functions that take the place of the C library's, whose caller is at their return. */
#define CALLER __builtin_return_address(0)
#define fails(kind, grows) fails_for(CALLER, kind, grows)
#define shortened(len) shortened_for(CALLER, len)

/* ---- the calls ----------------------------------------------------------------------------- */

/* `real` becomes the C library's function of that name. */
static void
find(void *real, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(real, &found, sizeof found);
}

#define REAL(name)                                                                            \
    static __typeof__(name) *real;                                                            \
    if (real == NULL) {                                                                       \
        find(&real, #name);                                                                   \
    }

/* A call that fails with -1. */
#define CALL(kind, grows, type, name, parameters, arguments)                                  \
    type name parameters                                                                      \
    {                                                                                         \
        REAL(name)                                                                            \
        return fails(kind, grows) ? -1 : real arguments;                                      \
    }

CALL(INJECT_FSYNC, 0, int, fsync, (int fd), (fd))
CALL(INJECT_FDATASYNC, 0, int, fdatasync, (int fd), (fd))
CALL(INJECT_FDATASYNC, 0, int, sync_file_range,
     (int fd, off64_t from, off64_t len, unsigned flags), (fd, from, len, flags))
CALL(INJECT_RENAME, 1, int, rename, (const char *from, const char *to), (from, to))
CALL(INJECT_UNLINK, 0, int, unlink, (const char *path), (path))
CALL(INJECT_MKDIR, 1, int, mkdir, (const char *path, mode_t mode), (path, mode))
CALL(INJECT_RMDIR, 0, int, rmdir, (const char *path), (path))
CALL(INJECT_TRUNCATE, 0, int, ftruncate64, (int fd, off64_t len), (fd, len))
CALL(INJECT_STAT, 0, int, stat64, (const char *path, struct stat64 *out), (path, out))
CALL(INJECT_FSTAT, 0, int, fstat64, (int fd, struct stat64 *out), (fd, out))
CALL(INJECT_MPROTECT, 0, int, mprotect, (void *at, size_t len, int to), (at, len, to))
CALL(INJECT_MADVISE, 0, int, madvise, (void *at, size_t len, int advice), (at, len, advice))
CALL(INJECT_RANDOM, 0, ssize_t, getrandom, (void *to, size_t len, unsigned flags), (to, len, flags))
CALL(INJECT_READ, 0, ssize_t, pread64, (int fd, void *to, size_t len, off64_t at),
     (fd, to, shortened(len), at))

/* One that fails leaves half of the bytes behind: an error promises nothing about them. */
ssize_t
pwrite64(int fd, const void *from, size_t len, off64_t at)
{
    int error;
    REAL(pwrite64)

    if (!fails(INJECT_WRITE, 1)) {
        return real(fd, from, shortened(len), at);
    }
    error = errno;
    if (error != EINTR) {
        (void)!real(fd, from, len / 2, at);
    }
    errno = error;
    return -1;
}

ssize_t
pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev)
    return fails(INJECT_WRITE, 1) ? -1 : real(fd, parts, count, at);
}

int
statx(int fd, const char *restrict path, int flags, unsigned mask, struct statx *restrict out)
{
    REAL(statx)
    return fails((flags & AT_EMPTY_PATH) != 0 ? INJECT_FSTAT : INJECT_STAT, 0)
               ? -1
               : real(fd, path, flags, mask, out);
}

int
fallocate64(int fd, int mode, off64_t from, off64_t len)
{
    REAL(fallocate64)
    if (plan->no_reserve && concerns(CALLER)) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return fails(INJECT_ALLOCATE, 1) ? -1 : real(fd, mode, from, len);
}

int fallocate(int fd, int mode, off_t from, off_t len) __attribute__((alias("fallocate64")));

int
open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    REAL(open64)

    if ((flags & O_CREAT) != 0) {
        va_list arguments;

        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return fails(INJECT_OPEN, (flags & O_CREAT) != 0) ? -1 : real(path, flags, mode);
}

/* The descriptor is closed all the same, as Linux does. */
int
close(int fd)
{
    int failed;
    int error;
    REAL(close)

    failed = fails(INJECT_CLOSE, 0);
    error = errno;
    if (failed) {
        real(fd);
        errno = error;
        return -1;
    }
    return real(fd);
}

DIR *
opendir(const char *path)
{
    REAL(opendir)
    return fails(INJECT_OPENDIR, 0) ? NULL : real(path);
}

struct dirent64 *
readdir64(DIR *directory)
{
    REAL(readdir64)
    return fails(INJECT_READDIR, 0) ? NULL : real(directory);
}

void *
mmap64(void *at, size_t len, int protection, int flags, int fd, off64_t offset)
{
    REAL(mmap64)
    if (plan->no_map && fd >= 0 && concerns(CALLER)) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    return fails(INJECT_MMAP, 0) ? MAP_FAILED : real(at, len, protection, flags, fd, offset);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap64")));

/* Only the locks that belong to an open file are of interest; the rest passes through. */
int
fcntl(int fd, int command, ...)
{
    void *argument;
    va_list arguments;
    REAL(fcntl)

    va_start(arguments, command);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if ((command == F_OFD_SETLK || command == F_OFD_GETLK) && fails(INJECT_LOCK, 0)) {
        return -1;
    }
    return real(fd, command, argument);
}

int
pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*body)(void *),
               void *argument)
{
    REAL(pthread_create)
    return fails(INJECT_THREAD, 0) ? errno : real(out, attributes, body, argument);
}
