//! The store on real servers: the promises of every store, and those about servers that fail.

mod cluster;
mod conformance;
mod failures;
mod reads;
mod sentinel;
mod servers;
#[path = "../../../xtask/src/skips/tell.rs"]
mod skips;
mod startup;
mod tls;
mod wakes;
mod world;
