/*
 * faults: the operating system fails, at every call in turn.
 *
 * Promise: whatever call fails, the function that needed it returns a code with a message, or does
 * without; nothing crashes or hangs. What was acknowledged is there, through the same handle and
 * after opening again. What failed is never seen, but for a commit whose fsync failed, which the
 * next opening may find, whole. When the cause is gone, writes go on through the same handle,
 * unless a write or an fsync failed: then they are OURDB_POISONED until it is opened again; after a
 * failed fsync always. A process that is killed before any call leaves the same.
 *
 *   faults [stride [first]]                           every stride-th case
 *   faults only WORKLOAD SETUP CALL KIND ERRNO MODE    one case, as a failure names it
 *
 * Runs under LD_PRELOAD=libinject.so. Each case is a process of its own, which tells what was
 * acknowledged through shared memory; then this one opens what is left. The last line of the output
 * is the number of calls that failed.
 */
#define _DEFAULT_SOURCE
#include "../harness.h"

#include "../commits.h"
#include "inject.h"

#include <dlfcn.h>
#include <sys/mman.h>

#define BASE_COMMITS 60
#define TRIED_MAX 200
#define CALLS_MAX 20000

/* What a case and the one who judges it share. */
typedef struct record {
    inject_plan plan;
    uint64_t acknowledged;
    uint32_t attempts[BASE_COMMITS + TRIED_MAX + 1]; /* by commit: which attempt succeeded */
    uint32_t attempt;                                /* the last one made */
    int in_doubt;                                    /* it may be there, or not */
    int emptied;   /* the database was to be removed, and may be gone or whole */
    int is_gone;   /* and it is gone */
    char doing[128];
    char message[512];                               /* of the last failure */
    uint8_t trace[CALLS_MAX];
} record;

static record *shared;
static void (*use_plan)(inject_plan *plan);

/* One case under way, in its own process. */
typedef struct run {
    const setup *with;
    const char *path;
    model state;
    ourdb *db;
    int healed;             /* nothing fails any more */
    uint32_t fired_at_open; /* how much had failed when the handle was opened */
    uint64_t random;
} run;

#define SYNCS (UINT32_C(1) << INJECT_FSYNC | UINT32_C(1) << INJECT_FDATASYNC)
#define WRITES (SYNCS | UINT32_C(1) << INJECT_WRITE | UINT32_C(1) << INJECT_FSTAT)

static const char *const kind_names[INJECT_CALLS] = {
    "open", "read", "write", "truncate", "allocate", "fsync", "fdatasync", "rename", "unlink",
    "mkdir", "rmdir", "stat", "fstat", "opendir", "readdir", "close", "mmap", "mprotect",
    "madvise", "lock", "getrandom", "pthread_create"
};

static void
doing(const char *what, uint64_t number)
{
    snprintf(shared->doing, sizeof shared->doing, "%s %" PRIu64, what, number);
}

/* Whether a call of these kinds failed since the database was opened. */
static int
failed_since_open(uint32_t kinds)
{
    return (shared->plan.kinds & kinds) != 0;
}

/*
 * Whether a failed open may count as a failed fsync: a directory is opened to be synced, and with
 * these errors it is the disk that failed, and not the process that has too much open.
 */
static int
opening_a_directory(void)
{
    return shared->plan.error == EIO || shared->plan.error == ENOSPC ||
           shared->plan.error == EROFS;
}

/* ---- the case: what it does ---------------------------------------------------------------- */

