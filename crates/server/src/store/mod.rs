//! The node's store: opened, watched, held while it is copied, measured, looked through.
//!
//! What a store is and promises is `cloakroom-store`'s; here is what the program does with one.

mod any;
pub(crate) mod check;
pub(crate) mod copy;
pub(crate) mod hold;
mod measured;
pub(crate) mod open;
mod watch;

pub use any::AnyStore;
pub use hold::Holdable;
pub(crate) use measured::families;
pub use measured::{Measured, StoreCalls};
pub(crate) use watch::DRIFT_MAX;
pub use watch::{StoreClock, StoreWatch};

/// The store under a node's authority: counted, and refusing writes while it is copied.
pub type NodeStore = Measured<Holdable<AnyStore>>;
