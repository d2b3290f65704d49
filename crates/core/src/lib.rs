//! The rules of Cloakroom, without I/O.
//!
//! State, a request, an instant and some entropy go in; a decision comes out. Nothing here knows
//! the time, draws randomness, waits, or talks to anything.

pub mod json;
pub mod keys;
pub mod limits;
pub mod store_key;
pub mod token;
pub mod types;
