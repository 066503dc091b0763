//! Random drives, moves, ends, removals and refusals, against a model that knows for each interrupt its line and its level: what
//! the controller has taken is what the sources assert.

mod fixture;

use proptest::prelude::*;
use spin::Mutex;
use vm_device::{
    Access, Device, Gsi, GuestAddress, InstanceId, InterruptController, InterruptError, IrqLine, IrqResource, Rejected,
    Resources,
};

use fixture::{drive, manager};

const FIRST: u32 = 5;
const LINES: usize = 4;
const DEVICES: usize = 3;
/// Of each device.
const INTERRUPTS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Step {
    Drive { device: usize, index: usize, asserted: bool },
    Reroute { device: usize, index: usize, line: Option<u32> },
    End(u32),
    Refuse(bool),
    Unregister { device: usize, deferred: bool },
    Register { device: usize, lines: [Option<u32>; INTERRUPTS] },
}

fn step() -> impl Strategy<Value = Step> {
    let line = || prop::option::weighted(0.8, FIRST..FIRST + LINES as u32);
    let which = || (0..DEVICES, 0..INTERRUPTS);
    prop_oneof![
        8 => (which(), any::<bool>()).prop_map(|((device, index), asserted)| Step::Drive { device, index, asserted }),
        6 => (which(), line()).prop_map(|((device, index), line)| Step::Reroute { device, index, line }),
        3 => (FIRST..FIRST + LINES as u32).prop_map(Step::End),
        2 => any::<bool>().prop_map(Step::Refuse),
        2 => (0..DEVICES, any::<bool>()).prop_map(|(device, deferred)| Step::Unregister { device, deferred }),
        4 => (0..DEVICES, [line(), line()]).prop_map(|(device, lines)| Step::Register { device, lines }),
    ]
}

/// Its lines have the levels that it took last. It lets a line go when its interrupt ends.
struct Controller(Mutex<([bool; LINES], bool)>);

impl InterruptController for Controller {
    fn set_level(&self, gsi: Gsi, asserted: bool) -> Result<(), InterruptError> {
        let (levels, refuses) = &mut *self.0.lock();
        if *refuses {
            return Err(InterruptError::Refused);
        }
        levels[(gsi.0 - FIRST) as usize] = asserted;
        Ok(())
    }
    fn pulse(&self, _: Gsi) -> Result<(), InterruptError> {
        Ok(())
    }
    fn message(&self, _: GuestAddress, _: u32) -> Result<(), InterruptError> {
        Ok(())
    }
}

struct Pins<'d>(&'static str, Mutex<[IrqLine<'d>; INTERRUPTS]>);

impl<'d> Device<'d> for Pins<'d> {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, _: &Access<'_>, _: &mut [u8]) {}
    fn set_resources(&self, resources: &Resources<'_, 'd>) -> Result<(), Rejected> {
        *self.1.lock() = [0, 1].map(|index| resources.irq(index));
        Ok(())
    }
}

/// A device that is registered: its id, and the line and the level of each interrupt.
type Known = Option<(InstanceId, [(Option<u32>, bool); INTERRUPTS])>;

fn run(steps: &[Step]) {
    let controller = Controller(Mutex::new(([false; LINES], false)));
    manager!(let manager: <8, 12, 1>, with_interrupt_controller(&controller));
    let pins = ["a", "b", "c"].map(|name| Pins(name, Mutex::new([IrqLine::DISCONNECTED; INTERRUPTS])));
    let mut known: [Known; DEVICES] = [None; DEVICES];
    for step in steps {
        match *step {
            Step::Drive { device, index, asserted } => {
                let told = drive(pins[device].1.lock()[index], asserted);
                match &mut known[device] {
                    Some((_, interrupts)) => interrupts[index].1 = asserted,
                    None => assert_eq!(told, Err(InterruptError::Removed)),
                }
            }
            Step::Reroute { device, index, line } => {
                if let Some((id, interrupts)) = &mut known[device]
                    && manager.reroute(*id, index, line.map(Gsi)).is_ok()
                {
                    interrupts[index].0 = line;
                }
            }
            Step::End(line) => {
                controller.0.lock().0[(line - FIRST) as usize] = false;
                let _ = manager.end_of_interrupt(Gsi(line));
            }
            Step::Refuse(refuses) => controller.0.lock().1 = refuses,
            Step::Unregister { device, deferred } => {
                if let Some((id, _)) = known[device].take() {
                    let removed = match deferred {
                        true => manager.unregister_device_deferred(id),
                        false => manager.unregister_device(id),
                    };
                    removed.unwrap();
                    manager.collect();
                }
            }
            Step::Register { device, lines } => {
                if known[device].is_none() {
                    let requests =
                        lines.map(|line| line.map_or(IrqResource::Unrouted, |line| IrqResource::Shared(Gsi(line))));
                    let id = manager.register_device(&pins[device], None, &[], &requests).unwrap();
                    known[device] = Some((id, lines.map(|line| (line, false))));
                }
            }
        }
        for (id, interrupts) in known.iter().flatten() {
            let lines = [0, 1].map(|index| manager.irq(*id, index).unwrap().gsi.map(|gsi| gsi.0));
            assert_eq!(lines, interrupts.map(|(line, _)| line));
        }
        if controller.0.lock().1 {
            continue;
        }
        // What was refused is told again by the next drive, and by `collect` where no device has the line.
        for (device, (_, interrupts)) in
            known.iter().enumerate().filter_map(|(device, known)| Some((device, (*known)?)))
        {
            for (index, (_, asserted)) in interrupts.into_iter().enumerate() {
                assert_eq!(drive(pins[device].1.lock()[index], asserted), Ok(()));
            }
        }
        assert_eq!(manager.collect(), 0);
        let all = || known.iter().flatten().flat_map(|(_, interrupts)| interrupts);
        let expected: Vec<_> =
            (FIRST..FIRST + LINES as u32).map(|line| all().any(|interrupt| *interrupt == (Some(line), true))).collect();
        assert_eq!(controller.0.lock().0.to_vec(), expected, "{step:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// C23, C24, C25, C36, C37, C38.
    #[test]
    fn the_controller_has_the_levels_that_the_sources_assert(steps in prop::collection::vec(step(), 0..60)) {
        run(&steps);
    }
}
