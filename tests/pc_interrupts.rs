//! The interrupt lines of a PC, which lead to two controllers.
#![cfg(feature = "devices")]

mod fixture;

#[cfg(feature = "alloc")]
use std::sync::Arc;

use spin::Mutex;
use vm_device::devices::ioapic::{Ioapic, LocalApics};
use vm_device::devices::pc_interrupts::PcInterrupts;
use vm_device::devices::pic::{IntrPin, Pic};
use vm_device::{Gsi, GuestAddress, InterruptController, InterruptError, IoType};

use fixture::{Log, Told, manager};

#[test]
fn the_lines_of_the_isa_bus_lead_to_both_and_the_timer_to_another_input() {
    let (pic, ioapic) = (Log::default(), Log::default());
    let lines = PcInterrupts::new(&pic, &ioapic);
    for (line, of_pic, of_ioapic) in [
        (0, Some(0), 2),
        (1, Some(1), 1),
        (3, Some(3), 3),
        (15, Some(15), 15),
        (16, None, 16),
        (23, None, 23),
        (32, None, 32),
        (u32::MAX, None, u32::MAX),
    ] {
        for asserted in [true, false] {
            lines.set_level(Gsi(line), asserted).unwrap();
            assert_eq!(pic.take(), of_pic.map(|line| Told::Level(line, asserted)).into_iter().collect::<Vec<_>>());
            assert_eq!(ioapic.take(), [Told::Level(of_ioapic, asserted)]);
        }
        assert_eq!(lines.line_at_input(Gsi(of_ioapic)), Some(Gsi(line)));
        lines.pulse(Gsi(line)).unwrap();
        assert_eq!(pic.take(), of_pic.map(Told::Pulse).into_iter().collect::<Vec<_>>());
        assert_eq!(ioapic.take(), [Told::Pulse(of_ioapic)]);
    }
    assert_eq!(lines.line_at_input(Gsi(0)), None);
    assert_eq!(lines.set_level(Gsi(2), true), Err(InterruptError::Refused));
    assert_eq!(lines.pulse(Gsi(2)), Err(InterruptError::Refused));
    lines.message(GuestAddress(0xfee0_0000), 7).unwrap();
    assert_eq!((pic.take(), ioapic.take()), (vec![], vec![Told::Message(0xfee0_0000, 7)]));
}

#[test]
fn a_level_that_one_refuses_neither_keeps() {
    let (pic, ioapic) = (Log::default(), Log::default());
    let lines = PcInterrupts::new(&pic, &ioapic);
    pic.refuse(true);
    assert_eq!(lines.set_level(Gsi(4), true), Err(InterruptError::Refused));
    assert_eq!((pic.take(), ioapic.take()), (vec![Told::Level(4, true)], vec![]));
    pic.refuse(false);
    ioapic.refuse(true);
    assert_eq!(lines.set_level(Gsi(4), true), Err(InterruptError::Refused));
    assert_eq!(pic.take(), [Told::Level(4, true), Told::Level(4, false)]);
    ioapic.refuse(false);
    lines.set_level(Gsi(4), true).unwrap();
    lines.set_level(Gsi(5), true).unwrap();
    lines.set_level(Gsi(5), false).unwrap();
    // Told once more after an end, it stays.
    ioapic.refuse(true);
    pic.take();
    assert_eq!([4, 5].map(|line| lines.set_level(Gsi(line), true)), [Err(InterruptError::Refused); 2]);
    let told = [(4, true), (4, true), (5, true), (5, false)];
    assert_eq!(pic.take(), told.map(|(line, asserted)| Told::Level(line, asserted)));
}

#[test]
fn an_edge_is_told_to_both_and_signalled_if_one_takes_it() {
    let (pic, ioapic) = (Log::default(), Log::default());
    let lines = PcInterrupts::new(&pic, &ioapic);
    for (refusing, line, outcome) in [
        ([true, false], 4, Ok(())),
        ([false, true], 4, Ok(())),
        ([true, true], 4, Err(InterruptError::Refused)),
        ([false, true], 16, Err(InterruptError::Refused)),
    ] {
        pic.refuse(refusing[0]);
        ioapic.refuse(refusing[1]);
        assert_eq!(lines.pulse(Gsi(line)), outcome);
        let of_pic = if line < 16 { vec![Told::Pulse(line)] } else { vec![] };
        assert_eq!((pic.take(), ioapic.take()), (of_pic, vec![Told::Pulse(line)]));
    }
}

/// What both controllers tell.
#[derive(Default)]
struct Processor(Mutex<Vec<u32>>);

impl IntrPin for Processor {
    fn set(&self, asserted: bool) {
        self.0.lock().push(asserted.into());
    }
}

impl LocalApics for Processor {
    fn message(&self, _: GuestAddress, data: u32) -> Result<(), InterruptError> {
        self.0.lock().push(data);
        Ok(())
    }
}

/// Each reference, whatever owns it, serves.
fn timer_of<P: IntrPin, A: LocalApics>(pin: P, apics: A, told: &Mutex<Vec<u32>>) {
    let (pic, ioapic) = (Pic::new(pin), Ioapic::new(apics));
    let lines = PcInterrupts::new(&pic, &ioapic);
    manager!(let manager);
    manager.register_device(&pic, None, &pic.ports(), &[]).unwrap();
    manager.register_device(&ioapic, None, &[ioapic.mmio(0xfec0_0000)], &[]).unwrap();
    for (port, word) in [(0x20, 0x13), (0x21, 0x20), (0x21, 0x01)] {
        manager.write(GuestAddress(port), &[word], IoType::Pio).unwrap();
    }
    for (address, dword) in [(0xfec0_0000, 0x14_u32), (0xfec0_0010, 0x31)] {
        manager.write(GuestAddress(address), &dword.to_le_bytes(), IoType::Mmio).unwrap();
    }
    lines.pulse(Gsi(0)).unwrap();
    assert_eq!((pic.acknowledge(), std::mem::take(&mut *told.lock())), (0x20, vec![0x4031, 1, 0]));
}

#[test]
fn the_timer_reaches_the_processor_by_both() {
    let processor = Processor::default();
    timer_of(&processor, &processor, &processor.0);
    #[cfg(feature = "alloc")]
    {
        let processor = Arc::new(processor);
        timer_of(processor.clone(), processor.clone(), &processor.0);
        let lines: Arc<dyn InterruptController + Send + Sync> = Arc::new(Pic::new(processor.clone()));
        let lines = PcInterrupts::new(lines, Arc::new(Ioapic::new(processor.clone())));
        assert_eq!(lines.message(GuestAddress(0xfee0_0000), 9), Ok(()));
        assert_eq!(*processor.0.lock(), [9]);
    }
}
