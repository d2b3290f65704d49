//! Signing in by password: every refusal costs the same and says the same.

use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::identifier::Identifier;
use cloakroom_core::limits::{LABEL_CHARS_MAX, PASSWORD_BYTES_MAX};
use cloakroom_core::password;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, Delivery, EndReason, Epochs, Grant, Object};
use cloakroom_core::subject::{PartitionState, SubjectState, User};
use cloakroom_core::types::{Secret, Sid, Subject, Timestamp};
use cloakroom_store::record::IdentifierPointer;
use cloakroom_store::{Follow, Key, Record, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error, Unavailable};
use crate::hashing::{Checked, PasswordLoad};
use crate::opening::{Carried, Opened, Plan};
use crate::throttle::NameHash;
use crate::transact::{Decision, Draft, Loaded};
use crate::users::user_keys;

/// The `amr` value of a password (RFC 8176 section 2).
pub(crate) const AMR_PASSWORD: &str = "pwd";
/// What a password alone proves (NIST SP 800-63B-4 section 2.1).
pub(crate) const ACR_PASSWORD: &str = "aal1";

/// A sign-in by password, as it was asked for.
#[derive(Debug)]
pub struct Login {
    /// The name, as typed.
    pub identifier: String,
    /// The password, as typed.
    pub password: Secret<String>,
    /// How the session's credentials are to travel.
    pub delivery: Delivery,
    /// Whether a cookie outlives the browser.
    pub remember: bool,
    /// What the user calls the device.
    pub label: Option<String>,
    /// Credentials that the request carried; their sessions end.
    pub carried: Vec<Carried>,
}

/// What was known of a subject *before* its credentials were checked. A session opened by it opens
/// only if nothing of that has moved meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub(crate) epochs: Epochs,
    /// When the partition's and the subject's epoch were last raised: a store that went back may
    /// count to the same number again.
    raised_at: (Timestamp, Option<Timestamp>),
    pub(crate) disabled: bool,
    pub(crate) password_changed_at: Option<Timestamp>,
}

impl Ticket {
    pub(crate) fn new(known: Option<&SubjectState>, partition: &PartitionState) -> Self {
        Self {
            epochs: Epochs {
                subject: known.map_or(0, |state| state.epoch),
                partition: partition.epoch,
            },
            raised_at: (
                partition.bumped_at,
                known.and_then(|state| state.bumps.last()).map(|bump| bump.at),
            ),
            disabled: known.is_some_and(|state| state.disabled_at.is_some()),
            password_changed_at: known.and_then(|state| state.password_changed_at),
        }
    }

    /// Refuses what was proven under another state than the one now, with what changed it.
    pub(crate) fn check(
        &self,
        known: Option<&SubjectState>,
        partition: &PartitionState,
    ) -> Result<(), Refusal> {
        let now = Self::new(known, partition);
        if now.epochs.partition != self.epochs.partition || now.raised_at.0 != self.raised_at.0 {
            return Err(Refusal::SessionEnded(EndReason::EndedByOperator));
        }
        if now.epochs.subject != self.epochs.subject || now.raised_at.1 != self.raised_at.1 {
            let bump = known.and_then(|state| state.bump_over(self.epochs.subject));
            let reason = bump.map_or(EndReason::SignedOutEverywhere, |bump| bump.reason);
            return Err(Refusal::SessionEnded(reason));
        }
        if now.disabled {
            return Err(Refusal::SessionEnded(EndReason::UserDisabled));
        }
        if now.password_changed_at != self.password_changed_at {
            return Err(Refusal::SessionEnded(EndReason::PasswordChanged));
        }
        Ok(())
    }
}

/// Whom a name turned out to mean, as read before the password was checked.
pub(crate) struct Candidate {
    /// The user; for a name that is nobody's, nobody.
    pub(crate) user: Option<User>,
    pub(crate) ticket: Ticket,
    /// What it was read from.
    loaded: Loaded,
}

impl Candidate {
    fn subject(&self) -> Option<&Subject> {
        self.user.as_ref().map(|user| &user.id)
    }
}

/// A user who has just given the right password.
pub(crate) struct Proven {
    pub(crate) user: User,
    pub(crate) ticket: Ticket,
    /// The stored hash is weaker than is configured now.
    weak: bool,
    /// What was read of the user before the password was checked.
    loaded: Loaded,
}

