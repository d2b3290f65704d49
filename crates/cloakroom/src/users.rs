//! The directory: users, their identifiers and passwords.
//!
//! A user lives in the partition of its sessions, an identifier's pointer in one of its own, so
//! two commits belong to each change of an identifier. The pointer comes first, and counts only
//! while the user that it names bears the identifier; what a crash leaves behind lapses.

use std::time::Duration;

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::identifier::Identifier;
use cloakroom_core::json::merge_patch;
use cloakroom_core::limits::{IDENTIFIER_INTENT, PAGE_MAX};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{EndReason, Object};
use cloakroom_core::subject::{SubjectState, User};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp, same_bytes};
use cloakroom_store::record::IdentifierPointer;
use cloakroom_store::{Durability, Follow, Key, Kind, Record, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error, Unavailable};
use crate::ending::{EndedMany, Raise, durability};
use crate::listing::{not_a_cursor, page_end};
use crate::passwords::stored_identifier;
use crate::throttle::{NameHash, pointer_at};
use crate::transact::{Decision, Draft, Loaded, Wanted};

/// How old a pointer may be when its user's record is committed: far below the age at which
/// somebody else may take it for abandoned.
const CLAIM_MAX: Duration = Duration::from_secs(30);
/// How often a name that others are taking at the same time is looked at again.
const CLAIM_ROUNDS: usize = 8;
const TAKEN: Refusal = Refusal::Conflict("the identifier is taken");

const _: () = assert!(CLAIM_MAX.as_secs() * 2 <= IDENTIFIER_INTENT.as_secs());

/// A user as it is shown.
#[derive(Clone, Debug)]
pub struct UserView {
    /// The user's id, which is the subject of the user's sessions.
    pub id: Subject,
    /// What the user types to sign in.
    pub identifier: String,
    /// Whether the user can't sign in.
    pub disabled: bool,
    /// The user's claims.
    pub claims: Object,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When the password was last set.
    pub password_changed_at: Option<Timestamp>,
    /// What the store promises about the endings that this change brought with it.
    pub ended: Option<Durability>,
}

/// A user to be created.
#[derive(Debug, Default)]
pub struct NewUser {
    /// What the user will type to sign in.
    pub identifier: String,
    /// The password; none: the user can't sign in by password yet.
    pub password: Option<NewPassword>,
    /// The user's claims.
    pub claims: Object,
    /// Whether the user can't sign in.
    pub disabled: bool,
}

/// A new user's password.
#[derive(Debug)]
pub enum NewPassword {
    /// Chosen here and now: the rules for passwords apply.
    Chosen(Secret<String>),
    /// Known in another directory only, whose hash of it this is: argon2, bcrypt, scrypt or
    /// PBKDF2. It is replaced by one of our own at the next sign-in.
    Hash(Secret<String>),
}

/// A user to be created, after all that can be checked without the store.
struct Checked {
    identifier: Identifier,
    /// A chosen one is normalised.
    password: Option<NewPassword>,
    claims: Object,
    disabled: bool,
}

/// What is to change of a user.
#[derive(Debug, Default)]
pub struct UserPatch {
    /// Another identifier.
    pub identifier: Option<String>,
    /// Another password; ends all sessions.
    pub password: Option<Secret<String>>,
    /// A merge patch (RFC 7396) of the claims.
    pub claims: Option<Object>,
    /// Disabling ends all sessions; enabling revives none.
    pub disabled: Option<bool>,
}

/// A page of users.
#[derive(Clone, Debug)]
pub struct UserPage {
    /// The users.
    pub users: Vec<UserView>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// A change of a user, checked, with its password hashed.
struct Change<'a> {
    id: &'a Subject,
    /// The identifier and its hash, claimed already.
    identifier: Option<(Identifier, NameHash)>,
    hash: Option<String>,
    claims: Option<Object>,
    disabled: Option<bool>,
}

/// What a change found.
struct Changed {
    view: UserView,
    /// The hash of the identifier before.
    former: NameHash,
}

