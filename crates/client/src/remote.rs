//! A guard whose authority is a server somewhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::guard::{
    Answer, Device, Fault, Guard, HandleHash, Issued, Opening, Pass, Presented, Stored, Via,
};
use cloakroom_core::json::Map;
use cloakroom_core::limits::LIFETIME_MAX;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, EndReason, Object};
use cloakroom_core::token::Looks;
use cloakroom_core::token::access::{self, AccessClaims};
use cloakroom_core::token::opaque::{OpaqueKind, TEXT_CHARS};
use cloakroom_core::types::{Secret, Sid, Subject, Timestamp};
use quick_cache::sync::Cache;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::asking::{Asker, ConnectError, Reply, fault};
use crate::following::follow;
use crate::touching::{SLACK_MAX, Touches, tell};
use crate::verifier::{Moment, Verdict, Verifier};
use crate::wire::{self, Kept};

/// Sessions that are kept.
const KEPT: usize = 50_000;
/// Access tokens that are kept: their signatures needn't be checked again.
const TOKENS_KEPT: usize = 10_000;
/// A session's view is asked for anew after this long.
const VIEW_AGE_MAX: Duration = Duration::from_secs(60);
/// A key that was found good is taken for good so long.
const KEY_GOOD: Duration = Duration::from_secs(1);
/// No session has this id: asking for it tells whether the API key is good.
const NO_SESSION: &str = "00000000000000000000000000";

/// What can be decided about a remote authority.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `token.audience` of the authority: access tokens for one of these are taken.
    pub audience: Vec<String>,
    /// `forward_auth.audience` of the authority: its assertions are no access tokens.
    pub gateway_audience: String,
    /// How stale the knowledge of what was revoked may be before the authority is asked instead.
    pub max_staleness: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            audience: vec!["cloakroom".to_owned()],
            gateway_audience: "upstream".to_owned(),
            max_staleness: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
        }
    }
}

/// An authority that is a server: access tokens and known cookies are verified here, as long as
/// everything that was revoked is known; else the server is asked; and where that fails too, nobody
/// can tell.
///
/// Dropping it ends its background work.
pub struct Remote {
    inner: Arc<Inner>,
    chores: [JoinHandle<()>; 2],
}

pub(crate) struct Inner {
    pub(crate) asker: Asker,
    verifier: Mutex<Verifier>,
    views: Cache<[u8; 32], Arc<View>>,
    genuine: Cache<[u8; 32], Arc<Genuine>>,
    pub(crate) touches: Touches,
    key_good_until: Mutex<Duration>,
    /// Whether it was told that the key is refused.
    key_told: AtomicBool,
    random: SystemRandom,
}

/// An access token whose signature and contents were found good. Whether it still counts is judged
/// at each use.
struct Genuine {
    claims: AccessClaims,
    kid: String,
    pass: Arc<Pass>,
}

/// A session as it was read.
struct View {
    pass: Arc<Pass>,
    stamp: u64,
    until: Timestamp,
    /// How late its use may be told.
    slack: Duration,
    /// When to ask anew, by the steady clock.
    ask_at: Duration,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.inner.asker.url())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.chores.iter().for_each(JoinHandle::abort);
    }
}

impl Remote {
    /// Connects to the admin listener at `url`. A wrong address, key or scope is an error here.
    pub async fn connect(url: &str, api_key: &str) -> Result<Self, ConnectError> {
        Self::connect_with(url, api_key, Settings::default()).await
    }

    /// The same with settings of your own.
    pub async fn connect_with(
        url: &str,
        api_key: &str,
        settings: Settings,
    ) -> Result<Self, ConnectError> {
        let asker = Asker::new(url, &Secret::new(api_key.to_owned()), settings.timeout)?;
        check_key(&asker).await?;
        let issuer = issuer(&asker).await?;
        let foreign = [settings.gateway_audience.clone()];
        let verifier = Verifier::new(&issuer, &settings.audience, &foreign, settings.max_staleness);
        let inner = Arc::new(Inner {
            asker,
            verifier: Mutex::new(verifier),
            views: Cache::new(KEPT),
            genuine: Cache::new(TOKENS_KEPT),
            touches: Touches::default(),
            key_good_until: Mutex::new(Duration::ZERO),
            key_told: AtomicBool::new(false),
            random: SystemRandom::new(),
        });
        let chores = [
            tokio::spawn(follow(Arc::downgrade(&inner))),
            tokio::spawn(tell(Arc::downgrade(&inner))),
        ];
        Ok(Self { inner, chores })
    }

