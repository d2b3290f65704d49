//! Opening a session: at a sign-in, by a backend, in place of another.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::event::{Event, EventKind, FeedEntry};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{
    Delivery, EndReason, Ending, Epochs, Grant, Holder, Lifecycle, Object, Session,
};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::token::Looks;
use cloakroom_core::token::opaque::{OpaqueKind, OpaqueToken};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use cloakroom_store::{Durability, Follow, Key, Record, Review, Store};

use crate::authority::Authority;
use crate::claims::check_size;
use crate::clock::draw;
use crate::context::{Context, Error};
use crate::ending::Closing;
use crate::refreshing::check_idempotency_key;
use crate::settings::OnLimit;
use crate::signin::Ticket;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::verify::Credential;

/// An access token, for whoever asked.
#[derive(Debug)]
pub struct AccessToken {
    /// The token.
    pub token: Secret<String>,
    /// For how long it is valid, in seconds.
    pub expires_in: u64,
}

/// An opened or refreshed session with its credentials, which exist nowhere else.
#[derive(Debug)]
pub struct Opened {
    /// The session.
    pub session: Arc<Session>,
    /// Its claims over its subject's.
    pub claims: Object,
    /// The session cookie's value or the refresh token.
    pub token: Secret<String>,
    /// The access token of a `bearer` or `split` session.
    pub access: Option<AccessToken>,
    /// For how long the refresh token can be used, in seconds.
    pub refresh_expires_in: Option<u64>,
    /// What the store promises about an ending that this brought with it.
    pub ended: Option<Durability>,
}

/// A credential that a sign-in request carried: its session ends, whoever's it was, so that
/// nobody is handed a session that somebody else knows (fixation).
#[derive(Debug)]
pub enum Carried {
    /// A session cookie.
    Cookie(String),
    /// A refresh token.
    Refresh(String),
    /// An access token.
    Access(String),
}

/// What a backend that signs its users in itself asks for.
#[derive(Debug)]
pub struct OpenRequest {
    /// What the session is to be.
    pub grant: Grant,
    /// The subject's epoch as read before the credentials were checked.
    pub epoch: Option<u64>,
    /// A session or refresh token of the session that this one succeeds.
    pub replaces: Option<String>,
    /// Whether that session's data comes along, unless it was somebody else's.
    pub carry_data: bool,
    /// What tells a repetition of this request from another one that replaces the same session: 16
    /// to 128 visible ASCII characters. Whoever has no user needs one to get the same answer again.
    pub idempotency_key: Option<String>,
    /// The session's data.
    pub data: Option<Object>,
}

impl OpenRequest {
    /// Opens this, in nobody's place and without data.
    pub const fn new(grant: Grant) -> Self {
        Self {
            grant,
            epoch: None,
            replaces: None,
            carry_data: false,
            idempotency_key: None,
            data: None,
        }
    }
}

/// A session about to be opened: the same through all retries of its commit.
pub(crate) struct Plan {
    pub(crate) grant: Grant,
    pub(crate) sid: Sid,
    pub(crate) secret: Secret<[u8; 32]>,
    pub(crate) data: Object,
    /// What must not have moved since the credentials were checked. Without one, what is read
    /// first must not move.
    pub(crate) ticket: Option<Ticket>,
    /// The subject's epoch, where a backend read it before it checked the credentials.
    pub(crate) epoch: Option<u64>,
}

