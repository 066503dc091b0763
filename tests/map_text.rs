//! The map as text: what stands in it, and that it is found by the paths in it.

mod fixture;

use fixture::{Constant, manager, observe, range, try_register};
use std::fmt::{self, Write};

use vm_device::{DeviceManager, Gsi, GuestUsize, IoResource, IoType, IrqResource};

const HOST: Constant = Constant { name: "pci", value: 1 };
const BRIDGE: Constant = Constant { name: "bridge", value: 2 };
const DISK: Constant = Constant { name: "disk", value: 3 };
const VIDEO: Constant = Constant { name: "video", value: 4 };
const SERIAL: Constant = Constant { name: "serial", value: 5 };

/// Windows in windows, and ranges in all states.
const TEXT: &str = "\
devices
  pci #0
    mmio [0xc0000000, 0xcfffffff], window
    pio [0xcf8, 0xcff]
    bridge #1, GSI 5
      mmio [0xc0000000, 0xc00fffff], window
      mmio 0x100000 bytes, unplaced, window
      disk@c0000000 #2, GSI 7 (shared)
        mmio [0xc0000000, 0xc0000fff]
        pio [0x1f0, 0x1f7], waiting
      disk@c0002000 #3, GSI 7 (shared)
        mmio 0x1000 bytes, unplaced
        mmio [0xc0002000, 0xc0002fff], reserved
    video #4
      physical mmio [0xc8000000, 0xc8ffffff]
  serial@3f8 #5, GSI 6
    pio [0x3f8, 0x3ff]
  serial@2f8 #6
    pio [0x2f8, 0x2ff]
    mmio [0x0, 0xfffffffffffffffe], waiting
ports
  [0x1f0, 0x1f0] the VMM, reserved
  [0x2f8, 0x2ff] serial@2f8 #6
  [0x3f8, 0x3ff] serial@3f8 #5
  [0xcf8, 0xcff] pci #0
memory
  [0x0, 0x9ffff] the VMM, reserved
  [0xc0000000, 0xcfffffff] pci #0, window
    [0xc0000000, 0xc00fffff] bridge #1, window
      [0xc0000000, 0xc0000fff] disk@c0000000 #2
      [0xc0002000, 0xc0002fff] disk@c0002000 #3, reserved
    [0xc8000000, 0xc8ffffff] video #4, physical
";

/// Registers what the text shows.
fn build<'d>(manager: &'d DeviceManager<'d>) {
    manager.reserve(IoType::Mmio, range(0, 0x9_ffff)).unwrap();
    manager.reserve(IoType::Pio, range(0x1f0, 0x1f0)).unwrap();
    let window = |base, size| IoResource::mmio(base, size).window();
    let ports = IoResource::pio;
    let ranges = [window(0xc000_0000, 0x1000_0000), ports(0xcf8, 8)];
    let host = try_register(manager, &HOST, &ranges).unwrap();
    let windows = [window(0xc000_0000, 0x10_0000), window(0, 0x10_0000).unplaced()];
    let bridge = manager.register_device(&BRIDGE, Some(host), &windows, &[IrqResource::Any]).unwrap();
    let page = |base| IoResource::mmio(base, 0x1000);
    for ranges in [[page(0xc000_0000), ports(0x1f0, 8).waiting()], [page(0).unplaced(), page(0xc000_2000).reserved()]] {
        manager.register_device(&DISK, Some(bridge), &ranges, &[IrqResource::Shared(Gsi(7))]).unwrap();
    }
    let memory = IoResource::any(IoType::PhysicalMmio, GuestUsize(0x100_0000)).aligned(0x800_0000);
    manager.register_device(&VIDEO, Some(host), &[memory], &[]).unwrap();
    manager.register_device(&SERIAL, None, &[ports(0x3f8, 8)], &[IrqResource::Any]).unwrap();
    let all = IoResource::mmio(0, u64::MAX).waiting();
    try_register(manager, &SERIAL, &[ports(0x2f8, 8), all]).unwrap();
}

#[test]
fn the_map_shows_the_tree_and_both_address_maps() {
    manager!(let manager);
    assert_eq!(manager.map().to_string(), "devices\nports\nmemory\n");
    build(&manager);
    assert_eq!(manager.map().to_string(), TEXT);
    // What shows nothing has changed nothing.
    let before = observe(&manager, &[]);
    assert_eq!((manager.map().to_string().as_str(), observe(&manager, &[])), (TEXT, before));
}

#[test]
fn each_path_in_the_map_is_found() {
    manager!(let manager);
    build(&manager);
    let (tree, _) = TEXT.split_once("ports\n").unwrap();
    let mut above: Vec<&str> = Vec::new();
    let mut found = 0;
    for line in tree.lines().filter(|line| line.contains('#')) {
        let depth = line.chars().take_while(|letter| *letter == ' ').count() / 2 - 1;
        let (part, rest) = line.trim_start().split_once(' ').unwrap();
        above.truncate(depth);
        above.push(part);
        let id = manager.find_by_path(&format!("/{}", above.join("/"))).unwrap();
        assert_eq!(rest.split(',').next(), Some(id.to_string().as_str()));
        found += 1;
    }
    assert_eq!(found, manager.walk().count());
}

/// Calls the manager whenever text is written, and ends after so many bytes.
struct Writing<'m, 'd> {
    manager: &'m DeviceManager<'d>,
    left: usize,
}

impl Write for Writing<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // It would hang where the lock is held.
        assert_eq!(self.manager.walk().count(), 7);
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[test]
fn the_manager_can_be_called_while_the_map_is_written_and_a_writer_that_fails_ends_it() {
    manager!(let manager);
    build(&manager);
    for left in 0..TEXT.len() {
        assert!(write!(Writing { manager: &manager, left }, "{}", manager.map()).is_err());
    }
    assert!(write!(Writing { manager: &manager, left: TEXT.len() }, "{}", manager.map()).is_ok());
}
