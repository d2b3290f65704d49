//! Asks a Cloakroom server, and verifies its access tokens without asking.
//!
//! - [`Verifier`] decides, without I/O: keys, revocations and an instant go in, a [`Verdict`]
//!   comes out. [`Events`] takes a server's stream apart.
//! - [`Remote`] drives both over HTTP: it follows the revocation stream, knows how stale it is,
//!   asks the server where it can't tell, and says so where that fails too. It is a
//!   [`Guard`](cloakroom_core::guard::Guard), so that `cloakroom-tower` works with it.

mod asking;
mod feed;
mod following;
mod remote;
mod touching;
mod verifier;
mod wire;

pub use asking::ConnectError;
pub use feed::{Events, Message};
pub use remote::{Remote, Settings};
pub use verifier::{Moment, Told, Verdict, Verifier};
