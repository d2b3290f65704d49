//! The stored shapes of records: every member named, none taken over by accident.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use cloakroom_core::keys::{KeyRecord, Kid};
use cloakroom_core::refresh::{Predecessor, RefreshState};
use cloakroom_core::session::{Client, Ending, Holder, Lifecycle, Object, Session};
use cloakroom_core::store_key::WrappedKey;
use cloakroom_core::subject::{Bump, PartitionState, PasswordReset, SubjectState, User};
use cloakroom_core::types::TokenHash;
use serde::{Deserialize, Serialize};

use super::bytes::{Alg, Any, Fixed, Id, Ms, Reason, State, Way, Who, read, write};
use super::{
    ApiKey, DecodeError, DeniedToken, HandlePointer, IdentifierPointer, Record, StoreSettings,
};
use crate::Kind;

pub(super) fn encode(record: &Record) -> Vec<u8> {
    match record {
        Record::Session(session) => write(&SessionShape::from(&**session)),
        Record::Data(data) => write(&DataShape { data: Cow::Borrowed(data) }),
        Record::Subject(subject) => write(&SubjectShape::from(subject)),
        Record::Index(sids) => write(&IndexShape { sids: sids.iter().copied().map(Id).collect() }),
        Record::User(user) => write(&UserShape::from(user)),
        Record::Identifier(pointer) => write(&PointerShape::from(pointer)),
        Record::Handle(pointer) => write(&HandleShape::from(*pointer)),
        Record::DeniedToken(denied) => write(&DeniedShape { until: Ms(denied.until) }),
        Record::Throttle(state) => write(&ThrottleShape { state: *state }),
        Record::Partition(state) => write(&PartitionShape::from(state)),
        Record::SigningKey(key) => write(&SigningKeyShape::from(key)),
        Record::ApiKey(key) => write(&ApiKeyShape::from(key)),
        Record::StoreKey(key) => write(&StoreKeyShape { wrapped: Any(key.as_bytes().to_vec()) }),
        Record::Settings(settings) => write(&SettingsShape::from(settings)),
    }
}

