//! Links libourdb.so as a C program does, from the directory where `make lib` has put it, and shows
//! the functions of `no_sync` to the shared libraries.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=OURDB_LIB_DIR");
    let directory = std::env::var("OURDB_LIB_DIR").unwrap_or_else(|_| {
        format!(
            "{}/../target/release",
            std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")
        )
    });
    println!("cargo::rerun-if-changed={directory}/libourdb.so");
    assert!(
        std::env::var_os("CARGO_CFG_CLIPPY").is_some()
            || Path::new(&directory).join("libourdb.so").exists(),
        "no libourdb.so in {directory}: `make lib`, or set OURDB_LIB_DIR"
    );
    println!("cargo::rustc-link-search=native={directory}");
    println!("cargo::rustc-link-lib=dylib=ourdb");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    for name in ["fsync", "fdatasync", "msync", "sync_file_range", "syncfs"] {
        println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={name}");
    }
}
