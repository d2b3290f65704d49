//! A request's session: its data, signing in, signing out.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::clean::clean_text;
use cloakroom_core::csrf::{CsrfRefusal, issue_token};
use cloakroom_core::guard::{Device, Fault, Issued, Opening, Pass, Stored};
use cloakroom_core::limits::LABEL_CHARS_MAX;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, Delivery, EndReason, Object};
use cloakroom_core::types::{Secret, Sid, Subject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Error;
use crate::require::missing_layer;
use crate::visit::{Standing, Visit, changed, is_by_cookie};

/// How often a write of session data is tried anew because another one came first. Each such time
/// the other one got on, so this many must have overtaken us.
const OVERTAKEN_MAX: usize = 64;

/// The session of a request, its user's or a visitor's, with data of the application's own.
///
/// It is never a proof that somebody is signed in: that is [`CurrentUser`](crate::CurrentUser). A
/// visitor gets a session, and a cookie, when something is first put into it. What was changed is
/// written once, after the handler has answered; requests that change different keys at once lose
/// nothing, and of two that change the same key the last one wins. A session that has ended
/// meanwhile stays ended, whatever a slow request still wants to write.
#[derive(Clone, Debug)]
pub struct Session {
    pub(crate) visit: Visit,
}

/// What a sign-in grants.
///
/// ```
/// use cloakroom_tower::SignIn;
///
/// let grant = SignIn::new("usr_1").claim("role", "admin").remember_for_days(30);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SignIn {
    subject: String,
    claims: Object,
    amr: Vec<String>,
    acr: Option<String>,
    remember: Option<Duration>,
    label: Option<String>,
}

/// The tokens of a program that signed in, or refreshed; serialises as RFC 6749 section 5.1 has it.
#[derive(Serialize)]
pub struct Tokens {
    /// For `Authorization: Bearer`.
    pub access_token: String,
    /// For the next refresh; it replaces the one before.
    pub refresh_token: String,
    /// The access token's life in seconds.
    pub expires_in: u64,
    /// `Bearer`.
    pub token_type: &'static str,
    /// The refresh token's life in seconds; for the application, not for its clients.
    #[serde(skip)]
    pub refresh_expires_in: Option<u64>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

impl SignIn {
    /// A sign-in of this subject: your own, unchanging id of the user.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            claims: Object::new(),
            amr: vec!["pwd".to_owned()],
            acr: None,
            remember: None,
            label: None,
        }
    }

    /// What the user calls the device, for the list of devices.
    pub fn device_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Puts a claim into the session, and into its access tokens.
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// How the user was authenticated, in the words of RFC 8176; `pwd` unless said otherwise.
    pub fn methods<M: Into<String>>(mut self, amr: impl IntoIterator<Item = M>) -> Self {
        self.amr = amr.into_iter().map(Into::into).collect();
        self
    }

    /// How strongly, as in `aal2`.
    pub fn assurance(mut self, acr: impl Into<String>) -> Self {
        self.acr = Some(acr.into());
        self
    }

    /// The session and its cookie outlive the browser.
    pub const fn remember_for_days(mut self, days: u32) -> Self {
        self.remember = Some(Duration::from_secs(days as u64 * 24 * 3600));
        self
    }
}

impl From<&str> for SignIn {
    fn from(subject: &str) -> Self {
        Self::new(subject)
    }
}

impl From<String> for SignIn {
    fn from(subject: String) -> Self {
        Self::new(subject)
    }
}

impl Session {
    /// The session of a request behind the layer, for services without axum.
    pub fn of<B>(request: &http::Request<B>) -> Result<Self, Error> {
        match request.extensions().get::<Visit>() {
            Some(visit) => Ok(Self { visit: visit.clone() }),
            None => Err(missing_layer("Session", request.method(), request.uri())),
        }
    }

    /// The user's session with its claims, or why there is none: what
    /// [`CurrentUser`](crate::CurrentUser) is to axum's handlers.
    pub fn user(&self) -> Result<Arc<Pass>, Error> {
        self.visit.user()
    }

