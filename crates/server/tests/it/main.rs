//! The server from outside: over real sockets, on each store that a test can have.

mod api_keys;
mod conventions;
mod cookies;
mod csrf;
mod forward_auth;
mod health;
mod http;
mod logout;
mod oauth;
mod refresh;
mod sessions;
mod sign_in;
mod streams;
mod tls;
mod world;
