//! The server: HTTP, configuration and commands around the authority.
//!
//! In reading order, each on those before it:
//!
//! - [`config`]: what the operator decided, from file, environment and flags; `settings` makes the
//!   authority's own of it, [`node_files`] keeps the keys of this node.
//! - [`store`]: the configured store, opened, watched, measured, copied, looked through.
//! - [`serve`]: a node's life, from opening the store to draining; its background work.
//! - [`http`]: one request on its way in and out, the same on both listeners; [`site`]: what its
//!   handlers share; [`problem`]: the one place where an error becomes a status.
//! - `gate`: who is asking, and whether that may pass; [`view`]: what is shown of a session.
//! - [`public`], `forward`, [`admin`]: the endpoints, a file for each resource.
//! - [`openapi`], [`metrics`], [`telemetry`]: what the program says about itself.
//! - [`cli`]: the commands; those that speak to a running node do so by its admin listener.

// Futures of handlers over any of the stores nest deeper than the default.
#![recursion_limit = "256"]

pub mod admin;
pub mod cli;
pub mod config;
mod forward;
mod gate;
pub mod http;
pub mod metrics;
pub mod node_files;
pub mod openapi;
mod outbound;
pub mod problem;
pub mod public;
pub mod serve;
mod settings;
pub mod site;
pub mod store;
pub mod telemetry;
pub mod view;
