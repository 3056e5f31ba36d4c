//! Builds the C programs of the project as a user would, and runs them: the tests in `c-tests/`,
//! the examples, the benchmark, and what `make install` leaves.
//!
//! A test program runs four times: with the shared library, with the static one, under valgrind,
//! and with AddressSanitizer and UBSan on the C side. What this machine has no tool for is skipped
//! with a line `SKIPPED: what: why`, which `tests/run.sh` counts.

#[path = "support/programs.rs"]
mod programs;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use programs::*;

macro_rules! c_tests {
    ($($name:ident)*) => {
        const C_TESTS: &[&str] = &[$(stringify!($name)),*];

        $(mod $name {
            use super::{Link, Under, c_test};

            #[test]
            fn shared_library() {
                c_test(stringify!($name), Link::Shared, Under::Nothing);
            }

            #[test]
            fn static_library() {
                c_test(stringify!($name), Link::Static, Under::Nothing);
            }

            #[test]
            fn valgrind() {
                c_test(stringify!($name), Link::Shared, Under::Valgrind);
            }

            #[test]
            fn sanitizers() {
                c_test(stringify!($name), Link::Sanitized, Under::Nothing);
            }
        })*
    };
}

c_tests! {
    basics
    limits_errors
    data_files
    arguments
    layout
    check
    history
    order
    many
    persistence
    threads
    fork
    locking
    sandbox
    herolib
    kill
    fuzz
    txn
    iter
    compact
    erase
    revert
    backup
    changes
    refresh
    stats
    peers
}

#[test]
fn every_c_test_is_listed_here() {
    let mut found: Vec<String> = fs::read_dir(project().join("c-tests"))
        .expect("c-tests")
        .map(|entry| entry.expect("an entry of c-tests").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let mut listed = C_TESTS.to_vec();
    found.sort();
    listed.sort_unstable();
    assert_eq!(listed, found);
}

#[test]
fn the_first_program_is_the_one_in_the_readme() {
    let readme = fs::read_to_string(project().join("README.md")).expect("README.md");
    let shown = readme
        .split_once("```c\n")
        .and_then(|(_, rest)| rest.split_once("```\n"))
        .map(|(program, _)| program)
        .expect("a C program in README.md");
    let program = fs::read_to_string(project().join("examples/first.c")).expect("first.c");
    assert_eq!(shown, program);
}

#[test]
fn the_first_program_runs() {
    let scratch = Scratch::new("first");
    let program = compile("examples/first.c", Link::Shared, &scratch);
    let output = succeed(scratch.command(&program));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "record 1, commit 2: world!\nrecord 1, commit 1: hello\n"
    );
}

#[test]
fn the_demo_runs() {
    let scratch = Scratch::new("demo");
    let program = compile("examples/demo.c", Link::Shared, &scratch);
    for _ in 0..2 {
        // The second run starts the database anew.
        let output = succeed(demo(&scratch, &program, Under::Nothing));
        let summary = String::from_utf8_lossy(&output.stdout);
        for step in [
            "second revision, verified",
            "first revision, verified",
            "deleted\n",
        ] {
            assert!(summary.contains(step), "no {step:?} in:\n{summary}");
        }
    }
}

#[test]
fn the_demo_leaks_nothing() {
    if !has_valgrind("the demo") {
        return;
    }
    let scratch = Scratch::new("demo-valgrind");
    let program = compile("examples/demo.c", Link::Shared, &scratch);
    succeed(demo(&scratch, &program, Under::Valgrind));
}

#[test]
fn the_demo_says_what_went_wrong() {
    let scratch = Scratch::new("demo-fails");
    let program = compile("examples/demo.c", Link::Shared, &scratch);
    fs::write(scratch.path.join("text"), "one\ntwo\n").expect("a text");
    let output = scratch
        .command(&program)
        .args(["text", "text"])
        .output()
        .expect("demo");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(message.starts_with("demo: open: "), "{message}");
}

#[test]
fn the_follower_runs() {
    let scratch = Scratch::new("follower");
    let program = compile("examples/follower.c", Link::Shared, &scratch);
    for (commits, records) in [(2800, 1800), (5600, 3600)] {
        // The second run goes on where the first one stopped.
        let mut command = scratch.command(&program);
        command.arg("followed");
        let output = succeed(command);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("sent up to commit {commits}\n{records} records are the same in both\n")
        );
    }
}

#[test]
fn the_follower_leaks_nothing() {
    if !has_valgrind("the follower") {
        return;
    }
    let scratch = Scratch::new("follower-valgrind");
    let program = compile("examples/follower.c", Link::Shared, &scratch);
    let mut command = scratch.command_under(Under::Valgrind, &program);
    command.arg("followed");
    succeed(command);
}

