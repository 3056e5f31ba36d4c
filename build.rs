//! Gives the shared library its SONAME, and keeps it loaded after `dlclose`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,libourdb.so.0");
        // A thread-local destructor of this library may still run after `dlclose`, and the
        // `pthread_atfork` handler stays registered: the code must stay mapped.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    }
}
