//! The histories of `model`, with a manager that has room for more ranges than one block of the search.

#[path = "model/comparison.rs"]
mod comparison;
mod fixture;
#[path = "model/history.rs"]
mod history;
#[path = "model/moves.rs"]
mod moves;
#[path = "model/plain.rs"]
mod plain;
#[path = "model/platform.rs"]
mod platform;
#[path = "model/relay.rs"]
mod relay;
#[path = "model/steps.rs"]
mod steps;

use proptest::prelude::*;
use vm_device::{DeviceManager, Dispatcher};

const DEVICES: usize = 12;
const RANGES: usize = 48;
type Manager<'d> = DeviceManager<'d, DEVICES, RANGES, 1>;
type Vcpu<'d> = Dispatcher<'d, DEVICES, RANGES, 1>;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_roomy_manager_does_what_the_model_does(steps in history::history(40)) {
        platform::run(&steps);
    }
}
