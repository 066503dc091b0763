//! The pools that devices are served from: addresses, ports, interrupt lines and instance ids.

mod bounds;
mod gaps;
mod id;
mod irq;
mod marks;
mod pool;
mod range;
mod told;
mod waiting;

pub use bounds::SystemAllocator;
pub(crate) use id::{IdPool, IdStorage};
pub(crate) use irq::{IrqPool, IrqStorage};
pub(crate) use pool::{Pool, PoolStorage};
pub(crate) use range::{FreeRange, Holder, RangeRecord, Refusal};
pub(crate) use told::Told;