impl<S: Store> Authority<S> {
    /// Opens a session for a backend that has checked the user itself.
    pub async fn open_session(&self, request: OpenRequest, ctx: &Context) -> Result<Opened, Error> {
        let OpenRequest { grant, mut epoch, replaces, carry_data, idempotency_key, data } = request;
        self.check_grant(&grant)?;
        let key = idempotency_key.as_deref();
        key.map_or(Ok(()), check_idempotency_key)?;
        let mut data = data.unwrap_or_default();
        check_size(&data, self.settings.max_data)?;
        let partition = self.home_of(&grant);
        let mut sid = Sid::new(self.now(), partition, draw(&*self.entropy));
        let mut secret = Secret::new(draw(&*self.entropy));
        let mut ended = None;
        if let Some(text) = replaces {
            let old = self.parse_replaced(&text)?;
            let succession = self.end_for_successor(&old, sid, ctx).await?;
            if succession.sid.partition() != partition && grant.subject.is_some() {
                return Err(Refusal::Conflict("another session has taken its place").into());
            }
            sid = succession.sid;
            ended = succession.durability;
            if succession.subject == grant.subject {
                // It goes on where that one was: what ends the subject's sessions meanwhile ends it
                // too.
                epoch = epoch.or(Some(succession.epoch));
            }
            // The old credential alone may be known to somebody else, from before a sign-in that
            // replaces it for just this reason.
            if grant.subject.is_some() || key.is_some() {
                secret = self.succession_secret(&old, sid, key);
            }
            let is_own = succession.subject.is_none() || succession.subject == grant.subject;
            if carry_data && is_own {
                for (name, value) in succession.data {
                    data.entry(name).or_insert(value);
                }
                check_size(&data, self.settings.max_data)?;
            }
        }
        let plan = Plan { grant, sid, secret, data, ticket: None, epoch };
        let opened = self.open_planned(plan, ctx).await.map_err(as_conflict)?;
        Ok(Opened { ended, ..opened })
    }

    /// Where a session for this grant will live.
    pub(crate) fn home_of(&self, grant: &Grant) -> Partition {
        match &grant.subject {
            Some(subject) => self.partition_of(subject),
            None => {
                self.keys.partition_of_bytes(&draw::<16>(&*self.entropy), self.store.partitions())
            }
        }
    }

    fn check_grant(&self, grant: &Grant) -> Result<(), Error> {
        if grant.subject.is_none() && grant.delivery != Delivery::Cookie {
            let why = "an anonymous session has a cookie only".to_owned();
            return Err(Refusal::InvalidMember { member: "delivery".into(), why }.into());
        }
        if let Some(actor) = &grant.actor {
            Subject::parse(actor).map_err(|malformed| Refusal::InvalidMember {
                member: "actor".into(),
                why: malformed.to_string(),
            })?;
        }
        self.check_claims(&grant.claims)
    }

    fn parse_replaced(&self, text: &str) -> Result<OpaqueToken, Error> {
        let kind = match Looks::of(text) {
            Looks::Opaque(OpaqueKind::Refresh) => OpaqueKind::Refresh,
            Looks::Opaque(OpaqueKind::Session | OpaqueKind::ApiKey)
            | Looks::Jwt
            | Looks::Csrf
            | Looks::Unknown => OpaqueKind::Session,
        };
        Ok(OpaqueToken::parse(kind, text, &self.keys)?)
    }

    /// The secret of a session that takes another's place: whoever repeats the request, because
    /// the answer was lost, gets the same one.
    fn succession_secret(
        &self,
        old: &OpaqueToken,
        sid: Sid,
        key: Option<&str>,
    ) -> Secret<[u8; 32]> {
        self.keys.ratchet(&[
            b"cloakroom succeed 1",
            old.secret.expose(),
            old.sid.as_bytes(),
            sid.as_bytes(),
            key.unwrap_or_default().as_bytes(),
        ])
    }

    /// Commits a planned session. Its ticket is kept over all retries: a conflict never adopts a
    /// newer epoch than the one that the credentials were checked under.
    pub(crate) async fn open_planned(&self, plan: Plan, ctx: &Context) -> Result<Opened, Error> {
        self.open_planned_from(None, plan, ctx).await
    }