/* A call failed: it must have had the right to, and say why. */
static void
check_failure(const run *in, int code, uint32_t fired_before)
{
    const inject_plan *plan = &shared->plan;

    shared->plan.armed = 0;
    snprintf(shared->message, sizeof shared->message, "%s", ourdb_errmsg());
    if (ourdb_errmsg()[0] == '\0') {
        test_fail(__FILE__, __LINE__, "%s failed with %d and no message", shared->doing, code);
    }
    if (plan->fired == in->fired_at_open) {
        test_fail(__FILE__, __LINE__, "%s failed without a cause: %d: %s", shared->doing, code,
                  ourdb_errmsg());
    }
    if (code != OURDB_IO && code != OURDB_NO_SPACE && code != OURDB_OUT_OF_MEMORY &&
        code != OURDB_POISONED &&
        !(code == OURDB_LOCKED && (plan->kinds & UINT32_C(1) << INJECT_LOCK) != 0)) {
        test_fail(__FILE__, __LINE__, "%s: a system call failed, and that became %d: %s",
                  shared->doing, code, ourdb_errmsg());
    }
    if (plan->fired > fired_before && (code == OURDB_IO || code == OURDB_NO_SPACE) &&
        ourdb_os_error() != plan->error) {
        test_fail(__FILE__, __LINE__, "%s: errno %d became %d: %s", shared->doing, plan->error,
                  ourdb_os_error(), ourdb_errmsg());
    }
    shared->plan.armed = 1;
}

/* From here on nothing fails any more. */
static void
heal(run *in)
{
    shared->plan.mode = INJECT_NOTHING;
    in->healed = 1;
}

/* Reads with whatever still fails: the right value or an error. */
static void
read_while_failing(run *in)
{
    static uint8_t value[VALUE_MAX];
    uint32_t id;

    for (id = 0; id < IDS; id += 7) {
        uint32_t fired_before = shared->plan.fired;
        ourdb_buf buf;
        int code;

        doing("get", id);
        code = ourdb_get(in->db, id, &buf);
        if (code == OURDB_OK) {
            CHECK(is_live(&in->state, id));
            CHECK_BYTES(buf.data, buf.len, value, live_value(&in->state, id, value));
            ourdb_free_buf(&buf);
        } else if (code == OURDB_NOT_FOUND) {
            CHECK(!is_live(&in->state, id));
        } else {
            CHECK(shared->plan.fired > fired_before);
            check_failure(in, code, fired_before);
        }
    }
}

/* Reads everything, with nothing failing meanwhile. */
static void
read_all(run *in)
{
    shared->plan.armed = 0;
    check_all(in->db, &in->state, &in->random);
    shared->plan.armed = 1;
}

/* The commit in doubt is there, or it isn't. */
static void
settle_doubt(run *in)
{
    uint64_t found = test_last_commit(in->db);

    if (shared->in_doubt && found == in->state.last_commit + 1) {
        change made = next_change(&in->state);

        apply(&in->state, &made, shared->attempt);
        shared->attempts[found] = shared->attempt;
        shared->acknowledged = found;
    }
    shared->in_doubt = 0;
}

static int
open_once(run *in, uint32_t flags)
{
    ourdb_options options = options_of(in->with, flags);
    uint32_t fired_before = shared->plan.fired;
    int code;

    in->fired_at_open = fired_before;
    shared->plan.kinds = 0;
    doing("open", in->state.last_commit);
    code = ourdb_open(in->path, &options, &in->db);
    CHECK((in->db != NULL) == (code == OURDB_OK));
    if (code != OURDB_OK) {
        check_failure(in, code, fired_before);
    }
    return code == OURDB_OK;
}

/* Opens it, at the latest when the cause of the failure is gone. */
static void
open_at_last(run *in, uint32_t flags)
{
    if (!open_once(in, flags) && shared->plan.mode != INJECT_ONCE) {
        heal(in);
    }
    if (in->db == NULL && !open_once(in, flags)) {
        test_fail(__FILE__, __LINE__, "open, at the second try: %s", ourdb_errmsg());
    }
    if (shared->emptied && test_last_commit(in->db) == 0) {
        shared->is_gone = 1;
        free_model(&in->state);
        begin_model(&in->state, in->state.seed, in->state.key_value);
        shared->acknowledged = 0;
    }
    shared->emptied = 0;
    settle_doubt(in);
    read_all(in);
}

