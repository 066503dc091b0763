//! The map of modules that the guide has for maintainers names all of them, in the order of their imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules in the order of the map: the names between backticks in the first cells of its rows.
fn map() -> Vec<&'static str> {
    let (_, map) = include_str!("../src/guide/internals.md").split_once("# Map\n").expect("the page has a map");
    let (_, map) = map.split_once("|---|---|\n").expect("the map is a table");
    let (map, _) = map.split_once("\n\n").expect("the table ends");
    let first_cells = map.lines().filter_map(|row| row.split('|').nth(1));
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// What is directly in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The modules of the crate, and where each of them lies: in a file or a folder.
fn modules() -> Vec<(String, PathBuf)> {
    let sources = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let named = sources.into_iter().map(|path| {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8").to_owned();
        (name, path)
    });
    // Git leaves empty folders behind.
    named.filter(|(name, path)| name != "lib" && (path.is_file() || !entries(path).is_empty())).collect()
}

/// The modules that a file or the files of a folder import, without its tests.
fn imports(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        return entries(path).iter().for_each(|entry| imports(entry, found));
    }
    if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        found.extend(imported(&text).map(String::from));
    }
}

/// What follows `crate::` in the code of a file, before its tests.
fn imported(text: &str) -> impl Iterator<Item = &str> {
    let code = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"].iter().filter_map(|tests| text.find(tests)).min();
    let code = text.get(..code.unwrap_or(text.len())).unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    })
}

#[test]
fn the_map_names_every_module() {
    let modules: BTreeSet<_> = modules().into_iter().map(|(name, _)| name).collect();
    assert_eq!(map().into_iter().map(String::from).collect::<BTreeSet<_>>(), modules);
}

#[test]
fn a_module_imports_what_the_map_has_above_it() {
    let map = map();
    let place = |name: &str| map.iter().position(|module| *module == name);
    let mut edges = 0;
    // Tests and models stand outside: they drive everything.
    for (module, path) in modules().into_iter().filter(|(name, _)| !["models", "tests"].contains(&name.as_str())) {
        let mut found = BTreeSet::new();
        imports(&path, &mut found);
        for import in found.iter().filter(|import| **import != module) {
            if let Some(above) = place(import) {
                edges += 1;
                assert!(Some(above) < place(&module), "{module} imports {import}, which the map has below it");
            }
        }
    }
    assert!(edges > 30, "{edges}");
}

#[test]
fn imports_are_found_in_code_and_not_in_comments_or_tests() {
    let text = "use crate::index::Index;\n/// [`x`](crate::guide)\nfn f() { crate::cost::looked(); }\n\n\
                #[cfg(test)]\nmod tests {\n    use crate::manager::Storage;\n}\n";
    assert_eq!(imported(text).collect::<Vec<_>>(), ["index", "cost"]);
}