    /// The same on what was loaded of the subject before the credentials were checked, which
    /// saves a round trip.
    pub(crate) async fn open_planned_from(
        &self,
        first: Option<Loaded>,
        plan: Plan,
        ctx: &Context,
    ) -> Result<Opened, Error> {
        let partition = plan.sid.partition();
        let mut keys = vec![Key::Partition, Key::Session(plan.sid)];
        if let Some(subject) = &plan.grant.subject {
            keys.push(Key::Subject(subject.clone()));
            keys.push(Key::Index(subject.clone()));
        }
        if plan.grant.delivery != Delivery::Cookie {
            // What can't be signed isn't opened.
            self.fresh_ring().await?;
        }
        let mut ticket = plan.ticket;
        #[cfg(feature = "mutants")]
        let mut tried = false;
        let decide = |loaded: &Loaded| {
            #[cfg(feature = "mutants")]
            {
                use cloakroom_core::mutants::{Mutant, active};
                let again = std::mem::replace(&mut tried, true);
                let adopts = again && active(Mutant::ConflictAdoptsEpoch);
                ticket = ticket.filter(|_| !adopts && !active(Mutant::TicketUnchecked));
            }
            let known = plan.grant.subject.as_ref().and_then(|subject| loaded.subject(subject));
            let state = loaded.partition()?;
            let ticket = ticket.get_or_insert_with(|| Ticket::new(known, state));
            ticket.check(known, state)?;
            if plan.epoch.is_some_and(|epoch| epoch != ticket.epochs.subject) {
                return Err(EPOCH_MOVED.into());
            }
            self.decide_open(&plan, loaded, ctx)
        };
        let ((session, token, subject), _) =
            self.transact_from(first, partition, self.wanted_to_open(keys), decide).await?;
        self.answer_opened(Arc::new(session), subject.as_ref(), &token)
    }

    /// Where the subject's index is full, the sessions that it lists are wanted too.
    pub(crate) fn wanted_to_open(&self, keys: Vec<Key>) -> Wanted {
        let at_least = self.settings.max_per_subject;
        Wanted::following(keys, Follow::Sessions { at_least })
    }

    #[allow(clippy::type_complexity, reason = "the triple has no other use")]
    pub(crate) fn decide_open(
        &self,
        plan: &Plan,
        loaded: &Loaded,
        ctx: &Context,
    ) -> Result<Decision<(Session, OpaqueToken, Option<SubjectState>)>, Error> {
        let state = *loaded.partition()?;
        let subject = plan.grant.subject.as_ref();
        let known = subject.and_then(|subject| loaded.subject(subject));
        let epochs =
            Epochs { subject: known.map_or(0, |known| known.epoch), partition: state.epoch };
        let rules = &self.settings.session;
        let secret = plan.secret.clone();
        let (session, token) =
            Session::open(plan.grant.clone(), rules, plan.sid, epochs, loaded.now, secret);
        if let Some(stored) = loaded.session(plan.sid) {
            // Our own commit of unknown outcome, or the request repeated: it took effect.
            let is_same = stored.subject == plan.grant.subject
                && stored.actor == plan.grant.actor
                && stored.acr == plan.grant.acr;
            if !is_same || !stored.proves(&token) {
                return Err(Refusal::Conflict("another session has taken its place").into());
            }
            if let Some(ending) = self.ending_of(stored, loaded)? {
                return Err(Refusal::SessionEnded(ending.reason).into());
            }
            return Ok(Decision::Done((stored.clone(), token, known.cloned())));
        }
        let mut draft = Draft::of(loaded);
        draft.expect(Key::Partition);
        let record = subject
            .map(|subject| known.cloned().unwrap_or_else(|| SubjectState::new(subject.clone())));
        if let (Some(subject), Some(record)) = (subject, &record) {
            let key = Key::Subject(subject.clone());
            match known {
                Some(_) => draft.expect(key),
                None => draft.put(key, Record::Subject(record.clone()), Review::Never),
            }
            self.enter_index(&mut draft, subject, &session, ctx)?;
        }
        draft.put_session(session.clone(), Review::At(session.refused_from()));
        if !plan.data.is_empty() {
            draft.put(Key::Data(session.sid), Record::Data(plan.data.clone()), Review::Never);
        }
        draft.audit(opened_event(&session, loaded.now, ctx));
        Ok(draft.commit((session, token, record)))
    }

