//! Device trees, node by node.

use std::cell::Cell;

use vm_device::devices::pci::HostBridge;
use vm_device::tables::TableError;
use vm_device::tables::fdt::{self, Config, ControllerKind, InterruptParent, Nodes};
use vm_device::{Gsi, IoRange, IoResource, IrqResource, Property};

use super::machine::{self, PC_FDT, Sign};
use super::tree::read;
use super::{Manager, manager, pc, try_every_size};

fn write(manager: Manager, config: &Config<'_>) -> String {
    let mut buffer = vec![0x5a; 0x1_0000];
    let length = fdt::write(manager, config, &mut buffer).unwrap();
    read(&buffer[..length])
}

#[test]
fn a_machine_without_devices_has_a_tree() {
    let expected = "/\n  #address-cells = <2>\n  #size-cells = <2>\n  model = \"vm-device\"\n  compatible = \"linux,dummy-virt\"\n  chosen/\n";
    assert_eq!(write(manager(), &Config::new()), expected);
}

#[test]
fn the_tree_of_a_pc_says_what_is_registered() {
    let tree = write(pc(), &PC_FDT);
    let (before, pins) = tree.split_once("    interrupt-map = <").unwrap();
    assert_eq!(
        before,
        r##"/
  #address-cells = <2>
  #size-cells = <2>
  model = "a PC"
  compatible = "vm-device,pc"
  interrupt-parent = <1>
  chosen/
    bootargs = "console=ttyS0"
    linux,initrd-start = <0 4000000>
    linux,initrd-end = <0 5000000>
    stdout-path = "/soc/isa@0/serial@3f8"
  memory@0/
    device_type = "memory"
    reg = <0 0 0 80000000>
  soc/
    compatible = "intel,ce4100-cp", "simple-bus"
    #address-cells = <2>
    #size-cells = <2>
    ranges
    hpet@fed00000/
      compatible = "intel,ce4100-hpet"
      reg = <0 fed00000 0 400>
    interrupt-controller@fec00000/
      compatible = "intel,ce4100-ioapic"
      interrupt-controller
      #interrupt-cells = <2>
      #address-cells = <0>
      phandle = <1>
      reg = <0 fec00000 0 1000>
    isa@0/
      compatible = "isa"
      device_type = "isa"
      #address-cells = <2>
      #size-cells = <1>
      ranges = <1 0 0 0 10000>
      serial@3f8/
        compatible = "ns16550a"
        clock-frequency = <1c2000>
        reg-shift = <0>
        reg = <1 3f8 8>
        interrupts = <4 0>
      serial@2f8/
        compatible = "ns16550a"
        clock-frequency = <1c2000>
        reg-shift = <0>
        reg = <1 2f8 8>
        interrupts = <3 0>
      rtc@70/
        compatible = "motorola,mc146818"
        ctrl-reg = <2>
        reg = <1 70 2>
        interrupts = <8 0>
  pcie@e0000000/
    compatible = "pci-host-ecam-generic"
    device_type = "pci"
    #address-cells = <3>
    #size-cells = <2>
    bus-range = <0 ff>
    linux,pci-domain = <0>
    reg = <0 e0000000 0 10000000>
    ranges = <1000000 0 0 0 0 0 cf8 1000000 0 d00 0 d00 0 f300 2000000 0 c0000000 0 c0000000 0 20000000 3000000 10 0 10 0 10 0>
    #interrupt-cells = <1>
    interrupt-map-mask = <1800 0 0 7>
"##
    );
    // Four pins of four devices, of seven cells each.
    assert!(pins.starts_with("0 0 0 1 1 10 1 0 0 0 2 1 11 1 "), "{pins}");
    assert!(pins.ends_with(" 1800 0 0 4 1 12 1>\n"), "{pins}");
    assert_eq!(pins.split(' ').count(), 16 * 7);
}

#[test]
fn the_tree_of_an_arm_machine_has_what_the_embedder_adds() {
    let manager = manager();
    machine::register_arm(manager, Box::leak(Box::new(HostBridge::new("pcie", manager))));
    let route = |device: u8, pin: u8| (device == 2 && pin <= 2).then_some(Gsi(34 + u32::from(pin)));
    let tree = write(manager, &machine::arm_fdt(&[machine::arm_root(&route)]));
    for part in [
        "reserved 40000000 10000\n/\n",
        "    stdout-path = \"/soc/pl011@9000000\"\n",
        "  clock/\n    compatible = \"fixed-clock\"\n    #clock-cells = <0>\n    clock-frequency = <16e3600>\n    phandle = <2>\n",
        "  cpus/\n    #address-cells = <1>\n    #size-cells = <0>\n    cpu@0/\n      device_type = \"cpu\"\n",
        "      enable-method = \"psci\"\n  psci/\n",
        "    interrupts = <1 d 4 1 e 4 1 b 4 1 a 4>\n    always-on\n  soc/\n    compatible = \"simple-bus\"\n",
        "    pl011@9000000/\n      compatible = \"arm,pl011\", \"arm,primecell\"\n      clocks = <2 2>\n      \
         clock-names = \"uartclk\", \"apb_pclk\"\n      reg = <0 9000000 0 1000>\n      interrupts = <0 1 4>\n",
        "  pcie@30000000/\n",
        "    ranges = <1000000 0 0 0 3eff0000 0 10000 2000000 0 10000000 0 10000000 0 20000000>\n",
        "    interrupt-map-mask = <f800 0 0 7>\n    interrupt-map = <1000 0 0 1 1 0 3 4 1000 0 0 2 1 0 4 4>\n",
    ] {
        assert!(tree.contains(part), "{part}\nis not in\n{tree}");
    }
    assert!(!tree.contains("isa"), "{tree}");
}

