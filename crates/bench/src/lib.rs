//! Measurements beside their references, and kills under load: what the two programs share.

pub mod append;
pub mod cases;
pub mod crash;
pub mod fill;
pub mod generator;
pub mod http;
pub mod idle;
pub mod machine;
pub mod random;
pub mod report;
pub mod server;
pub mod servers;
pub mod setting;

/// What a step of a benchmark came to. These programs only report a fault, never act on it.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
