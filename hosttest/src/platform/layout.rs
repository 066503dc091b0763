//! Where things are on the platform: what its devices, its guest and the VMM agree on.

use crate::vmm::machine::DATA;
use crate::vmm::memory::PAGE;

/// What the host bridge passes on to its bus: the devices' memory.
pub(super) const WINDOW: u64 = 0xd000_0000;
pub(super) const WINDOW_SIZE: u64 = 0x1000_0000;

pub(super) const NETWORK_PORT: u16 = 0xc000;
pub(super) const DISK_PORT: u16 = 0xc010;

/// In the guest's memory: where the two ranges are that may lie anywhere, which the VMM tells, and what the handler counts.
pub(super) const SCRATCH_BASE: u64 = DATA;
pub(super) const VIDEO_BASE: u64 = DATA + 8;
pub(super) const INTERRUPTS: u64 = DATA + 16;
pub(super) const VIDEO_SIZE: u64 = 4 * PAGE;
