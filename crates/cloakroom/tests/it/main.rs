//! The engine over the memory store.

mod directory;
mod lifecycle;
mod security_races;
mod signin;
mod streams;
mod throttle;
mod users;
mod world;
