//! The tables in the judgement of those who read them: ACPICA's disassembler and compiler, the device tree compiler, and Linux. Where
//! these are not installed the tests count as ignored; where `CI` is set, as failed.

mod arm64;
mod linux;
#[path = "../../../tests/tables/machine.rs"]
mod machine;
#[path = "../needs/mod.rs"]
mod needs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use hosttest::linux_guest::kernel::Kernel;
use libtest_mimic::{Arguments, Failed};
use vm_device::devices::pci::HostBridge;
use vm_device::tables::{acpi, fdt};
use vm_device::{DeviceManager, Gsi, GuestAddress, IoRange, Storage, SystemAllocator};

use machine::Pc;
use needs::{Need, test};

fn main() -> ExitCode {
    let acpica = Need::new("ACPICA's compiler", program("iasl", "-v", "acpica-tools"));
    let acpi_exec = Need::new("ACPICA's interpreter", program("acpiexec", "-v", "acpica-tools"));
    let dtc = Need::new("the device tree compiler", program("dtc", "--version", "device-tree-compiler"));
    let qemu = Need::new("QEMU", program("qemu-system-x86_64", "--version", "qemu-system-x86"));
    let kernel = Need::new("a Linux kernel", Kernel::Cloud.find());
    let qemu_arm = Need::new("QEMU for Arm", program("qemu-system-aarch64", "--version", "qemu-system-arm"));
    let kernel_arm = Need::new("a Linux kernel for arm64", Kernel::Arm64.find());
    let trials = vec![
        test("acpi_tables_of_a_pc_are_disassembled_and_compiled_without_a_warning", &[&acpica], || {
            acpi_tables("pc", register_pc, &machine::PC_ACPI)
        }),
        test("acpi_tables_of_a_machine_without_devices_are_too", &[&acpica], || {
            acpi_tables("nothing", |_| (), &acpi::Config::new())
        }),
        test("acpica_finds_in_the_namespace_what_is_registered", &[&acpi_exec], namespace),
        test("a_device_tree_of_a_pc_is_decompiled_and_compiled_without_a_warning", &[&dtc], || {
            device_tree("pc", register_pc, &machine::PC_FDT)
        }),
        test("a_device_tree_of_an_arm_machine_is_too", &[&dtc], || {
            let route = |device: u8, pin: u8| (device < 8).then_some(Gsi(35 + u32::from((device + pin - 1) % 4)));
            device_tree("arm", register_arm, &machine::arm_fdt(&[machine::arm_root(&route)]))
        }),
        test("a_device_tree_of_a_machine_without_devices_is_too", &[&dtc], || {
            device_tree("nothing", |_| (), &fdt::Config::new())
        }),
        test("linux_takes_a_pc_from_acpi_tables", &[&qemu, &kernel], linux::boot),
        test("linux_takes_an_arm_machine_from_a_device_tree", &[&qemu_arm, &kernel_arm], arm64::boot),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Whether a program is there.
fn program(name: &str, version: &str, package: &str) -> Result<(), String> {
    match Command::new(name).arg(version).output() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{name}: {error}: install Debian's package `{package}`")),
    }
}

type Manager = &'static DeviceManager<'static>;

/// A manager for a test of its own.
fn manager() -> Manager {
    let storage: &'static Storage<'static, 32, 64, 2> = Box::leak(Box::new(Storage::new()));
    let allocator = SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS).with_irqs(0, 255);
    Box::leak(Box::new(DeviceManager::new(storage, allocator)))
}

fn register_pc(manager: Manager) {
    Box::leak(Box::new(Pc::new(manager))).register(manager);
}

fn register_arm(manager: Manager) {
    machine::register_arm(manager, Box::leak(Box::new(HostBridge::new("pcie", manager))));
}

/// An empty directory for the files of a test.
fn directory(name: &str) -> Result<PathBuf, Failed> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tables").join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// What a program says, which has to succeed.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).current_dir(directory).output()?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    match output.status.success() {
        true => Ok(said),
        false => Err(format!("{program} {arguments:?}: {}\n{said}", output.status).into()),
    }
}

/// Each table by its name, those that the XSDT lists and the one that the FADT names.
fn tables(register: fn(Manager), config: &acpi::Config<'_>) -> Result<Vec<(String, Vec<u8>)>, Failed> {
    const BASE: u64 = 0xe_0000;
    let manager = manager();
    register(manager);
    let mut buffer = vec![0; 0x1_0000];
    let written = acpi::write(manager, config, GuestAddress(BASE), &mut buffer)?;
    let tables = &buffer[..written.length];
    let qword = |at: usize| u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
    let table = |address: u64| {
        let start = (address - BASE) as usize;
        let length = u32::from_le_bytes(tables[start + 4..start + 8].try_into().unwrap());
        let table = tables[start..start + length as usize].to_vec();
        (String::from_utf8_lossy(&table[..4]).to_lowercase(), table)
    };
    let (_, xsdt) = table(qword(24));
    let listed = xsdt[36..].chunks(8).map(|entry| table(u64::from_le_bytes(entry.try_into().unwrap())));
    let mut found: Vec<_> = listed.collect();
    let fadt = found[0].1.clone();
    found.push(table(u64::from_le_bytes(fadt[140..148].try_into().unwrap())));
    let facs = u32::from_le_bytes(fadt[36..40].try_into().unwrap());
    if facs != 0 {
        found.push(table(facs.into()));
    }
    Ok(found)
}