static void
close_it(run *in)
{
    uint32_t fired_before = shared->plan.fired;
    int code;

    doing("close", in->state.last_commit);
    code = ourdb_close(in->db);
    in->db = NULL;
    if (code != OURDB_OK) {
        check_failure(in, code, fired_before);
    }
}

/* Tries the next commit once; the code. */
static int
try_commit(run *in)
{
    change made = next_change(&in->state);
    uint32_t fired_before = shared->plan.fired;
    int code;

    doing("commit", in->state.last_commit + 1);
    shared->attempt++;
    shared->in_doubt = 1; /* it may be killed */
    code = ask_commit(in->db, &in->state, &made, shared->attempt);
    if (code == OURDB_OK) {
        apply(&in->state, &made, shared->attempt);
        shared->attempts[in->state.last_commit] = shared->attempt;
        shared->acknowledged = in->state.last_commit;
        shared->in_doubt = 0;
        return code;
    }
    shared->in_doubt = in->with->sync == OURDB_SYNC_COMMIT && code != OURDB_POISONED &&
                       shared->plan.fired > fired_before && failed_since_open(SYNCS);
    check_failure(in, code, fired_before);
    read_all(in);
    return code;
}

/* Whether the last failure was a write to the log, for another reason than a full disk. */
static int
log_write_failed(void)
{
    return strstr(shared->message, ": write ") != NULL && strstr(shared->message, ".db: ") != NULL &&
           shared->plan.error != ENOSPC && shared->plan.error != EDQUOT;
}

/* After a failure: the cause goes away, and writing goes on, through this handle or a new one. */
static void
go_on(run *in, int code)
{
    int doubt = shared->in_doubt;
    int log_failed = log_write_failed();

    if (shared->plan.mode != INJECT_ONCE && code != OURDB_POISONED) {
        /* It fails again, or it doesn't. */
        if (!doubt) {
            code = try_commit(in);
            doubt = shared->in_doubt;
        }
        read_while_failing(in);
    }
    heal(in);
    if (!doubt) {
        code = try_commit(in);
        if (code == OURDB_OK) {
            if (log_failed) {
                test_fail(__FILE__, __LINE__, "half a write, and commit %" PRIu64 " succeeded: %s",
                          in->state.last_commit, shared->message);
            }
            if (failed_since_open(SYNCS)) {
                test_fail(__FILE__, __LINE__, "an fsync failed, and commit %" PRIu64 " succeeded",
                          in->state.last_commit);
            }
            return;
        }
    }
    if (code != OURDB_POISONED && !doubt) {
        test_fail(__FILE__, __LINE__, "the cause is gone, and a commit fails: %s",
                  shared->message);
    }
    if (!failed_since_open(WRITES | (opening_a_directory() ? UINT32_C(1) << INJECT_OPEN : 0))) {
        test_fail(__FILE__, __LINE__, "no write and no fsync failed, and the handle is poisoned: %s",
                  shared->message);
    }
    if (!failed_since_open(SYNCS) && !failed_since_open(UINT32_C(1) << INJECT_OPEN) &&
        (shared->plan.error == ENOSPC || shared->plan.error == EDQUOT)) {
        test_fail(__FILE__, __LINE__, "the disk was full, and the handle is poisoned: %s",
                  shared->message);
    }
    if (doubt) {
        uint32_t attempt = shared->attempt;

        CHECK(try_commit(in) == OURDB_POISONED);
        shared->attempt = attempt;
        shared->in_doubt = 1;
    }
    close_it(in);
    open_at_last(in, 0);
}

static void
commit_some(run *in, uint32_t count)
{
    while (count-- > 0) {
        int code = try_commit(in);

        if (code != OURDB_OK) {
            go_on(in, code);
        }
    }
}

static void
sync_it(run *in)
{
    uint32_t fired_before = shared->plan.fired;
    int code;

    doing("sync", in->state.last_commit);
    code = ourdb_sync(in->db);
    if (code != OURDB_OK) {
        check_failure(in, code, fired_before);
        go_on(in, code);
    }
}