impl<S: Store> Authority<S> {
    /// Creates a user.
    pub async fn create_user(&self, new: NewUser, ctx: &Context) -> Result<UserView, Error> {
        let mut new = self.checked(new)?;
        // Looked at before the password costs anything; decided when the pointer is put.
        if self.is_taken(self.name_of(&new.identifier), None).await? {
            return Err(TAKEN.into());
        }
        let hash = match new.password.take() {
            Some(NewPassword::Chosen(password)) => {
                Some(self.hashing.hash(password, draw(&*self.entropy)).await?)
            }
            Some(NewPassword::Hash(hash)) => Some(hash.expose().clone()),
            None => None,
        };
        self.create(new, hash, ctx).await
    }

    /// Whether a user could be created as things stand; nothing is.
    pub async fn check_user(&self, new: NewUser) -> Result<(), Error> {
        let new = self.checked(new)?;
        match self.is_taken(self.name_of(&new.identifier), None).await? {
            true => Err(TAKEN.into()),
            false => Ok(()),
        }
    }

    fn checked(&self, new: NewUser) -> Result<Checked, Error> {
        let NewUser { identifier, password, claims, disabled } = new;
        let identifier = parse_identifier(&identifier)?;
        self.check_claims(&claims)?;
        let password = match password {
            Some(NewPassword::Chosen(new)) => {
                Some(NewPassword::Chosen(self.chosen(&new, &identifier)?))
            }
            Some(NewPassword::Hash(hash)) if self.hashing.accepts(hash.expose()) => {
                Some(NewPassword::Hash(hash))
            }
            Some(NewPassword::Hash(_)) => {
                let why = "must be an argon2, bcrypt, scrypt or PBKDF2 hash within bounds";
                let (member, why) = ("password_hash".to_owned(), why.to_owned());
                return Err(Refusal::InvalidMember { member, why }.into());
            }
            None => None,
        };
        Ok(Checked { identifier, password, claims, disabled })
    }

    /// Creates a user who registers. That a name is taken can't be hidden here.
    pub async fn register(
        &self,
        identifier: &str,
        password: Secret<String>,
        ctx: &Context,
    ) -> Result<UserView, Error> {
        let identifier = identifier.to_owned();
        let password = Some(NewPassword::Chosen(password));
        self.create_user(NewUser { identifier, password, ..NewUser::default() }, ctx).await
    }

    /// A user by id.
    pub async fn user(&self, id: &Subject) -> Result<UserView, Error> {
        let loaded = self.load_user(id).await?;
        let user = loaded.user(id).ok_or(Refusal::NotFound)?;
        view(user, loaded.subject(id))
    }

    /// A user by what the user types to sign in.
    pub async fn user_by_identifier(&self, identifier: &str) -> Result<Option<UserView>, Error> {
        let Ok(identifier) = Identifier::parse(identifier) else { return Ok(None) };
        let name = self.name_of(&identifier);
        let Some(pointer) = self.pointer(name).await? else { return Ok(None) };
        let loaded = self.load_user(&pointer.user).await?;
        match loaded.user(&pointer.user).filter(|user| user.identifier_hash == name.0) {
            Some(user) => view(user, loaded.subject(&pointer.user)).map(Some),
            None => Ok(None),
        }
    }

    /// The user of this identifier, if there is one that is just as `new` says, by its hash, claims
    /// and state: for an import that goes on where it was cut short. One with a chosen password
    /// isn't compared.
    pub async fn same_user(&self, new: &NewUser) -> Result<Option<UserView>, Error> {
        let hash = match &new.password {
            Some(NewPassword::Hash(hash)) => Some(hash.expose().as_bytes()),
            Some(NewPassword::Chosen(_)) => return Ok(None),
            None => None,
        };
        let Some(found) = self.user_by_identifier(&new.identifier).await? else { return Ok(None) };
        let loaded = self.load_user(&found.id).await?;
        let stored = loaded.user(&found.id).and_then(|user| user.password.as_ref());
        let is_same_hash = match (hash, stored) {
            (None, None) => true,
            (Some(hash), Some(stored)) => same_bytes(hash, stored.as_bytes()),
            (Some(_), None) | (None, Some(_)) => false,
        };
        let is_same = is_same_hash
            && found.identifier == new.identifier.trim()
            && found.claims == new.claims
            && found.disabled == new.disabled;
        Ok(is_same.then_some(found))
    }