/// Disassembles each table, compiles what came out, and looks at what was said.
fn acpi_tables(name: &str, register: fn(Manager), config: &acpi::Config<'_>) -> Result<(), Failed> {
    let directory = directory(&format!("acpi-{name}"))?;
    for (name, table) in tables(register, config)? {
        let (binary, source) = (format!("{name}.aml"), format!("{name}.dsl"));
        fs::write(directory.join(&binary), &table)?;
        let said = run(&directory, "iasl", &["-d", &binary])?;
        for complaint in ["Warning", "Error", "Invalid", "Unknown", "Could not", "incorrect"] {
            if let Some(line) = said.lines().find(|line| line.contains(complaint)) {
                return Err(format!("{name}: {line}\n{said}").into());
            }
        }
        let text = fs::read_to_string(directory.join(&source))?;
        if let Some(line) = text.lines().find(|line| line.contains("Invalid") || line.contains("incorrect")) {
            return Err(format!("{name}: {line}").into());
        }
        // A FACS has nothing that could be compiled.
        if name != "facs" {
            let said = run(&directory, "iasl", &["-p", "again", &source])?;
            if !said.contains("0 Errors, 0 Warnings") {
                return Err(format!("{name} is compiled with complaints:\n{said}\n{text}").into());
            }
            let again = fs::read(directory.join("again.aml"))?;
            if again[36..] != table[36..] {
                return Err(format!("{name} is another table when it is compiled again:\n{text}").into());
            }
        }
    }
    Ok(())
}

/// Loads the tables of a PC into ACPICA, which Linux has too, and reads what it has taken from them.
fn namespace() -> Result<(), Failed> {
    let directory = directory("namespace")?;
    for (name, table) in tables(register_pc, &machine::PC_ACPI)? {
        fs::write(directory.join(format!("{name}.aml")), table)?;
    }
    for (device, expected) in [
        (
            "PCI0",
            &["Address Minimum : C0000000", "Address Maximum : DFFFFFFF", "Address Minimum : 0000001000000000"][..],
        ),
        // The second serial port.
        ("D001", &["Address Minimum : 02F8", "Triggering : Edge", "Polarity : ActiveHigh", "Interrupt List : 3"]),
        ("D008", &["32-Bit Fixed Memory Range", "Address : FED00000", "Address Length : 00000400"]),
    ] {
        let said = run(&directory, "acpiexec", &["-b", &format!("resources \\_SB.{device}"), "dsdt.aml"])?;
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut expected = expected.iter().chain(&["1 ACPI AML tables successfully acquired and loaded"]);
        if let Some(missing) = expected.find(|expected| !words.contains(**expected)) {
            return Err(format!("{device}: ACPICA does not say '{missing}':\n{said}").into());
        }
    }
    Ok(())
}

/// Decompiles a tree, compiles what came out, and compares the two.
fn device_tree(name: &str, register: fn(Manager), config: &fdt::Config<'_>) -> Result<(), Failed> {
    let directory = directory(&format!("fdt-{name}"))?;
    let manager = manager();
    register(manager);
    let mut buffer = vec![0; 0x1_0000];
    let length = fdt::write(manager, config, &mut buffer)?;
    fs::write(directory.join("tree.dtb"), &buffer[..length])?;
    let steps: [&[&str]; 3] = [
        &["-I", "dtb", "-O", "dts", "-o", "tree.dts", "tree.dtb"],
        // What was decompiled has numbers in the place of labels, which the check of clocks takes for a mistake.
        &["-W", "no-clocks_property", "-I", "dts", "-O", "dtb", "-o", "again.dtb", "tree.dts"],
        &["-I", "dtb", "-O", "dts", "-o", "again.dts", "again.dtb"],
    ];
    for step in steps {
        let said = run(&directory, "dtc", step)?;
        if !said.is_empty() {
            return Err(format!("dtc {step:?} says\n{said}").into());
        }
    }
    let [tree, again] = ["tree.dts", "again.dts"].map(|file| fs::read_to_string(directory.join(file)));
    let (tree, again) = (tree?, again?);
    if tree != again {
        return Err(format!("another tree when it is compiled again:\n{tree}\n{again}").into());
    }
    Ok(())
}
