//! The PostgreSQL store against real servers: the promises of every store, and its own.

mod conformance;
mod failures;
mod nodes;
mod plans;
mod pooler;
mod refusals;
mod releases;
mod schemas;
mod server;
#[path = "../../../xtask/src/skips/tell.rs"]
mod skips;
mod tls;
mod world;
