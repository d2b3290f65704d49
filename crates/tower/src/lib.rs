//! Sessions for axum, hyper and anything built on tower: one layer, and what handlers use of it.
//!
//! ```no_run
//! # async fn example(guard: std::sync::Arc<dyn cloakroom_tower::core::guard::Guard>)
//! # -> Result<(), cloakroom_tower::SetupError> {
//! use axum::{Router, routing::{get, post}};
//! use cloakroom_tower::{CloakroomLayer, CurrentUser, Error, Session};
//!
//! async fn me(user: CurrentUser) -> String {
//!     format!("you are {}", user.id())
//! }
//!
//! async fn sign_in(session: Session) -> Result<&'static str, Error> {
//!     // … after the password was checked:
//!     session.sign_in("usr_1").await?;
//!     Ok("welcome")
//! }
//!
//! let app: Router = Router::new()
//!     .route("/me", get(me))
//!     .route("/sign-in", post(sign_in))
//!     .layer(CloakroomLayer::new(guard).origin("https://shop.example")?);
//! # Ok(()) }
//! ```
//!
//! The chain is *credential → session → CSRF → per-session limit → handler*, in the one layer, so
//! there is no order to get wrong. Each link can be left out ([`CloakroomLayer`]). Who is let in is
//! for the handler to say, by what it takes ([`CurrentUser`], [`Claims`]), or for a guard around
//! routes ([`require`]).
//!
//! The authority is whatever implements [`Guard`](core::guard::Guard): the crate `cloakroom` in
//! this process, `cloakroom-client` over HTTP, the module `testing` in tests. No type here has a
//! parameter for it.

mod client;
mod credential;
mod error;
#[cfg(feature = "axum")]
mod extract;
mod layer;
mod meters;
pub mod require;
mod service;
mod session;
#[cfg(feature = "testing")]
pub mod testing;
mod visit;

pub use client::{Peer, address_of, client_of};
pub use credential::{Bearer, header, request_origin};
pub use error::{Error, RateNote};
#[cfg(feature = "axum")]
pub use extract::{Claims, CsrfToken, CurrentUser};
pub use layer::{CloakroomLayer, SetupError};
pub use require::{rate_limit, require_auth, require_claim, require_recent_auth};
pub use service::{CloakroomService, RequestBody, ResponseBody};
pub use session::{Session, SignIn, Tokens};
pub use visit::local_path;

pub use cloakroom_core as core;
pub use cloakroom_core::guard::Device;