pub(super) fn decode(kind: Kind, stored: &[u8]) -> Result<Record, DecodeError> {
    Ok(match kind {
        Kind::Session => Record::Session(Box::new(read::<SessionShape>(stored)?.into())),
        Kind::Data => Record::Data(read::<DataShape>(stored)?.data.into_owned()),
        Kind::Subject => Record::Subject(read::<SubjectShape>(stored)?.into()),
        Kind::Index => {
            Record::Index(read::<IndexShape>(stored)?.sids.into_iter().map(|id| id.0).collect())
        }
        Kind::User => Record::User(read::<UserShape>(stored)?.into()),
        Kind::Identifier => Record::Identifier(read::<PointerShape>(stored)?.into()),
        Kind::Handle => Record::Handle(read::<HandleShape>(stored)?.into()),
        Kind::DeniedToken => {
            Record::DeniedToken(DeniedToken { until: read::<DeniedShape>(stored)?.until.0 })
        }
        Kind::Throttle => Record::Throttle(read::<ThrottleShape>(stored)?.state),
        Kind::Partition => Record::Partition(read::<PartitionShape>(stored)?.into()),
        Kind::SigningKey => Record::SigningKey(read::<SigningKeyShape<'_>>(stored)?.into()),
        Kind::ApiKey => Record::ApiKey(read::<ApiKeyShape<'_>>(stored)?.into()),
        Kind::StoreKey => {
            Record::StoreKey(WrappedKey::from_bytes(read::<StoreKeyShape>(stored)?.wrapped.0))
        }
        Kind::Settings => Record::Settings(read::<SettingsShape>(stored)?.into()),
    })
}

#[derive(Serialize, Deserialize)]
struct SessionShape<'a> {
    id: Id,
    #[serde(rename = "sub", default, skip_serializing_if = "Option::is_none")]
    subject: Option<Who>,
    #[serde(rename = "se")]
    subject_epoch: u64,
    #[serde(rename = "pe")]
    partition_epoch: u64,
    #[serde(rename = "end", default, skip_serializing_if = "Option::is_none")]
    ending: Option<EndingShape>,
    #[serde(rename = "ct")]
    created_at: Ms,
    #[serde(rename = "ls")]
    last_seen_at: Ms,
    #[serde(rename = "at")]
    auth_time: Ms,
    #[serde(rename = "idle")]
    idle_ms: u64,
    #[serde(rename = "life")]
    lifetime_ms: u64,
    #[serde(rename = "xt")]
    expires_at: Ms,
    #[serde(rename = "rem", default, skip_serializing_if = "is_false")]
    remember: bool,
    #[serde(default, skip_serializing_if = "is_empty")]
    amr: Cow<'a, [String]>,
    acr: Cow<'a, str>,
    #[serde(rename = "act", default, skip_serializing_if = "Option::is_none")]
    actor: Option<Cow<'a, str>>,
    #[serde(rename = "cl", default, skip_serializing_if = "has_none")]
    claims: Cow<'a, Object>,
    #[serde(rename = "by", default)]
    client: ClientShape<'a>,
    #[serde(rename = "via")]
    delivery: Way,
    #[serde(rename = "h")]
    holder: HolderShape,
}

#[derive(Serialize, Deserialize)]
struct EndingShape {
    at: Ms,
    #[serde(rename = "why")]
    reason: Reason,
    #[serde(rename = "next", default, skip_serializing_if = "Option::is_none")]
    successor: Option<Id>,
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct ClientShape<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(rename = "ua", default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(rename = "lb", default, skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
enum HolderShape {
    #[serde(rename = "c")]
    Cookie {
        #[serde(rename = "l")]
        lineage: u32,
        #[serde(rename = "s")]
        secret: Fixed<32>,
    },
    #[serde(rename = "r")]
    Refresh {
        #[serde(rename = "l")]
        lineage: u32,
        #[serde(rename = "g")]
        generation: u32,
        #[serde(rename = "s")]
        current: Fixed<32>,
        #[serde(rename = "rt")]
        rotated_at: Ms,
        #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
        predecessor: Option<PredecessorShape>,
    },
}

#[derive(Serialize, Deserialize)]
struct PredecessorShape {
    #[serde(rename = "s")]
    secret: Fixed<32>,
    #[serde(rename = "it")]
    issued_at: Ms,
    #[serde(rename = "n")]
    nonce: Fixed<16>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    idempotency: Option<Fixed<32>>,
}

#[derive(Serialize, Deserialize)]
struct DataShape<'a> {
    #[serde(rename = "d", default, skip_serializing_if = "has_none")]
    data: Cow<'a, Object>,
}

#[derive(Serialize, Deserialize)]
struct SubjectShape<'a> {
    #[serde(rename = "sub")]
    subject: Who,
    #[serde(rename = "e")]
    epoch: u64,
    #[serde(rename = "b", default, skip_serializing_if = "Vec::is_empty")]
    bumps: Vec<BumpShape>,
    #[serde(rename = "cl", default, skip_serializing_if = "has_none")]
    claims: Cow<'a, Object>,
    #[serde(rename = "dis", default, skip_serializing_if = "Option::is_none")]
    disabled_at: Option<Ms>,
    #[serde(rename = "pw", default, skip_serializing_if = "Option::is_none")]
    password_changed_at: Option<Ms>,
}

#[derive(Serialize, Deserialize)]
struct BumpShape {
    #[serde(rename = "e")]
    epoch: u64,
    at: Ms,
    #[serde(rename = "why")]
    reason: Reason,
}

#[derive(Serialize, Deserialize)]
struct IndexShape {
    #[serde(rename = "s", default)]
    sids: Vec<Id>,
}

#[derive(Serialize, Deserialize)]
struct UserShape<'a> {
    id: Who,
    #[serde(rename = "n")]
    identifier: Cow<'a, str>,
    #[serde(rename = "h")]
    identifier_hash: Fixed<32>,
    #[serde(rename = "phc", default, skip_serializing_if = "Option::is_none")]
    password: Option<Cow<'a, str>>,
    #[serde(rename = "ct")]
    created_at: Ms,
    #[serde(rename = "pw", default, skip_serializing_if = "Option::is_none")]
    password_changed_at: Option<Ms>,
    #[serde(rename = "rs", default, skip_serializing_if = "Option::is_none")]
    reset: Option<ResetShape>,
}

#[derive(Serialize, Deserialize)]
struct ResetShape {
    #[serde(rename = "s")]
    secret: Fixed<32>,
    #[serde(rename = "u")]
    until: Ms,
}

#[derive(Serialize, Deserialize)]
struct PointerShape {
    #[serde(rename = "u")]
    user: Who,
    at: Ms,
}

#[derive(Serialize, Deserialize)]
struct HandleShape {
    id: Id,
    at: Ms,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    until: Option<Ms>,
}

#[derive(Serialize, Deserialize)]
struct DeniedShape {
    #[serde(rename = "u")]
    until: Ms,
}

#[derive(Serialize, Deserialize)]
struct ThrottleShape {
    #[serde(rename = "t")]
    state: u64,
}

#[derive(Serialize, Deserialize)]
struct PartitionShape {
    #[serde(rename = "e")]
    epoch: u64,
    #[serde(rename = "at", default)]
    bumped_at: Ms,
}

#[derive(Serialize, Deserialize)]
struct SigningKeyShape<'a> {
    kid: Cow<'a, str>,
    alg: Alg,
    #[serde(rename = "st")]
    state: State,
    #[serde(rename = "ct")]
    created_at: Ms,
    #[serde(rename = "at")]
    activates_at: Ms,
    #[serde(rename = "rt", default, skip_serializing_if = "Option::is_none")]
    retires_at: Option<Ms>,
    #[serde(rename = "xt", default, skip_serializing_if = "Option::is_none")]
    removed_at: Option<Ms>,
    #[serde(rename = "pub")]
    public: Any,
    #[serde(rename = "key", default)]
    private: Any,
}

