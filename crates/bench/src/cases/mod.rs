//! The measurements.

pub mod engine;
pub mod over_http;
pub mod sizes;
pub mod sweeping;