/* ---- the workloads ------------------------------------------------------------------------- */

static void
write_some(run *in)
{
    open_at_last(in, 0);
    commit_some(in, 12);
    sync_it(in);
    read_while_failing(in);
    commit_some(in, 8);
    close_it(in);
    open_at_last(in, 0);
    commit_some(in, 3);
    close_it(in);
}

static void
only_read(run *in)
{
    open_at_last(in, OURDB_OPEN_READ_ONLY);
    read_while_failing(in);
    read_all(in);
    close_it(in);
}

static void
destroy_it(run *in)
{
    uint32_t fired_before;
    int code;

    open_at_last(in, 0);
    commit_some(in, 2);
    shared->emptied = 1;
    fired_before = shared->plan.fired;
    doing("destroy", 0);
    code = ourdb_destroy(in->db);
    in->db = NULL;
    if (code == OURDB_OK) {
        shared->is_gone = 1;
    } else {
        check_failure(in, code, fired_before);
        heal(in);
        open_at_last(in, 0);
        commit_some(in, 3);
        close_it(in);
    }
}

static void
reset_it(run *in)
{
    shared->emptied = 1;
    open_at_last(in, OURDB_OPEN_RESET);
    CHECK(shared->is_gone);
    commit_some(in, 5);
    close_it(in);
}

/* What the database is before the case begins. */
enum before { ABSENT, CLOSED, CRASHED };

typedef struct workload {
    const char *name;
    enum before before;
    void (*body)(run *in);
} workload;

static const workload workloads[] = {
    {"make", ABSENT, write_some},           {"write", CLOSED, write_some},
    {"recover", CRASHED, write_some},       {"read", CLOSED, only_read},
    {"read-crashed", CRASHED, only_read},   {"destroy", CLOSED, destroy_it},
    {"destroy-crashed", CRASHED, destroy_it}, {"reset", CRASHED, reset_it}
};
#define WORKLOAD_COUNT (sizeof workloads / sizeof workloads[0])

/* ---- one case ------------------------------------------------------------------------------ */

typedef struct fault {
    size_t workload;
    size_t setup;
    uint32_t at;
    uint8_t kind;
    int error;
    enum inject_mode mode;
} fault;

/* Makes the database that a case begins with. */
static void
prepare(const fault *of, const char *path, model *state)
{
    const workload *work = &workloads[of->workload];
    ourdb_options options = options_of(&setups[of->setup], 0);
    pid_t child;
    ourdb *db;

    test_remove(path);
    begin_model(state, 5, setups[of->setup].key_value);
    if (work->before == ABSENT) {
        return;
    }
    child = test_fork();
    if (child == 0) {
        model own;

        begin_model(&own, 5, setups[of->setup].key_value);
        db = OPEN(path, &options);
        make_commits(db, &own, BASE_COMMITS);
        if (work->before == CLOSED) {
            VERIFY_OK(ourdb_close(db));
        }
        _exit(0);
    }
    test_wait(child);
    while (state->last_commit < BASE_COMMITS) {
        change made = next_change(state);

        apply(state, &made, 0);
    }
}

static void
do_case(const fault *of, const char *path, model *state)
{
    run in;

    memset(&in, 0, sizeof in);
    in.with = &setups[of->setup];
    in.path = path;
    in.state = *state;
    in.healed = of->mode == INJECT_NOTHING;
    use_plan(&shared->plan);
    shared->plan.armed = 1;
    workloads[of->workload].body(&in);
    shared->plan.armed = 0;
    _exit(0);
}

