//! Random histories of a manager against a model that compares everything with everything.
//!
//! The model keeps a plain list of devices and their ranges. It has no order, no tree of intervals and no index: it
//! answers each question by looking at every range, and places a range by trying every address. Both address spaces
//! are looked at where they end: 32 addresses at the bottom and 32 at the top.

mod comparison;
#[path = "../fixture/mod.rs"]
mod fixture;
mod history;
mod interrupts;
mod moves;
mod plain;
mod platform;
mod relay;
mod steps;

use proptest::prelude::*;

/// A part of the cases that proptest is asked for: a history takes longer than what it has in mind.
fn config(divisor: u32) -> ProptestConfig {
    let cases = ProptestConfig::default().cases / divisor;
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(5))]

    /// With one hint for each space, which is often wrong.
    #[test]
    fn a_manager_does_what_the_model_does(steps in history::history(24)) {
        platform::run::<6, 14, 1>(&steps);
    }
}

proptest! {
    #![proptest_config(config(16))]

    /// With room for more ranges than one block of the search.
    #[test]
    fn a_roomy_manager_does_what_the_model_does(steps in history::history(40)) {
        platform::run::<12, 48, 2048>(&steps);
    }
}
