//! The PostgreSQL store against real servers: the promises of every store, and its own.

mod conformance;
mod server;
