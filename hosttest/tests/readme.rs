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