    /// Enters a session into its subject's index, within the bound.
    fn enter_index(
        &self,
        draft: &mut Draft<'_>,
        subject: &Subject,
        session: &Session,
        ctx: &Context,
    ) -> Result<(), Error> {
        let mut sids = draft.loaded.index(subject).to_vec();
        if sids.len() >= self.settings.max_per_subject {
            sids = self.make_room(draft, subject, ctx)?;
        }
        sids.push(session.sid);
        draft.put(Key::Index(subject.clone()), Record::Index(sids), Review::Never);
        Ok(())
    }

    /// Ends the sessions used least recently until one more may live; says which still do.
    fn make_room(
        &self,
        draft: &mut Draft<'_>,
        subject: &Subject,
        ctx: &Context,
    ) -> Result<Vec<Sid>, Error> {
        let loaded = draft.loaded;
        let state = loaded.partition()?;
        let known = loaded.subject(subject);
        let mut live: Vec<&Session> = loaded
            .index(subject)
            .iter()
            .filter_map(|sid| loaded.session(*sid))
            .filter(|session| session.standing(known, state, loaded.now).is_ok())
            .collect();
        let allowed = self.settings.max_per_subject.saturating_sub(1);
        if live.len() > allowed && self.settings.on_limit == OnLimit::Refuse {
            return Err(Refusal::TooManySessions.into());
        }
        live.sort_by_key(|session| std::cmp::Reverse((session.last_seen_at, session.sid)));
        while live.len() > allowed {
            let Some(oldest) = live.pop() else { break };
            let closing = Closing { reason: EndReason::TooManySessions, successor: None };
            self.close(draft, oldest, closing, ctx);
        }
        let mut kept: Vec<Sid> = live.into_iter().map(|session| session.sid).collect();
        // A node with a slower clock, or one that knows of a later use, may find it live yet; it
        // leaves the index when its end is written down.
        kept.extend(
            loaded
                .index(subject)
                .iter()
                .filter_map(|sid| loaded.session(*sid))
                .filter(|session| session.lifecycle == Lifecycle::Live)
                .filter(|session| {
                    let standing = session.standing(known, state, loaded.now);
                    matches!(standing, Err(Ending { reason: EndReason::IdleTimeout, .. }))
                })
                .map(|session| session.sid),
        );
        Ok(kept)
    }

    /// The answer to whoever now holds a session.
    pub(crate) fn answer_opened(
        &self,
        session: Arc<Session>,
        subject: Option<&SubjectState>,
        token: &OpaqueToken,
    ) -> Result<Opened, Error> {
        let now = self.now();
        let (access, refresh_expires_in) = match &session.holder {
            Holder::Cookie { .. } => (None, None),
            Holder::Refresh(_) => {
                // To the nearest second: the answer comes some milliseconds after the opening.
                let left = session.idle_expires_at().since(now) + Duration::from_millis(500);
                let left = left.as_secs();
                (Some(self.access_token(&session, subject, now)?), Some(left))
            }
        };
        Ok(Opened {
            claims: session.effective_claims(subject),
            token: token.encode(&self.keys),
            session,
            access,
            refresh_expires_in,
            ended: None,
        })
    }

    /// Ends what a sign-in request carried, naming the session that will take its place.
    pub(crate) async fn end_carried(
        &self,
        carried: &[Carried],
        successor: Sid,
        ctx: &Context,
    ) -> Result<Option<Durability>, Error> {
        let mut durability = None;
        for carried in carried {
            let credential = match carried {
                Carried::Cookie(text) => Credential::Cookie(text),
                Carried::Refresh(text) => Credential::Refresh(text),
                Carried::Access(text) => Credential::Access(text),
            };
            let Some((sid, loaded)) = self.holder_of(credential).await? else { continue };
            let reason = EndReason::Replaced;
            let closing = Closing { reason, successor: Some(successor) };
            let ended = self.end_from(Some(loaded), sid, closing, None, ctx).await?;
            durability = ended.map(|ended| ended.durability).or(durability);
        }
        Ok(durability)
    }
}