#[derive(Serialize, Deserialize)]
struct ApiKeyShape<'a> {
    id: Id,
    #[serde(rename = "n")]
    name: Cow<'a, str>,
    #[serde(rename = "sc", default)]
    scopes: Cow<'a, [String]>,
    #[serde(rename = "s")]
    secret: Fixed<32>,
    #[serde(rename = "ct")]
    created_at: Ms,
    #[serde(rename = "xt", default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Ms>,
    #[serde(rename = "ut", default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Ms>,
}

#[derive(Serialize, Deserialize)]
struct StoreKeyShape {
    #[serde(rename = "w")]
    wrapped: Any,
}

#[derive(Serialize, Deserialize)]
struct SettingsShape {
    #[serde(rename = "n")]
    partitions: u16,
    id: Fixed<16>,
    #[serde(rename = "ct")]
    created_at: Ms,
}

impl<'a> From<&'a Session> for SessionShape<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            id: Id(session.sid),
            subject: session.subject.clone().map(Who),
            subject_epoch: session.subject_epoch,
            partition_epoch: session.partition_epoch,
            ending: match session.lifecycle {
                Lifecycle::Live => None,
                Lifecycle::Ended(ending) => Some(ending.into()),
            },
            created_at: Ms(session.created_at),
            last_seen_at: Ms(session.last_seen_at),
            auth_time: Ms(session.auth_time),
            idle_ms: millis(session.idle_timeout),
            lifetime_ms: millis(session.lifetime),
            expires_at: Ms(session.expires_at),
            remember: session.remember,
            amr: Cow::Borrowed(&session.amr),
            acr: Cow::Borrowed(&session.acr),
            actor: session.actor.as_deref().map(Cow::Borrowed),
            claims: Cow::Borrowed(&session.claims),
            client: (&session.client).into(),
            delivery: Way(session.delivery),
            holder: (&session.holder).into(),
        }
    }
}

impl From<SessionShape<'_>> for Session {
    fn from(shape: SessionShape<'_>) -> Self {
        Self {
            sid: shape.id.0,
            subject: shape.subject.map(|who| who.0),
            subject_epoch: shape.subject_epoch,
            partition_epoch: shape.partition_epoch,
            lifecycle: match shape.ending {
                None => Lifecycle::Live,
                Some(ending) => Lifecycle::Ended(ending.into()),
            },
            created_at: shape.created_at.0,
            last_seen_at: shape.last_seen_at.0,
            auth_time: shape.auth_time.0,
            idle_timeout: Duration::from_millis(shape.idle_ms),
            lifetime: Duration::from_millis(shape.lifetime_ms),
            expires_at: shape.expires_at.0,
            remember: shape.remember,
            amr: shape.amr.into_owned(),
            acr: shape.acr.into_owned(),
            actor: shape.actor.map(Cow::into_owned),
            claims: shape.claims.into_owned(),
            client: shape.client.into(),
            delivery: shape.delivery.0,
            holder: shape.holder.into(),
        }
    }
}

impl From<Ending> for EndingShape {
    fn from(ending: Ending) -> Self {
        let Ending { at, reason, successor } = ending;
        Self { at: Ms(at), reason: Reason(reason), successor: successor.map(Id) }
    }
}

impl From<EndingShape> for Ending {
    fn from(shape: EndingShape) -> Self {
        let successor = shape.successor.map(|id| id.0);
        Self { at: shape.at.0, reason: shape.reason.0, successor }
    }
}

