//! The server from outside: over real sockets, on each store that a test can have.

mod admin_guard;
mod admin_sessions;
mod admin_users;
mod admin_world;
mod cli_commands;
mod cli_demo;
mod cli_serve;
mod cli_world;
mod api_keys;
mod conventions;
mod cookies;
mod csrf;
mod forward_auth;
mod handles;
mod health;
mod http;
mod logout;
mod oauth;
mod refresh;
mod servers;
mod sessions;
mod sign_in;
mod stores;
mod streams;
mod tls;
mod world;