    /// Whether requests are decided here now, without asking the server.
    pub fn is_fresh(&self) -> bool {
        self.inner.verifier().is_fresh(self.inner.moment())
    }
}

/// Whether the key is good for reading and writing sessions.
async fn check_key(asker: &Asker) -> Result<(), ConnectError> {
    let url = || asker.url().to_owned();
    let nothing = json!({"sids": []});
    let none = Map::new();
    let touched = nothing.as_object().unwrap_or(&none);
    for (method, path, body) in [
        (Method::GET, ["admin", "v1", "sessions", NO_SESSION], None),
        (Method::POST, ["admin", "v1", "sessions", "touch"], Some(touched)),
    ] {
        let reply = asker.ask(method, &path, body).await;
        let reply =
            reply.map_err(|error| ConnectError::Unreachable { url: url(), why: why(error) })?;
        let detail = reply.body.get("detail").and_then(Value::as_str).unwrap_or_default();
        match reply.status {
            StatusCode::UNAUTHORIZED => return Err(ConnectError::ApiKey { url: url() }),
            StatusCode::FORBIDDEN => {
                return Err(ConnectError::Scope { url: url(), why: detail.to_owned() });
            }
            StatusCode::NO_CONTENT => {}
            StatusCode::NOT_FOUND if reply.body.contains_key("code") => {}
            status => {
                return Err(ConnectError::Foreign { url: url(), why: format!("status {status}") });
            }
        }
    }
    Ok(())
}

async fn issuer(asker: &Asker) -> Result<String, ConnectError> {
    let url = || asker.url().to_owned();
    let path = [".well-known", "oauth-authorization-server"];
    let reply = asker.ask(Method::GET, &path, None).await;
    let reply = reply.map_err(|error| ConnectError::Unreachable { url: url(), why: why(error) })?;
    let issuer = reply.body.get("issuer").and_then(Value::as_str).map(str::to_owned);
    issuer.ok_or_else(|| ConnectError::Foreign { url: url(), why: "no issuer".to_owned() })
}

fn why(fault: Fault) -> String {
    match fault {
        Fault::Unavailable { why, .. } => why,
        Fault::Refused(refusal) => refusal.to_string(),
    }
}

