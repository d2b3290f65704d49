//! The server: HTTP, configuration and commands around the authority.

pub mod cli;
pub mod config;
