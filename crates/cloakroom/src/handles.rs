//! Sessions under an id that another framework mints and signs: a pointer leads to the session.
//!
//! The session is of the kind `cookie`, with a cookie that was never issued: its secret is derived
//! here and handed to nobody, so that an opening that was cut short can be finished by another
//! request. A session that gains a subject moves to its subject's partition: the old one ends
//! naming the new, the new one opens, the pointer moves; whoever meets a part of that follows.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::limits::IDENTIFIER_INTENT;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{
    Client, Delivery, EndReason, Ending, Grant, Lifecycle, Object, Session,
};
use cloakroom_core::types::{Partition, Sid, Subject, Timestamp};
use cloakroom_store::record::HandlePointer;
use cloakroom_store::{Durability, Follow, Key, Record, Review, Store, Version};

use crate::authority::Authority;
use crate::claims::check_size;
use crate::clock::draw;
use crate::context::{Context, Error, Unavailable};
use crate::data::IfMatch;
use crate::ending::{Closing, Ended};
use crate::listing::Listed;
use crate::opening::{Plan, as_conflict};
use crate::transact::{Decision, Draft, Loaded, Wanted};

/// How many replacements are followed; each moves the pointer, so there is one, or a few at once.
const HOPS_MAX: usize = 8;
/// A pointer without its session counts this long: the session is about to be opened.
const INTENT: Duration = IDENTIFIER_INTENT;
/// How old a pointer may be when its session is opened: far below the age at which another may
/// take it for abandoned.
const CLAIM_MAX: Duration = Duration::from_secs(30);
/// How long to wait before something unfinished is looked at again.
const PAUSE: Duration = Duration::from_millis(20);

const _: () = assert!(CLAIM_MAX.as_secs() * 2 <= INTENT.as_secs());

/// The SHA-256 of an id that another framework minted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Handle([u8; 32]);

impl Handle {
    /// Reads its base64url form (RFC 4648 section 5, without padding), the one spelling it has.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(32) if URL_SAFE_NO_PAD.encode(bytes) == text => Some(Self(bytes)),
            Ok(_) | Err(_) => None,
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(..)")
    }
}

/// What is to be stored under a handle.
#[derive(Clone, Debug)]
pub struct HandlePut {
    /// Whose the session becomes; none: it stays whose it is.
    pub subject: Option<Subject>,
    /// The session's data, all of it.
    pub data: Object,
    /// An idle timeout of its own.
    pub idle_timeout: Option<Duration>,
    /// A lifetime of its own, from its opening on.
    pub lifetime: Option<Duration>,
}

/// A session under a handle, with its data.
#[derive(Clone, Debug)]
pub struct HandleView {
    /// The session.
    pub session: Listed,
    /// Its data.
    pub data: Object,
    /// The data's version.
    pub version: Version,
    /// Whether this is a new session.
    pub is_new: bool,
    /// What the store promises about the ending that this brought with it.
    pub ended: Option<Durability>,
}

/// Where a handle's pointer is.
#[derive(Clone, Copy)]
struct Name {
    hash: [u8; 32],
    home: Partition,
}

/// Where a handle leads.
struct Trail {
    pointer: Option<HandlePointer>,
    version: Version,
    end: End,
}

enum End {
    Nowhere,
    /// A live session, as loaded with all that decides over it.
    Live(Sid, Box<Loaded>),
    /// A session that is over, and that nothing took the place of.
    Over(EndReason),
    /// A session that is named and not there (yet), since when, and whether it replaces another.
    Unopened {
        sid: Sid,
        since: Timestamp,
        replaces: bool,
    },
}

/// What one attempt at a change came to.
enum Attempt<T> {
    Done(T),
    /// Somebody else changed something meanwhile.
    Again,
}

