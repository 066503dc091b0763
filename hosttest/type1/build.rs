//! Links the image where the machine's loader puts it: by `image.ld`, at fixed addresses.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    println!("cargo::rerun-if-changed=image.ld");
    println!("cargo::rustc-link-arg-bins=-T{directory}/image.ld");
    // The target links position-independent executables, which would have to relocate themselves first.
    println!("cargo::rustc-link-arg-bins=--no-pie");
}