const EPOCH_MOVED: Refusal = Refusal::Conflict("the subject's epoch has moved");

/// An ending that a backend's own request met is a conflict to it, not its user's sign-in.
pub(crate) fn as_conflict(error: Error) -> Error {
    match error {
        Error::Refused(Refusal::SessionEnded(EndReason::UserDisabled)) => {
            Refusal::Conflict("the subject is disabled").into()
        }
        Error::Refused(Refusal::SessionEnded(_)) => EPOCH_MOVED.into(),
        other => other,
    }
}

fn opened_event(session: &Session, now: Timestamp, ctx: &Context) -> Event {
    let mut event =
        ctx.event(EventKind::SessionOpened, now, Some(session.sid), session.subject.as_ref());
    event.client = session.client.clone();
    event
}

/// What is known of a session that another takes the place of.
pub(crate) struct Succession {
    /// The id of the session that takes its place: the planned one, or, when this is a repeated
    /// request, the one of the first.
    pub(crate) sid: Sid,
    /// Whose the old one was.
    pub(crate) subject: Option<Subject>,
    /// The epoch of its subject that it was opened under.
    pub(crate) epoch: u64,
    pub(crate) data: Object,
    pub(crate) durability: Option<Durability>,
}

impl<S: Store> Authority<S> {
    /// The first half of a replacement: the old session ends, naming the new one and keeping its
    /// data. Repeated within the grace, it names the first one's successor again.
    async fn end_for_successor(
        &self,
        old: &OpaqueToken,
        successor: Sid,
        ctx: &Context,
    ) -> Result<Succession, Error> {
        let partition = old.sid.partition();
        if partition.0 >= self.store.partitions() {
            return Err(Refusal::TokenInvalid.into());
        }
        let keys = vec![Key::Partition, Key::Session(old.sid), Key::Data(old.sid)];
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        let grace = self.settings.refresh.grace;
        let decide = |loaded: &Loaded| {
            let session = loaded.session(old.sid).ok_or(Refusal::TokenInvalid)?;
            if !session.proves(old) {
                return Err(Refusal::TokenInvalid.into());
            }
            let data = loaded.data(old.sid).cloned().unwrap_or_default();
            let former = (session.subject.clone(), session.subject_epoch, data);
            match self.ending_of(session, loaded)? {
                None => {}
                // Read before it was replaced, which this node heard of meanwhile: the commit meets
                // what was written, and the successor is found there.
                Some(Ending { reason: EndReason::Replaced, successor: None, .. })
                    if session.lifecycle == Lifecycle::Live => {}
                Some(
                    ending @ Ending { reason: EndReason::Replaced, at, successor: Some(first) },
                ) if loaded.now.since(at) < grace => {
                    self.found_over(session, ending, loaded);
                    return Ok(Decision::Done((first, former)));
                }
                Some(ending) => return Err(Refusal::SessionEnded(ending.reason).into()),
            }
            let mut draft = Draft::of(loaded);
            let reason = EndReason::Replaced;
            let closing = Closing { reason, successor: Some(successor) };
            self.close(&mut draft, session, closing, ctx);
            self.leave_index(&mut draft, session);
            Ok(draft.commit((successor, former)))
        };
        let ((sid, (subject, epoch, data)), committed) =
            self.transact(partition, wanted, decide).await?;
        Ok(Succession { sid, subject, epoch, data, durability: committed.map(|c| c.durability) })
    }
}

/// What followers are told of an ending.
pub(crate) fn ended_feed(session: &Session, reason: EndReason, until: Timestamp) -> FeedEntry {
    FeedEntry::SessionEnded { sid: session.sid, reason, until }
}
