//! The same behaviour over an authority in memory, in a directory, and on a real server.

mod browser;
mod chain;
mod data;
mod faults;
mod forged;
mod stacks;
mod world;
