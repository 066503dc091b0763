//! Pages about the crate as a whole: how to start with it, what it promises, what it costs, how it is built.
//!
//! | page | what is in it |
//! |---|---|
//! | [`start`] | the first ten minutes: a device, storage and a manager, the exit loop, interrupts, buses, hot unplug |
//! | [`from_2019`] | for users of the 2019 rust-vmm design: each of its calls, and the one that takes its place |
//! | [`map`] | the address map: states of ranges, what waits, windows, which range answers, listeners |
//! | [`interrupts`] | lines of devices, who shares them, where they move, how they end; messages |
//! | [`vmm`] | for the VMM: names and the map, the observer, accesses that fail, time, the reset of the machine |
//! | [`devices`] | devices that are ready: what there is, a PC made of them, time, power, PCI; exits of whole boots, code size |
//! | [`tables`] | what a guest finds of the machine, written from what is registered: ACPI, a device tree |
//! | [`concurrency`] | the concurrency contract, C1 to C38, and what each operation waits for |
//! | [`speed`] | every measurement, beside other crates, with the goals that are reached and those that are not |
//! | [`memory`] | memory for each device, range and vCPU; code size, stack and worst case |
//! | [`testing`] | how the crate is tested, and the command for each kind of test |
//! | [`porting`] | another machine: targets, features, and what the VMM supplies |
//! | [`internals`] | for maintainers: the map of modules, the protocol, where a change begins |

#[doc = include_str!("start.md")]
pub mod start {}

#[doc = include_str!("from_2019.md")]
pub mod from_2019 {}

#[doc = include_str!("map.md")]
pub mod map {}

#[doc = include_str!("interrupts.md")]
pub mod interrupts {}

#[doc = include_str!("vmm.md")]
pub mod vmm {}

#[doc = include_str!("devices.md")]
pub mod devices {}

#[doc = include_str!("tables.md")]
pub mod tables {}

#[doc = include_str!("concurrency.md")]
pub mod concurrency {}

#[doc = include_str!("speed.md")]
pub mod speed {}

#[doc = include_str!("memory.md")]
pub mod memory {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("porting.md")]
pub mod porting {}

#[doc = include_str!("internals.md")]
pub mod internals {}
