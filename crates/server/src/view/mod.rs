//! What both listeners show: sessions, instants, and what a store promises of an ending.

mod device;
mod durability;
mod session;
mod time;

pub use durability::{durability_name, with_durability};
pub use session::SessionView;
pub use time::rfc3339;
