//! The README shows code as it is.

/// Without white space at the start of lines.
fn flush(text: &str) -> String {
    text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

/// The other blocks are doc tests of the library. This one is part of the bare-metal image, so what has to hold is that
/// it is the same text.
#[test]
fn the_exit_handler_is_the_prototypes() {
    let readme = include_str!("../../README.md");
    let (_, block) = readme.split_once("```rust,ignore\n").expect("the README has the block");
    let (handler, _) = block.split_once("```").expect("the block ends");
    assert!(handler.lines().count() < 40, "the README promises under 40 lines");
    assert!(flush(include_str!("../type1/src/exits.rs")).contains(&flush(handler)), "{handler}");
}

/// The first block is what an embedder copies. It names every feature, and the Rust that is named is the one promised.
#[test]
fn the_first_block_is_the_dependency_with_all_features() {
    let readme = include_str!("../../README.md");
    let manifest = include_str!("../../Cargo.toml");
    let (_, block) = readme.split_once("```").expect("the README has a block");
    let (block, _) = block.split_once("```").expect("the block ends");
    assert!(block.starts_with("toml\n[dependencies]\nvm-device = {"), "{block}");
    let (_, features) = manifest.split_once("[features]\n").expect("the manifest has features");
    let (features, _) = features.split_once("\n\n").expect("the features end");
    let features = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for feature in features.filter(|name| *name != "default") {
        assert!(block.contains(&format!("features = [\"{feature}\"]")), "{feature}: {block}");
    }
    let (_, version) = manifest.rsplit_once("\nrust-version = \"").expect("the manifest promises a version");
    let (version, _) = version.split_once('"').expect("the version ends");
    assert!(readme.contains(&format!("Rust {version} and later")), "{version}");
}