    /// A page of users. `after` is a former page's `next`.
    pub async fn users(&self, after: Option<&str>, limit: usize) -> Result<UserPage, Error> {
        let limit = limit.clamp(1, PAGE_MAX);
        let after = after.map(parse_cursor).transpose()?;
        let after = after.map(|id| (self.partition_of(&id), Key::User(id)));
        let mut found = self.records_after(Kind::User, after, limit + 1, Record::into_user).await?;
        let next = page_end(&mut found, limit, |user| user.id.to_string());
        let mut users = Vec::with_capacity(found.len());
        let home = |user: &User| self.partition_of(&user.id);
        for here in found.chunk_by(|a, b| home(a) == home(b)) {
            users.extend(self.views(here).await?);
        }
        Ok(UserPage { users, next })
    }

    /// Users of one partition as they are shown.
    async fn views(&self, users: &[User]) -> Result<Vec<UserView>, Error> {
        let Some(first) = users.first() else { return Ok(Vec::new()) };
        let keys: Vec<Key> = users.iter().map(|user| Key::Subject(user.id.clone())).collect();
        let loaded = self.load(self.partition_of(&first.id), &keys).await?;
        users.iter().map(|user| view(user, loaded.subject(&user.id))).collect()
    }

    /// Changes a user. A new password and disabling end all of the user's sessions in the same
    /// commit, and every sign-in in flight.
    pub async fn patch_user(
        &self,
        id: &Subject,
        patch: UserPatch,
        ctx: &Context,
    ) -> Result<UserView, Error> {
        let loaded = self.load_user(id).await?;
        let user = loaded.user(id).ok_or(Refusal::NotFound)?;
        if let Some(claims) = &patch.claims {
            self.check_patch(claims)?;
        }
        let UserPatch { identifier, password, claims, disabled } = patch;
        let identifier = identifier.as_deref().map(parse_identifier).transpose()?;
        let hash = match &password {
            Some(new) => {
                let named = identifier.clone().map_or_else(|| stored_identifier(user), Ok)?;
                Some(self.hash_chosen(new, &named).await?)
            }
            None => None,
        };
        let identifier = identifier.map(|identifier| {
            let name = self.name_of(&identifier);
            (identifier, name)
        });
        let mut claimed_at = None;
        if let Some((_, name)) = &identifier
            && name.0 != user.identifier_hash
        {
            claimed_at = Some(self.claim(*name, id).await?);
        }
        let change = Change { id, identifier, hash, claims, disabled };
        let changed = self.change_user(&change, claimed_at, ctx).await?;
        if change.identifier.is_some_and(|(_, name)| name != changed.former) {
            self.let_go(changed.former, id).await?;
        }
        Ok(changed.view)
    }

    /// Deletes a user: all sessions end; the subject's record stays, so that none can come back.
    pub async fn delete_user(&self, id: &Subject, ctx: &Context) -> Result<EndedMany, Error> {
        let mut former = None;
        let decide = |loaded: &Loaded| {
            let Some(user) = loaded.user(id) else {
                // Where it was there a moment ago, our own commit took effect.
                return match former {
                    Some(_) => Ok(Decision::Done(0)),
                    None => Err(Refusal::NotFound.into()),
                };
            };
            former = Some(NameHash(user.identifier_hash));
            let mut draft = Draft::of(loaded);
            let revoked = self.decide_delete(&mut draft, id, ctx)?;
            Ok(draft.commit(revoked))
        };
        let (revoked, committed) =
            self.transact(self.partition_of(id), with_sessions(id), decide).await?;
        if let Some(name) = former {
            self.let_go(name, id).await?;
        }
        Ok(EndedMany { revoked, durability: durability(committed) })
    }

    /// Adds the deletion of a user and the end of all its sessions to a batch.
    pub(crate) fn decide_delete(
        &self,
        draft: &mut Draft<'_>,
        id: &Subject,
        ctx: &Context,
    ) -> Result<usize, Error> {
        let plan = Raise { subject: id, reason: EndReason::UserDisabled, keep: None, lost: None };
        let at = draft.loaded.now;
        let revoked = self.decide_raise(draft, &plan, &|state: &mut SubjectState| {
            state.disabled_at = state.disabled_at.or(Some(at));
            state.claims = Object::new();
        })?;
        draft.delete(Key::User(id.clone()));
        draft.audit(ctx.event(EventKind::UserDeleted, at, None, Some(id)));
        Ok(revoked)
    }

