//! Tells the linker to put what every run needs side by side.

use std::env;

/// The released program has 25 MB of text, of which a small run calls 4 MB. Scattered, they bring nearly all of it into memory.
/// `hot-path.ld` names them (`bench/hot-path` writes it); other linkers than the compiler's own may not read it.
fn main() {
    println!("cargo:rerun-if-changed=hot-path.ld");
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    let own_linker = env::var_os("RUSTC_LINKER").is_none()
        && env::var("CARGO_ENCODED_RUSTFLAGS")
            .is_ok_and(|flags| !["linker", "fuse-ld"].iter().any(|word| flags.contains(word)));
    if is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu") && own_linker {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T");
        println!("cargo:rustc-link-arg-bins={folder}/hot-path.ld");
    }
}
