//! The device manager: registration, removal, relocation, inspection, and the state that their callers share.

mod device_manager;
mod inspect;
mod line;
mod lines;
mod notify;
mod observing;
mod occupant;
mod on_drop;
mod publish;
mod register;
mod relocate;
mod remove;
mod state;
mod storage;
mod sweep;
mod take;
mod taken;
mod tree;

pub use device_manager::DeviceManager;
pub use inspect::{DeviceInfo, MappedRange};
pub(crate) use observing::Observing;
pub(crate) use occupant::Occupant;
pub use relocate::Relocation;
pub(crate) use remove::Scope;
pub use storage::Storage;
pub use taken::Taken;