    async fn create(
        &self,
        new: Checked,
        hash: Option<String>,
        ctx: &Context,
    ) -> Result<UserView, Error> {
        let Checked { identifier, claims, disabled, .. } = new;
        let name = self.name_of(&identifier);
        let id = self.new_user_id()?;
        let claimed_at = self.claim(name, &id).await?;
        let decide = |loaded: &Loaded| {
            if let Some(user) = loaded.user(&id) {
                return Ok(Decision::Done(view(user, loaded.subject(&id))?));
            }
            still_claimed(claimed_at, loaded.now)?;
            let at = loaded.now;
            let user = User {
                id: id.clone(),
                identifier: identifier.display().to_owned(),
                identifier_hash: name.0,
                password_changed_at: hash.as_ref().map(|_| at),
                password: hash.clone(),
                created_at: at,
                reset: None,
            };
            let mut state = SubjectState::new(id.clone());
            state.claims.clone_from(&claims);
            state.disabled_at = disabled.then_some(at);
            state.password_changed_at = user.password_changed_at;
            let view = view(&user, Some(&state))?;
            let mut draft = Draft::of(loaded);
            draft.put(Key::User(id.clone()), Record::User(user), Review::Never);
            draft.put(Key::Subject(id.clone()), Record::Subject(state), Review::Never);
            draft.feed(FeedEntry::RecordChanged);
            draft.audit(ctx.event(EventKind::UserCreated, at, None, Some(&id)));
            Ok(draft.commit(view))
        };
        let keys = vec![Key::User(id.clone()), Key::Subject(id.clone())];
        Ok(self.transact(self.partition_of(&id), keys, decide).await?.0)
    }

    async fn change_user(
        &self,
        change: &Change<'_>,
        claimed_at: Option<Timestamp>,
        ctx: &Context,
    ) -> Result<Changed, Error> {
        let mut former = None;
        let decide = |loaded: &Loaded| {
            let user = loaded.user(change.id).ok_or(Refusal::NotFound)?;
            if let Some(at) = claimed_at {
                still_claimed(at, loaded.now)?;
            }
            // Of a commit of unknown outcome the first sight counts.
            former.get_or_insert(NameHash(user.identifier_hash));
            self.decide_change_user(change, user, loaded, ctx)
        };
        let wanted = with_sessions(change.id);
        let (mut view, committed) =
            self.transact(self.partition_of(change.id), wanted, decide).await?;
        let ends = change.hash.is_some() || change.disabled == Some(true);
        view.ended = ends.then(|| durability(committed));
        let former = former.ok_or(Refusal::NotFound)?;
        Ok(Changed { view, former })
    }