#[test]
fn without_a_clock_nothing_refers_to_one_and_without_a_controller_no_line_is_told() {
    let manager = manager();
    machine::register_arm(manager, Box::leak(Box::new(HostBridge::new("pcie", manager))));
    let route = |_: u8, _: u8| Some(Gsi(40));
    let roots = [machine::arm_root(&route)];
    let tree = write(manager, &Config { clock: None, interrupts: None, nodes: None, ..machine::arm_fdt(&roots) });
    for absent in ["clocks", "fixed-clock", "interrupt"] {
        assert!(!tree.contains(absent), "{absent}\n{tree}");
    }
}

#[test]
fn a_line_is_counted_as_its_controller_does() {
    let manager = manager();
    static DEVICE: Sign = Sign::new(
        "device",
        &[IoResource::mmio(0x1000, 0x100)],
        &[IrqResource::Fixed(Gsi(5)), IrqResource::Shared(Gsi(6)), IrqResource::Unrouted, IrqResource::Fixed(Gsi(40))],
        |description| description.compatible(&["acme,device"]),
    );
    DEVICE.register(manager);
    for (kind, cells) in [
        (ControllerKind::IoApic, "5 0 6 1 28 1"),
        (ControllerKind::Plic, "5 6 28"),
        (ControllerKind::Gic, "0 0 4 0 0 4 0 8 4"),
    ] {
        let config = Config { interrupts: Some(InterruptParent { phandle: 9, kind }), ..Config::new() };
        assert!(write(manager, &config).ends_with(&format!("interrupts = <{cells}>\n")), "{kind:?}");
    }
}

#[test]
fn names_that_no_node_can_have_are_changed_and_properties_of_all_kinds_are_written() {
    let manager = manager();
    static DEVICE: Sign = Sign::new("a b\u{e9}:c", &[IoResource::mmio(0x1_2345_6780, 0x10)], &[], |description| {
        description.compatible(&["acme,a", "acme,b"]);
        description.property("acme,empty", Property::Empty);
        description.property("acme,cells", Property::Cells(&[1, 2]));
        description.property("acme,text", Property::Text("one"));
        description.property("acme,bytes", Property::Bytes(&[1, 2, 3]));
        description.property("acme,bytes", Property::Bytes(&[4]));
    });
    DEVICE.register(manager);
    let expected = "    a-b---c@123456780/
      compatible = \"acme,a\", \"acme,b\"
      acme,empty
      acme,cells = <1 2>
      acme,text = \"one\"
      acme,bytes = [1, 2, 3]
      acme,bytes = [4]
      reg = <1 23456780 0 10>
";
    assert!(write(manager, &Config::new()).ends_with(expected));
}

#[test]
fn a_device_without_addresses_has_no_node() {
    let manager = manager();
    static DEVICE: Sign = Sign::new("device", &[IoResource::mmio(0x1000, 0x100).unplaced()], &[], |description| {
        description.compatible(&["acme,device"]);
    });
    DEVICE.register(manager);
    assert!(!write(manager, &Config::new()).contains("soc"));
}

#[test]
fn a_host_bridge_without_a_window_has_no_node_and_one_with_ports_alone_has_another_name() {
    let manager = manager();
    let host = Box::leak(Box::new(HostBridge::new("host", manager)));
    manager.register_device(host, None, &[HostBridge::PORTS], &[]).unwrap();
    assert!(!write(manager, &Config::new()).contains("pci"));
    let tree = write(manager, &Config { pci: &[machine::ROOT], ..Config::new() });
    assert!(tree.contains("  pci/\n    compatible = \"intel,ce4100-pci\", \"pci\"\n"), "{tree}");
}

#[test]
fn a_buffer_that_is_too_small_is_an_error_that_says_how_much_it_takes() {
    let manager = pc();
    try_every_size(|buffer| fdt::write(manager, &PC_FDT, buffer));
    let manager = super::manager();
    machine::register_arm(manager, Box::leak(Box::new(HostBridge::new("pcie", manager))));
    let route = |device: u8, _: u8| (device < 2).then_some(Gsi(40));
    let roots = [machine::arm_root(&route)];
    try_every_size(|buffer| fdt::write(manager, &machine::arm_fdt(&roots), buffer));
}

#[test]
fn a_tree_that_changes_while_it_is_written_is_an_error() {
    let calls = Cell::new(0);
    let change = |root: &mut Nodes<'_, '_>| {
        calls.set(calls.get() + 1);
        // As long as the other.
        let name = if calls.get() % 2 == 0 { "acme,even" } else { "acme,odd_" };
        root.property(name, Property::Empty);
    };
    let config = Config { nodes: Some(&change), memory: &[], ..Config::new() };
    let mut buffer = [0; 0x1000];
    assert_eq!(fdt::write(manager(), &config, &mut buffer), Err(TableError::Changed));
}

#[test]
fn a_range_of_the_whole_space_has_a_size_that_fits() {
    let config = Config { memory: &[IoRange::ALL_MEMORY], boot_cpu: 3, ..Config::new() };
    let mut buffer = vec![0; 0x1000];
    let length = fdt::write(manager(), &config, &mut buffer).unwrap();
    assert!(read(&buffer[..length]).contains("reg = <0 0 ffffffff ffffffff>"));
    // The processor that boots.
    assert_eq!(buffer[28..32], [0, 0, 0, 3]);
}