impl Inner {
    /// Held for moments only, never while somebody is awaited.
    pub(crate) fn verifier(&self) -> MutexGuard<'_, Verifier> {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { wall: now(), steady: self.asker.steady() }
    }

    async fn verify_cookie(&self, token: &str) -> Result<Arc<Pass>, Fault> {
        match Looks::of(token) {
            Looks::Opaque(OpaqueKind::Session) if token.len() == TEXT_CHARS => {}
            // Nothing that the server would have to be asked about.
            Looks::Opaque(_) | Looks::Jwt | Looks::Csrf | Looks::Unknown => {
                return Err(Refusal::TokenInvalid.into());
            }
        }
        let (digest, moment) = (digest_of(token), self.moment());
        let kept = self.views.get(&digest).filter(|view| self.counts(view, moment));
        if let Some(view) = kept {
            self.touches.note(view.pass.sid, view.slack, moment.steady);
            return Ok(Arc::clone(&view.pass));
        }
        let stamp = self.verifier().stamp();
        let (pass, kept) = self.ask_about(token).await?;
        let pass = Arc::new(pass);
        let Kept { until, slack } = kept;
        let ask_at = moment.steady + slack.min(VIEW_AGE_MAX);
        let view = View { pass: Arc::clone(&pass), stamp, until, slack, ask_at };
        self.views.insert(digest, Arc::new(view));
        Ok(pass)
    }

    fn counts(&self, view: &View, moment: Moment) -> bool {
        let verifier = self.verifier();
        moment.steady < view.ask_at
            && moment.wall < view.until
            && verifier.is_fresh(moment)
            && verifier.still_stands(view.pass.sid, view.pass.subject.as_ref(), view.stamp)
    }

    async fn verify_access(&self, token: &str) -> Result<Arc<Pass>, Fault> {
        match Looks::of(token) {
            Looks::Opaque(_) | Looks::Csrf => return Err(Refusal::TokenWrongType.into()),
            Looks::Unknown => return Err(Refusal::TokenInvalid.into()),
            Looks::Jwt => {}
        }
        let digest = digest_of(token);
        if let Some(known) = self.genuine.get(&digest) {
            let moment = self.moment();
            let judged = self.verifier().judge_again(&known.claims, &known.kid, moment);
            match judged {
                Ok(()) => {
                    self.touches.note(known.claims.sid, SLACK_MAX, moment.steady);
                    return Ok(Arc::clone(&known.pass));
                }
                Err(Verdict::Refused(refusal)) => return Err(refusal.into()),
                // Looked at as if for the first time.
                Err(Verdict::Ask | Verdict::FetchKeys | Verdict::Live(_)) => {}
            }
        }
        let mut verdict = self.judge(token);
        if verdict == Verdict::FetchKeys {
            // Whether it worked or not: the second verdict takes what is there.
            let _ = self.fetch_keys().await;
            verdict = self.judge(token);
        }
        match verdict {
            Verdict::Live(claims) => {
                // The token doesn't say when its session idles out.
                self.touches.note(claims.sid, SLACK_MAX, self.asker.steady());
                let pass = Arc::new(wire::pass_of((*claims).clone()));
                if let Some(kid) = access::named_key(token) {
                    let genuine = Genuine { claims: *claims, kid, pass: Arc::clone(&pass) };
                    self.genuine.insert(digest, Arc::new(genuine));
                }
                Ok(pass)
            }
            Verdict::Refused(refusal) => Err(refusal.into()),
            Verdict::Ask | Verdict::FetchKeys => {
                let (pass, _) = self.ask_about(token).await?;
                Ok(Arc::new(Pass { via: Via::Access, csrf_key: None, ..pass }))
            }
        }
    }

    fn judge(&self, token: &str) -> Verdict {
        let moment = self.moment();
        self.verifier().judge(token, moment)
    }

    async fn ask_about(&self, token: &str) -> Result<(Pass, Kept), Fault> {
        let body = json!({"token": token});
        let reply = self.post(&["admin", "v1", "sessions", "verify"], &body).await?;
        let reply = self.taken(reply).await?;
        let session = reply.body.get("session").and_then(wire::session);
        let (pass, kept) = session.ok_or_else(|| fault("its answer can't be read".to_owned()))?;
        self.touches.known(pass.sid, self.asker.steady());
        Ok((pass, kept))
    }

    async fn post(&self, path: &[&str], body: &Value) -> Result<Reply, Fault> {
        self.asker.ask(Method::POST, path, body.as_object()).await
    }

    /// The answer if it is a yes, the refusal if it is a no that concerns the session. A "no" to
    /// our own key is none: nobody is signed out by a mistake of ours.
    async fn taken(&self, reply: Reply) -> Result<Reply, Fault> {
        if reply.status.is_success() {
            return Ok(reply);
        }
        let refusal = wire::refusal(&reply.body)
            .ok_or_else(|| fault(format!("it answered {}", reply.status)))?;
        match refusal {
            Refusal::SessionEnded(_) => Err(refusal.into()),
            _ if reply.status == StatusCode::UNAUTHORIZED => {
                self.check_own_key().await?;
                Err(refusal.into())
            }
            _ => Err(refusal.into()),
        }
    }

    async fn check_own_key(&self) -> Result<(), Fault> {
        let good_until = || self.key_good_until.lock().unwrap_or_else(PoisonError::into_inner);
        if self.asker.steady() < *good_until() {
            return Ok(());
        }
        let path = ["admin", "v1", "sessions", NO_SESSION];
        let reply = self.asker.ask(Method::GET, &path, None).await?;
        if reply.status == StatusCode::NOT_FOUND {
            *good_until() = self.asker.steady() + KEY_GOOD;
            self.key_told.store(false, Ordering::Relaxed);
            return Ok(());
        }
        if !self.key_told.swap(true, Ordering::Relaxed) {
            let (url, status) = (self.asker.url(), reply.status);
            tracing::error!(url, %status, "the session authority refuses our API key");
        }
        Err(fault("it refuses our API key".to_owned()))
    }

    async fn open(&self, opening: Opening) -> Result<(Pass, Issued), Fault> {
        let reply = self.post(&["admin", "v1", "sessions"], &wanted(&opening)).await?;
        let reply = self.taken(reply).await?;
        let session = reply.body.get("session").and_then(wire::session);
        let opened = session.zip(wire::issued(&reply.body));
        let ((pass, _), issued) =
            opened.ok_or_else(|| fault("its answer can't be read".to_owned()))?;
        Ok((pass, issued))
    }

    async fn refresh(&self, token: &str) -> Result<Issued, Fault> {
        match Looks::of(token) {
            Looks::Opaque(OpaqueKind::Refresh) => {}
            Looks::Opaque(OpaqueKind::Session | OpaqueKind::ApiKey) | Looks::Jwt | Looks::Csrf => {
                return Err(Refusal::TokenWrongType.into());
            }
            Looks::Unknown => return Err(Refusal::TokenInvalid.into()),
        }
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(Refusal::TokenInvalid.into());
        }
        let form = Secret::new(format!("grant_type=refresh_token&refresh_token={token}"));
        let asked = self.asker.ask_with(Method::POST, &["oauth2", "token"], |request| {
            request
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.expose().clone())
        });
        let reply = asked.await?;
        if reply.status.is_success() {
            return wire::issued(&reply.body)
                .ok_or_else(|| fault("its answer can't be read".to_owned()));
        }
        let refusal = wire::grant_refusal(&reply.body);
        Err(refusal.map_or_else(|| fault(format!("it answered {}", reply.status)), Into::into))
    }

    async fn delete(&self, path: &[&str], query: &str) -> Result<Reply, Fault> {
        let asked = self.asker.ask_with(Method::DELETE, path, |request| {
            if query.is_empty() { request } else { request.query(&[("reason", query)]) }
        });
        self.taken(asked.await?).await
    }
}

