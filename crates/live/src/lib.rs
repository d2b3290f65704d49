//! Several real nodes on one real store, under random clients and faults.
//!
//! Three processes of `cloakroom serve` share a store that this program starts for itself. Clients
//! open, refresh, write and end sessions through all of them; nodes are killed and come back, and
//! so are the store's servers, whose masters fail over. Everything that was asked and answered is
//! kept with its times, and [`rules`] hold it against the invariants afterwards. What a request
//! that wasn't answered did is unknown, and either way must fit.
//!
//! The simulation lives through thousands of worlds, one step at a time; this lives through one,
//! with everything in it that the simulation replaces.

pub mod clients;
pub mod fleet;
pub mod history;
pub mod interrupt;
pub mod rules;
pub mod run;
pub mod stand;
