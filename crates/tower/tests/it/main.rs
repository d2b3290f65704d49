//! The same behaviour over an authority in memory, in a directory, and on a real server.

mod browser;
mod chain;
mod choices;
mod data;
mod devices;
mod faults;
mod forged;
mod relay;
mod stacks;
mod told;
mod world;