/// What isn't there any more has ended: nothing to complain of.
fn if_there(reply: Result<Reply, Fault>) -> Result<(), Fault> {
    match reply {
        Ok(_) | Err(Fault::Refused(Refusal::NotFound | Refusal::SessionEnded(_))) => Ok(()),
        Err(fault) => Err(fault),
    }
}

fn wanted(opening: &Opening) -> Value {
    let mut body = json!({
        "subject": opening.subject.as_ref().map(Subject::as_str),
        "delivery": opening.delivery.as_str(),
    });
    let mut put = |name: &str, value: Value| body[name] = value;
    if !opening.claims.is_empty() {
        put("claims", Value::Object(opening.claims.clone()));
    }
    if !opening.amr.is_empty() {
        put("amr", opening.amr.as_slice().into());
    }
    if let Some(acr) = &opening.acr {
        put("acr", acr.as_str().into());
    }
    if let Some(old) = &opening.replaces {
        put("replaces", old.expose().as_str().into());
        put("carry_data", true.into());
    }
    if !opening.data.is_empty() {
        put("data", Value::Object(opening.data.clone()));
    }
    for (name, span) in [("idle_timeout", opening.idle_timeout), ("lifetime", opening.lifetime)] {
        if let Some(span) = span {
            put(name, span.as_secs().into());
        }
    }
    let Client { ip, user_agent, label } = &opening.client;
    let texts = [
        ("ip", ip.map(|ip| ip.to_string())),
        ("user_agent", user_agent.clone()),
        ("label", label.clone()),
    ];
    let client: Object = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name.to_owned(), text?.into())))
        .collect();
    if !client.is_empty() {
        put("client", Value::Object(client));
    }
    body
}

fn stored(reply: Reply) -> Result<Stored, Fault> {
    let version = reply.version.ok_or_else(|| fault("its answer has no version".to_owned()))?;
    Ok(Stored { data: reply.body, version })
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(0))
}

impl Guard for Remote {
    fn verify<'a>(&'a self, credential: Presented<'a>) -> Answer<'a, Arc<Pass>> {
        Box::pin(async move {
            match credential {
                Presented::Cookie(text) => self.inner.verify_cookie(text).await,
                Presented::Access(text) => self.inner.verify_access(text).await,
            }
        })
    }

