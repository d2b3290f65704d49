//! The server: HTTP, configuration and commands around the authority.

// Futures of handlers over any of the stores nest deeper than the default.
#![recursion_limit = "256"]

pub mod admin;
pub mod any_store;
pub mod cli;
pub mod config;
pub mod demo;
mod forward;
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
mod store_check;
mod store_copy;
mod store_hold;
pub mod store_watch;
pub mod telemetry;
