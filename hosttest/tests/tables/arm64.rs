//! Linux takes an Arm machine from a device tree: QEMU's `virt`, whose devices are described here as if they were registered.
//!
//! There is no firmware: a few instructions start the kernel with the tree's address, as Linux's boot protocol says
//! (Documentation/arm64/booting.rst). The kernel is given no root file system, and resets the machine.

use std::fs;
use std::process::Command;

use libtest_mimic::Failed;
use vm_device::devices::pci::HostBridge;
use vm_device::tables::{PciInterrupts, PciRoot, fdt};
use vm_device::{Gsi, IoRange};

use super::linux::until_it_ends;
use super::{directory, machine, manager};
use hosttest::linux_guest::kernel::Kernel;

const RAM: IoRange = IoRange::of::<0x4000_0000, 0x4fff_ffff>();
/// Where the first instructions, the kernel and the tree are. QEMU has a tree of its own in the first MiB.
const START: u64 = 0x4010_0000;
const KERNEL: u64 = 0x4020_0000;
const TREE: u64 = 0x4800_0000;

/// What the kernel has to say.
const SAID: [&str; 11] = [
    "Machine model: QEMU's virt",
    "psci: PSCIv1.1 detected in firmware.",
    "GICv3: CPU0: found redistributor 0 region 0:0x00000000080a0000",
    "smp: Brought up 1 node, 2 CPUs",
    "9000000.pl011: ttyAMA0 at MMIO 0x9000000",
    "pci-host-generic 3f000000.pcie: host bridge /pcie@3f000000 ranges:",
    "MEM 0x0010000000..0x003efeffff -> 0x0010000000",
    "IO 0x003eff0000..0x003effffff -> 0x0000000000",
    "ECAM at [mem 0x3f000000-0x3fffffff] for [bus 00-0f]",
    "rtc-pl031 9010000.rtc: registered as rtc0",
    "Kernel panic - not syncing: VFS: Unable to mount root fs",
];

/// `ldr x0, tree; mov x1, xzr; mov x2, xzr; mov x3, xzr; ldr x4, kernel; br x4`, and the two addresses.
fn start() -> Vec<u8> {
    let code = [0x5800_00c0_u32, 0xaa1f_03e1, 0xaa1f_03e2, 0xaa1f_03e3, 0x5800_0084, 0xd61f_0080];
    let code = code.into_iter().flat_map(u32::to_le_bytes);
    code.chain([TREE, KERNEL].into_iter().flat_map(u64::to_le_bytes)).collect()
}

pub(crate) fn boot() -> Result<(), Failed> {
    let directory = directory("arm64")?;
    let manager = manager();
    machine::ARM.iter().for_each(|device| device.register(manager));
    let host = Box::leak(Box::new(HostBridge::new("pcie", manager)));
    manager.register_device(host, None, &[HostBridge::ecam(0x3f00_0000, 15)], &[])?;
    let roots = [PciRoot {
        ports: &[IoRange::of::<0, 0xffff>()],
        ports_at: 0x3eff_0000,
        memory: &[IoRange::of::<0x1000_0000, 0x3efe_ffff>()],
        interrupts: PciInterrupts::Swizzled([Gsi(35), Gsi(36), Gsi(37), Gsi(38)]),
    }];
    let config = fdt::Config {
        model: "QEMU's virt",
        memory: &[RAM],
        reserved: &[],
        bootargs: Some("console=ttyAMA0 panic=-1"),
        ..machine::arm_fdt(&roots)
    };
    let mut tree = vec![0; 0x1_0000];
    let length = fdt::write(manager, &config, &mut tree)?;
    fs::write(directory.join("tree"), &tree[..length])?;
    fs::write(directory.join("start"), start())?;
    // In an option of QEMU's a comma would end the name.
    fs::copy(Kernel::Arm64.find()?, directory.join("kernel"))?;

    let mut qemu = Command::new("qemu-system-aarch64");
    qemu.args(["-machine", "virt,gic-version=3,highmem=off", "-cpu", "cortex-a57"]);
    for (file, address) in [("tree", TREE), ("kernel", KERNEL)] {
        qemu.args(["-device", &format!("loader,force-raw=on,addr={address:#x},file={file}")]);
    }
    qemu.args(["-device", &format!("loader,force-raw=on,addr={START:#x},file=start")]);
    qemu.args(["-device", &format!("loader,addr={START:#x},cpu-num=0")]);
    until_it_ends(qemu, &directory, &SAID)
}
