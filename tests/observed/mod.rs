//! Everything that can be seen of a manager from outside, to compare before and after.

#![allow(dead_code, unreachable_pub, reason = "each test file that includes this uses a part of it")]

use vm_device::{
    Access, Assigned, Device, DeviceManager, Gsi, GuestAddress, InstanceId, IoError, IoType, MAX_RANGES_PER_DEVICE,
    MappedRange,
};

/// A device that answers every byte with the same value, and counts nothing.
pub struct Constant {
    pub name: &'static str,
    pub value: u8,
}

impl Device<'_> for Constant {
    fn name(&self) -> &str {
        self.name
    }
    fn read(&self, _: &Access<'_>, data: &mut [u8]) {
        data.fill(self.value);
    }
    fn write(&self, _: &Access<'_>, _: &[u8]) {}
}

/// One device of the topology.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub id: InstanceId,
    pub path: String,
    pub parent: Option<InstanceId>,
    pub depth: usize,
    pub gsi: Option<Gsi>,
    pub ranges: Vec<Assigned>,
}

/// What became of one read of a byte, and whose the address is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub io_type: IoType,
    pub address: u64,
    pub outcome: Result<(), IoError>,
    pub byte: u8,
    pub owner: Option<(InstanceId, usize)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed<'d> {
    pub devices: Vec<Seen>,
    pub maps: [Vec<MappedRange<'d>>; 2],
    pub answers: Vec<Answer>,
}

/// The topology, every range, the address maps, and the answers at both ends of every range and next to them, and at
/// `probes` besides.
pub fn observe<'d, const DEVICES: usize, const RANGES: usize, const VCPUS: usize>(
    manager: &DeviceManager<'d, DEVICES, RANGES, VCPUS>,
    probes: &[(IoType, u64)],
) -> Observed<'d> {
    let mut devices: Vec<Seen> = Vec::new();
    for info in manager.walk() {
        let above = devices.iter().find(|seen| Some(seen.id) == info.parent).map_or("", |seen| seen.path.as_str());
        let path = format!("{above}/{}", info.name);
        assert_eq!(manager.find_by_path(&path), Some(info.id), "{path}");
        let found = manager.device(info.id).unwrap();
        assert_eq!((found.id, found.name, found.parent), (info.id, info.name, info.parent));
        assert_eq!((found.depth, found.gsi), (info.depth, info.gsi));
        let ranges: Vec<_> = (0..).map_while(|index| manager.range(info.id, index)).collect();
        assert!(ranges.len() <= MAX_RANGES_PER_DEVICE);
        let Some(above) = info.parent else {
            assert_eq!(info.depth, 0);
            devices.push(Seen { id: info.id, path, parent: None, depth: 0, gsi: info.gsi, ranges });
            continue;
        };
        assert_eq!(manager.device(above).unwrap().depth + 1, info.depth);
        devices.push(Seen { id: info.id, path, parent: info.parent, depth: info.depth, gsi: info.gsi, ranges });
    }
    let maps = [IoType::Pio, IoType::Mmio].map(|space| manager.address_map(space).collect::<Vec<_>>());
    let mut probes = probes.to_vec();
    for (space, map) in [IoType::Pio, IoType::Mmio].into_iter().zip(&maps) {
        for mapped in map {
            let (first, last) = (mapped.assigned.range.first().0, mapped.assigned.range.last().0);
            probes.extend([first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|address| (space, address)));
        }
    }
    let answers = probes.into_iter().map(|(io_type, address)| {
        let mut byte = [0];
        let outcome = manager.read(GuestAddress(address), &mut byte, io_type);
        let owner = manager.find_by_address(GuestAddress(address), io_type);
        Answer { io_type, address, outcome, byte: byte[0], owner }
    });
    let answers = answers.collect();
    Observed { devices, maps, answers }
}
