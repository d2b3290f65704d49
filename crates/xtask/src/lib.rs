//! The repository's own commands, as a library so that `cargo test` runs the same rules.
//!
//! [`gate`] is everything that must hold before a change lands; [`tidy`] is the part of it that
//! only reads the tree. Nothing here is shipped to users.

pub mod authority;
pub mod axum;
pub mod backends;
pub mod contract;
pub mod dist;
pub mod express;
pub mod flask;
pub mod gate;
pub mod guide;
pub mod interop;
pub mod monitoring;
pub mod process;
pub mod requirements;
pub mod servers;
pub mod skips;
pub mod source;
pub mod tidy;
pub mod tools;
pub mod tree;
