//! The embedded store: the promises of every store, and those about its directory.

mod conformance;
mod crash;
mod damage;
mod directory;
mod notes;
mod reopen;
mod world;