    fn decide_change_user(
        &self,
        change: &Change<'_>,
        user: &User,
        loaded: &Loaded,
        ctx: &Context,
    ) -> Result<Decision<UserView>, Error> {
        let (id, at) = (change.id, loaded.now);
        let state = loaded.subject(id);
        let state = state.ok_or_else(|| Unavailable::Missing("a user's subject record".into()))?;
        let new_hash = change.hash.as_ref().filter(|hash| user.password.as_ref() != Some(hash));
        let disabled = state.disabled_at.is_some();
        let toggled = change.disabled.filter(|wanted| *wanted != disabled);
        let mut claims = state.claims.clone();
        if let Some(patch) = &change.claims {
            merge_patch(&mut claims, patch);
            self.check_claims(&claims)?;
        }
        let mut next = user.clone();
        if let Some((identifier, name)) = &change.identifier {
            identifier.display().clone_into(&mut next.identifier);
            next.identifier_hash = name.0;
        }
        if let Some(hash) = new_hash {
            next.password = Some(hash.clone());
            next.password_changed_at = Some(at);
            next.reset = None;
        }
        let renamed = next.identifier != user.identifier;
        // Whoever may read the mail of the former identifier, or was shut out, has no say any more.
        let voided = user.reset.is_some() && (renamed || toggled.is_some());
        next.reset = next.reset.filter(|_| !voided);
        let claims_changed = claims != state.claims;
        let apply = |state: &mut SubjectState| {
            state.claims.clone_from(&claims);
            match toggled {
                Some(true) => state.disabled_at = Some(at),
                Some(false) => state.disabled_at = None,
                None => {}
            }
            if new_hash.is_some() {
                state.password_changed_at = Some(at);
            }
        };
        let mut shown = state.clone();
        apply(&mut shown);
        let view = view(&next, Some(&shown))?;
        if !renamed && !claims_changed && new_hash.is_none() && toggled.is_none() {
            return Ok(Decision::Done(view));
        }
        let mut draft = Draft::of(loaded);
        let key = Key::User(id.clone());
        if renamed || voided || new_hash.is_some() {
            draft.put(key, Record::User(next), Review::Never);
        } else {
            draft.expect(key);
        }
        self.decide_state(&mut draft, id, (toggled, new_hash.is_some()), &apply)?;
        for (happened, kind) in [
            (renamed || claims_changed, EventKind::UserChanged),
            (new_hash.is_some(), EventKind::UserPasswordChanged),
            (toggled == Some(true), EventKind::UserDisabled),
            (toggled == Some(false), EventKind::UserEnabled),
        ] {
            if happened {
                draft.audit(ctx.event(kind, at, None, Some(id)));
            }
        }
        Ok(draft.commit(view))
    }

    /// Adds the change of a subject's state to a batch: with the end of all its sessions where it
    /// was disabled or its password set, else alone.
    pub(crate) fn decide_state(
        &self,
        draft: &mut Draft<'_>,
        subject: &Subject,
        (toggled, password_set): (Option<bool>, bool),
        apply: &impl Fn(&mut SubjectState),
    ) -> Result<usize, Error> {
        let loaded = draft.loaded;
        let reason = match (toggled, password_set) {
            (Some(true), _) => Some(EndReason::UserDisabled),
            (Some(false) | None, true) => Some(EndReason::PasswordChanged),
            (Some(false) | None, false) => None,
        };
        if let Some(reason) = reason {
            let plan = Raise { subject, reason, keep: None, lost: None };
            return self.decide_raise(draft, &plan, apply);
        }
        let mut state =
            loaded.subject(subject).cloned().unwrap_or_else(|| SubjectState::new(subject.clone()));
        apply(&mut state);
        draft.put(Key::Subject(subject.clone()), Record::Subject(state), Review::Never);
        draft.feed(FeedEntry::SubjectChanged { subject: subject.clone() });
        Ok(0)
    }

    /// Puts a name's pointer for a user; says when. From then on the user's record must follow
    /// within [`CLAIM_MAX`].
    async fn claim(&self, name: NameHash, id: &Subject) -> Result<Timestamp, Error> {
        let key = Key::Identifier(name.0);
        for _ in 0..CLAIM_ROUNDS {
            let at = self.now();
            let seen = self.pointer(name).await?;
            if self.counts(name, seen.as_ref(), Some(id)).await? {
                return Err(TAKEN.into());
            }
            let mine = IdentifierPointer { user: id.clone(), at };
            let decide = |loaded: &Loaded| {
                let found = pointer_at(&key, loaded);
                if found.as_ref() == Some(&mine) {
                    return Ok(Decision::Done(true));
                }
                if found != seen {
                    // Somebody else came first: look again whose it is.
                    return Ok(Decision::Done(false));
                }
                let mut draft = Draft::of(loaded);
                draft.put(key.clone(), Record::Identifier(mine.clone()), Review::Never);
                draft.feed(FeedEntry::RecordChanged);
                Ok(draft.commit(true))
            };
            let home = self.home_of_name(name);
            if self.transact(home, vec![key.clone()], decide).await?.0 {
                return Ok(at);
            }
        }
        Err(TAKEN.into())
    }