impl<'a> From<&'a Client> for ClientShape<'a> {
    fn from(client: &'a Client) -> Self {
        Self {
            ip: client.ip,
            user_agent: client.user_agent.as_deref().map(Cow::Borrowed),
            label: client.label.as_deref().map(Cow::Borrowed),
        }
    }
}

impl From<ClientShape<'_>> for Client {
    fn from(shape: ClientShape<'_>) -> Self {
        Self {
            ip: shape.ip,
            user_agent: shape.user_agent.map(Cow::into_owned),
            label: shape.label.map(Cow::into_owned),
        }
    }
}

impl From<&Holder> for HolderShape {
    fn from(holder: &Holder) -> Self {
        match holder {
            Holder::Cookie { lineage, secret } => {
                Self::Cookie { lineage: *lineage, secret: Fixed(*secret.as_bytes()) }
            }
            Holder::Refresh(state) => Self::Refresh {
                lineage: state.lineage,
                generation: state.generation,
                current: Fixed(*state.current.as_bytes()),
                rotated_at: Ms(state.rotated_at),
                predecessor: state.predecessor.as_ref().map(PredecessorShape::from),
            },
        }
    }
}

impl From<HolderShape> for Holder {
    fn from(shape: HolderShape) -> Self {
        match shape {
            HolderShape::Cookie { lineage, secret } => {
                Self::Cookie { lineage, secret: TokenHash::from_bytes(secret.0) }
            }
            HolderShape::Refresh { lineage, generation, current, rotated_at, predecessor } => {
                Self::Refresh(RefreshState {
                    lineage,
                    generation,
                    current: TokenHash::from_bytes(current.0),
                    rotated_at: rotated_at.0,
                    predecessor: predecessor.map(Predecessor::from),
                })
            }
        }
    }
}

impl From<&Predecessor> for PredecessorShape {
    fn from(predecessor: &Predecessor) -> Self {
        Self {
            secret: Fixed(*predecessor.secret.as_bytes()),
            issued_at: Ms(predecessor.issued_at),
            nonce: Fixed(predecessor.nonce),
            idempotency: predecessor.idempotency.map(Fixed),
        }
    }
}

impl From<PredecessorShape> for Predecessor {
    fn from(shape: PredecessorShape) -> Self {
        Self {
            secret: TokenHash::from_bytes(shape.secret.0),
            issued_at: shape.issued_at.0,
            nonce: shape.nonce.0,
            idempotency: shape.idempotency.map(|hash| hash.0),
        }
    }
}

impl<'a> From<&'a SubjectState> for SubjectShape<'a> {
    fn from(state: &'a SubjectState) -> Self {
        let bump = |bump: &Bump| BumpShape {
            epoch: bump.epoch,
            at: Ms(bump.at),
            reason: Reason(bump.reason),
        };
        Self {
            subject: Who(state.subject.clone()),
            epoch: state.epoch,
            bumps: state.bumps.iter().map(bump).collect(),
            claims: Cow::Borrowed(&state.claims),
            disabled_at: state.disabled_at.map(Ms),
            password_changed_at: state.password_changed_at.map(Ms),
        }
    }
}

impl From<SubjectShape<'_>> for SubjectState {
    fn from(shape: SubjectShape<'_>) -> Self {
        let bump =
            |bump: BumpShape| Bump { epoch: bump.epoch, at: bump.at.0, reason: bump.reason.0 };
        Self {
            subject: shape.subject.0,
            epoch: shape.epoch,
            bumps: shape.bumps.into_iter().map(bump).collect(),
            claims: shape.claims.into_owned(),
            disabled_at: shape.disabled_at.map(|at| at.0),
            password_changed_at: shape.password_changed_at.map(|at| at.0),
        }
    }
}

impl<'a> From<&'a User> for UserShape<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: Who(user.id.clone()),
            identifier: Cow::Borrowed(&user.identifier),
            identifier_hash: Fixed(user.identifier_hash),
            password: user.password.as_deref().map(Cow::Borrowed),
            created_at: Ms(user.created_at),
            password_changed_at: user.password_changed_at.map(Ms),
            reset: user.reset.map(|reset| ResetShape {
                secret: Fixed(*reset.secret.as_bytes()),
                until: Ms(reset.until),
            }),
        }
    }
}

