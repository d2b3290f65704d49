//! The engine over the memory store.

mod lifecycle;
mod world;
