//! The engine over the memory store.

mod directory;
mod handles;
mod lifecycle;
mod security_events;
mod security_races;
mod security_state;
mod resets;
mod signin;
mod streams;
mod throttle;
mod users;
mod world;
