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
    assert!(handler.lines().count() < 40, "a handler of 40 lines is more than a page of the README has room for");
    assert!(flush(include_str!("../type1/src/exits.rs")).contains(&flush(handler)), "{handler}");
}

/// Each script has a row, which says whether the gate runs it.
#[test]
fn the_table_of_commands_says_what_the_gate_runs() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let gate = std::fs::read_to_string(root.join(".ci/run")).expect("the gate");
    let runs = |script: &str| gate.lines().any(|line| line.split_whitespace().next() == Some(script));
    let mut scripts = Vec::new();
    for entry in std::fs::read_dir(root.join(".ci")).expect("the scripts") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name in UTF-8");
        if !["run", "install", "mutation-table"].contains(&name.as_str()) {
            scripts.push(format!(".ci/{name}"));
        }
    }
    for line in include_str!("../../README.md").lines().filter(|line| line.starts_with("| `.ci/")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [command, _, in_gate] = cells.as_slice() else { panic!("{line}") };
        let script = command.trim_matches('`').split(' ').next().expect("a script");
        let at = scripts.iter().position(|there| there == script).unwrap_or_else(|| panic!("there is no {script}"));
        scripts.swap_remove(at);
        assert_eq!(in_gate.starts_with("yes"), runs(script), "{line}");
        assert!(in_gate.starts_with("yes") || in_gate.starts_with("no"), "{line}");
    }
    assert!(scripts.is_empty(), "the README has no row for {scripts:?}");
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
