//! Setting a password that was forgotten, by a one-time token that an operator's own mail carries.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::event::{EventKind, FeedEntry};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::EndReason;
use cloakroom_core::subject::{PasswordReset, SubjectState, User};
use cloakroom_core::types::{Secret, Subject, Timestamp, TokenHash, same_bytes};
use cloakroom_store::{Follow, Key, Record, Review, Store};

use crate::authority::Authority;
use crate::clock::draw;
use crate::context::{Context, Error};
use crate::ending::{EndedMany, Raise, durability};
use crate::passwords::stored_identifier;
use crate::transact::{Decision, Draft, Loaded, Wanted};
use crate::users::user_keys;

/// What such a token begins with, so that secret scanners find a leaked one.
const PREFIX: &str = "ckp_";
/// How long it counts.
const RESET_TTL: Duration = Duration::from_secs(3600);
const SECRET_BYTES: usize = 32;
const TAG_BYTES: usize = 8;
const INVALID: Refusal = Refusal::CredentialsInvalid;

/// Whether a text looks like a token that sets a password.
pub fn is_reset_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// A token that was presented, with a genuine tag.
struct Presented {
    user: Subject,
    secret: Secret<[u8; SECRET_BYTES]>,
}

impl<S: Store> Authority<S> {
    /// Makes a token by which a user's password may be set once, within an hour; says until when
    /// it counts. One made before counts no more.
    pub async fn issue_reset(
        &self,
        id: &Subject,
        ctx: &Context,
    ) -> Result<(Secret<String>, Timestamp), Error> {
        let secret = Secret::new(draw(&*self.entropy));
        let hash = TokenHash::of(secret.expose());
        let decide = |loaded: &Loaded| {
            let user = loaded.user(id).ok_or(Refusal::NotFound)?;
            if loaded.subject(id).is_some_and(|state| state.disabled_at.is_some()) {
                return Err(Refusal::Conflict("the user is disabled").into());
            }
            if let Some(made) = user.reset.filter(|made| made.secret.matches(secret.expose())) {
                // Our own commit of unknown outcome.
                return Ok(Decision::Done(made.until));
            }
            let until = loaded.now.plus(RESET_TTL);
            let reset = Some(PasswordReset { secret: hash, until });
            let mut draft = Draft::of(loaded);
            draft.expect(Key::Subject(id.clone()));
            let record = Record::User(User { reset, ..user.clone() });
            draft.put(Key::User(id.clone()), record, Review::Never);
            draft.feed(FeedEntry::RecordChanged);
            draft.audit(ctx.event(EventKind::UserResetIssued, loaded.now, None, Some(id)));
            Ok(draft.commit(until))
        };
        let keys = vec![Key::User(id.clone()), Key::Subject(id.clone())];
        let (until, _) = self.transact(self.partition_of(id), keys, decide).await?;
        Ok((self.write_reset(id, &secret), until))
    }

    /// Sets a password by such a token: it is used up, and all of the user's sessions end.
    pub async fn reset_password(
        &self,
        token: &str,
        new: Secret<String>,
        ctx: &Context,
    ) -> Result<(Subject, EndedMany), Error> {
        let presented = self.read_reset(token).ok_or(INVALID)?;
        let id = &presented.user;
        let home = self.partition_of(id);
        let loaded = self.load(home, &[Key::User(id.clone()), Key::Subject(id.clone())]).await?;
        let Some(user) = loaded.user(id).filter(|user| holds(user, &presented, &loaded)) else {
            self.report(EventKind::SigninFailed, None, Some(id), ctx);
            return Err(INVALID.into());
        };
        let hash = self.hash_chosen(&new, &stored_identifier(user)?).await?;
        let decide = |loaded: &Loaded| {
            let user = loaded.user(id).ok_or(INVALID)?;
            if user.password.as_ref() == Some(&hash) {
                return Ok(Decision::Done(0));
            }
            if !holds(user, &presented, loaded) {
                return Err(INVALID.into());
            }
            let at = loaded.now;
            let mut draft = Draft::of(loaded);
            let plan =
                Raise { subject: id, reason: EndReason::PasswordChanged, keep: None, lost: None };
            let change = |state: &mut SubjectState| state.password_changed_at = Some(at);
            let revoked = self.decide_raise(&mut draft, &plan, &change)?;
            let record = Record::User(User {
                password: Some(hash.clone()),
                password_changed_at: Some(at),
                reset: None,
                ..user.clone()
            });
            draft.put(Key::User(id.clone()), record, Review::Never);
            draft.audit(ctx.event(EventKind::UserPasswordChanged, at, None, Some(id)));
            Ok(draft.commit(revoked))
        };
        let wanted = Wanted::following(user_keys(id), Follow::Sessions { at_least: 1 });
        let (revoked, committed) = self.transact(home, wanted, decide).await?;
        let ended = EndedMany { revoked, durability: durability(committed) };
        Ok((presented.user, ended))
    }

    fn write_reset(&self, id: &Subject, secret: &Secret<[u8; SECRET_BYTES]>) -> Secret<String> {
        let tag = self.reset_tag(id, secret);
        let mut bytes = Vec::with_capacity(SECRET_BYTES + TAG_BYTES + id.as_str().len());
        bytes.extend(secret.expose());
        bytes.extend(tag);
        bytes.extend(id.as_str().as_bytes());
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    fn read_reset(&self, token: &str) -> Option<Presented> {
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (secret, rest) = bytes.split_first_chunk::<SECRET_BYTES>()?;
        let (tag, id) = rest.split_first_chunk::<TAG_BYTES>()?;
        let user = Subject::parse(str::from_utf8(id).ok()?).ok()?;
        let secret = Secret::new(*secret);
        let is_genuine = same_bytes(&self.reset_tag(&user, &secret), tag);
        is_genuine.then_some(Presented { user, secret })
    }

    /// Junk is refused by it without a look at the store.
    fn reset_tag(&self, id: &Subject, secret: &Secret<[u8; SECRET_BYTES]>) -> [u8; TAG_BYTES] {
        let parts = [b"cloakroom reset tag 1".as_slice(), secret.expose(), id.as_str().as_bytes()];
        let mac = self.keys.ratchet(&parts);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&mac.expose()[..TAG_BYTES]);
        tag
    }
}

/// Whether a user's password may be set by what was presented.
fn holds(user: &User, presented: &Presented, loaded: &Loaded) -> bool {
    let enabled = loaded.subject(&user.id).is_some_and(|state| state.disabled_at.is_none());
    enabled
        && user.reset.is_some_and(|reset| {
            loaded.now < reset.until && reset.secret.matches(presented.secret.expose())
        })
}
