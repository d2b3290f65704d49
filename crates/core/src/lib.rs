//! The rules of Cloakroom, without I/O.
//!
//! State, a request, an instant and some entropy go in; a decision comes out. Nothing here knows
//! the time, draws randomness, waits, or talks to anything.

pub mod clean;
pub mod cookie;
pub mod csrf;
pub mod event;
pub mod forwarded;
pub mod given;
pub mod guard;
pub mod identifier;
pub mod json;
pub mod keys;
pub mod limits;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod network;
pub mod origin;
pub mod password;
pub mod policy;
pub mod rate;
pub mod refresh;
pub mod refusal;
pub mod return_to;
pub mod session;
pub mod store_key;
pub mod subject;
pub mod token;
pub mod types;

mod uri;
