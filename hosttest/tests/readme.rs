//! README and guide show code, commands and figures as they are.

const README: &str = include_str!("../../README.md");

/// Without white space at the start of lines.
fn flush(text: &str) -> String {
    text.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

/// The other blocks are doctests. These are parts of the bare-metal images, so what has to hold is that they are the same text.
#[test]
fn the_exit_handlers_are_the_prototypes() {
    let page = include_str!("../../src/guide/porting.md");
    let blocks = page.split("```rust,ignore\n").skip(1);
    let handlers: Vec<_> = blocks.map(|block| block.split("```").next().expect("the block ends")).collect();
    let sources = [include_str!("../type1/src/svm/exits.rs"), include_str!("../type1/src/arm64/exits.rs")];
    assert_eq!(handlers.len(), sources.len());
    for (handler, source) in handlers.into_iter().zip(sources) {
        assert!(handler.lines().count() < 40, "a handler of 40 lines is more than a reader takes in at once");
        assert!(flush(source).contains(&flush(handler)), "{handler}");
    }
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
    for line in include_str!("../../src/guide/testing.md").lines().filter(|line| line.starts_with("| `.ci/")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [command, _, in_gate] = cells.as_slice() else { panic!("{line}") };
        let script = command.trim_matches('`').split(' ').next().expect("a script");
        let at = scripts.iter().position(|there| there == script).unwrap_or_else(|| panic!("there is no {script}"));
        scripts.swap_remove(at);
        assert_eq!(in_gate.starts_with("yes"), runs(script), "{line}");
        assert!(in_gate.starts_with("yes") || in_gate.starts_with("no"), "{line}");
    }
    assert!(scripts.is_empty(), "the page has no row for {scripts:?}");
}

/// Each public module of devices is in the table of the page, and what it takes in code is measured and shown.
#[test]
fn the_table_of_devices_has_all_of_them() {
    let page = include_str!("../../src/guide/devices.md");
    let footprint = include_str!("../../.ci/footprint");
    let modules = include_str!("../../src/devices/mod.rs").lines();
    let modules: Vec<_> = modules
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|name| *name != "time")
        .collect();
    assert!(modules.len() > 10, "{modules:?}");
    for name in modules {
        assert!(page.contains(&format!("\n| `{name}::")), "the table has no row for {name}");
        let measured =
            [format!("`{name}` |"), format!("`{name}::")].iter().any(|row| page.contains(&format!("\n| {row}")));
        assert!(measured, "the page does not say what {name} takes");
        let words = || footprint.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        assert!(words().any(|word| word == name), "{name} is not measured");
    }
}

/// The dependency is what an embedder copies. It names every feature, and the Rust that is named is the one promised.
#[test]
fn the_dependency_has_all_features_and_the_rust_that_is_promised() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, block) = README.split_once("```toml\n").expect("the README has the dependency");
    let (block, _) = block.split_once("```").expect("the block ends");
    assert!(block.starts_with("[dependencies]\nvm-device = {"), "{block}");
    let (_, features) = manifest.split_once("[features]\n").expect("the manifest has features");
    let (features, _) = features.split_once("\n\n").expect("the features end");
    let features = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for feature in features.filter(|name| *name != "default") {
        assert!(block.contains(&format!("features = [\"{feature}\"]")), "{feature}: {block}");
    }
    let (_, version) = manifest.rsplit_once("\nrust-version = \"").expect("the manifest promises a version");
    let (version, _) = version.split_once('"').expect("the version ends");
    for page in [README, include_str!("../../src/guide/porting.md")] {
        assert!(page.contains(&format!("Rust {version} and later")), "{version}");
    }
}

#[test]
fn the_readme_is_short() {
    assert!(README.lines().count() <= 150);
}

/// The cells of a row of a table.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The tables of a text: of each, the head and the rows.
fn tables(text: &str) -> impl Iterator<Item = (Vec<&str>, Vec<Vec<&str>>)> {
    text.split("\n\n").filter(|block| block.starts_with("| |")).map(|block| {
        let mut lines = block.lines().map(cells);
        (lines.next().unwrap_or_default(), lines.skip(1).collect())
    })
}

/// The README's table of speed is part of the first one of the page.
#[test]
fn the_figures_of_speed_are_those_of_the_page() {
    let (all, measured) = tables(include_str!("../../src/guide/speed.md")).next().expect("the page has a table");
    let (chosen, rows) = tables(README).next().expect("the README has a table");
    assert!(chosen.len() > 3 && rows.len() > 3, "{chosen:?}, {rows:?}");
    for row in rows {
        let name = row[0];
        let whole = measured.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("the page has no {name}"));
        for (column, figure) in chosen.iter().zip(&row) {
            let at = all.iter().position(|head| head == column).unwrap_or_else(|| panic!("the page has no {column}"));
            assert_eq!(whole[at], *figure, "{name}, {column}");
        }
    }
}

/// Links to files of the repository lead somewhere.
#[test]
fn the_files_that_the_readme_links_to_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let links: Vec<_> =
        README.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|to| !to.contains(':')).collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        assert!(root.join(link).exists(), "{link}");
    }
}
