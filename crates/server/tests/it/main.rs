//! The server from outside: over real sockets, on each store that a test can have.

mod admin_guard;
mod admin_sessions;
mod admin_users;
mod admin_world;
mod api_keys;
mod audit;
mod cli_commands;
mod cli_demo;
mod cli_serve;
mod cli_world;
mod conventions;
mod cookies;
mod csrf;
mod forward_auth;
mod handles;
mod health;
mod http;
mod log_lines;
mod logout;
mod metrics;
mod oauth;
#[cfg(feature = "otlp")]
mod otlp;
mod refresh;
mod round_trips;
mod security_credentials;
mod security_load;
mod security_secrets;
mod security_sizes;
mod servers;
mod sessions;
mod sign_in;
mod stores;
mod streams;
mod tls;
mod world;
