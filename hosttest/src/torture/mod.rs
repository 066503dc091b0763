//! Accesses and changes at full speed against each other, with a record of what each access may find.
//!
//! Writers plug, move, swap and remove devices, unplace their ranges and let them wait, move, resize and close windows; readers access the places where these are, or are not. Around each change a
//! writer notes in the `oracle` what is at the place before and after; each access is judged by what was noted before it
//! began and after it ended. The devices themselves note whether they are called while they should not be.
//!
//! On [`threads`] the readers are threads of this program; on [`kvm`] they are processors of a guest, and the accesses are
//! exits.

mod access;
mod bars;
mod bus;
mod churn;
mod counts;
mod groups;
mod hang;
pub mod kvm;
mod options;
mod oracle;
mod probe;
mod report;
pub mod threads;
mod waits;
mod world;

pub use counts::{Round, Rounds, Violation, Violations};
pub use options::{MAX_ANONYMOUS_READERS, MAX_HANDLES, MAX_WRITERS, Options};
pub use report::Report;
pub use waits::Waits;
