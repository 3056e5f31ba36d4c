//! Building C programs as a user would, and running them with the library that was built.
//!
//! The library is the one in `OURDB_LIB_DIR`, or else what `make lib` builds.

// Each test program uses its own part of this module.
#![allow(dead_code, unreachable_pub)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// How a C program is linked.
#[derive(Clone, Copy, PartialEq)]
pub enum Link {
    Shared,
    Static,
    /// The shared library, and the C side with AddressSanitizer and UBSan.
    Sanitized,
}

/// What runs a C program.
#[derive(Clone, Copy)]
pub enum Under {
    Nothing,
    Valgrind,
}

/// A directory for one test, removed when the test has passed.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("c-programs")
            .join(name);
        if path.exists() {
            fs::remove_dir_all(&path).expect("remove what an earlier run left");
        }
        fs::create_dir_all(&path).expect("create a directory");
        Scratch { path }
    }

    /// Runs `program` in this directory, with the library that was built.
    pub fn command(&self, program: &Path) -> Command {
        self.command_under(Under::Nothing, program)
    }

    pub fn command_under(&self, under: Under, program: &Path) -> Command {
        let mut command = match under {
            Under::Nothing => Command::new(program),
            Under::Valgrind => {
                let mut command = Command::new("valgrind");
                command
                    .args(["--quiet", "--error-exitcode=99", "--leak-check=full"])
                    // Its threads take turns. Without that one of them may run for minutes alone.
                    .arg("--fair-sched=try")
                    .arg(format!("--errors-for-leak-kinds={}", leaks(program)))
                    .arg(format!("--show-leak-kinds={}", leaks(program)))
                    .arg(program);
                command
            }
        };
        // cargo's own LD_LIBRARY_PATH has an unoptimized build of the library.
        command
            .current_dir(&self.path)
            .env("TMPDIR", &self.path)
            .env(ASAN_OPTIONS.0, ASAN_OPTIONS.1)
            .env("LD_LIBRARY_PATH", lib_dir());
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            fs::remove_dir_all(&self.path).expect("remove the directory of a test");
        }
    }
}

/// Under valgrind, which leaks are errors. In a forked child whatever the parent's other threads
/// held is lost, and no library can help that.
fn leaks(program: &Path) -> &'static str {
    if program.ends_with("fork") {
        "none"
    } else {
        "definite,indirect,possible"
    }
}

/// Compiles a C file of the project without a warning, as strict C99.
pub fn compile(source: &str, link: Link, scratch: &Scratch) -> PathBuf {
    let source = project().join(source);
    let program = scratch.path.join(source.file_stem().expect("a C file"));
    let mut command = strict_compiler(&program);
    if link == Link::Sanitized {
        command.args(sanitize(&source));
    }
    command.arg(&source);
    if link == Link::Static {
        command
            .arg(lib_dir().join("libourdb.a"))
            .args(private_libs());
    } else {
        command.arg("-L").arg(lib_dir()).arg("-lourdb");
    }
    succeed(command);
    program
}

/// Compiles `c-tests/torture/inject.c`, for the environment variable `LD_PRELOAD`.
pub fn compile_injector(scratch: &Scratch) -> PathBuf {
    let library = scratch.path.join("libinject.so");
    let mut command = strict_compiler(&library);
    command
        .args(["-shared", "-fPIC"])
        .arg(project().join("c-tests/torture/inject.c"))
        .arg("-ldl");
    succeed(command);
    library
}

fn strict_compiler(output: &Path) -> Command {
    let mut command = compiler();
    command
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-O1",
            "-g",
            "-pthread",
        ])
        .arg("-I")
        .arg(project().join("include"))
        .arg("-o")
        .arg(output);
    command
}

/// The compiler's options for [`Link::Sanitized`]. AddressSanitizer's allocator hangs in a child
/// that was forked while another thread was in it, so `fork.c` does without.
pub fn sanitize(source: &Path) -> [&'static str; 3] {
    let sanitizers = if source.ends_with("c-tests/fork.c") {
        "-fsanitize=undefined"
    } else {
        "-fsanitize=address,undefined"
    };
    [
        sanitizers,
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
    ]
}

/// Leaks are valgrind's to find: a search for them needs ptrace, which containers may forbid.
pub const ASAN_OPTIONS: (&str, &str) = ("ASAN_OPTIONS", "detect_leaks=0");

/// Says that a test, or a part of it, can't run on this machine.
pub fn skip(what: &str, why: &str) {
    println!("SKIPPED: {what}: {why}");
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn compiler() -> Command {
    Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

pub fn make_command() -> Command {
    let mut command = Command::new("make");
    command
        .arg("--silent")
        .current_dir(project())
        // Those of the `make test` that may have started this.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL");
    command
}

/// Where the libraries are; built once when nobody has said where.
pub fn lib_dir() -> &'static Path {
    static LIB_DIR: OnceLock<PathBuf> = OnceLock::new();
    LIB_DIR.get_or_init(|| {
        if let Some(directory) = env::var_os("OURDB_LIB_DIR") {
            return directory.into();
        }
        let mut make = make_command();
        make.arg("lib");
        succeed(make);
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        project().join(target).join("release")
    })
}

/// What a static link needs beside the library, as the package states it.
pub fn private_libs() -> Vec<String> {
    let package = fs::read_to_string(project().join("ourdb.pc.in")).expect("ourdb.pc.in");
    package
        .lines()
        .find_map(|line| line.strip_prefix("Libs.private:"))
        .expect("Libs.private in ourdb.pc.in")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Whether a command can be run and succeeds; what it prints is of no interest.
pub fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a command that must succeed; shows everything that it printed if it doesn't.
pub fn succeed(mut command: Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
