//! Devices at ports: keyboard controller, resets, power management, debugging, firmware configuration.

use core::hint::black_box;

use vm_device::devices::debug_console::DebugConsole;
use vm_device::devices::exit_port::{ExitControl, ExitPort};
use vm_device::devices::fw_cfg::{FwCfg, Item};
use vm_device::devices::i8042::I8042;
use vm_device::devices::pm1::Pm1;
use vm_device::devices::post::PostPort;
use vm_device::devices::reset_control::ResetControl;
use vm_device::devices::system_control::SystemControlA;
use vm_device::{Access, Device, IoResource, IrqResource, PowerControl};

use crate::Manager;
use crate::uart::Line;

/// The machine, of which the compiler knows nothing.
struct Machine;

impl PowerControl for Machine {
    fn reset(&self) {
        black_box(());
    }
    fn power_off(&self) {
        black_box(());
    }
}

impl ExitControl for Machine {
    fn exit(&self, value: u32) {
        black_box(value);
    }
}

static MACHINE: Machine = Machine;
static I8042: I8042<'static, &Machine> = I8042::new(&MACHINE);
static RESET_CONTROL: ResetControl<&Machine> = ResetControl::new(&MACHINE);
static SYSTEM_CONTROL: SystemControlA<&Machine> = SystemControlA::new(&MACHINE);
static PM1: Pm1<'static, &Machine> = Pm1::new(&MACHINE).with_off_type(5);
static ACPI_PM1: Pm1<'static, &Machine> = Pm1::without_command_port(&MACHINE);
static CONSOLE: DebugConsole<Line> = DebugConsole::new(Line);
static POST: PostPort = PostPort::new();
static EXIT: ExitPort<&Machine> = ExitPort::new(&MACHINE);
static ITEMS: [Item<'static>; 1] = [Item::number(5, &[1, 0])];
static FW_CFG: FwCfg<'static> = FwCfg::new(&ITEMS);

/// Registers a device, and calls what a manager calls of it.
fn call(
    manager: &'static Manager,
    device: &'static dyn Device<'static>,
    ranges: &[IoResource],
    irqs: &[IrqResource],
    access: &Access<'_>,
    data: &mut [u8],
) {
    let device = black_box(device);
    manager.register_device(device, None, ranges, irqs).ok();
    device.read(access, data);
    device.write(access, data);
    device.read_string(access, 1, data).ok();
    device.write_string(access, 1, data).ok();
    device.reset();
    device.tick(0);
}

pub fn all(manager: &'static Manager, access: &Access<'_>, data: &mut [u8]) {
    let i8042 = black_box(&I8042);
    call(manager, i8042, &i8042.ports(), &i8042.interrupts(), access, data);
    i8042.receive_from_keyboard(data);
    i8042.receive_from_mouse(data);
    black_box(i8042.is_a20_open());

    let reset_control = black_box(&RESET_CONTROL);
    call(manager, reset_control, &[reset_control.port()], &[], access, data);
    let system_control = black_box(&SYSTEM_CONTROL);
    call(manager, system_control, &[system_control.port()], &[], access, data);
    black_box(system_control.is_a20_open());

    for pm1 in black_box([&PM1, &ACPI_PM1]) {
        call(manager, pm1, &[pm1.registers(0x600), pm1.command_port()], &[IrqResource::Any], access, data);
        pm1.press_power_button();
        pm1.raise(black_box(1));
        black_box(pm1.off_type());
    }

    let console = black_box(&CONSOLE);
    call(manager, console, &[console.port(0x402)], &[], access, data);
    let post = black_box(&POST);
    call(manager, post, &[post.port()], &[], access, data);
    black_box(post.last_code());
    let exit = black_box(&EXIT);
    call(manager, exit, &[exit.ports(0xf4)], &[], access, data);

    let fw_cfg = black_box(&FW_CFG);
    call(manager, fw_cfg, &[fw_cfg.ports(), fw_cfg.mmio(0x1000)], &[], access, data);
    black_box(Item::file(black_box("etc/file"), black_box(&[])));
    let items = black_box([Item::number(black_box(7), black_box(&[1]))]);
    FwCfg::new(&items).read(access, data);
}
