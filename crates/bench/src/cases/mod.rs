//! The measurements.

pub mod engine;
pub mod over_http;
pub mod sizes;
pub mod stores;
pub mod streams;
pub mod sweeping;
