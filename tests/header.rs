//! `include/ourdb.h`: made from `src/ffi`, fresh, the same as the contract, clean in every standard
//! of C and C++, documented, and declaring exactly what the library exports.
//!
//! `OURDB_UPDATE_HEADER=1 cargo test --test header` writes it anew.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use ourdb::ffi;

const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-pedantic", "-Werror"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The committed header, brought up to date first if that is asked for.
fn header() -> &'static str {
    static HEADER: OnceLock<String> = OnceLock::new();
    HEADER.get_or_init(|| {
        let path = root().join("include/ourdb.h");
        if env::var("OURDB_UPDATE_HEADER").as_deref() == Ok("1") {
            fs::write(&path, generate()).unwrap();
        }
        read(path)
    })
}

// Making the header.

/// The template, with what cbindgen makes of a file of `src/ffi` for each line `@file@`.
fn generate() -> String {
    let mut out = String::new();
    for line in read("src/ffi/ourdb.h.in").lines() {
        match included(line) {
            Some(file) => out += bindings(file).trim(),
            None => out += line,
        }
        out.push('\n');
    }
    out
}

fn included(line: &str) -> Option<&str> {
    line.strip_prefix('@')?.strip_suffix('@')
}

/// What cbindgen makes of one file, with two things put right. It refers to types as `struct name`
/// where it knows them and as `name` where it doesn't; the typedef makes both the same. And it
/// gives a comment of one line three.
fn bindings(file: &str) -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let mut raw = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(root().join("src/ffi").join(file))
        .generate()
        .unwrap_or_else(|error| panic!("src/ffi/{file}: {error}"))
        .write(&mut raw);
    let raw = String::from_utf8(raw).unwrap();
    let lines: Vec<&str> = raw.lines().collect();

    let mut out = String::new();
    let mut at = 0;
    while at < lines.len() {
        if let [open, text, close, ..] = &lines[at..]
            && open.trim_start() == "/**"
            && close.trim_start() == "*/"
            && let Some(text) = text.trim_start().strip_prefix("* ")
        {
            out += &format!("{open} {text} */");
            at += 3;
        } else {
            let line = lines[at];
            if line.starts_with("typedef") {
                out += line;
            } else {
                out += &line.replace("struct ourdb", "ourdb");
            }
            at += 1;
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_header_is_fresh() {
    assert!(
        header() == generate(),
        "include/ourdb.h is stale; run: OURDB_UPDATE_HEADER=1 cargo test --test header"
    );
}

/// A file that the template forgets would be missing from the header.
#[test]
fn every_file_with_exports_is_in_the_header() {
    let template = read("src/ffi/ourdb.h.in");
    let included: BTreeSet<&str> = template.lines().filter_map(included).collect();
    for entry in fs::read_dir(root().join("src/ffi")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".rs") && read(format!("src/ffi/{name}")).contains("no_mangle") {
            assert!(
                included.contains(name.as_str()),
                "src/ffi/ourdb.h.in lacks @{name}@"
            );
        }
    }
}

// What it declares.

/// The C code without comments.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").expect("a comment ends").1;
    }
    code + rest
}

fn not_in_a_name(character: char) -> bool {
    !character.is_ascii_alphanumeric() && character != '_'
}

/// `name` of every `name(` that is a function of ours.
fn functions(code: &str) -> BTreeSet<String> {
    code.match_indices('(')
        .filter_map(|(at, _)| code[..at].rsplit(not_in_a_name).next())
        .filter(|name| name.starts_with("ourdb_"))
        .map(str::to_owned)
        .collect()
}

