//! Addresses, ranges, requests and accesses.

use vm_device::{
    Access, AccessSizes, Assigned, GuestAddress, GuestUsize, IoRange, IoResource, IoType, OpenBus, RangeState,
};

pub fn ranges(range: IoRange, address: GuestAddress) {
    call!(GuestAddress::from, 0_u64);
    call!(GuestAddress::from, 0_u16);
    call!(GuestUsize::from, 0);
    call!(IoType::last_address, IoType::Pio);
    call!(IoType::same_space, IoType::Pio, IoType::Mmio);
    call!(IoRange::of::<0, 9>);
    call!(IoRange::new, address, address).ok();
    call!(IoRange::with_size, address, GuestUsize(1)).ok();
    call!(IoRange::first, range);
    call!(IoRange::last, range);
    call!(IoRange::size, range);
    call!(IoRange::contains, range, address);
    call!(IoRange::contains_range, range, range);
    call!(IoRange::overlaps, range, range);
    call!(IoRange::moved_to, range, address).ok();
    call!(OpenBus::default);
}

pub fn requests(request: IoResource) {
    let (address, size) = (GuestAddress(0), GuestUsize(1));
    call!(IoResource::fixed, IoType::Pio, address, size);
    call!(IoResource::at, IoType::Pio, IoRange::ALL_PORTS);
    call!(IoResource::any, IoType::Pio, size);
    call!(IoResource::pio, 0, 1);
    call!(IoResource::mmio, 0, 1);
    let request = call!(IoResource::aligned, request, 1);
    let request = call!(IoResource::within, request, IoRange::ALL_PORTS);
    let request = call!(IoResource::last_fit, request);
    let request = call!(IoResource::sizes, request, AccessSizes::BYTE);
    let request = call!(IoResource::window, request);
    let request = call!(IoResource::reserved, request);
    let request = call!(IoResource::unplaced, request);
    let request = call!(IoResource::waiting, request);
    call!(IoResource::io_type, &request);
    call!(IoResource::placement, &request).ok();
    call!(IoResource::alignment, &request);
    call!(IoResource::limits, &request);
    call!(IoResource::access_sizes, &request);
    call!(IoResource::is_window, &request);
    let state = call!(IoResource::state, &request);
    call!(RangeState::is_placed, state);
    let (io_type, range) = (IoType::Pio, IoRange::ALL_PORTS);
    call!(Assigned::place, &Assigned { io_type, range, state });
    call!(AccessSizes::default);
    call!(AccessSizes::accepts, AccessSizes::BYTE, 0, 1);
}

pub fn access(access: &Access<'_>, data: &mut [u8]) {
    call!(Access::new, IoType::Pio, GuestAddress(0), GuestAddress(0), 0);
    call!(Access::io_type, access);
    call!(Access::address, access);
    call!(Access::base, access);
    call!(Access::offset, access);
    call!(Access::range_index, access);
    let mut registers = [0; 16];
    call!(Access::load, access, &registers, data);
    call!(Access::load_at, access, 1, &registers, data);
    call!(Access::store, access, &mut registers, data);
    call!(Access::store_at, access, 1, &mut registers, data);
}