    fn open(&self, opening: Opening) -> Answer<'_, (Pass, Issued)> {
        Box::pin(self.inner.open(opening))
    }

    fn refresh<'a>(&'a self, token: &'a str, _: Client) -> Answer<'a, Issued> {
        Box::pin(self.inner.refresh(token))
    }

    fn end(&self, sid: Sid, _: Client) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = sid.to_string();
            let path = ["admin", "v1", "sessions", &name];
            if_there(self.inner.delete(&path, EndReason::SignedOut.as_str()).await)?;
            // Here it is over at once, everywhere else when the stream tells.
            let moment = self.inner.moment();
            self.inner.verifier().ended_here(sid, EndReason::SignedOut, moment);
            Ok(())
        })
    }

    fn end_subject<'a>(&'a self, subject: &'a Subject, _: Client) -> Answer<'a, usize> {
        Box::pin(async move {
            let path = ["admin", "v1", "subjects", subject.as_str(), "sessions"];
            let reply = self.inner.delete(&path, "").await?;
            let moment = self.inner.moment();
            self.inner.verifier().raised_here(subject, moment);
            let revoked = reply.body.get("revoked").and_then(Value::as_u64).unwrap_or(0);
            Ok(usize::try_from(revoked).unwrap_or(usize::MAX))
        })
    }

    fn devices<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Vec<Device>> {
        Box::pin(async move {
            let path = ["admin", "v1", "subjects", subject.as_str(), "sessions"];
            let reply = self.inner.asker.ask(Method::GET, &path, None).await?;
            let reply = self.inner.taken(reply).await?;
            let sessions = reply.body.get("sessions").and_then(Value::as_array);
            let unreadable = || fault("its answer can't be read".to_owned());
            // Nobody shall miss a stranger's device in the list because it wasn't understood.
            let live =
                sessions.ok_or_else(unreadable)?.iter().filter(|view| !wire::has_ended(view));
            live.map(|view| wire::device(view).ok_or_else(unreadable)).collect()
        })
    }

    fn end_device<'a>(&'a self, subject: &'a Subject, sid: Sid, _: Client) -> Answer<'a, ()> {
        Box::pin(async move {
            let name = sid.to_string();
            let path = ["admin", "v1", "sessions", &name];
            let reply = self.inner.asker.ask(Method::GET, &path, None).await?;
            let reply = self.inner.taken(reply).await?;
            let whose = reply.body.get("session").and_then(|view| view.get("subject"));
            if whose.and_then(Value::as_str) != Some(subject.as_str()) {
                return Err(Refusal::NotFound.into());
            }
            if_there(self.inner.delete(&path, EndReason::SignedOutElsewhere.as_str()).await)?;
            let moment = self.inner.moment();
            self.inner.verifier().ended_here(sid, EndReason::SignedOutElsewhere, moment);
            Ok(())
        })
    }

    fn data(&self, sid: Sid) -> Answer<'_, Stored> {
        Box::pin(async move {
            let sid = sid.to_string();
            let path = ["admin", "v1", "sessions", &sid, "data"];
            let reply = self.inner.asker.ask(Method::GET, &path, None).await?;
            stored(self.inner.taken(reply).await?)
        })
    }

    fn put_data(&self, sid: Sid, data: Object, version: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let sid = sid.to_string();
            let path = ["admin", "v1", "sessions", &sid, "data"];
            let reply = self.inner.asker.put_if(&path, data, version).await?;
            self.inner.taken(reply).await.map(|_| ())
        })
    }

    fn handle(&self, handle: HandleHash) -> Answer<'_, Stored> {
        Box::pin(async move {
            let name = URL_SAFE_NO_PAD.encode(handle);
            let path = ["admin", "v1", "handles", &name];
            let reply = self.inner.asker.ask(Method::GET, &path, None).await?;
            let reply = self.inner.taken(reply).await?;
            let data = reply.body.get("data").and_then(Value::as_object).cloned();
            let data = data.ok_or_else(|| fault("its answer can't be read".to_owned()))?;
            Ok(Stored { data, version: reply.version.unwrap_or(0) })
        })
    }

    fn put_handle(&self, handle: HandleHash, data: Object, lifetime: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = URL_SAFE_NO_PAD.encode(handle);
            let secs = lifetime.as_secs().max(1);
            let lifetime = LIFETIME_MAX.as_secs();
            let body = json!({"data": data, "idle_timeout": secs, "lifetime": lifetime});
            let path = ["admin", "v1", "handles", &name];
            let reply = self.inner.asker.ask(Method::PUT, &path, body.as_object()).await?;
            self.inner.taken(reply).await.map(|_| ())
        })
    }

    fn end_handle(&self, handle: HandleHash) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = URL_SAFE_NO_PAD.encode(handle);
            if_there(self.inner.delete(&["admin", "v1", "handles", &name], "").await)
        })
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // A system without randomness can hold no secrets: nothing goes on from here.
        if self.inner.random.fill(&mut bytes).is_err() {
            std::process::abort();
        }
        bytes
    }
}