    /// Removes the pointer of a name that its user bears no longer. One that was put since, by a
    /// change back, stays.
    pub(crate) async fn let_go(&self, name: NameHash, id: &Subject) -> Result<(), Error> {
        let key = Key::Identifier(name.0);
        let began = self.now();
        let decide = |loaded: &Loaded| {
            let mut draft = Draft::of(loaded);
            match pointer_at(&key, loaded) {
                Some(pointer) if pointer.user == *id && pointer.at < began => {
                    draft.delete(key.clone());
                    draft.feed(FeedEntry::RecordChanged);
                    Ok(draft.commit(()))
                }
                Some(_) | None => Ok(Decision::Done(())),
            }
        };
        self.transact(self.home_of_name(name), vec![key.clone()], decide).await?;
        Ok(())
    }

    async fn is_taken(
        &self,
        name: NameHash,
        by_other_than: Option<&Subject>,
    ) -> Result<bool, Error> {
        let pointer = self.pointer(name).await?;
        self.counts(name, pointer.as_ref(), by_other_than).await
    }

    /// Whether a pointer keeps a name from everybody but `id`: its user bears the name, or may be
    /// about to.
    async fn counts(
        &self,
        name: NameHash,
        pointer: Option<&IdentifierPointer>,
        id: Option<&Subject>,
    ) -> Result<bool, Error> {
        let Some(IdentifierPointer { user, at }) = pointer else { return Ok(false) };
        if id == Some(user) {
            return Ok(false);
        }
        let key = Key::User(user.clone());
        let loaded = self.load(self.partition_of(user), &[key]).await?;
        let borne = loaded.user(user).is_some_and(|user| user.identifier_hash == name.0);
        Ok(borne || loaded.now.since(*at) < IDENTIFIER_INTENT)
    }

    async fn pointer(&self, name: NameHash) -> Result<Option<IdentifierPointer>, Error> {
        let key = Key::Identifier(name.0);
        let loaded = self.load(self.home_of_name(name), std::slice::from_ref(&key)).await?;
        Ok(pointer_at(&key, &loaded))
    }

    async fn load_user(&self, id: &Subject) -> Result<Loaded, Error> {
        let keys = [Key::User(id.clone()), Key::Subject(id.clone())];
        self.load(self.partition_of(id), &keys).await
    }

    fn new_user_id(&self) -> Result<Subject, Error> {
        let spread = Partition(u16::from_be_bytes(draw(&*self.entropy)));
        let id = Sid::new(self.now(), spread, draw(&*self.entropy));
        let id = Subject::parse(&format!("usr_{id}"));
        Ok(id.map_err(|malformed| Unavailable::Missing(malformed.to_string()))?)
    }
}

/// The records that a change of a user decides on, with its sessions.
fn with_sessions(id: &Subject) -> Wanted {
    Wanted::following(user_keys(id), Follow::Sessions { at_least: 1 })
}

/// The records that a change of a user decides on, without its sessions.
pub(crate) fn user_keys(id: &Subject) -> Vec<Key> {
    vec![Key::Partition, Key::User(id.clone()), Key::Subject(id.clone()), Key::Index(id.clone())]
}

fn view(user: &User, state: Option<&SubjectState>) -> Result<UserView, Error> {
    let state = state.ok_or_else(|| Unavailable::Missing("a user's subject record".into()))?;
    Ok(UserView {
        id: user.id.clone(),
        identifier: user.identifier.clone(),
        disabled: state.disabled_at.is_some(),
        claims: state.claims.clone(),
        created_at: user.created_at,
        password_changed_at: user.password_changed_at,
        ended: None,
    })
}

fn still_claimed(claimed_at: Timestamp, now: Timestamp) -> Result<(), Error> {
    match now.since(claimed_at) < CLAIM_MAX {
        true => Ok(()),
        false => Err(Unavailable::Deadline.into()),
    }
}

fn parse_identifier(text: &str) -> Result<Identifier, Error> {
    Identifier::parse(text).map_err(|malformed| {
        let why = malformed.to_string();
        Refusal::InvalidMember { member: "identifier".into(), why }.into()
    })
}

fn parse_cursor(text: &str) -> Result<Subject, Error> {
    let is_user_id = text.strip_prefix("usr_").is_some_and(|id| id.parse::<Sid>().is_ok());
    Subject::parse(text).ok().filter(|_| is_user_id).ok_or_else(|| not_a_cursor().into())
}