impl<S: Store> Authority<S> {
    /// The live session under a handle, with its data. Counts as a use.
    pub async fn handle(&self, handle: &Handle) -> Result<HandleView, Error> {
        let name = self.name_of_handle(handle);
        let trail = self.settled(name).await?;
        match &trail.end {
            End::Nowhere | End::Unopened { .. } => Err(Refusal::NotFound.into()),
            End::Over(reason) => Err(Refusal::SessionEnded(*reason).into()),
            End::Live(sid, loaded) => {
                self.repoint(name, &trail, *sid).await;
                let session = loaded.session(*sid).ok_or(Refusal::NotFound)?;
                self.note_use(session, &self.cache.meters(*sid)).await;
                self.view_handle(*sid, loaded)
            }
        }
    }

    /// Stores data under a handle: creates the session, or replaces its data. Where it gains a
    /// subject, or another one, a new session takes its place.
    ///
    /// Nothing lives again: after an end it is refused for as long as the end is remembered.
    pub async fn put_handle(
        &self,
        handle: &Handle,
        put: HandlePut,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<HandleView, Error> {
        check_size(&put.data, self.settings.max_data)?;
        let name = self.name_of_handle(handle);
        let deadline = self.now().plus(self.settings.store_timeout);
        loop {
            let trail = self.trail(name).await?;
            let attempt = self.try_put(name, &trail, &put, condition, ctx).await;
            if let Attempt::Done(view) = attempt? {
                return Ok(view);
            }
            self.wait_until(deadline).await?;
        }
    }

    /// Ends the session under a handle.
    pub async fn end_handle(&self, handle: &Handle, ctx: &Context) -> Result<Ended, Error> {
        let name = self.name_of_handle(handle);
        let deadline = self.now().plus(self.settings.store_timeout);
        loop {
            match self.settled(name).await?.end {
                End::Nowhere | End::Unopened { .. } => return Err(Refusal::NotFound.into()),
                End::Over(_) => return Ok(Ended { durability: Durability::Durable }),
                End::Live(sid, _) => {
                    let closing = EndReason::SignedOut.into();
                    if let Some(ended) = self.end_with(sid, closing, None, ctx).await? {
                        return Ok(ended);
                    }
                }
            }
            self.wait_until(deadline).await?;
        }
    }

    /// Notes uses that other verifiers saw.
    pub async fn touch_handles(&self, handles: &[Handle]) -> Result<(), Error> {
        for handle in handles {
            let trail = self.trail(self.name_of_handle(handle)).await?;
            if let End::Live(sid, loaded) = trail.end
                && let Some(session) = loaded.session(sid)
            {
                self.note_use(session, &self.cache.meters(sid)).await;
            }
        }
        Ok(())
    }

    fn name_of_handle(&self, handle: &Handle) -> Name {
        let hash = self.keys.handle_hash(&URL_SAFE_NO_PAD.encode(handle.0));
        Name { hash, home: self.keys.partition_of_bytes(&hash, self.store.partitions()) }
    }

    async fn wait_until(&self, deadline: Timestamp) -> Result<(), Error> {
        if self.now().plus(PAUSE) >= deadline {
            return Err(Unavailable::Deadline.into());
        }
        self.clock.sleep(PAUSE).await;
        Ok(())
    }

    /// Follows a handle to where it leads right now.
    async fn trail(&self, name: Name) -> Result<Trail, Error> {
        let key = Key::Handle(name.hash);
        let loaded = self.load(name.home, std::slice::from_ref(&key)).await?;
        let (pointer, version) = (pointer_of(&key, &loaded), loaded.version(&key));
        let end = match pointer {
            Some(pointer) => self.follow_sessions(pointer).await?,
            None => End::Nowhere,
        };
        Ok(Trail { pointer, version, end })
    }

    async fn follow_sessions(&self, pointer: HandlePointer) -> Result<End, Error> {
        let (mut sid, mut since, mut replaces) = (pointer.sid, pointer.at, false);
        for _ in 0..HOPS_MAX {
            let loaded = self.load_session(sid).await?;
            let Some(session) = loaded.session(sid) else {
                let is_recent = loaded.now.since(since) < INTENT;
                return Ok(match (is_recent, replaces) {
                    (true, _) => End::Unopened { sid, since, replaces },
                    (false, true) => End::Over(EndReason::Replaced),
                    // It was opened once, and its end is kept no longer.
                    (false, false) if pointer.until.is_some_and(|until| loaded.now < until) => {
                        End::Over(EndReason::SignedOut)
                    }
                    (false, false) => End::Nowhere,
                });
            };
            match self.ending_of(session, &loaded)? {
                None => return Ok(End::Live(sid, Box::new(loaded))),
                Some(Ending { reason: EndReason::Replaced, at, successor: Some(next) }) => {
                    (sid, since, replaces) = (next, at, true);
                }
                // Read before it was replaced: read once more, for the successor.
                Some(Ending { reason: EndReason::Replaced, successor: None, .. })
                    if session.lifecycle == Lifecycle::Live => {}
                Some(ending) => return Ok(End::Over(ending.reason)),
            }
        }
        Ok(End::Over(EndReason::Replaced))
    }

    /// A session, its data and all that decides over it, from one state.
    async fn load_session(&self, sid: Sid) -> Result<Loaded, Error> {
        let keys = [Key::Partition, Key::Session(sid), Key::Data(sid)];
        self.load_following(sid.partition(), &keys, Follow::SubjectAndIndex).await
    }

    /// Where a handle leads once a replacement that is under way is through.
    async fn settled(&self, name: Name) -> Result<Trail, Error> {
        let deadline = self.now().plus(self.settings.store_timeout);
        loop {
            let trail = self.trail(name).await?;
            match trail.end {
                End::Unopened { replaces: true, .. } => self.wait_until(deadline).await?,
                End::Nowhere | End::Live(..) | End::Over(_) | End::Unopened { .. } => {
                    return Ok(trail);
                }
            }
        }
    }

    async fn try_put(
        &self,
        name: Name,
        trail: &Trail,
        put: &HandlePut,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<Attempt<HandleView>, Error> {
        let home = put.subject.as_ref().map_or(name.home, |subject| self.partition_of(subject));
        match &trail.end {
            End::Over(reason) => Err(Refusal::SessionEnded(*reason).into()),
            // What is only begun has no version that could be meant.
            End::Nowhere | End::Unopened { .. } if condition != IfMatch::Any => {
                Err(Refusal::PreconditionFailed.into())
            }
            End::Nowhere => {
                let sid = Sid::new(self.now(), home, draw(&*self.entropy));
                self.create_under(name, trail, sid, put, ctx).await
            }
            // What was begun for this subject, by a request that may never come back, is finished.
            End::Unopened { sid, since, .. }
                if sid.partition() == home && self.now().since(*since) < CLAIM_MAX =>
            {
                self.create_under(name, trail, *sid, put, ctx).await
            }
            End::Unopened { .. } => Ok(Attempt::Again),
            End::Live(sid, loaded) => {
                let session = loaded.session(*sid).ok_or(Refusal::NotFound)?;
                match &put.subject {
                    Some(wanted) if session.subject.as_ref() != Some(wanted) => {
                        self.replace_under(name, trail, *sid, put, condition, ctx).await
                    }
                    Some(_) | None => {
                        let updated = self.update_under(*sid, put, condition, ctx).await?;
                        self.repoint(name, trail, *sid).await;
                        Ok(updated)
                    }
                }
            }
        }
    }

    /// Opens the session `sid` under a handle.
    async fn create_under(
        &self,
        name: Name,
        trail: &Trail,
        sid: Sid,
        put: &HandlePut,
        ctx: &Context,
    ) -> Result<Attempt<HandleView>, Error> {
        let is_named = trail.pointer.is_some_and(|pointer| pointer.sid == sid);
        let replaces = matches!(trail.end, End::Unopened { replaces: true, .. });
        let one_commit = sid.partition() == name.home && !replaces;
        if !one_commit && !replaces && !is_named {
            // Before anything leads there: whoever comes next would wait for what never opens.
            self.check_opening(sid, put, ctx).await?;
            if !self.point(name, trail.version, sid).await? {
                return Ok(Attempt::Again);
            }
        }
        let pointer = one_commit.then_some((name, trail.version));
        let opened = self.open_handle(sid, put, pointer, ctx).await;
        if replaces {
            self.repoint(name, trail, sid).await;
        } else if !one_commit {
            match &opened {
                // Refused by what changed since it was looked at.
                Err(Error::Refused(_)) => self.unpoint(name, sid).await?,
                // Whoever was refused may have taken away what this one went by.
                Ok(Attempt::Done(view)) if is_named => {
                    let until = view.session.session.expires_at;
                    drop(self.point_at_opened(name, sid, until).await);
                }
                Ok(_) | Err(_) => {}
            }
        }
        opened
    }

    /// Refuses what opening this session would be refused for as things stand; changes nothing.
    async fn check_opening(&self, sid: Sid, put: &HandlePut, ctx: &Context) -> Result<(), Error> {
        let plan = self.plan_of(sid, put);
        let decide = |loaded: &Loaded| {
            if let Some(subject) = &put.subject {
                refuse_disabled(subject, loaded)?;
            }
            Ok(match self.decide_open(&plan, loaded, ctx)? {
                Decision::Load(missing) => Decision::Load(missing),
                Decision::Done(_) | Decision::Commit(..) => Decision::Done(()),
            })
        };
        let wanted = self.wanted_to_open(keys_to_open(sid, put));
        self.transact(sid.partition(), wanted, decide).await.map_err(as_conflict)?;
        Ok(())
    }

    /// Takes back the name of a session that wasn't opened after all.
    async fn unpoint(&self, name: Name, sid: Sid) -> Result<(), Error> {
        let key = Key::Handle(name.hash);
        // First the pointer: whoever opens the session writes it once more.
        let seen = self.load(name.home, std::slice::from_ref(&key)).await?;
        let is_ours = pointer_of(&key, &seen).is_some_and(|pointer| pointer.sid == sid);
        if !is_ours || self.load_session(sid).await?.session(sid).is_some() {
            return Ok(());
        }
        let decide = |loaded: &Loaded| {
            if loaded.version(&key) != seen.version(&key) {
                return Ok(Decision::Done(()));
            }
            let mut draft = Draft::of(loaded);
            draft.delete(key.clone());
            Ok(draft.commit(()))
        };
        self.transact(name.home, vec![key.clone()], decide).await?;
        Ok(())
    }

    /// Names a session that was opened by the name that somebody else gave it, who may have taken
    /// that back or be about to.
    async fn point_at_opened(&self, name: Name, sid: Sid, until: Timestamp) -> Result<(), Error> {
        let key = Key::Handle(name.hash);
        let decide = |loaded: &Loaded| {
            if pointer_of(&key, loaded).is_some_and(|pointer| pointer.sid != sid) {
                return Ok(Decision::Done(()));
            }
            let mut draft = Draft::of(loaded);
            put_pointer(&mut draft, name, sid, Some(until));
            Ok(draft.commit(()))
        };
        self.transact(name.home, vec![key.clone()], decide).await?;
        Ok(())
    }

    /// Names a session that is about to be opened. False: somebody else named one first.
    async fn point(&self, name: Name, seen: Version, sid: Sid) -> Result<bool, Error> {
        let key = Key::Handle(name.hash);
        let decide = |loaded: &Loaded| {
            if pointer_of(&key, loaded).is_some_and(|pointer| pointer.sid == sid) {
                return Ok(Decision::Done(true));
            }
            if loaded.version(&key) != seen {
                return Ok(Decision::Done(false));
            }
            let mut draft = Draft::of(loaded);
            put_pointer(&mut draft, name, sid, None);
            Ok(draft.commit(true))
        };
        Ok(self.transact(name.home, vec![key.clone()], decide).await?.0)
    }

    /// Lets a handle lead straight to the session that it was followed to. A failure costs
    /// nothing that the next one who follows doesn't mend.
    async fn repoint(&self, name: Name, trail: &Trail, sid: Sid) {
        if trail.pointer.is_some_and(|pointer| pointer.sid != sid) {
            let _ = self.point(name, trail.version, sid).await;
        }
    }

    /// Commits the opening; in the pointer's own partition together with it.
    async fn open_handle(
        &self,
        sid: Sid,
        put: &HandlePut,
        pointer: Option<(Name, Version)>,
        ctx: &Context,
    ) -> Result<Attempt<HandleView>, Error> {
        let plan = self.plan_of(sid, put);
        let mut keys = keys_to_open(sid, put);
        keys.extend(pointer.map(|(name, _)| Key::Handle(name.hash)));
        let mut began = false;
        let decide = |loaded: &Loaded| {
            if let Some(subject) = &put.subject {
                refuse_disabled(subject, loaded)?;
            }
            if loaded.session(sid).is_some() && !began {
                // Another request was faster: what it stored is replaced, not ours to count as new.
                return Ok(Decision::Done(false));
            }
            if let Some((name, seen)) = pointer
                && !may_point(name, seen, sid, loaded)
            {
                return Ok(Decision::Done(false));
            }
            Ok(match self.decide_open(&plan, loaded, ctx)? {
                Decision::Done(_) => Decision::Done(true),
                Decision::Load(missing) => Decision::Load(missing),
                Decision::Commit(batch, (session, ..)) => {
                    began = true;
                    let mut draft = Draft { loaded, batch };
                    if plan.data.is_empty() {
                        draft.put(Key::Data(sid), Record::Data(Object::new()), Review::Never);
                    }
                    if let Some((name, _)) = pointer {
                        put_pointer(&mut draft, name, sid, Some(session.expires_at));
                    }
                    draft.commit(true)
                }
            })
        };
        let opened = self.transact(sid.partition(), self.wanted_to_open(keys), decide).await;
        if !opened.map_err(as_conflict)?.0 {
            return Ok(Attempt::Again);
        }
        let loaded = self.load_session(sid).await?;
        let view = self.view_handle(sid, &loaded)?;
        Ok(Attempt::Done(HandleView { is_new: true, ..view }))
    }

    fn plan_of(&self, sid: Sid, put: &HandlePut) -> Plan {
        let acr = if put.subject.is_some() { "aal1" } else { "aal0" };
        Plan {
            grant: Grant {
                subject: put.subject.clone(),
                delivery: Delivery::Cookie,
                remember: false,
                claims: Object::new(),
                amr: Vec::new(),
                acr: acr.to_owned(),
                actor: None,
                idle_timeout: put.idle_timeout,
                lifetime: put.lifetime,
                client: Client::default(),
            },
            sid,
            secret: self.keys.ratchet(&[b"cloakroom handle 1", sid.as_bytes()]),
            data: put.data.clone(),
            ticket: None,
            epoch: None,
        }
    }

    /// Ends a session, naming the one that takes its place, and opens that.
    async fn replace_under(
        &self,
        name: Name,
        trail: &Trail,
        old: Sid,
        put: &HandlePut,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<Attempt<HandleView>, Error> {
        let Some(subject) = &put.subject else { return Ok(Attempt::Again) };
        let home = self.partition_of(subject);
        let new = Sid::new(self.now(), home, draw(&*self.entropy));
        // Before anything ends: nobody loses a session for one that can't be opened.
        self.check_opening(new, put, ctx).await?;
        let keys = vec![Key::Partition, Key::Session(old), Key::Data(old)];
        let decide = |loaded: &Loaded| {
            let session = loaded.session(old).ok_or(Refusal::NotFound)?;
            if self.ending_of(session, loaded)?.is_some() {
                let ours = matches!(session.lifecycle, Lifecycle::Ended(ending)
                    if ending.successor == Some(new));
                return Ok(Decision::Done(ours));
            }
            let data = Key::Data(old);
            let current = loaded.version(&data);
            check_condition(condition, current)?;
            let mut draft = Draft::of(loaded);
            draft.expect(data);
            let closing = Closing { reason: EndReason::Replaced, successor: Some(new) };
            self.close(&mut draft, session, closing, ctx);
            self.leave_index(&mut draft, session);
            Ok(draft.commit(true))
        };
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        let (ended, committed) = self.transact(old.partition(), wanted, decide).await?;
        if !ended {
            return Ok(Attempt::Again);
        }
        let opened = self.open_handle(new, put, None, ctx).await?;
        self.repoint(name, trail, new).await;
        Ok(match opened {
            Attempt::Done(view) => Attempt::Done(HandleView {
                is_new: false,
                ended: committed.map(|committed| committed.durability),
                ..view
            }),
            Attempt::Again => Attempt::Again,
        })
    }

    /// Replaces a live session's data, and its lifetimes where they are given.
    async fn update_under(
        &self,
        sid: Sid,
        put: &HandlePut,
        condition: IfMatch,
        ctx: &Context,
    ) -> Result<Attempt<HandleView>, Error> {
        let mut tried = false;
        let decide = |loaded: &Loaded| {
            let Some(session) = loaded.session(sid) else { return Ok(Decision::Done(false)) };
            let is_live = self.ending_of(session, loaded)?.is_none();
            let is_whose = put.subject.is_none() || put.subject == session.subject;
            if !is_live || !is_whose {
                return Ok(Decision::Done(false));
            }
            let key = Key::Data(sid);
            let version = loaded.version(&key);
            let stored = loaded.data(sid);
            if tried && stored == Some(&put.data) {
                // Our own commit of unknown outcome.
                return Ok(Decision::Done(true));
            }
            check_condition(condition, version)?;
            let mut draft = Draft::of(loaded);
            self.renew_under(&mut draft, session, put);
            let is_changed = stored != Some(&put.data);
            if is_changed {
                draft.put(key, Record::Data(put.data.clone()), Review::Never);
                draft.feed(FeedEntry::SessionChanged { sid });
                let kind = EventKind::SessionDataChanged;
                draft.audit(ctx.event(kind, loaded.now, Some(sid), session.subject.as_ref()));
            }
            if draft.is_empty() {
                return Ok(Decision::Done(true));
            }
            draft.expect_epochs(session);
            tried = true;
            Ok(draft.commit(true))
        };
        let keys = vec![Key::Partition, Key::Session(sid), Key::Data(sid)];
        let wanted = Wanted::following(keys, Follow::SubjectAndIndex);
        if !self.transact(sid.partition(), wanted, decide).await?.0 {
            return Ok(Attempt::Again);
        }
        let loaded = self.load_session(sid).await?;
        Ok(Attempt::Done(self.view_handle(sid, &loaded)?))
    }

    /// Writes down the use, and other lifetimes where they are asked for; else expects the session
    /// to stay as it was judged: nothing is saved onto an ended one.
    fn renew_under(&self, draft: &mut Draft<'_>, session: &Session, put: &HandlePut) {
        let asked = Grant {
            subject: session.subject.clone(),
            acr: session.acr.clone(),
            idle_timeout: put.idle_timeout.or(Some(session.idle_timeout)),
            lifetime: put.lifetime.or(Some(session.lifetime)),
            ..self.plan_of(session.sid, put).grant
        };
        let (idle_timeout, lifetime) = self.settings.session.lifetimes(&asked);
        let is_renewed = idle_timeout != session.idle_timeout || lifetime != session.lifetime;
        if !is_renewed && !session.wants_touch(session.last_seen_at, draft.loaded.now) {
            draft.expect(Key::Session(session.sid));
            return;
        }
        let mut next = session.clone();
        next.last_seen_at = next.last_seen_at.max(draft.loaded.now);
        if lifetime != next.lifetime {
            next.expires_at = next.created_at.plus(lifetime);
        }
        (next.idle_timeout, next.lifetime) = (idle_timeout, lifetime);
        if is_renewed {
            draft.feed(FeedEntry::SessionChanged { sid: next.sid });
        }
        let review = Review::At(next.refused_from());
        draft.put_session(next, review);
    }

    fn view_handle(&self, sid: Sid, loaded: &Loaded) -> Result<HandleView, Error> {
        let session = loaded.session(sid).ok_or(Refusal::NotFound)?;
        let subject = loaded.subject_of(session)?;
        Ok(HandleView {
            session: self.listed(session, subject, loaded.partition()?, loaded.now),
            data: loaded.data(sid).cloned().unwrap_or_default(),
            version: loaded.version(&Key::Data(sid)),
            is_new: false,
            ended: None,
        })
    }

    /// Looks after a pointer: it stays as long as its session might have lived, and as that is
    /// known, so that what ended under it stays ended. False: it is gone.
    pub(crate) async fn review_handle(
        &self,
        home: Partition,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = Key::Handle(hash);
        let name = Name { hash, home };
        let seen = self.load(home, std::slice::from_ref(&key)).await?;
        let Some(pointer) = pointer_of(&key, &seen) else { return Ok(false) };
        let found = self.load_session(pointer.sid).await?;
        let session = found.session(pointer.sid);
        let kept_until = |ending: Ending| ending.at.plus(self.settings.keep_ended);
        let (sid, until) = match session.map(|session| (session.lifecycle, session.expires_at)) {
            // What is known of this session is nothing of its successor.
            Some((Lifecycle::Ended(Ending { successor: Some(next), .. }), _)) => (next, None),
            Some((Lifecycle::Ended(ending), expires_at)) => {
                (pointer.sid, Some(expires_at.max(kept_until(ending))))
            }
            Some((Lifecycle::Live, expires_at)) => (pointer.sid, Some(expires_at)),
            None => (pointer.sid, pointer.until),
        };
        let is_awaited = session.is_some() || now.since(pointer.at) < INTENT;
        let is_kept = is_awaited || until.is_some_and(|until| now < until);
        let decide = |loaded: &Loaded| {
            if loaded.version(&key) != seen.version(&key) {
                return Ok(Decision::Done(true));
            }
            let mut draft = Draft::of(loaded);
            if is_kept {
                put_pointer(&mut draft, name, sid, until);
            } else {
                draft.delete(key.clone());
            }
            Ok(draft.commit(is_kept))
        };
        Ok(self.transact(home, vec![key.clone()], decide).await?.0)
    }
}

fn pointer_of(key: &Key, loaded: &Loaded) -> Option<HandlePointer> {
    match loaded.get(key) {
        Some(Record::Handle(pointer)) => Some(*pointer),
        Some(_) | None => None,
    }
}

/// Files a pointer to be looked after when its session is over in any case; before it is known to
/// be opened, soon.
fn put_pointer(draft: &mut Draft<'_>, name: Name, sid: Sid, until: Option<Timestamp>) {
    let loaded = draft.loaded;
    let key = Key::Handle(name.hash);
    // An old pointer that is looked after stays old: it announces no session.
    let same = pointer_of(&key, loaded).filter(|pointer| pointer.sid == sid);
    let at = same.map_or(loaded.now, |pointer| pointer.at);
    let soon = loaded.now.plus(INTENT);
    let look_at = until.map_or(soon, |until| until.max(soon));
    draft.put(key, Record::Handle(HandlePointer { sid, at, until }), Review::At(look_at));
}

/// What opening a session is decided by, its pointer apart.
fn keys_to_open(sid: Sid, put: &HandlePut) -> Vec<Key> {
    let mut keys = vec![Key::Partition, Key::Session(sid), Key::Data(sid)];
    if let Some(subject) = &put.subject {
        keys.extend([Key::Subject(subject.clone()), Key::Index(subject.clone())]);
    }
    keys
}

/// Whether the pointer is as it was seen, or this request's own.
fn may_point(name: Name, seen: Version, sid: Sid, loaded: &Loaded) -> bool {
    let key = Key::Handle(name.hash);
    loaded.version(&key) == seen
        || pointer_of(&key, loaded).is_some_and(|pointer| pointer.sid == sid)
}

fn refuse_disabled(subject: &Subject, loaded: &Loaded) -> Result<(), Refusal> {
    match loaded.subject(subject) {
        Some(state) if state.disabled_at.is_some() => {
            Err(Refusal::Conflict("the subject is disabled"))
        }
        Some(_) | None => Ok(()),
    }
}

fn check_condition(condition: IfMatch, current: Version) -> Result<(), Refusal> {
    let is_met = match condition {
        IfMatch::Any => true,
        IfMatch::Exists => current != Version::ZERO,
        IfMatch::Version(version) => current == version,
    };
    if is_met { Ok(()) } else { Err(Refusal::PreconditionFailed) }
}
