//! For the tests of an application: requests with a session, without an authority or a network.
//!
//! ```
//! use axum::{Router, body::Body, routing::get};
//! use cloakroom_tower::{CurrentUser, testing};
//! use tower::ServiceExt as _;
//!
//! async fn me(user: CurrentUser) -> String {
//!     user.id().to_owned()
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let app: Router = Router::new().route("/me", get(me)).layer(testing::layer());
//! let request = testing::signed_in("ada").claim("role", "admin").get("/me");
//! let answer = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
//! assert_eq!(answer.status(), 200);
//! # });
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::csrf::issue_token;
use cloakroom_core::guard::{
    Answer, Device, Guard, HandleHash, Issued, Opening, Pass, Presented, Stored, Via,
};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Client, Delivery, EndReason, Object};
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use http::header::COOKIE;
use http::{Request, request};
use serde_json::{Value, json};

use crate::layer::CloakroomLayer;

/// Every CSRF token of a test is made with this key.
const CSRF_KEY: [u8; 32] = [7; 32];
const PREFIX: &str = "cks_test-";
const ACCESS_TTL_SECS: u64 = 900;

/// A layer whose authority is a stand-in: it takes what [`signed_in`] makes, and everything else
/// works as usual, in memory. Requests need no `Origin`.
pub fn layer() -> CloakroomLayer {
    CloakroomLayer::new(Arc::new(Fake::default())).without_session_limit()
}

/// A request of a signed-in user, with a CSRF token, for an application behind [`layer`].
pub fn signed_in(subject: &str) -> TestRequest {
    TestRequest { subject: subject.to_owned(), claims: Object::new(), actor: None }
}

/// A request with a session, to be built.
#[derive(Clone, Debug)]
#[must_use]
pub struct TestRequest {
    subject: String,
    claims: Object,
    actor: Option<String>,
}

impl TestRequest {
    /// Says who acts on behalf of the user.
    pub fn acting(mut self, actor: &str) -> Self {
        self.actor = Some(actor.to_owned());
        self
    }

    /// Gives the session a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// A GET of this path.
    pub fn get(self, path: &str) -> request::Builder {
        self.request("GET", path)
    }

    /// A POST to this path.
    pub fn post(self, path: &str) -> request::Builder {
        self.request("POST", path)
    }

    /// A request of any method.
    pub fn request(self, method: &str, path: &str) -> request::Builder {
        let told = json!({"sub": self.subject, "claims": self.claims, "act": self.actor});
        let text = told.to_string();
        let cookie = format!("__Host-session={PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        Request::builder()
            .method(method)
            .uri(path)
            .header(COOKIE, cookie)
            .header("x-csrf-token", issue_token(&Secret::new(CSRF_KEY), [1; 16]))
    }
}

/// A stand-in for an authority: sessions in memory, nothing secret.
#[derive(Debug, Default)]
pub struct Fake {
    sessions: Mutex<BTreeMap<Sid, Held>>,
    count: AtomicU64,
}

#[derive(Clone, Debug)]
struct Held {
    pass: Pass,
    stored: Stored,
    over: Option<EndReason>,
    client: Client,
}

impl Held {
    fn live(pass: Pass, stored: Stored, client: Client) -> Self {
        Self { pass, stored, over: None, client }
    }

    fn is_live_of(&self, subject: &Subject) -> bool {
        self.over.is_none() && self.pass.subject.as_ref() == Some(subject)
    }
}

impl Fake {
    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Sid, Held>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One session for each text that names it.
    fn sid_of(text: &str) -> Sid {
        let hash = cloakroom_core::types::TokenHash::of(text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        Sid::from_bytes(bytes)
    }

    fn held(&self, text: &str, via: Via) -> Result<Held, Refusal> {
        let sid = Self::sid_of(text);
        let mut sessions = self.sessions();
        let held = match sessions.get(&sid) {
            Some(held) => held.clone(),
            None => {
                let pass = pass_of(sid, text).ok_or(Refusal::TokenInvalid)?;
                let held = Held::live(pass, Stored::default(), Client::default());
                sessions.insert(sid, held.clone());
                held
            }
        };
        match held.over {
            Some(reason) => Err(Refusal::SessionEnded(reason)),
            None => Ok(Held { pass: Pass { via, ..held.pass }, ..held }),
        }
    }

    fn change<T>(
        &self,
        sid: Sid,
        change: impl FnOnce(&mut Held) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut sessions = self.sessions();
        let held = sessions.get_mut(&sid).ok_or(Refusal::NotFound)?;
        match held.over {
            Some(reason) => Err(Refusal::SessionEnded(reason)),
            None => change(held),
        }
    }

    fn open_now(&self, opening: Opening) -> Result<(Pass, Issued), Refusal> {
        let mut data = opening.data;
        if let Some(old) = opening.replaces {
            let old = self.held(old.expose(), Via::Cookie)?;
            self.end_now(old.pass.sid, EndReason::Replaced);
            for (key, value) in old.stored.data {
                data.entry(key).or_insert(value);
            }
        }
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let subject = opening.subject.as_ref().map(Subject::as_str);
        let text = json!({"sub": subject, "claims": opening.claims, "n": n}).to_string();
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
        let sid = Self::sid_of(&token);
        let pass = pass_of(sid, &token).ok_or(Refusal::TokenInvalid)?;
        let stored = Stored { data, version: 1 };
        let held = Held::live(pass.clone(), stored, opening.client);
        self.sessions().insert(sid, held);
        Ok((pass, issued(token, opening.delivery)))
    }

    fn end_now(&self, sid: Sid, reason: EndReason) {
        if let Some(held) = self.sessions().get_mut(&sid) {
            held.over.get_or_insert(reason);
        }
    }
}

fn issued(token: String, delivery: Delivery) -> Issued {
    let access = match delivery {
        Delivery::Cookie => None,
        Delivery::Bearer | Delivery::Split => Some((Secret::new(token.clone()), ACCESS_TTL_SECS)),
    };
    Issued { token: Secret::new(token), access, refresh_expires_in: None }
}

fn pass_of(sid: Sid, text: &str) -> Option<Pass> {
    let json = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
    let told: Value = serde_json::from_slice(&json).ok()?;
    let subject = match told.get("sub")?.as_str() {
        Some(subject) => Some(Subject::parse(subject).ok()?),
        None => None,
    };
    Some(Pass {
        sid,
        subject,
        claims: told.get("claims")?.as_object()?.clone(),
        auth_time: now(),
        amr: vec!["pwd".to_owned()],
        acr: "aal1".to_owned(),
        actor: told.get("act").and_then(Value::as_str).map(str::to_owned),
        via: Via::Cookie,
        csrf_key: Some(Secret::new(CSRF_KEY)),
    })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(0))
}

fn ready<'a, T: Send + 'a>(result: Result<T, Refusal>) -> Answer<'a, T> {
    Box::pin(std::future::ready(result.map_err(Into::into)))
}

