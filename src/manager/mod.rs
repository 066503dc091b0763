//! The device manager: registration, removal, relocation, inspection, and the state that their callers share.

mod calls;
mod device_manager;
mod end_of_interrupt;
mod inspect;
mod line;
mod lines;
mod map_text;
mod notify;
mod observing;
mod occupant;
mod on_drop;
mod path;
mod publish;
mod register;
mod relocate;
mod remove;
mod reroute;
mod reset;
mod state;
mod storage;
mod sweep;
mod take;
mod taken;
mod tick;
mod tree;
mod wait;

pub use device_manager::DeviceManager;
pub use inspect::{DeviceInfo, MappedRange};
pub use map_text::MapText;
pub(crate) use observing::Observing;
pub(crate) use occupant::Occupant;
#[cfg(feature = "alloc")]
pub(crate) use on_drop::OnDrop;
pub use path::DevicePath;
pub use relocate::Relocation;
pub(crate) use remove::Scope;
#[cfg(feature = "alloc")]
pub(crate) use state::{StateCells, StateStorage};
#[cfg(feature = "alloc")]
pub(crate) use storage::Parts;
pub use storage::Storage;
pub use taken::Taken;
