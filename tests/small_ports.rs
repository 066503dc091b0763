//! Devices of one register: resets, POST codes, the debug console, the exit port.
#![cfg(feature = "devices")]

mod fixture;

use embedded_io::{ErrorKind, ErrorType, Write, WriteReady};
use spin::Mutex;
use vm_device::devices::debug_console::DebugConsole;
use vm_device::devices::exit_port::{ExitControl, ExitPort};
use vm_device::devices::pci::HostBridge;
use vm_device::devices::post::PostPort;
use vm_device::devices::reset_control::ResetControl;
use vm_device::devices::system_control::SystemControlA;
use vm_device::{Access, Device, DeviceManager, IoError, IoType};

use fixture::{Asked, Line, at, manager};

fn read(manager: &DeviceManager<'_>, port: u16) -> u8 {
    let mut data = [0];
    manager.read(port.into(), &mut data, IoType::Pio).unwrap();
    data[0]
}

fn write(manager: &DeviceManager<'_>, port: u16, data: &[u8]) {
    manager.write(port.into(), data, IoType::Pio).unwrap();
}

#[test]
fn the_reset_register_resets_when_its_bit_rises() {
    manager!(let manager);
    let power = Asked::default();
    let (control, host) = (ResetControl::new(&power), HostBridge::new("pci", &manager));
    let id = manager.register_device(&host, None, &[HostBridge::PORTS], &[]).unwrap();
    manager.register_device(&control, Some(id), &[control.port()], &[]).unwrap();
    assert_eq!(read(&manager, 0xcf9), 0);
    let soft = [(0x00, 0), (0xfb, 0), (0x04, 1), (0x04, 0), (0x06, 0), (0x02, 0), (0x06, 1), (0x02, 0), (0xff, 1)];
    for (value, resets) in soft {
        write(&manager, 0xcf9, &[value]);
        assert_eq!((power.take(), read(&manager, 0xcf9)), ((resets, 0), value & 0x06), "{value:#x}");
    }
    manager.reset().unwrap();
    assert_eq!(read(&manager, 0xcf9), 0);
    write(&manager, 0xcf9, &[0x06]);
    assert_eq!(power.take(), (1, 0));
    // The dword around it is the bridge's.
    write(&manager, 0xcf8, &0x8000_0600_u32.to_le_bytes());
    assert_eq!((power.take(), read(&manager, 0xcf9)), ((0, 0), 0x06));
}

#[test]
fn system_control_port_a_resets_when_its_bit_rises_and_keeps_the_gate_of_address_line_20() {
    manager!(let manager);
    let power = Asked::default();
    let port = SystemControlA::new(&power);
    manager.register_device(&port, None, &[port.port()], &[]).unwrap();
    assert_eq!((read(&manager, 0x92), port.is_a20_open()), (0, false));
    for (value, resets) in [(0x02, 0), (0xfe, 0), (0x03, 1), (0x01, 0), (0x00, 0), (0x01, 1)] {
        write(&manager, 0x92, &[value]);
        assert_eq!((power.take(), read(&manager, 0x92)), ((resets, 0), value & 0x03), "{value:#x}");
        assert_eq!(port.is_a20_open(), value & 0x02 != 0);
    }
    manager.reset().unwrap();
    assert_eq!((read(&manager, 0x92), port.is_a20_open()), (0, false));
    write(&manager, 0x92, &[0x01]);
    assert_eq!(power.take(), (1, 0));
}

#[test]
fn the_last_post_code_is_kept_until_a_reset() {
    manager!(let manager);
    let post = PostPort::new();
    manager.register_device(&post, None, &[post.port()], &[]).unwrap();
    assert_eq!((read(&manager, 0x80), post.last_code()), (0, 0));
    for code in [0x31, 0xff, 0x01] {
        write(&manager, 0x80, &[code]);
        assert_eq!((read(&manager, 0x80), post.last_code()), (code, code));
    }
    manager.write_string(0x80, 1, &[1, 2, 3]).unwrap();
    assert_eq!(post.last_code(), 3);
    manager.reset().unwrap();
    assert_eq!(post.last_code(), 0);
}

#[test]
fn the_debug_console_prints_what_is_written_and_loses_what_nobody_takes() {
    let line = Line::default();
    let console = DebugConsole::new(line.clone());
    manager!(let manager);
    manager.register_device(&console, None, &[console.port(0x402)], &[]).unwrap();
    assert_eq!(read(&manager, 0x402), 0xe9);
    write(&manager, 0x402, b"a");
    manager.write_string(0x402, 1, b"whole string").unwrap();
    assert_eq!(line.0.lock().sent, b"awhole string");
    assert_eq!(line.0.lock().writes, 2);
    // A line that takes a part, and then nothing.
    line.0.lock().room = 3;
    manager.write_string(0x402, 1, b"12345").unwrap();
    write(&manager, 0x402, b"6");
    line.0.lock().room = 9;
    write(&manager, 0x402, b"7");
    assert!(line.0.lock().sent.ends_with(b"string1237"));
    line.0.lock().fails = true;
    manager.write_string(0x402, 1, b"lost").unwrap();
    line.0.lock().fails = false;
    write(&manager, 0x402, b"8");
    assert!(line.0.lock().sent.ends_with(b"1237\x38"));
    let mut string = [0; 3];
    manager.read_string(0x402, 1, &mut string).unwrap();
    assert_eq!(string, [0xe9; 3]);
}

/// Takes two bytes a call.
struct Narrow(Line);

impl ErrorType for Narrow {
    type Error = ErrorKind;
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.write(&bytes[..bytes.len().min(2)])
    }
    fn flush(&mut self) -> Result<(), ErrorKind> {
        self.0.flush()
    }
}

impl WriteReady for Narrow {
    fn write_ready(&mut self) -> Result<bool, ErrorKind> {
        self.0.write_ready()
    }
}

#[test]
fn the_debug_console_goes_on_while_a_part_is_taken() {
    let line = Line::default();
    let console = DebugConsole::new(Narrow(line.clone()));
    manager!(let manager);
    manager.register_device(&console, None, &[console.port(0xe9)], &[]).unwrap();
    manager.write_string(0xe9, 1, b"whole string!").unwrap();
    assert_eq!(line.0.lock().sent, b"whole string!");
    assert_eq!(line.0.lock().writes, 7);
}

/// Keeps the values.
#[derive(Default)]
struct Values(Mutex<Vec<u32>>);

impl ExitControl for Values {
    fn exit(&self, value: u32) {
        self.0.lock().push(value);
    }
}

#[test]
fn the_exit_port_tells_values_of_each_size() {
    let values = Values::default();
    let port = ExitPort::new(&values);
    manager!(let manager);
    manager.register_device(&port, None, &[port.ports(0xf4)], &[]).unwrap();
    let bytes = [0x10, 0x32, 0x54, 0x76];
    for size in 1..=4 {
        write(&manager, 0xf4, &bytes[..size]);
    }
    write(&manager, 0xf6, &bytes[..2]);
    assert_eq!(*values.0.lock(), [0x10, 0x3210, 0x54_3210, 0x7654_3210, 0x3210]);
    assert_eq!(read(&manager, 0xf4), 0);
    assert_eq!(manager.write(0xf4_u16.into(), &[0; 8], IoType::Pio), Err(IoError::Straddling));
    port.write(&Access::new(IoType::Pio, at(0xf4), at(0xf4), 0), &[1, 0, 0, 0, 9, 9]);
    assert_eq!(values.0.lock().last(), Some(&1));
}