impl Guard for Fake {
    fn verify<'a>(&'a self, credential: Presented<'a>) -> Answer<'a, Arc<Pass>> {
        let held = match credential {
            Presented::Cookie(text) => self.held(text, Via::Cookie),
            Presented::Access(text) => self.held(text, Via::Access),
        };
        ready(held.map(|held| Arc::new(held.pass)))
    }

    fn open(&self, opening: Opening) -> Answer<'_, (Pass, Issued)> {
        ready(self.open_now(opening))
    }

    fn refresh<'a>(&'a self, token: &'a str, _: Client) -> Answer<'a, Issued> {
        let held = self.held(token, Via::Access);
        ready(held.map(|_| issued(token.to_owned(), Delivery::Bearer)))
    }

    fn end(&self, sid: Sid, _: Client) -> Answer<'_, ()> {
        self.end_now(sid, EndReason::SignedOut);
        ready(Ok(()))
    }

    fn end_subject<'a>(&'a self, subject: &'a Subject, _: Client) -> Answer<'a, usize> {
        let mut ended = 0;
        for held in self.sessions().values_mut() {
            if held.is_live_of(subject) {
                held.over = Some(EndReason::SignedOutEverywhere);
                ended += 1;
            }
        }
        ready(Ok(ended))
    }

    fn devices<'a>(&'a self, subject: &'a Subject) -> Answer<'a, Vec<Device>> {
        let sessions = self.sessions();
        let own = sessions.values().filter(|held| held.is_live_of(subject));
        let devices = own.map(|held| Device {
            sid: held.pass.sid,
            created_at: held.pass.auth_time,
            last_seen_at: held.pass.auth_time,
            client: held.client.clone(),
        });
        ready(Ok(devices.collect()))
    }

    fn end_device<'a>(&'a self, subject: &'a Subject, sid: Sid, _: Client) -> Answer<'a, ()> {
        let own = |held: &Held| held.pass.subject.as_ref() == Some(subject);
        if !self.sessions().get(&sid).is_some_and(own) {
            return ready(Err(Refusal::NotFound));
        }
        self.end_now(sid, EndReason::SignedOutElsewhere);
        ready(Ok(()))
    }

    fn data(&self, sid: Sid) -> Answer<'_, Stored> {
        ready(self.change(sid, |held| Ok(held.stored.clone())))
    }

    fn put_data(&self, sid: Sid, data: Object, version: u64) -> Answer<'_, ()> {
        ready(self.change(sid, |held| {
            if held.stored.version != version {
                return Err(Refusal::PreconditionFailed);
            }
            held.stored = Stored { data, version: version + 1 };
            Ok(())
        }))
    }

    fn handle(&self, handle: HandleHash) -> Answer<'_, Stored> {
        self.data(handle_sid(handle))
    }

    fn put_handle(&self, handle: HandleHash, data: Object, _: Duration) -> Answer<'_, ()> {
        let sid = handle_sid(handle);
        let mut sessions = self.sessions();
        if let Some(Held { over: Some(reason), .. }) = sessions.get(&sid) {
            return ready(Err(Refusal::SessionEnded(*reason)));
        }
        let nobody = json!({"sub": null, "claims": {}}).to_string();
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(nobody));
        let Some(pass) = pass_of(sid, &text) else { return ready(Err(Refusal::TokenInvalid)) };
        let stored = Stored { data, version: 1 };
        sessions.insert(sid, Held::live(pass, stored, Client::default()));
        ready(Ok(()))
    }

    fn end_handle(&self, handle: HandleHash) -> Answer<'_, ()> {
        self.end_now(handle_sid(handle), EndReason::SignedOut);
        ready(Ok(()))
    }

    fn now(&self) -> Timestamp {
        now()
    }

    fn random(&self) -> [u8; 16] {
        u128::from(self.count.fetch_add(1, Ordering::Relaxed)).to_be_bytes()
    }
}

fn handle_sid(handle: HandleHash) -> Sid {
    let mut entropy = [0; 8];
    entropy.copy_from_slice(&handle[..8]);
    Sid::new(Timestamp::EPOCH, Partition::ZERO, entropy)
}
