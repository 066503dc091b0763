//! The sentences of the concurrency contract have numbers. Tests and models cite those that they hold, and for each there
//! is a mutation of the code that one of these finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The page that has the contract.
const PAGE: &str = "src/guide/concurrency.md";

/// The numbers of the sentences in the contract, in their order: `C7:` each.
fn numbers(page: &str) -> Vec<u32> {
    let (_, contract) = page.split_once("\n# The contract\n").expect("the page has the contract");
    let (contract, _) = contract.split_once("\n# ").expect("another section follows");
    let words = contract.split_whitespace();
    words.filter_map(|word| word.strip_prefix('C')?.strip_suffix(':')?.parse().ok()).collect()
}

/// Which functions cite which numbers: those below a comment `/// C3, C7.`
fn citations(source: &str) -> Vec<(u32, String)> {
    let mut cited = Vec::new();
    let mut found = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("/// C").and_then(|list| list.strip_suffix('.')) {
            found.extend(list.split(", C").map_while(|number| number.parse::<u32>().ok()));
        } else if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once(['(', '<'])) {
            cited.extend(found.drain(..).map(|number| (number, name.to_owned())));
        } else if !line.starts_with("///") && !line.starts_with("#[") {
            assert_eq!(found, [], "what cites numbers is a function: {line}");
        }
    }
    cited
}

/// The files that may hold tests and models: all below a folder, but this one.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("its entries can be read").path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with(file!()) {
            found.push(path);
        }
    }
}

#[test]
fn every_sentence_of_the_contract_is_held_by_what_finds_a_mutation_and_no_other_number_is_cited() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mutations = [".ci/mutation-table", ".ci/loom"].map(|file| read(&root.join(file))).concat();
    let numbers = numbers(&read(&root.join(PAGE)));
    assert!(!numbers.is_empty());
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u32), "one after the other, from C1 on: {numbers:?}");
    let mut cited = BTreeMap::<u32, Vec<(String, String)>>::new();
    let mut files = Vec::new();
    ["src", "tests"].iter().for_each(|folder| sources(&root.join(folder), &mut files));
    for path in files {
        for (number, name) in citations(&read(&path)) {
            let file = path.strip_prefix(root).unwrap_or(&path).display();
            cited.entry(number).or_default().push((name, file.to_string()));
        }
    }
    let found = |name: &str| mutations.split_whitespace().any(|word| word.rsplit("::").next() == Some(name));
    for number in &numbers {
        let by = cited.get(number).unwrap_or_else(|| panic!("no test and no model cites C{number}"));
        assert!(by.iter().any(|(name, _)| found(name)), "no mutation is found by what cites C{number}: {by:?}");
    }
    for (number, by) in cited {
        assert!(numbers.contains(&number), "C{number} is no sentence of {PAGE}: {by:?}");
    }
}

#[test]
fn numbers_and_citations_are_found() {
    let page = "# A\n\n# The contract\n\n**Bold.** C1: One. C2:\nTwo, see C1.\n\n# B\nC3: Three.\n";
    assert_eq!(numbers(page), [1, 2]);
    let source = "/// C1, C12.\n#[test]\nfn a() {}\n\n/// Text.\n/// C2.\n    fn b<T>() {}\nfn c() {}";
    assert_eq!(citations(source), [(1, "a".into()), (12, "a".into()), (2, "b".into())]);
}