impl From<UserShape<'_>> for User {
    fn from(shape: UserShape<'_>) -> Self {
        Self {
            id: shape.id.0,
            identifier: shape.identifier.into_owned(),
            identifier_hash: shape.identifier_hash.0,
            password: shape.password.map(Cow::into_owned),
            created_at: shape.created_at.0,
            password_changed_at: shape.password_changed_at.map(|at| at.0),
            reset: shape.reset.map(|reset| PasswordReset {
                secret: TokenHash::from_bytes(reset.secret.0),
                until: reset.until.0,
            }),
        }
    }
}

impl From<&IdentifierPointer> for PointerShape {
    fn from(pointer: &IdentifierPointer) -> Self {
        Self { user: Who(pointer.user.clone()), at: Ms(pointer.at) }
    }
}

impl From<PointerShape> for IdentifierPointer {
    fn from(shape: PointerShape) -> Self {
        Self { user: shape.user.0, at: shape.at.0 }
    }
}

impl From<HandlePointer> for HandleShape {
    fn from(pointer: HandlePointer) -> Self {
        let HandlePointer { sid, at, until } = pointer;
        Self { id: Id(sid), at: Ms(at), until: until.map(Ms) }
    }
}

impl From<HandleShape> for HandlePointer {
    fn from(shape: HandleShape) -> Self {
        Self { sid: shape.id.0, at: shape.at.0, until: shape.until.map(|until| until.0) }
    }
}

impl From<&PartitionState> for PartitionShape {
    fn from(state: &PartitionState) -> Self {
        Self { epoch: state.epoch, bumped_at: Ms(state.bumped_at) }
    }
}

impl From<PartitionShape> for PartitionState {
    fn from(shape: PartitionShape) -> Self {
        Self { epoch: shape.epoch, bumped_at: shape.bumped_at.0 }
    }
}

impl<'a> From<&'a KeyRecord> for SigningKeyShape<'a> {
    fn from(key: &'a KeyRecord) -> Self {
        Self {
            kid: Cow::Borrowed(key.kid.as_str()),
            alg: Alg(key.algorithm),
            state: State(key.state),
            created_at: Ms(key.created_at),
            activates_at: Ms(key.activates_at),
            retires_at: key.retires_at.map(Ms),
            removed_at: key.removed_at.map(Ms),
            public: Any(key.public.clone()),
            private: Any(key.private.clone()),
        }
    }
}

impl From<SigningKeyShape<'_>> for KeyRecord {
    fn from(shape: SigningKeyShape<'_>) -> Self {
        Self {
            kid: Kid::new(&shape.kid),
            algorithm: shape.alg.0,
            state: shape.state.0,
            created_at: shape.created_at.0,
            activates_at: shape.activates_at.0,
            retires_at: shape.retires_at.map(|at| at.0),
            removed_at: shape.removed_at.map(|at| at.0),
            public: shape.public.0,
            private: shape.private.0,
        }
    }
}

impl<'a> From<&'a ApiKey> for ApiKeyShape<'a> {
    fn from(key: &'a ApiKey) -> Self {
        Self {
            id: Id(key.id),
            name: Cow::Borrowed(&key.name),
            scopes: Cow::Borrowed(&key.scopes),
            secret: Fixed(*key.secret.as_bytes()),
            created_at: Ms(key.created_at),
            expires_at: key.expires_at.map(Ms),
            last_used_at: key.last_used_at.map(Ms),
        }
    }
}

impl From<ApiKeyShape<'_>> for ApiKey {
    fn from(shape: ApiKeyShape<'_>) -> Self {
        Self {
            id: shape.id.0,
            name: shape.name.into_owned(),
            scopes: shape.scopes.into_owned(),
            secret: TokenHash::from_bytes(shape.secret.0),
            created_at: shape.created_at.0,
            expires_at: shape.expires_at.map(|at| at.0),
            last_used_at: shape.last_used_at.map(|at| at.0),
        }
    }
}

impl From<&StoreSettings> for SettingsShape {
    fn from(settings: &StoreSettings) -> Self {
        Self {
            partitions: settings.partitions,
            id: Fixed(settings.store_id),
            created_at: Ms(settings.created_at),
        }
    }
}

impl From<SettingsShape> for StoreSettings {
    fn from(shape: SettingsShape) -> Self {
        Self { partitions: shape.partitions, store_id: shape.id.0, created_at: shape.created_at.0 }
    }
}

/// A span in whole milliseconds; every setting is.
fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

// Serde calls these with references to the members.
fn is_false(value: &bool) -> bool {
    !value
}

fn is_empty(values: &[String]) -> bool {
    values.is_empty()
}

fn has_none(object: &Object) -> bool {
    object.is_empty()
}
