//! An authority over the memory store, with a clock moved by hand and entropy that repeats.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::core::event::{Actor, EventKind};
use cloakroom::core::keys::{Algorithm, Hs256Secret};
use cloakroom::core::password::PasswordRules;
use cloakroom::core::rate::Quota;
use cloakroom::core::refresh::{Channel, RefreshRules};
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Client, Delivery, EndReason, Grant, Object, SessionRules};
use cloakroom::core::store_key::MasterKey;
use cloakroom::core::types::{Subject, Timestamp};
use cloakroom::store::memory::MemoryStore;
use cloakroom::{
    Authority, Clock, Context, Credential, Entropy, Error, EventFilter, LoginLimits, OnLimit,
    OpenRequest, Opened, Settings, StoreSecret, Verified, VerifySettings,
};

pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);
pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that stands until it is moved. Sleeping yields once, so that retries go on.
#[derive(Debug)]
pub struct HandClock(AtomicI64);

impl HandClock {
    pub fn advance(&self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).expect("a span");
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets it back, as an operator or a bad time server does.
    pub fn set_back(&self, span: Duration) {
        let ms = i64::try_from(span.as_millis()).expect("a span");
        self.0.fetch_sub(ms, Ordering::SeqCst);
    }

    /// Another clock that is ahead of this one by as much as it stays.
    pub fn ahead_by(&self, span: Duration) -> Self {
        let ms = i64::try_from(span.as_millis()).expect("a span");
        Self(AtomicI64::new(self.0.load(Ordering::SeqCst) + ms))
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        // A deadline never passes here; a pause is over at once.
        if span >= SECOND {
            Box::pin(std::future::pending())
        } else {
            Box::pin(tokio::task::yield_now())
        }
    }
}

/// A counter spread over the bytes: different every time, the same every run.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            let mixed = (n ^ 0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
            *byte = (mixed ^ (mixed >> 33)).to_le_bytes()[3];
        }
    }
}

pub struct World {
    pub authority: Arc<Authority<MemoryStore>>,
    pub clock: Arc<HandClock>,
}

pub fn settings() -> Settings {
    let quota = |count, window| Quota::new(count, window).expect("a quota");
    Settings {
        issuer: "https://app.example".into(),
        audience: vec!["cloakroom".into()],
        algorithm: Algorithm::Hs256,
        hs256_secret: Some(
            Hs256Secret::parse("r7Zk2mQv9xLb4TgW1nHy6CdUe8PsJf3A").expect("a secret"),
        ),
        access_ttl: Duration::from_secs(900),
        extra_claims: Default::default(),
        key_rotation: 30 * DAY,
        gateway_audience: "upstream".into(),
        gateway_ttl: Duration::from_secs(60),
        refresh: RefreshRules { grace: Duration::from_secs(30), retry_window: DAY },
        session: SessionRules {
            idle: DAY,
            idle_remember: 14 * DAY,
            idle_anonymous: HOUR,
            absolute: 7 * DAY,
            absolute_remember: 30 * DAY,
            refresh_ttl: 7 * DAY,
            aal_caps: vec![("aal2".into(), HOUR, DAY)],
        },
        max_per_subject: 5,
        on_limit: OnLimit::EndOldest,
        max_data: 16 * 1024,
        max_claims: 4 * 1024,
        keep_ended: DAY,
        events_keep: 30 * DAY,
        verify: VerifySettings {
            cache: true,
            max_staleness: None,
            outage_grace: Duration::ZERO,
            capacity: 10_000,
        },
        login_limits: LoginLimits {
            login: quota(5, Duration::from_secs(900)),
            identifier: quota(100, HOUR),
            network: quota(50, Duration::from_secs(900)),
        },
        password: PasswordRules::new(15, 256).expect("rules"),
        // As cheap as the library takes: these tests count hashes, they don't need strong ones.
        argon2: (8, 1, 1),
        password_pool: 2,
        store_timeout: 2 * SECOND,
    }
}

pub fn ctx() -> Context {
    Context {
        actor: Actor::System,
        client: Client {
            ip: Some([203, 0, 113, 9].into()),
            user_agent: Some("Test/1".into()),
            label: None,
        },
        request_id: Some("req-1".into()),
    }
}

pub fn ada() -> Subject {
    Subject::parse("usr_ada").expect("a subject")
}

pub fn grant(delivery: Delivery) -> Grant {
    Grant {
        subject: Some(ada()),
        delivery,
        remember: false,
        claims: Object::new(),
        amr: vec!["pwd".into()],
        acr: "aal1".into(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client: ctx().client,
    }
}

pub fn request(grant: Grant) -> OpenRequest {
    OpenRequest::new(grant)
}

impl World {
    pub async fn new() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(START.as_millis())));
        let store_clock = Arc::clone(&clock);
        let store = MemoryStore::new(4, move || store_clock.now());
        let secret = StoreSecret { master: MasterKey::from_bytes([7; 32]), previous: None };
        let entropy = Arc::new(Counter::default());
        let authority =
            Authority::open(store, settings, secret, clock.clone() as Arc<dyn Clock>, entropy);
        Self { authority: Arc::new(authority.await.expect("an authority")), clock }
    }

    pub fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    pub async fn open(&self, delivery: Delivery) -> Opened {
        self.open_as(grant(delivery)).await
    }

    pub async fn open_as(&self, grant: Grant) -> Opened {
        self.authority.open_session(request(grant), &ctx()).await.expect("a session")
    }

    pub async fn refresh(&self, token: &str) -> Result<Opened, Error> {
        self.authority.refresh(token, Channel::Body, None, &ctx()).await
    }

    pub async fn verify(&self, opened: &Opened) -> Result<Verified, Error> {
        let text = opened.token.expose();
        let credential = match opened.session.delivery {
            Delivery::Cookie => Credential::Cookie(text),
            Delivery::Bearer | Delivery::Split => Credential::Refresh(text),
        };
        self.authority.verify(credential).await
    }

    pub async fn verify_access(&self, opened: &Opened) -> Result<Verified, Error> {
        let access = opened.access.as_ref().expect("an access token");
        self.authority.verify(Credential::Access(access.token.expose())).await
    }

    pub async fn events(&self) -> Vec<(EventKind, Option<String>)> {
        let filter = EventFilter { limit: 200, ..EventFilter::default() };
        let page = self.authority.events(filter).await.expect("events");
        page.events.into_iter().map(|view| (view.event.kind, view.event.reason)).collect()
    }

    pub async fn count_events(&self, kind: EventKind) -> usize {
        self.events().await.iter().filter(|(known, _)| *known == kind).count()
    }
}

/// The refusal that an operation came to.
pub fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Why the session that an operation needs is over.
pub fn ended<T: std::fmt::Debug>(result: Result<T, Error>) -> EndReason {
    match refusal(result) {
        Refusal::SessionEnded(reason) => reason,
        other => panic!("not ended: {other:?}"),
    }
}

/// Runs several futures made by `make` on their own tasks, started together.
pub async fn together<T: Send + 'static, F>(count: usize, make: impl Fn(usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(tokio::sync::Barrier::new(count));
    let results = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..count)
        .map(|n| {
            let (barrier, results, work) = (Arc::clone(&barrier), Arc::clone(&results), make(n));
            tokio::spawn(async move {
                barrier.wait().await;
                let result = work.await;
                results.lock().expect("results").push(result);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
    std::mem::take(&mut *results.lock().expect("results"))
}