impl<S: Store> Authority<S> {
    /// Signs a user of the directory in. What the request carried ends first.
    ///
    /// An unknown name, a wrong password, a disabled user and one without a password cost the same
    /// store reads and the same hash, and are answered alike.
    pub async fn sign_in(&self, login: Login, ctx: &Context) -> Result<Opened, Error> {
        let outcome = self.try_sign_in(login, ctx).await;
        self.counters.tallies.signin(&outcome);
        outcome
    }

    async fn try_sign_in(&self, login: Login, ctx: &Context) -> Result<Opened, Error> {
        let Login { identifier, password, delivery, remember, label, carried } = login;
        let Some(password) = self.presented(&password) else {
            // The answer depends on nothing that is stored, so it need not cost what others do.
            self.report(EventKind::SigninFailed, None, None, ctx);
            return Err(Refusal::CredentialsInvalid.into());
        };
        let name = self.name_typed(&identifier);
        let (attempt, pointer) = match self.count_attempt(name, ctx).await {
            Ok(counted) => counted,
            Err(refused) => return Err(self.throttled(refused, None, None, ctx)),
        };
        let candidate = self.candidate(name, pointer).await?;
        let Some(proven) = self.check_password(candidate, &password, None, ctx).await? else {
            return Err(Refusal::CredentialsInvalid.into());
        };
        let grant = Grant {
            subject: Some(proven.user.id.clone()),
            delivery,
            remember,
            claims: Object::new(),
            amr: vec![AMR_PASSWORD.to_owned()],
            acr: ACR_PASSWORD.to_owned(),
            actor: None,
            idle_timeout: None,
            lifetime: None,
            client: Client { label: label.as_deref().and_then(clean_label), ..ctx.client.clone() },
        };
        let Proven { user, ticket, weak, loaded } = proven;
        let (opened, ()) = tokio::join!(
            self.open_from(Some(loaded), grant, ticket, &carried, ctx),
            self.forgive(attempt),
        );
        if weak {
            self.renew_hash(&user, password).await;
        }
        opened
    }

    /// What must hold still from before the credentials are checked until the session is opened.
    ///
    /// A subject without a record is new: its first session makes the record. Only here is that
    /// taken for epoch 0.
    pub async fn ticket(&self, subject: &Subject) -> Result<Ticket, Error> {
        let keys = [Key::Partition, Key::Subject(subject.clone())];
        let loaded = self.load(self.partition_of(subject), &keys).await?;
        Ok(Ticket::new(loaded.subject(subject), loaded.partition()?))
    }

    /// Opens a session for a subject whose credentials were checked after `ticket` was taken.
    pub async fn open_with_ticket(
        &self,
        grant: Grant,
        ticket: Ticket,
        carried: &[Carried],
        ctx: &Context,
    ) -> Result<Opened, Error> {
        self.check_claims(&grant.claims)?;
        self.open_from(None, grant, ticket, carried, ctx).await
    }

    async fn open_from(
        &self,
        first: Option<Loaded>,
        grant: Grant,
        ticket: Ticket,
        carried: &[Carried],
        ctx: &Context,
    ) -> Result<Opened, Error> {
        let partition = self.home_of(&grant);
        let sid = Sid::new(self.now(), partition, draw(&*self.entropy));
        let secret = Secret::new(draw(&*self.entropy));
        let ended = self.end_carried(carried, sid, ctx).await?;
        let plan =
            Plan { grant, sid, secret, data: Object::new(), ticket: Some(ticket), epoch: None };
        let opened = self.open_planned_from(first, plan, ctx).await?;
        Ok(Opened { ended, ..opened })
    }

    /// How busy the hashing of passwords is.
    pub fn password_load(&self) -> PasswordLoad {
        self.hashing.load()
    }

    /// A password as presented, normalised; none where it is too long to have been chosen.
    pub(crate) fn presented(&self, password: &Secret<String>) -> Option<Secret<String>> {
        if password.expose().len() > PASSWORD_BYTES_MAX {
            return None;
        }
        let normal = password::normalise(password.expose());
        self.settings.password.is_worth_hashing(&normal).then_some(normal)
    }

    /// The hash of a name as typed. One that nobody can have leads nowhere, at the same cost.
    pub(crate) fn name_typed(&self, identifier: &str) -> NameHash {
        match Identifier::parse(identifier) {
            Ok(identifier) => self.name_of(&identifier),
            Err(_) => self.name_of_nobody(identifier),
        }
    }

    pub(crate) fn name_of(&self, identifier: &Identifier) -> NameHash {
        NameHash(self.keys.identifier_hash(identifier.normal()))
    }

    /// No identifier has a control character, so this is the hash of none.
    pub(crate) fn name_of_nobody(&self, text: &str) -> NameHash {
        NameHash(self.keys.identifier_hash(&format!("\0{text}")))
    }