    /// The session's id, which is not a secret; none as long as a visitor has no session.
    pub fn id(&self) -> Option<Sid> {
        match &self.visit.state().standing {
            Standing::Live(pass) => Some(pass.sid),
            Standing::Nobody { .. } | Standing::Unknown(_) => None,
        }
    }

    /// Whose session it is; nobody's before a sign-in.
    pub fn subject(&self) -> Option<Subject> {
        match &self.visit.state().standing {
            Standing::Live(pass) => pass.subject.clone(),
            Standing::Nobody { .. } | Standing::Unknown(_) => None,
        }
    }

    /// What is kept under a key.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let pending = self.visit.state().changes.get(key).cloned();
        let value = match pending {
            Some(value) => value,
            None => self.stored().await?.data.get(key).cloned(),
        };
        let Some(value) = value else { return Ok(None) };
        let unreadable =
            |error: serde_json::Error| Error::Value { key: key.to_owned(), why: error.to_string() };
        serde_json::from_value(value).map(Some).map_err(unreadable)
    }

    /// Keeps a value under a key, in place of what was there.
    pub async fn insert(&self, key: &str, value: impl Serialize) -> Result<(), Error> {
        let unwritable =
            |error: serde_json::Error| Error::Value { key: key.to_owned(), why: error.to_string() };
        let value = serde_json::to_value(value).map_err(unwritable)?;
        self.visit.state().changes.insert(key.to_owned(), Some(value));
        Ok(())
    }

    /// Removes a key.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        self.visit.state().changes.insert(key.to_owned(), None);
        Ok(())
    }

    /// Writes what was changed now, for a handler that wants to know that it is written. The layer
    /// does the same when the handler has answered.
    pub async fn save(&self) -> Result<(), Error> {
        let changes = self.visit.state().changes.clone();
        if changes.is_empty() {
            return Ok(());
        }
        let Some(pass) = self.visit.live()? else {
            let data = changed(&Object::new(), &changes);
            return if data.is_empty() { Ok(()) } else { self.open_anonymous(data).await };
        };
        for _ in 0..OVERTAKEN_MAX {
            let stored = self.stored().await?;
            let data = changed(&stored.data, &changes);
            if data == stored.data {
                self.visit.state().changes.clear();
                return Ok(());
            }
            match self.guard().put_data(pass.sid, data, stored.version).await {
                Ok(()) => {
                    let mut state = self.visit.state();
                    state.changes.clear();
                    state.stored = None;
                    return Ok(());
                }
                Err(Fault::Refused(Refusal::PreconditionFailed)) => {
                    self.visit.state().stored = None;
                }
                Err(fault) => return Err(fault.into()),
            }
        }
        Err(Error::Unavailable { retry_after_secs: 1 })
    }

    /// Signs a user in: opens a session, ends the one that the request came with, and sets the
    /// cookie. What a visitor had in the session comes along.
    ///
    /// Check the credentials first; nothing here knows them.
    pub async fn sign_in(&self, grant: impl Into<SignIn>) -> Result<(), Error> {
        self.visit.check_sign_in()?;
        let grant = grant.into();
        let max_age = grant.remember;
        let (pass, issued) = self.open(grant, Delivery::Cookie).await?;
        self.visit.take(pass, issued.token, max_age);
        Ok(())
    }

    /// Signs a program in: opens a session whose tokens go into the answer's body. The session
    /// that the request came with, if any, is left alone.
    pub async fn issue_tokens(&self, grant: impl Into<SignIn>) -> Result<Tokens, Error> {
        let opening = self.opening(grant.into(), Delivery::Bearer)?;
        let (_, issued) = self.guard().open(opening).await?;
        tokens_of(issued)
    }

    /// Exchanges a refresh token for new tokens. An empty one is
    /// [`Refusal::RefreshTokenRequired`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Error> {
        if refresh_token.is_empty() {
            return Err(Refusal::RefreshTokenRequired.into());
        }
        tokens_of(self.guard().refresh(refresh_token, self.visit.client()).await?)
    }

    /// Signs out: ends this session, and its tokens with it, and clears the cookie.
    pub async fn sign_out(&self) -> Result<(), Error> {
        if let Some(pass) = self.visit.live()? {
            self.guard().end(pass.sid, self.visit.client()).await?;
        }
        self.visit.leave();
        Ok(())
    }

    /// Signs the user out on every device, this one too; says how many sessions that were.
    pub async fn sign_out_everywhere(&self) -> Result<usize, Error> {
        let subject = self.subject_or_refuse()?;
        self.refuse_actor()?;
        let ended = self.guard().end_subject(&subject, self.visit.client()).await?;
        self.visit.leave();
        Ok(ended)
    }

    /// The user's live sessions, on all devices, this one among them ([`Session::id`]); the one
    /// that was used last comes first.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        Ok(self.guard().devices(&self.subject_or_refuse()?).await?)
    }

    /// Signs the user out on one device. Another user's session, and one that never was, are
    /// [`Refusal::NotFound`] alike.
    ///
    /// ```
    /// use axum::extract::Path;
    /// use cloakroom_tower::core::{refusal::Refusal, types::Sid};
    /// use cloakroom_tower::{Error, Session};
    ///
    /// async fn end(session: Session, Path(sid): Path<String>) -> Result<&'static str, Error> {
    ///     let sid: Sid = sid.parse().map_err(|_| Refusal::NotFound)?;
    ///     session.sign_out_device(sid).await?;
    ///     Ok("signed out there")
    /// }
    /// ```
    pub async fn sign_out_device(&self, sid: Sid) -> Result<(), Error> {
        let subject = self.subject_or_refuse()?;
        if self.id() == Some(sid) {
            return self.sign_out().await;
        }
        self.refuse_actor()?;
        Ok(self.guard().end_device(&subject, sid, self.visit.client()).await?)
    }

    /// Whoever acts on behalf of a user ends none of the user's own sessions.
    fn refuse_actor(&self) -> Result<(), Error> {
        match self.visit.user()?.actor {
            Some(_) => Err(Refusal::ON_BEHALF.into()),
            None => Ok(()),
        }
    }

    fn subject_or_refuse(&self) -> Result<Subject, Error> {
        let subject = self.visit.user()?.subject.clone();
        subject.ok_or_else(|| Refusal::CredentialsRequired.into())
    }

    /// A CSRF token for this session, for a form's hidden field `csrf_token` or the header
    /// `X-CSRF-Token`. Each is different; all are valid as long as the session is.
    ///
    /// A visitor without a session gets one.
    pub async fn csrf_token(&self) -> Result<String, Error> {
        if self.visit.live()?.is_none() {
            let data = changed(&Object::new(), &self.visit.state().changes);
            self.open_anonymous(data).await?;
        }
        let Some(pass) = self.visit.live()? else {
            return Err(Refusal::CredentialsRequired.into());
        };
        match &pass.csrf_key {
            Some(key) => Ok(issue_token(key, self.guard().random())),
            // Who comes with an access token needs none.
            None => Err(CsrfRefusal::TokenInvalid.into()),
        }
    }

    fn guard(&self) -> &dyn cloakroom_core::guard::Guard {
        &*self.visit.house().guard
    }

    /// The data as it was when this request first looked.
    async fn stored(&self) -> Result<Arc<Stored>, Error> {
        let known = self.visit.state().stored.clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let stored = Arc::new(match self.visit.live()? {
            Some(pass) => self.guard().data(pass.sid).await?,
            None => Stored::default(),
        });
        self.visit.state().stored = Some(Arc::clone(&stored));
        Ok(stored)
    }

    async fn open_anonymous(&self, data: Object) -> Result<(), Error> {
        let opening = Opening {
            subject: None,
            delivery: Delivery::Cookie,
            claims: Object::new(),
            amr: Vec::new(),
            acr: None,
            replaces: None,
            data,
            idle_timeout: None,
            lifetime: None,
            client: self.visit.client(),
        };
        let (pass, issued) = self.guard().open(opening).await?;
        self.visit.take(pass, issued.token, None);
        Ok(())
    }

    fn opening(&self, grant: SignIn, delivery: Delivery) -> Result<Opening, Error> {
        let subject = Subject::parse(&grant.subject).map_err(|malformed| {
            let why = malformed.0.to_owned();
            Refusal::InvalidMember { member: "subject".to_owned(), why }
        })?;
        Ok(Opening {
            subject: Some(subject),
            delivery,
            claims: grant.claims,
            amr: grant.amr,
            acr: grant.acr,
            replaces: None,
            data: Object::new(),
            idle_timeout: grant.remember,
            lifetime: grant.remember,
            client: Client { label: label_of(grant.label), ..self.visit.client() },
        })
    }

    async fn open(&self, grant: SignIn, delivery: Delivery) -> Result<(Pass, Issued), Error> {
        let live = match self.visit.live() {
            Ok(live) => live,
            // What was presented is no good; it is about to be replaced by something that is.
            Err(Error::Refused(_)) => None,
            Err(fault) => return Err(fault),
        };
        let replaces = live.as_ref().filter(|pass| is_by_cookie(pass));
        let replaces = replaces.and_then(|_| self.visit.state().cookie.clone());
        let pending = self.visit.state().changes.clone();
        let mut opening = self.opening(grant, delivery)?;
        match replaces {
            // What was removed must not come along.
            Some(_) => self.save_or_forget().await?,
            None => opening.data = changed(&Object::new(), &pending),
        }
        let fresh = Opening { replaces: None, ..opening.clone() };
        opening.replaces = replaces;
        let opened = match self.guard().open(opening).await {
            // The old session ended between the two steps, perhaps by the same sign-in from another
            // tab: there is nothing to bring along.
            Err(Fault::Refused(
                Refusal::SessionEnded(_) | Refusal::TokenInvalid | Refusal::Conflict(_),
            )) => self.guard().open(fresh).await?,
            opened => opened?,
        };
        if let Some(other) = live.filter(|pass| !is_by_cookie(pass)) {
            self.guard().end(other.sid, self.visit.client()).await?;
        }
        Ok(opened)
    }

    /// Writes the changes; if the session is over, they are lost with it.
    async fn save_or_forget(&self) -> Result<(), Error> {
        match self.save().await {
            Err(Error::Refused(Refusal::SessionEnded(_) | Refusal::NotFound)) => Ok(()),
            saved => saved,
        }
    }

    /// Writes what was changed at the end of a request. What ended meanwhile stays ended, and its
    /// changes are dropped.
    pub(crate) async fn finish(&self) -> Result<(), Error> {
        let saved = self.save().await;
        match saved {
            Err(Error::Refused(Refusal::SessionEnded(EndReason::Replaced))) => Ok(()),
            Err(Error::Refused(Refusal::SessionEnded(_) | Refusal::NotFound)) => {
                tracing::debug!(route = self.visit.route(), "the session ended while it was used");
                self.visit.state().ended = true;
                Ok(())
            }
            saved => saved,
        }
    }
}

fn label_of(label: Option<String>) -> Option<String> {
    let clean = clean_text(&label?, LABEL_CHARS_MAX);
    Some(clean).filter(|label| !label.is_empty())
}

fn tokens_of(issued: Issued) -> Result<Tokens, Error> {
    let Some((access, expires_in)) = issued.access else {
        return Err(Refusal::TokenWrongType.into());
    };
    let text = |secret: Secret<String>| secret.expose().clone();
    Ok(Tokens {
        access_token: text(access),
        refresh_token: text(issued.token),
        expires_in,
        token_type: "Bearer",
        refresh_expires_in: issued.refresh_expires_in,
    })
}
