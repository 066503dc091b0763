//! What the tests share: devices, what a guest does, and where ranges are.

pub(crate) use vm_device::devices::pci::{
    Bar, Bridge, Bus, Command, Config, Function, HostBridge, PlugError, Register, Slot,
};
pub(crate) use vm_device::{
    Access, Device, DeviceManager, GuestAddress, InstanceId, IoRange, IoResource, IoType, OpenBus, Placement,
    RangeState, Storage, SystemAllocator,
};

/// Answers every byte with the same value.
pub(crate) struct Constant(pub &'static str, pub u8);

impl Device<'_> for Constant {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(self.1);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// Answers every byte with the number of its range.
pub(crate) struct Numbered(pub &'static str);

impl Device<'_> for Numbered {
    fn name(&self) -> &str {
        self.0
    }
    fn read(&self, access: &Access<'_>, data: &mut [u8]) {
        data.fill(access.range_index() as u8);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

pub(crate) fn everything() -> SystemAllocator {
    SystemAllocator::new(IoRange::ALL_MEMORY).with_ports(IoRange::ALL_PORTS)
}

/// The offsets of registers.
pub(crate) const COMMAND: u32 = 0x04;
pub(crate) const BAR0: u32 = 0x10;
pub(crate) const BUSES: u32 = 0x18;
pub(crate) const PORT_WINDOW: u32 = 0x1c;
pub(crate) const MEMORY_WINDOW: u32 = 0x20;
pub(crate) const PREFETCHABLE_WINDOW: u32 = 0x24;
pub(crate) const ROM: u32 = 0x30;

pub(crate) const PORTS_ON: u32 = 1;
pub(crate) const MEMORY_ON: u32 = 2;

/// What a guest does.
#[derive(Clone, Copy)]
pub(crate) struct Guest<'d>(pub &'d DeviceManager<'d>);

impl Guest<'_> {
    pub(crate) fn out(self, port: u64, data: &[u8]) {
        let _ = self.0.write(GuestAddress(port), data, IoType::Pio);
    }

    pub(crate) fn inp<const N: usize>(self, port: u64) -> [u8; N] {
        let mut data = [0x5a; N];
        let _ = self.0.read(GuestAddress(port), &mut data, IoType::Pio);
        data
    }

    pub(crate) fn select(self, bus: u32, device: u32, register: u32) {
        self.out(0xcf8, &(1 << 31 | bus << 16 | device << 11 | register).to_le_bytes());
    }

    /// A dword of function 0 of a device.
    pub(crate) fn config(self, bus: u32, device: u32, register: u32) -> u32 {
        self.select(bus, device, register);
        u32::from_le_bytes(self.inp(0xcfc))
    }

    pub(crate) fn set(self, bus: u32, device: u32, register: u32, value: u32) {
        self.select(bus, device, register);
        self.out(0xcfc, &value.to_le_bytes());
    }

    /// What a register reads after a write of all ones; the old value is written back.
    pub(crate) fn sized(self, device: u32, register: u32) -> u32 {
        let old = self.config(0, device, register);
        self.set(0, device, register, u32::MAX);
        let ones = self.config(0, device, register);
        self.set(0, device, register, old);
        ones
    }

    /// A byte of memory; `None` if nothing answers.
    pub(crate) fn memory(self, address: u64) -> Option<u8> {
        let mut data = [0];
        self.0.read(GuestAddress(address), &mut data, IoType::Mmio).ok().map(|()| data[0])
    }

    pub(crate) fn port(self, port: u64) -> Option<u8> {
        let mut data = [0];
        self.0.read(GuestAddress(port), &mut data, IoType::Pio).ok().map(|()| data[0])
    }
}

/// Where a range is, if it has a place, or waits for one.
pub(crate) fn state(manager: &DeviceManager<'_>, id: InstanceId, index: usize) -> (RangeState, Option<u64>) {
    let assigned = manager.range(id, index).expect("the device has this range");
    let has_address = assigned.state != RangeState::Unplaced;
    (assigned.state, has_address.then(|| assigned.range.first().0))
}

pub(crate) fn decoded(at: u64) -> (RangeState, Option<u64>) {
    (RangeState::Decoded, Some(at))
}

pub(crate) fn waiting(at: u64) -> (RangeState, Option<u64>) {
    (RangeState::Waiting, Some(at))
}

pub(crate) const UNPLACED: (RangeState, Option<u64>) = (RangeState::Unplaced, None);

/// A manager with a host bridge, and with what is behind it, `name: CONFIG => DEVICE NUMBER`: devices that answer with the
/// numbers of their ranges.
macro_rules! machine {
    ($manager:ident, $guest:ident, $host:ident $(, $id:ident: $config:expr => $number:expr)* $(,)?) => {
        let storage = Storage::<16, 48, 4>::new();
        let $manager = DeviceManager::new(&storage, everything());
        let $host = HostBridge::new("pci", &$manager);
        let host_id = $manager.register_device(&$host, None, &[HostBridge::PORTS], &[]).unwrap();
        $(
            let function = (Function::new($config), Numbered(stringify!($id)));
            let $id = $manager.register_device(&function.1, None, &function.0.requests(), &[]).unwrap();
            $host.bus().plug(&function.0, Slot::new($number, 0), $id).unwrap();
        )*
        let $guest = Guest(&$manager);
        let _ = host_id;
    };
}

/// One of each kind: a page of memory, ports, 8 GiB of prefetchable memory, 16 bytes of memory anywhere, a ROM.
pub(crate) const ALL_KINDS: Config<'static> = Config::new(0x1234, 0x5678)
    .bar(0, Bar::memory(0x1000))
    .bar(1, Bar::ports(0x20))
    .bar(2, Bar::memory64(1 << 33).prefetchable())
    .bar(4, Bar::memory64(0x10))
    .rom(0x1_0000);

/// All orders of these steps.
pub(crate) fn orders<T: Copy>(steps: &[T]) -> Vec<Vec<T>> {
    if steps.is_empty() {
        return vec![vec![]];
    }
    let first = |at: usize| {
        let mut rest = steps.to_vec();
        let step = rest.remove(at);
        orders(&rest).into_iter().map(move |order| [vec![step], order].concat()).collect::<Vec<_>>()
    };
    (0..steps.len()).flat_map(first).collect()
}
pub(crate) use machine;

/// A host bridge with a bridge at 2, behind it a function at 5 and a bridge at 6, behind which there is a function at 7.
macro_rules! bridged {
    ($manager:ident, $guest:ident, $outer:ident, $near:ident, $inner:ident, $far:ident) => {
        let storage = Storage::<16, 48, 4>::new();
        let $manager = DeviceManager::new(&storage, everything());
        let host = HostBridge::new("pci", &$manager);
        let bridges = [Bridge::new("outer", 0x1b36, 1), Bridge::new("inner", 0x1b36, 1)];
        let cards = [(); 2].map(|()| Function::new(CARD));
        let devices = [Numbered("near"), Numbered("far")];
        let ranges = [HostBridge::PORTS, HostBridge::ecam(ECAM, 2)];
        $manager.register_device(&host, None, &ranges, &[]).unwrap();
        let below =
            |parent, device, requests: &[IoResource]| $manager.register_device(device, parent, requests, &[]).unwrap();
        let $outer = below(None, &bridges[0], &bridges[0].requests());
        let $near = below(Some($outer), &devices[0], &cards[0].requests());
        let $inner = below(Some($outer), &bridges[1], &bridges[1].requests());
        let $far = below(Some($inner), &devices[1], &cards[1].requests());
        host.bus().plug(bridges[0].function(), Slot::new(2, 0), $outer).unwrap();
        bridges[0].bus().plug(&cards[0], Slot::new(5, 0), $near).unwrap();
        bridges[0].bus().plug(bridges[1].function(), Slot::new(6, 0), $inner).unwrap();
        bridges[1].bus().plug(&cards[1], Slot::new(7, 0), $far).unwrap();
        let $guest = Guest(&$manager);
    };
}

pub(crate) use bridged;

/// Where the memory of the enhanced mechanism is, in the way of nothing.
pub(crate) const ECAM: u64 = 0x20_0000_0000;

pub(crate) const CARD: Config<'static> = Config::new(0x1234, 2)
    .bar(0, Bar::memory(0x1000))
    .bar(1, Bar::ports(0x20))
    .bar(2, Bar::memory64(0x1000).prefetchable());

/// Buses 1 and 2 behind the bridges of `bridged`, all decoding on, all windows closed.
pub(crate) fn number_buses(guest: Guest<'_>) {
    guest.set(0, 2, BUSES, 0x02_01_00);
    guest.set(1, 6, BUSES, 0x02_02_01);
    for (bus, device) in [(0, 2), (1, 5), (1, 6), (2, 7)] {
        guest.set(bus, device, COMMAND, PORTS_ON | MEMORY_ON);
    }
}
