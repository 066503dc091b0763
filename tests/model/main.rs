//! Random histories of a manager against a model that compares everything with everything.
//!
//! The model keeps a plain list of devices and their ranges. It has no order, no tree of intervals and no index: it
//! answers each question by looking at every range, and places a range by trying every address. Both address spaces
//! are looked at where they end: 32 addresses at the bottom and 32 at the top.

mod comparison;
#[path = "../fixture/mod.rs"]
mod fixture;
mod history;
mod moves;
mod plain;
mod platform;
mod relay;
mod steps;

use proptest::prelude::*;
use vm_device::{DeviceManager, Dispatcher};

const DEVICES: usize = 6;
const RANGES: usize = 14;
type Manager<'d> = DeviceManager<'d, DEVICES, RANGES, 1>;
/// One hint, which is often wrong.
type Vcpu<'d> = Dispatcher<'d, DEVICES, RANGES, 1, 1, 1>;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 5,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_manager_does_what_the_model_does(steps in history::history(24)) {
        platform::run(&steps);
    }
}
