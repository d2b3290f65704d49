//! What an audit log and a feed say of a change.

use crate::session::{Client, EndReason};
use crate::types::{Sid, Subject, Timestamp};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is its name; the reference lists them")]
pub enum EventKind {
    SessionOpened,
    SessionSteppedUp,
    SessionClaimsChanged,
    SessionDataChanged,
    SessionEnded,
    SessionRefreshed,
    SessionRetriedElsewhere,
    SessionReuseDetected,
    SessionRollbackSeen,
    SigninFailed,
    SigninThrottled,
    SubjectSignedOutEverywhere,
    SubjectChanged,
    SubjectErased,
    UserCreated,
    UserChanged,
    UserDeleted,
    UserDisabled,
    UserEnabled,
    UserPasswordChanged,
    UserResetIssued,
    KeyCreated,
    KeyActivated,
    KeyRetired,
    KeyRevoked,
    /// The store's own key was wrapped by another master key.
    KeyRewrapped,
    ApiKeyCreated,
    ApiKeyDeleted,
    TokenDenied,
    AllEnded,
    AuthorityStarted,
    /// The clean-up removed something.
    AuthoritySwept,
}

impl EventKind {
    /// All kinds with their stable names.
    pub const NAMES: [(Self, &'static str); 32] = [
        (Self::SessionOpened, "session.opened"),
        (Self::SessionSteppedUp, "session.stepped_up"),
        (Self::SessionClaimsChanged, "session.claims_changed"),
        (Self::SessionDataChanged, "session.data_changed"),
        (Self::SessionEnded, "session.ended"),
        (Self::SessionRefreshed, "session.refreshed"),
        (Self::SessionRetriedElsewhere, "session.retried_elsewhere"),
        (Self::SessionReuseDetected, "session.reuse_detected"),
        (Self::SessionRollbackSeen, "session.rollback_seen"),
        (Self::SigninFailed, "signin.failed"),
        (Self::SigninThrottled, "signin.throttled"),
        (Self::SubjectSignedOutEverywhere, "subject.signed_out_everywhere"),
        (Self::SubjectChanged, "subject.changed"),
        (Self::SubjectErased, "subject.erased"),
        (Self::UserCreated, "user.created"),
        (Self::UserChanged, "user.changed"),
        (Self::UserDeleted, "user.deleted"),
        (Self::UserDisabled, "user.disabled"),
        (Self::UserEnabled, "user.enabled"),
        (Self::UserPasswordChanged, "user.password_changed"),
        (Self::UserResetIssued, "user.reset_issued"),
        (Self::KeyCreated, "key.created"),
        (Self::KeyActivated, "key.activated"),
        (Self::KeyRetired, "key.retired"),
        (Self::KeyRevoked, "key.revoked"),
        (Self::KeyRewrapped, "key.rewrapped"),
        (Self::ApiKeyCreated, "api_key.created"),
        (Self::ApiKeyDeleted, "api_key.deleted"),
        (Self::TokenDenied, "token.denied"),
        (Self::AllEnded, "authority.all_ended"),
        (Self::AuthorityStarted, "authority.started"),
        (Self::AuthoritySwept, "authority.swept"),
    ];

    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The user of a session.
    User(Option<Subject>),
    /// A backend, by its API key's id.
    ApiKey(String),
    /// The operator, by the root key of a node.
    Operator,
    /// Cloakroom itself.
    System,
}

/// An audit event, as it is committed with its change. Holds no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When: the change's own instant (a timeout's is the expiry, not the sweep).
    pub at: Timestamp,
    /// To which session.
    pub sid: Option<Sid>,
    /// To whom.
    pub subject: Option<Subject>,
    /// Who did it.
    pub actor: Actor,
    /// From where.
    pub client: Client,
    /// In which request.
    pub request_id: Option<String>,
    /// Why a session ended, or what else is to say; bounded, untrusted text.
    pub reason: Option<String>,
    /// How many of its like it stands for, itself included.
    pub count: u32,
}

/// What followers must know of a change; carries no content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEntry {
    /// A session is over; remember it until no token of it can be valid.
    SessionEnded {
        /// Which.
        sid: Sid,
        /// Why.
        reason: EndReason,
        /// Until when a verifier must remember.
        until: Timestamp,
    },
    /// Access tokens of an earlier `auth_time` are over.
    SessionSteppedUp {
        /// Which session's.
        sid: Sid,
        /// The new `auth_time`.
        auth_time: Timestamp,
    },
    /// Sessions of a lower epoch are over.
    SubjectRaised {
        /// Whose.
        subject: Subject,
        /// The epoch now.
        epoch: u64,
        /// The one session that was taken along.
        except: Option<Sid>,
        /// Why.
        reason: EndReason,
        /// When; by this a store that went back is known to have lost it, whatever epoch it has
        /// come to since.
        at: Timestamp,
    },
    /// One access token is over.
    TokenDenied {
        /// Which.
        jti: String,
        /// Until when to remember.
        until: Timestamp,
    },
    /// A signing key changed its state.
    KeyChanged {
        /// Which.
        kid: String,
        /// To what: `next`, `active`, `retired`, `revoked`, `removed`.
        state: String,
    },
    /// Everything of this partition issued by then is over.
    AllEnded {
        /// By when.
        at: Timestamp,
    },
    /// Cached views of a session are stale.
    SessionChanged {
        /// Which.
        sid: Sid,
    },
    /// Cached views of a subject are stale.
    SubjectChanged {
        /// Which.
        subject: Subject,
    },
    /// Something else of this partition changed (a user, an API key, settings).
    RecordChanged,
}
