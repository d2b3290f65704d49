//! A guard over an authority in this process, and the work that somebody has to do for one.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::event::Actor;
use cloakroom_core::guard::{
    Answer, Device, Fault, Guard, HandleHash, Issued, Opening, Pass, Presented, Stored, Via as Way,
};
use cloakroom_core::limits::LIFETIME_MAX;
use cloakroom_core::refresh::Channel;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, EndReason, Grant, Object, Session};
use cloakroom_core::types::{Sid, Subject, Timestamp};
use cloakroom_store::{Store, Tick};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::authority::Authority;
use crate::clock::{SystemEntropy, draw};
use crate::context::{Context, Error};
use crate::data::IfMatch;
use crate::handles::{Handle, HandlePut};
use crate::opening::{OpenRequest, Opened};
use crate::verify::{Credential, Verified, Via};

/// When to ask again after a fault of the store.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An authority of this process.
pub(super) struct Local<S> {
    authority: Arc<Authority<S>>,
    entropy: SystemEntropy,
    chores: Vec<JoinHandle<()>>,
}

impl<S> Drop for Local<S> {
    fn drop(&mut self) {
        for chore in &self.chores {
            chore.abort();
        }
    }
}

/// What an authority wants done again and again.
#[derive(Clone, Copy, Debug)]
enum Chore {
    FlushTouches,
    FlushReports,
    TendKeys,
    Sweep,
    Follow,
}

impl Chore {
    const ALL: [Self; 5] =
        [Self::FlushTouches, Self::FlushReports, Self::TendKeys, Self::Sweep, Self::Follow];

    const fn every(self) -> Duration {
        match self {
            Self::FlushTouches => Duration::from_millis(200),
            Self::FlushReports => Duration::from_secs(5),
            Self::TendKeys => Duration::from_secs(30),
            Self::Sweep => Duration::from_secs(60),
            Self::Follow => Duration::from_millis(500),
        }
    }

    async fn run<S: Store>(self, authority: &Authority<S>) -> Result<(), Error> {
        match self {
            Self::FlushTouches => authority.flush_touches().await,
            Self::FlushReports => authority.flush_reports().await,
            Self::TendKeys => authority.tend_keys().await,
            Self::Sweep => authority.sweep().await.map(|_| ()),
            // A store without another writer has nothing to tell that this process doesn't know.
            Self::Follow if authority.settings().verify.max_staleness.is_none() => Ok(()),
            Self::Follow => authority.follow().await,
        }
    }
}

/// A failure is told loudly once, until it works again.
async fn repeat<S: Store>(chore: Chore, authority: Arc<Authority<S>>) {
    let mut ticks = interval_at(Instant::now() + chore.every(), chore.every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        match chore.run(&authority).await {
            Ok(()) => failing = false,
            Err(error) if failing => tracing::debug!(%error, ?chore, "still failing"),
            Err(error) => {
                failing = true;
                tracing::warn!(%error, ?chore, "background work of the session authority fails");
            }
        }
    }
}

impl<S: Store + 'static> Local<S> {
    pub(super) fn start(authority: Arc<Authority<S>>) -> Self {
        let start = |chore| tokio::spawn(repeat(chore, Arc::clone(&authority)));
        let chores = Chore::ALL.into_iter().map(start).collect();
        Self { authority, entropy: SystemEntropy::new(), chores }
    }

    fn pass(&self, session: &Session, claims: Object, via: Way) -> Pass {
        let csrf_key = match via {
            Way::Cookie => Some(self.authority.csrf_key(session.sid)),
            Way::Access => None,
        };
        Pass {
            sid: session.sid,
            subject: session.subject.clone(),
            claims,
            auth_time: session.auth_time,
            amr: session.amr.clone(),
            acr: session.acr.clone(),
            actor: session.actor.clone(),
            via,
            csrf_key,
        }
    }

    /// The pass of a proven session. Copying claims and deriving the CSRF key cost more than the
    /// verdict, so it is made once.
    fn pass_of(&self, verified: &Verified) -> Arc<Pass> {
        let via = match verified.via {
            Via::Cookie => Way::Cookie,
            Via::Access(_) | Via::Refresh => Way::Access,
        };
        verified.made(|| self.pass(&verified.session, verified.claims(), via))
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Refused(refusal) => Fault::Refused(refusal),
        Error::Unavailable(_) | Error::Overloaded => {
            Fault::Unavailable { why: error.to_string(), retry_after: RETRY_AFTER }
        }
    }
}

fn context(actor: Actor, client: Client) -> Context {
    Context { actor, client, request_id: None }
}

fn grant_of(opening: &Opening) -> Grant {
    let default = if opening.subject.is_some() { "aal1" } else { "aal0" };
    Grant {
        subject: opening.subject.clone(),
        delivery: opening.delivery,
        remember: false,
        claims: opening.claims.clone(),
        amr: opening.amr.clone(),
        acr: opening.acr.clone().unwrap_or_else(|| default.to_owned()),
        actor: None,
        idle_timeout: opening.idle_timeout,
        lifetime: opening.lifetime,
        client: opening.client.clone(),
    }
}

fn issued(opened: Opened) -> Issued {
    Issued {
        token: opened.token,
        access: opened.access.map(|access| (access.token, access.expires_in)),
        refresh_expires_in: opened.refresh_expires_in,
    }
}

