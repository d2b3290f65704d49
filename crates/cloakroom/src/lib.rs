//! The session authority as a library.
//!
//! An [`Authority`] answers *who is this, and are they still allowed in?* over a store. Every
//! operation has one shape: load, let the core decide, commit if nothing changed meanwhile, else
//! load again, until the deadline. It knows nothing of HTTP and spawns nothing; whoever runs it
//! drives its background work (see [`Authority::flush_touches`], [`Authority::sweep`],
//! [`Authority::tend_keys`], [`Authority::follow`],
//! [`Authority::pump_streams`]).

mod api_keys;
#[cfg(feature = "tower")]
mod app;
mod authority;
mod cache;
mod claims;
mod clock;
mod context;
mod data;
mod ending;
mod events;
mod feed;
mod figures;
mod handles;
mod hashing;
mod keyring;
mod listing;
mod opening;
mod passwords;
mod place;
mod refreshing;
mod resets;
mod revocations;
mod settings;
mod signin;
mod stats;
mod store_key;
mod streams;
mod subjects;
mod sweep;
mod throttle;
mod tokens;
mod touch;
mod transact;
mod users;
mod verify;

pub use api_keys::{ApiKeyIdentity, ApiKeyView, NewApiKey, SCOPES};
#[cfg(feature = "tower")]
pub use app::{Cloakroom, StartError};
pub use authority::{Authority, OpenError, RootKey};
pub use cache::{CacheFigures, GatewayAssertion, Meters};
pub use clock::{Clock, Entropy, SystemClock, SystemEntropy};
pub use context::{Context, Error, Unavailable};
pub use data::{DataView, IfMatch};
pub use ending::{Ended, EndedMany};
pub use events::{EventFilter, EventOrder, EventPage, EventView};
pub use figures::{
    CredentialKind, Distribution, FeedFigures, Figures, Histogram, RefreshOutcome, SigninOutcome,
    SweepFigures, Verdict,
};
pub use handles::{Handle, HandlePut, HandleView};
pub use hashing::{PasswordFigures, PasswordLoad};
pub use listing::{Listed, SessionPage};
pub use opening::{AccessToken, Carried, OpenRequest, Opened};
pub use resets::is_reset_token;
pub use revocations::{RaisedSubject, Revocations};
pub use settings::{LoginLimits, OnLimit, Settings, VerifySettings};
pub use signin::{Login, Ticket};
pub use stats::{NodeStats, Sample, Stat};
pub use store_key::StoreSecret;
pub use streams::{Signal, StreamFigures, Subscription, Told};
pub use subjects::{SubjectPatch, SubjectView};
pub use sweep::Swept;
pub use tokens::Introspection;
pub use touch::TouchFigures;
pub use users::{NewPassword, NewUser, UserPage, UserPatch, UserView};
pub use verify::{Credential, Verified, Via};

pub use cloakroom_core as core;
pub use cloakroom_store as store;

#[cfg(feature = "testing")]
pub use cloakroom_tower::testing;
#[cfg(feature = "tower")]
pub use cloakroom_tower::{
    Claims, CloakroomLayer, CsrfToken, CurrentUser, Device, Error as WebError, Peer, Session,
    SetupError, SignIn, Tokens, local_path, rate_limit, require_auth, require_claim,
    require_recent_auth,
};

#[cfg(all(doctest, feature = "embedded", feature = "remote", feature = "testing"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../../docs/guide/rust.md")]
mod pages {}