/* Opens what the case has left, and compares. */
static void
judge(const fault *of, const char *path, model *state)
{
    ourdb_options options = options_of(&setups[of->setup], 0);
    uint64_t random = of->at;
    ourdb *db;

    if (shared->is_gone) {
        free_model(state);
        begin_model(state, 5, setups[of->setup].key_value);
    }
    db = OPEN(path, &options);
    if (shared->emptied && test_last_commit(db) == 0) {
        free_model(state);
        begin_model(state, 5, setups[of->setup].key_value);
        shared->acknowledged = 0;
        shared->in_doubt = 0;
    }
    if (shared->in_doubt && test_last_commit(db) == shared->acknowledged + 1) {
        shared->acknowledged++;
        shared->attempts[shared->acknowledged] = shared->attempt;
    }
    while (state->last_commit < shared->acknowledged) {
        change made = next_change(state);

        apply(state, &made, shared->attempts[state->last_commit + 1]);
    }
    check_all(db, state, &random);
    CHECK_OK(ourdb_close(db));
}

/* Runs one case; how many calls failed in it. */
static uint32_t
run_case(const fault *of)
{
    const char *path = test_path("db");
    model state;
    pid_t child;
    int status;

    test_phase("again with: faults only %s '%s' %" PRIu32 " %s %d %d",
               workloads[of->workload].name, setups[of->setup].name, of->at, kind_names[of->kind],
               of->error, (int)of->mode);
    memset(shared, 0, offsetof(record, trace));
    prepare(of, path, &state);
    shared->acknowledged = state.last_commit;
    shared->plan.mode = of->mode;
    shared->plan.at = of->at;
    shared->plan.kind = of->kind;
    shared->plan.error = of->error;
    shared->plan.trace = shared->trace;
    shared->plan.trace_room = CALLS_MAX;
    child = test_fork();
    if (child == 0) {
        alarm(30);
        do_case(of, path, &state);
    }
    status = test_wait_status(child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && of->mode == INJECT_KILL) {
        shared->plan.fired = 1;
        shared->doing[0] = '\0';
    } else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        test_fail(__FILE__, __LINE__, "%s: it ended with wait status %#x after %" PRIu32
                  " failures in %" PRIu32 " calls", shared->doing, (unsigned)status,
                  shared->plan.fired, shared->plan.calls);
    }
    judge(of, path, &state);
    free_model(&state);
    return shared->plan.fired;
}

/* ---- all cases ----------------------------------------------------------------------------- */

/* What each kind of call can fail with, up to the first 0. */
static const int errors[INJECT_CALLS][8] = {
    {EMFILE, ENFILE, EACCES, EIO, ENOMEM, ENOSPC, EROFS, 0}, /* open */
    {EIO, ENOMEM, 0},                                         /* read */
    {ENOSPC, EIO, EDQUOT, EFBIG, 0},                          /* write */
    {EIO, ENOSPC, EPERM, 0},                                  /* truncate */
    {ENOSPC, EIO, EDQUOT, EOPNOTSUPP, ENOSYS, EFBIG, 0},      /* allocate */
    {EIO, ENOSPC, EDQUOT, 0},                                 /* fsync */
    {EIO, ENOSPC, EDQUOT, 0},                                 /* fdatasync */
    {EIO, ENOSPC, EACCES, EROFS, 0},                          /* rename */
    {EIO, EACCES, EROFS, EBUSY, 0},                           /* unlink */
    {ENOSPC, EACCES, EIO, EMLINK, 0},                         /* mkdir */
    {EIO, EACCES, EBUSY, 0},                                  /* rmdir */
    {EIO, EACCES, ENOMEM, 0},                                 /* stat */
    {EIO, ENOMEM, 0},                                         /* fstat */
    {EMFILE, EACCES, EIO, ENOMEM, 0},                         /* opendir */
    {EIO, 0},                                                 /* readdir */
    {EIO, ENOSPC, 0},                                  /* close */
    {ENOMEM, ENODEV, EPERM, EAGAIN, 0},                       /* mmap */
    {ENOMEM, 0},                                              /* mprotect */
    {EINVAL, ENOMEM, EFAULT, EIO, 0},                         /* madvise */
    {EIO, ENOLCK, EAGAIN, EINVAL, 0},                         /* lock */
    {ENOSYS, EIO, 0},                                         /* random */
    {EAGAIN, 0}                                               /* thread */
};

