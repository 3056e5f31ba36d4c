//! OurDB beside other embedded stores: `make bench`, and `bench/README.md`.

mod engine;
mod engines;
mod no_sync;

fn main() {
    no_sync::switch_off();
    for entry in engines::ALL {
        println!("{} {}", entry.name, no_sync::count());
    }
}