    /// Whom a name means, and what is known of that subject. Where the name leads nowhere, a
    /// record that isn't there is read in its stead.
    async fn candidate(
        &self,
        name: NameHash,
        pointer: Option<IdentifierPointer>,
    ) -> Result<Candidate, Error> {
        let subject = match pointer {
            Some(pointer) => pointer.user,
            None => nobody(name)?,
        };
        let mut candidate = self.load_candidate(&subject).await?;
        candidate.user = candidate.user.filter(|user| user.identifier_hash == name.0);
        Ok(candidate)
    }

    pub(crate) async fn load_candidate(&self, subject: &Subject) -> Result<Candidate, Error> {
        // The index comes along for the session that is about to be opened.
        let follow = Follow::Sessions { at_least: self.settings.max_per_subject };
        let keys = user_keys(subject);
        let loaded = self.load_following(self.partition_of(subject), &keys, follow).await?;
        let (user, known) = (loaded.user(subject).cloned(), loaded.subject(subject));
        if user.is_some() && known.is_none() {
            return Err(Unavailable::Missing("a user's subject record".into()).into());
        }
        let ticket = Ticket::new(known, loaded.partition()?);
        Ok(Candidate { user, ticket, loaded })
    }

    /// Checks the password; none: it isn't the one, whatever the cause, and the failure is
    /// reported.
    pub(crate) async fn check_password(
        &self,
        candidate: Candidate,
        password: &Secret<String>,
        sid: Option<Sid>,
        ctx: &Context,
    ) -> Result<Option<Proven>, Error> {
        let stored = candidate.user.as_ref().and_then(|user| user.password.clone());
        let checked = self.hashing.verify(password.clone(), stored).await?;
        let weak = match checked {
            Checked::Right => Some(false),
            Checked::RightButWeak => Some(true),
            Checked::Wrong => None,
        };
        let accepted = weak.filter(|_| !candidate.ticket.disabled);
        let Some(weak) = accepted else {
            self.report(EventKind::SigninFailed, sid, candidate.subject(), ctx);
            return Ok(None);
        };
        let Candidate { user, ticket, loaded } = candidate;
        Ok(user.map(|user| Proven { user, ticket, weak, loaded }))
    }

    /// Reports a throttled attempt; any other error is left as it is.
    pub(crate) fn throttled(
        &self,
        error: Error,
        sid: Option<Sid>,
        subject: Option<&Subject>,
        ctx: &Context,
    ) -> Error {
        if let Error::Refused(Refusal::LoginThrottled { .. }) = &error {
            self.report(EventKind::SigninThrottled, sid, subject, ctx);
        }
        error
    }

    /// Hashes a right password anew with what is configured now. That it fails harms nobody: the
    /// next sign-in tries again.
    async fn renew_hash(&self, user: &User, password: Secret<String>) {
        if let Err(failed) = self.try_renew_hash(user, password).await {
            tracing::debug!(error = %failed, "a weak password hash was not renewed");
        }
    }

    async fn try_renew_hash(&self, user: &User, password: Secret<String>) -> Result<(), Error> {
        let renewed = self.hashing.hash(password, draw(&*self.entropy)).await?;
        let key = Key::User(user.id.clone());
        let decide = |loaded: &Loaded| {
            // Only while the password is still the one that was checked.
            let Some(stored) = loaded.user(&user.id).filter(|now| now.password == user.password)
            else {
                return Ok(Decision::Done(()));
            };
            let stored = User { password: Some(renewed.clone()), ..stored.clone() };
            let mut draft = Draft::of(loaded);
            draft.put(key.clone(), Record::User(stored), Review::Never);
            draft.feed(FeedEntry::RecordChanged);
            Ok(draft.commit(()))
        };
        self.transact(self.partition_of(&user.id), vec![key.clone()], decide).await?;
        Ok(())
    }
}

/// A subject that nobody is, for a name that leads nowhere; the same for the same name.
fn nobody(name: NameHash) -> Result<Subject, Error> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&name.0[..16]);
    let subject = Subject::parse(&format!("nobody_{}", Sid::from_bytes(bytes)));
    Ok(subject.map_err(|malformed| Unavailable::Missing(malformed.to_string()))?)
}

fn clean_label(label: &str) -> Option<String> {
    let clean: String =
        label.trim().chars().filter(|c| !c.is_control()).take(LABEL_CHARS_MAX).collect();
    (!clean.is_empty()).then_some(clean)
}
