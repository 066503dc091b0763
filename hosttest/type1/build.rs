//! Links the image where the machine's loader puts it: by the `image.ld` of its processor, at fixed addresses.

fn main() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let folder = match variable("CARGO_CFG_TARGET_ARCH").as_str() {
        "aarch64" => "arm64",
        "x86_64" if std::env::var_os("CARGO_FEATURE_VMX").is_some() => "vmx",
        "riscv64" => "riscv64",
        _ => "svm",
    };
    let script = format!("src/{folder}/image.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{}/{script}", variable("CARGO_MANIFEST_DIR"));
    // Some targets link position-independent executables, which would have to relocate themselves first.
    println!("cargo::rustc-link-arg-bins=--no-pie");
}
