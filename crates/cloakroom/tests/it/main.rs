//! The engine over the memory store.

mod directory;
mod handles;
mod kept;
mod late_refresh;
mod lifecycle;
mod listing;
mod resets;
mod security_events;
mod security_races;
mod security_state;
mod signin;
mod streams;
mod throttle;
mod users;
mod world;