/* What runs, and how much of it did. */
typedef struct campaign {
    uint64_t stride;
    uint64_t next; /* counts down to the next case that is run */
    uint64_t failed;
} campaign;

static void
maybe_run(campaign *all, const fault *of)
{
    if (all->next-- > 0) {
        return;
    }
    all->next = all->stride - 1;
    all->failed += run_case(of) > 0;
}

/* Fails each call of one workload in turn. */
static void
fail_each(campaign *all, size_t work, size_t with)
{
    fault of = {0, 0, 0, 0, 0, INJECT_NOTHING};
    uint8_t trace[CALLS_MAX];
    uint32_t calls;
    uint32_t at;

    of.workload = work;
    of.setup = with;
    CHECK_NUMBER(run_case(&of), 0);
    calls = shared->plan.calls;
    CHECK(calls > 0 && calls <= CALLS_MAX);
    memcpy(trace, shared->trace, sizeof trace);
    for (at = 1; at <= calls; at++) {
        const int *error;

        of.at = at;
        of.kind = trace[at - 1];
        for (error = errors[of.kind]; *error != 0; error++) {
            of.error = *error;
            of.mode = INJECT_ONCE;
            maybe_run(all, &of);
            of.mode = INJECT_KIND;
            maybe_run(all, &of);
        }
        of.error = EIO;
        of.mode = INJECT_EVERYTHING;
        maybe_run(all, &of);
        of.error = ENOSPC;
        of.mode = INJECT_FULL;
        maybe_run(all, &of);
        of.mode = INJECT_KILL;
        maybe_run(all, &of);
    }
}

/* One case, from the command line. */
static int
run_only(char **arguments)
{
    fault of;

    for (of.workload = 0; of.workload < WORKLOAD_COUNT; of.workload++) {
        if (strcmp(workloads[of.workload].name, arguments[0]) == 0) {
            break;
        }
    }
    for (of.setup = 0; of.setup < SETUP_COUNT; of.setup++) {
        if (strcmp(setups[of.setup].name, arguments[1]) == 0) {
            break;
        }
    }
    for (of.kind = 0; of.kind < INJECT_CALLS; of.kind++) {
        if (strcmp(kind_names[of.kind], arguments[3]) == 0) {
            break;
        }
    }
    CHECK(of.workload < WORKLOAD_COUNT && of.setup < SETUP_COUNT && of.kind < INJECT_CALLS);
    of.at = (uint32_t)strtoul(arguments[2], NULL, 10);
    of.error = atoi(arguments[4]);
    of.mode = (enum inject_mode)atoi(arguments[5]);
    printf("%" PRIu32 " calls failed\n", run_case(&of));
    return test_end();
}

int
main(int argc, char **argv)
{
    const fault nothing = {0, 0, 0, 0, 0, INJECT_NOTHING};
    campaign all = {1, 0, 0};
    size_t work;
    size_t with;
    void *found;

    test_begin("faults");
    alarm(0);
    found = dlsym(RTLD_DEFAULT, "inject_use");
    if (found == NULL) {
        test_fail(__FILE__, __LINE__, "run it under LD_PRELOAD=libinject.so");
    }
    memcpy(&use_plan, &found, sizeof use_plan);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    /* What the library asks the system only once per process has been asked after this. */
    CHECK_NUMBER(run_case(&nothing), 0);
    if (argc == 8 && strcmp(argv[1], "only") == 0) {
        return run_only(argv + 2);
    }
    all.stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    all.next = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    for (work = 0; work < WORKLOAD_COUNT; work++) {
        for (with = 0; with < SETUP_COUNT; with++) {
            fail_each(&all, work, with);
        }
    }
    printf("%" PRIu64 "\n", all.failed);
    return test_end();
}