#[test]
fn the_benchmark_runs() {
    let scratch = Scratch::new("quick");
    let program = compile("c-bench/quick.c", Link::Shared, &scratch);
    let mut command = scratch.command(&program);
    command.args(["--ids-disk", "250", "2", "bench.db"]);
    let table = String::from_utf8(succeed(command).stdout).expect("a table");
    assert!(table.contains("\nget_many"), "{table}");
    assert!(!scratch.path.join("bench.db").exists());
}

#[test]
fn what_is_installed_can_be_linked_and_uninstalled() {
    if !runs(Command::new("pkg-config").arg("--version")) {
        return skip("make install", "pkg-config is not installed");
    }
    let scratch = Scratch::new("install");
    let prefix = scratch.path.join("usr");
    let make = |target: &str| {
        let mut command = make_command();
        command
            .arg(target)
            .arg(format!("PREFIX={}", prefix.display()))
            .arg(format!("LIB={}", lib_dir().display()));
        succeed(command);
    };

    make("install");
    let program = scratch.path.join("first");
    for kind in [
        &["--cflags", "--libs"][..],
        &["--cflags", "--libs", "--static"][..],
    ] {
        if kind.contains(&"--static") {
            // The linker takes the shared library as long as there is one.
            fs::remove_file(prefix.join("lib/libourdb.so")).expect("libourdb.so");
            fs::remove_file(prefix.join("lib/libourdb.so.0")).expect("libourdb.so.0");
        }
        let mut query = Command::new("pkg-config");
        query
            .args(kind)
            .arg("ourdb")
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        let flags = String::from_utf8(succeed(query).stdout).expect("flags");
        let mut command = compiler();
        command
            .arg("-std=c99")
            .arg(project().join("examples/first.c"))
            .arg("-o")
            .arg(&program)
            .args(flags.split_whitespace());
        succeed(command);
        let mut command = Command::new(&program);
        command
            .current_dir(&scratch.path)
            .env("LD_LIBRARY_PATH", prefix.join("lib"));
        succeed(command);
    }

    make("uninstall");
    let left: Vec<PathBuf> = files_below(&prefix);
    assert!(left.is_empty(), "left after make uninstall: {left:?}");
}

/// `Libs.private` in `ourdb.pc.in` has everything that this compiler's static libraries need.
#[test]
fn static_linking_names_every_native_library() {
    let scratch = Scratch::new("native-libs");
    fs::write(scratch.path.join("empty.rs"), "").expect("empty.rs");
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command
        .args([
            "--crate-type",
            "staticlib",
            "--print",
            "native-static-libs",
            "empty.rs",
        ])
        .current_dir(&scratch.path);
    let output = succeed(command);
    let printed = String::from_utf8_lossy(&output.stderr);
    let needed = printed
        .lines()
        .find_map(|line| line.strip_prefix("note: native-static-libs: "))
        .expect("the list of native libraries");
    let stated = private_libs();
    for library in needed.split_whitespace() {
        assert!(
            stated.iter().any(|known| known == library),
            "{library} is not in ourdb.pc.in"
        );
    }
}

/// Builds one program of `c-tests/` and runs it.
fn c_test(name: &str, link: Link, under: Under) {
    let what = format!("c-tests/{name}.c");
    let variant = match (link, under) {
        (Link::Shared, Under::Nothing) => "shared",
        (Link::Static, _) => "static",
        (Link::Sanitized, _) if has_sanitizers(&what) => "sanitizers",
        (Link::Shared, Under::Valgrind) if has_valgrind(&what) => "valgrind",
        _ => return,
    };
    let scratch = Scratch::new(&format!("{name}-{variant}"));
    let program = compile(&what, link, &scratch);
    let mut command = scratch.command_under(under, &program);
    if let Under::Valgrind = under {
        command.env("OURDB_TEST_SCALE", "0.1");
        if name == "kill" {
            command.arg("3"); // rounds
        }
    }
    let output = succeed(command);
    // Among it what the program itself had to skip.
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The demo on a text that every checkout has.
fn demo(scratch: &Scratch, program: &Path, under: Under) -> Command {
    let mut command = scratch.command_under(under, program);
    command.arg(project().join("README.md")).arg("demo.db");
    command
}

fn has_sanitizers(what: &str) -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let scratch = Scratch::new("has-sanitizers");
        let source = scratch.path.join("empty.c");
        fs::write(&source, "int main(void) { return 0; }\n").expect("a C file");
        let program = scratch.path.join("empty");
        let built = runs(
            compiler()
                .args(sanitize(&source))
                .arg(&source)
                .arg("-o")
                .arg(&program),
        );
        built && runs(Command::new(&program).env(ASAN_OPTIONS.0, ASAN_OPTIONS.1))
    });
    if !found {
        skip(
            &format!("{what} with sanitizers"),
            "the C compiler has no AddressSanitizer",
        );
    }
    found
}

fn has_valgrind(what: &str) -> bool {
    let found = runs(Command::new("valgrind").arg("--version"));
    if !found {
        skip(
            &format!("{what} under valgrind"),
            "valgrind is not installed",
        );
    }
    found
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