fn device(session: &Session) -> Device {
    Device {
        sid: session.sid,
        created_at: session.created_at,
        last_seen_at: session.last_seen_at,
        client: session.client.clone(),
    }
}

fn handle_of(hash: HandleHash) -> Result<Handle, Fault> {
    Handle::parse(&URL_SAFE_NO_PAD.encode(hash)).ok_or(Fault::Refused(Refusal::NotFound))
}

/// What isn't there any more has ended: nothing to complain of.
fn if_there<T>(ended: Result<T, Error>) -> Result<(), Fault> {
    match ended {
        Ok(_) | Err(Error::Refused(Refusal::NotFound | Refusal::SessionEnded(_))) => Ok(()),
        Err(error) => Err(fault(error)),
    }
}

impl<S: Store + 'static> Guard for Local<S> {
    fn verify<'a>(&'a self, credential: Presented<'a>) -> Answer<'a, Arc<Pass>> {
        Box::pin(async move {
            let credential = match credential {
                Presented::Cookie(text) => Credential::Cookie(text),
                Presented::Access(text) => Credential::Access(text),
            };
            let verified = self.authority.verify(credential).await.map_err(fault)?;
            Ok(self.pass_of(&verified))
        })
    }

    fn open(&self, opening: Opening) -> Answer<'_, (Pass, Issued)> {
        Box::pin(async move {
            let ctx = context(Actor::User(opening.subject.clone()), opening.client.clone());
            let grant = grant_of(&opening);
            let request = OpenRequest {
                carry_data: opening.replaces.is_some(),
                replaces: opening.replaces.map(|old| old.expose().clone()),
                data: Some(opening.data),
                ..OpenRequest::new(grant)
            };
            let opened = self.authority.open_session(request, &ctx).await.map_err(fault)?;
            let pass = self.pass(&opened.session, opened.claims.clone(), Way::Cookie);
            Ok((pass, issued(opened)))
        })
    }

    fn refresh<'a>(&'a self, token: &'a str, client: Client) -> Answer<'a, Issued> {
        Box::pin(async move {
            let ctx = context(Actor::User(None), client);
            let refreshed = self.authority.refresh(token, Channel::Body, None, &ctx).await;
            refreshed.map(issued).map_err(fault)
        })
    }

    fn end(&self, sid: Sid, client: Client) -> Answer<'_, ()> {
        Box::pin(async move {
            let ctx = context(Actor::User(None), client);
            let reason = Some(EndReason::SignedOut.as_str());
            if_there(self.authority.end_session(sid, reason, &ctx).await)
        })
    }

    fn end_subject<'a>(&'a self, subject: &'a Subject, client: Client) -> Answer<'a, usize> {
        Box::pin(async move {
            let ctx = context(Actor::User(Some(subject.clone())), client);
            let ended = self.authority.end_subject(subject, &ctx).await;
            ended.map(|ended| ended.revoked).map_err(fault)
        })
    }

    fn devices<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Vec<Device>> {
        Box::pin(async move {
            let listed = self.authority.sessions_of(subject).await.map_err(fault)?;
            Ok(listed.iter().map(|listed| device(&listed.session)).collect())
        })
    }

    fn end_device<'a>(&'a self, subject: &'a Subject, sid: Sid, client: Client) -> Answer<'a, ()> {
        Box::pin(async move {
            let found = self.authority.session(sid).await.map_err(fault)?;
            if found.session.subject.as_ref() != Some(subject) {
                return Err(Refusal::NotFound.into());
            }
            let ctx = context(Actor::User(Some(subject.clone())), client);
            let reason = Some(EndReason::SignedOutElsewhere.as_str());
            if_there(self.authority.end_session(sid, reason, &ctx).await)
        })
    }

    fn data(&self, sid: Sid) -> Answer<'_, Stored> {
        Box::pin(async move {
            let view = self.authority.data(sid).await.map_err(fault)?;
            Ok(Stored { data: view.data, version: view.version.0 })
        })
    }

    fn put_data(&self, sid: Sid, data: Object, version: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let ctx = context(Actor::User(None), Client::default());
            let condition = IfMatch::Version(Tick(version));
            let put = self.authority.put_data(sid, data, condition, &ctx).await;
            put.map(|_| ()).map_err(fault)
        })
    }

    fn handle(&self, handle: HandleHash) -> Answer<'_, Stored> {
        Box::pin(async move {
            let view = self.authority.handle(&handle_of(handle)?).await.map_err(fault)?;
            Ok(Stored { data: view.data, version: view.version.0 })
        })
    }

    fn put_handle(&self, handle: HandleHash, data: Object, lifetime: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let (idle_timeout, lifetime) = (Some(lifetime), Some(LIFETIME_MAX));
            let put = HandlePut { subject: None, data, idle_timeout, lifetime };
            let ctx = context(Actor::User(None), Client::default());
            let handle = handle_of(handle)?;
            let put = self.authority.put_handle(&handle, put, IfMatch::Any, &ctx).await;
            put.map(|_| ()).map_err(fault)
        })
    }

    fn end_handle(&self, handle: HandleHash) -> Answer<'_, ()> {
        Box::pin(async move {
            let ctx = context(Actor::User(None), Client::default());
            if_there(self.authority.end_handle(&handle_of(handle)?, &ctx).await)
        })
    }

    fn now(&self) -> Timestamp {
        self.authority.now()
    }

    fn random(&self) -> [u8; 16] {
        draw(&self.entropy)
    }
}