/// The names that stand right behind `before`.
fn names_after(code: &str, before: &str) -> BTreeSet<String> {
    code.split(before)
        .skip(1)
        .filter_map(|rest| rest.split(not_in_a_name).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn nothing_is_declared_beyond_the_contract() {
    let header = code_of(header());
    let contract = code_of(&read("tests/header/contract.h"));
    assert!(
        functions(&contract).len() > 30,
        "the contract is read wrongly"
    );
    assert_eq!(functions(&header), functions(&contract));

    let mut macros = names_after(&header, "#define ");
    assert!(macros.remove("OURDB_H"));
    assert_eq!(macros, names_after(&contract, "\nSAME("));
}

/// C programs read these numbers from the header, and the library computes with its own.
#[test]
fn layouts_agree_with_the_library() {
    use std::mem::offset_of;
    header();
    let mut source = "#include \"ourdb.h\"\n".to_owned();
    let mut number = 0;
    let mut same = |c: String, rust: usize| {
        number += 1;
        source += &format!("typedef char same_{number}[({c}) == {rust} ? 1 : -1];\n");
    };
    macro_rules! layout {
        ($type:ident: $($field:ident),*) => {
            same(format!("sizeof({})", stringify!($type)), size_of::<ffi::$type>());
            same(
                format!("offsetof(struct {{ char c; {} t; }}, t)", stringify!($type)),
                align_of::<ffi::$type>(),
            );
            $(same(
                format!("offsetof({}, {})", stringify!($type), stringify!($field)),
                offset_of!(ffi::$type, $field),
            );)*
        };
    }
    layout!(ourdb_slice: data, len);
    layout!(ourdb_buf: data, len);
    layout!(ourdb_record: id, flags, commit, time_us, data, len);
    layout!(ourdb_records: items, count, owner);
    layout!(
        ourdb_options: size, flags, record_nr_max, record_size_max, file_size, lookup, sync,
        sync_interval_ms, io, auto_compact_percent, reserved, auto_keep_versions
    );
    layout!(ourdb_retention: size, keep_versions, keep_since_us, keep_since_commit);
    layout!(
        ourdb_stats: size, live, versions, deletions, bytes_live, bytes_dead, data_files,
        bytes_on_disk, last_commit, synced_commit, oldest_commit, next_id, transactions,
        last_time_us
    );
    Compiler::c().accepts("c11", &source).unwrap();
}

// What it says.

/// Each declaration of the header with the comment before it, in order.
fn documented() -> Vec<(String, String)> {
    let body = header().split_once("extern \"C\" {").unwrap().1;
    let mut out = Vec::new();
    let mut comment = String::new();
    let mut declaration = String::new();
    let mut in_comment = false;
    let mut depth = 0_i32;
    for line in body.lines() {
        let text = line.trim();
        if depth == 0 && text.starts_with("/*") {
            comment.clear();
            in_comment = true;
        }
        if in_comment {
            comment += text;
            comment.push('\n');
            in_comment = !text.ends_with("*/");
        } else if depth > 0 || text.starts_with("#define") || text.ends_with([';', '{']) {
            declaration += text;
            declaration.push('\n');
            depth += text.matches('{').count() as i32 - text.matches('}').count() as i32;
            if depth == 0 {
                out.push((
                    std::mem::take(&mut declaration),
                    std::mem::take(&mut comment),
                ));
            }
        }
    }
    out
}

#[test]
fn everything_is_documented() {
    let documented = documented();
    assert!(
        documented.len() > 70,
        "the header is read wrongly: {documented:#?}"
    );
    for (declaration, comment) in &documented {
        assert!(
            comment.starts_with("/**"),
            "no documentation: {declaration}"
        );
        let Some(function) = declaration.strip_suffix(");\n") else {
            continue;
        };
        // The caller writes the functions that a type of function stands for, and knows their cost.
        let callback = function.split_once(")(");
        let Some((name, parameters)) = callback.or_else(|| function.split_once('(')) else {
            continue;
        };
        let mut wanted = Vec::new();
        if callback.is_none() {
            wanted.push("\n* Cost: ".to_owned());
        }
        if !name.starts_with("void ") {
            wanted.push("\n* @return ".to_owned());
        }
        for parameter in parameters
            .split(',')
            .filter(|&parameter| parameter != "void")
        {
            let name = parameter.rsplit([' ', '*']).next().unwrap();
            wanted.push(format!("\n* @param {name} "));
        }
        for wanted in wanted {
            assert!(
                comment.contains(&wanted),
                "{}lacks {:?}",
                declaration,
                wanted.trim()
            );
        }
        let parameters_told = comment.matches("@param ").count();
        assert!(
            parameters_told <= parameters.split(',').count(),
            "{declaration}tells of a parameter that it doesn't have"
        );
    }
    for (number, field) in header()
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("    "))
    {
        if field.trim_start().starts_with(['/', '*']) {
            continue;
        }
        let before = header().lines().nth(number - 1).unwrap();
        assert!(
            before.trim_end().ends_with("*/"),
            "no documentation: {field}"
        );
    }
}

#[test]
fn it_is_written_for_readers_of_c() {
    for (number, line) in header().lines().enumerate() {
        let number = number + 1;
        for word in [
            "`", "::", "&[", "Option<", "Result<", "Safety", "panic", "Vec", "unsafe", "\t",
        ] {
            assert!(!line.contains(word), "line {number} has {word:?}: {line}");
        }
        assert!(line.is_ascii(), "line {number} is not ASCII: {line}");
        assert!(
            line == line.trim_end(),
            "line {number} ends in a space: {line}"
        );
        // cbindgen leaves a declaration on one line.
        let is_code = line.starts_with("#define") || line.ends_with(");");
        let longest = if is_code { 120 } else { 100 };
        assert!(
            line.len() <= longest,
            "line {number} is {} long: {line}",
            line.len()
        );
    }
    assert!(!header().contains("\n\n\n"), "two empty lines");
    let code = code_of(header());
    let includes: Vec<&str> = code
        .lines()
        .filter(|line| line.starts_with("#include"))
        .collect();
    assert_eq!(includes, ["#include <stddef.h>", "#include <stdint.h>"]);
}

// What compilers say.

struct Compiler {
    program: OsString,
    language: &'static str,
}

impl Compiler {
    fn c() -> Compiler {
        Compiler {
            program: env::var_os("CC").unwrap_or("cc".into()),
            language: "c",
        }
    }

    fn cpp() -> Compiler {
        Compiler {
            program: env::var_os("CXX").unwrap_or("c++".into()),
            language: "c++",
        }
    }

    fn is_there(&self) -> bool {
        Command::new(&self.program)
            .arg("--version")
            .output()
            .is_ok()
    }

    /// What the compiler finds wrong with `source`, which may include the header.
    fn accepts(&self, standard: &str, source: &str) -> Result<(), String> {
        let mut compiler = Command::new(&self.program)
            .args([format!("-std={standard}"), "-fsyntax-only".to_owned()])
            .args(WARNINGS)
            .arg("-I")
            .arg(root().join("include"))
            .arg("-I")
            .arg(root().join("tests/header"))
            .args(["-x", self.language, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        // A compiler that doesn't know the standard ends without reading.
        let _ = compiler.stdin.take().unwrap().write_all(source.as_bytes());
        let output = compiler.wait_with_output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(format!(
            "-std={standard}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// Checks the header in each standard; of those in `optional` only what the compiler knows.
    fn check(&self, standards: &[&str], optional: &[&str]) {
        header();
        let known = optional.iter().copied().filter(|standard| {
            let known = self.accepts(standard, "typedef int nothing;\n").is_ok();
            if !known {
                println!("{} does not know {standard}", self.program.display());
            }
            known
        });
        for standard in standards.iter().copied().chain(known) {
            for source in [
                "#include \"ourdb.h\"\ntypedef ourdb_buf one;\n",
                "#include \"ourdb.h\"\n#include \"ourdb.h\"\ntypedef ourdb_buf two;\n",
                "#include \"contract.h\"\n",
            ] {
                self.accepts(standard, source).unwrap();
            }
            // So that silence means something: one type changed is noticed.
            let contract = read("tests/header/contract.h");
            let other = contract.replace("uint64_t *out);", "uint32_t *out);");
            assert_ne!(other, contract);
            self.accepts(standard, &other).unwrap_err();
        }
    }
}

#[test]
fn clean_in_every_standard_of_c() {
    Compiler::c().check(&["c89", "c99", "c11", "c17"], &["c2x", "c23"]);
}

#[test]
fn clean_in_every_standard_of_cpp() {
    let compiler = Compiler::cpp();
    if !compiler.is_there() {
        assert!(
            env::var("CI").as_deref() != Ok("true"),
            "CI has no C++ compiler"
        );
        println!("SKIPPED: ourdb.h in C++: there is no C++ compiler");
        return;
    }
    compiler.check(
        &["c++98", "c++11", "c++14", "c++17", "c++20"],
        &["c++2b", "c++23"],
    );
}

// What the library exports.

/// Where the built libraries are. They are brought up to date first, unless somebody says where
/// they are.
fn libraries() -> &'static Path {
    static LIBRARIES: OnceLock<PathBuf> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        if let Some(directory) = env::var_os("OURDB_LIB_DIR") {
            return directory.into();
        }
        let made = Command::new("make")
            .args(["-s", "lib"])
            .current_dir(root())
            .status()
            .unwrap();
        assert!(made.success(), "make lib failed");
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
        root().join(target).join("release")
    })
}

/// The names of the global symbols that a library defines.
fn symbols(library: &str, options: &[&str]) -> BTreeSet<String> {
    let path = libraries().join(library);
    let output = Command::new("nm")
        .args(options)
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "nm {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(
            |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                [_address, _kind, name] => Some(name.to_owned()),
                _ => None,
            },
        )
        .collect()
}

#[test]
fn the_shared_library_exports_the_header_and_nothing_else() {
    let exported = symbols("libourdb.so", &["-D", "--defined-only"]);
    assert_eq!(exported, functions(&code_of(header())));
}

#[test]
fn the_static_library_defines_the_header_and_nothing_else_of_its_name() {
    let mut defined = symbols("libourdb.a", &["-g", "--defined-only"]);
    defined.retain(|name| name.starts_with("ourdb_"));
    assert_eq!(defined, functions(&code_of(header())));
}

/// The program that the header begins with: it compiles in every standard, and does what is said.
#[test]
fn the_first_program_runs() {
    let program: String = header()
        .lines()
        .skip_while(|line| !line.contains("#include <stdio.h>"))
        .take_while(|line| line.is_empty() || line.starts_with(" *     ") || *line == " *")
        .map(|line| line.strip_prefix(" *     ").unwrap_or_default().to_owned() + "\n")
        .collect();
    for standard in ["c89", "c99", "c11", "c17"] {
        Compiler::c().accepts(standard, &program).unwrap();
    }

    let directory = env::temp_dir().join(format!("ourdb-header-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("first.c"), &program).unwrap();
    let compiled = Command::new(Compiler::c().program)
        .args(WARNINGS)
        .args(["first.c", "-o", "first"])
        .arg("-I")
        .arg(root().join("include"))
        .arg("-L")
        .arg(libraries())
        .arg("-lourdb")
        .current_dir(&directory)
        .status()
        .unwrap();
    assert!(compiled.success());
    for id in 1..=2 {
        let output = Command::new(directory.join("first"))
            .current_dir(&directory)
            .env("LD_LIBRARY_PATH", libraries())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{id}: Ada Lovelace\n")
        );
        assert!(output.status.success());
    }
    fs::remove_dir_all(&directory).unwrap();
}
