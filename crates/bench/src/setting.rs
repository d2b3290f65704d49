//! An authority in this process, over the embedded store, with the settings that an operator who
//! decides nothing gets.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::{
    Authority, Context, LoginLimits, OnLimit, OpenRequest, Opened, Settings, StoreSecret,
    SystemClock, SystemEntropy, VerifySettings,
};
use cloakroom_core::keys::Algorithm;
use cloakroom_core::password::PasswordRules;
use cloakroom_core::rate::Quota;
use cloakroom_core::refresh::RefreshRules;
use cloakroom_core::session::{Client, Delivery, Grant, Object, SessionRules};
use cloakroom_core::store_key::MasterKey;
use cloakroom_core::token::access::ExtraClaims;
use cloakroom_core::types::Subject;
use cloakroom_embedded::{Embedded, Options};
use cloakroom_store::Store;

use crate::{Outcome, machine};

/// The master key of every store that a benchmark makes: there is nothing in them to protect.
pub const MASTER_KEY: [u8; 32] = [7; 32];

/// The engine over the embedded store.
pub type Engine = Authority<Embedded>;

/// Opens an authority over the store in `folder`.
pub async fn open(folder: &Path, cached: bool) -> Outcome<Arc<Engine>> {
    open_on(Embedded::open(folder, Options::default())?, cached, None).await
}

/// Opens an authority over a store; where others write to it as well, what is cached may be as
/// old as this.
pub async fn open_on<S: Store>(
    store: S,
    cached: bool,
    max_staleness: Option<Duration>,
) -> Outcome<Arc<Authority<S>>> {
    let secret = StoreSecret { master: MasterKey::from_bytes(MASTER_KEY), previous: None };
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy::new()));
    let mut settings = settings(cached)?;
    settings.verify.max_staleness = max_staleness;
    Ok(Arc::new(Authority::open(store, settings, secret, clock, entropy).await?))
}

fn settings(cached: bool) -> Outcome<Settings> {
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let day = 24 * hour;
    Ok(Settings {
        issuer: "http://localhost:7400".to_owned(),
        audience: vec!["cloakroom".to_owned()],
        algorithm: Algorithm::EdDsa,
        hs256_secret: None,
        access_ttl: 15 * minute,
        extra_claims: ExtraClaims::default(),
        key_rotation: 30 * day,
        gateway_audience: "upstream".to_owned(),
        gateway_ttl: minute,
        refresh: RefreshRules { grace: minute / 2, retry_window: day },
        session: SessionRules {
            idle: day,
            idle_remember: 14 * day,
            idle_anonymous: hour,
            absolute: 7 * day,
            absolute_remember: 30 * day,
            refresh_ttl: 7 * day,
            aal_caps: Vec::new(),
        },
        max_per_subject: 100,
        on_limit: OnLimit::EndOldest,
        max_data: 16 * 1024,
        max_claims: 4 * 1024,
        keep_ended: day,
        events_keep: 30 * day,
        verify: VerifySettings {
            cache: cached,
            max_staleness: None,
            outage_grace: Duration::ZERO,
            capacity: 100_000,
        },
        login_limits: LoginLimits {
            login: Quota::new(5, 15 * minute)?,
            identifier: Quota::new(100, hour)?,
            network: Quota::new(50, 15 * minute)?,
        },
        password: PasswordRules::new(15, 256)?,
        argon2: (19456, 2, 1),
        password_pool: 1,
        store_timeout: Duration::from_secs(2),
    })
}

/// What a backend grants a user of this number.
pub fn grant(subject: &str, delivery: Delivery) -> Outcome<Grant> {
    let mut claims = Object::new();
    claims.insert("email".to_owned(), format!("{subject}@example.com").into());
    claims.insert("role".to_owned(), "user".into());
    Ok(Grant {
        subject: Some(Subject::parse(subject)?),
        delivery,
        remember: false,
        claims,
        amr: vec!["pwd".to_owned()],
        acr: "aal1".to_owned(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client: Client {
            ip: Some([203, 0, 113, 9].into()),
            user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:141.0)".to_owned()),
            label: None,
        },
    })
}

/// Opens a session for a subject.
pub async fn open_one<S: Store>(
    engine: &Authority<S>,
    subject: &str,
    delivery: Delivery,
) -> Outcome<Opened> {
    let grant = grant(subject, delivery)?;
    let request = OpenRequest::new(grant);
    Ok(engine.open_session(request, &Context::system()).await?)
}

/// How fast calls were made.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Calls in a second.
    pub per_second: f64,
    /// Processor time of this process for a call, in microseconds.
    pub cpu_us: f64,
}

/// Runs `count` tasks at once until `span` is over; says how fast calls were made.
///
/// `call` gets the task's number and the number of the call within the task.
pub async fn at_once<F, T>(count: usize, span: Duration, call: F) -> Outcome<Pace>
where
    F: Fn(usize, usize) -> T + Clone + Send + Sync + 'static,
    T: Future<Output = Outcome<()>> + Send,
{
    let used_before = machine::cpu_time(std::process::id())?;
    let started = Instant::now();
    let tasks: Vec<_> = (0..count)
        .map(|task| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut made = 0;
                while started.elapsed() < span {
                    call(task, made).await?;
                    made += 1;
                }
                Outcome::Ok(made)
            })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += task.await??;
    }
    let made = made as f64;
    let per_second = made / started.elapsed().as_secs_f64();
    let used = machine::cpu_time(std::process::id())?.saturating_sub(used_before);
    Ok(Pace { per_second, cpu_us: used.as_secs_f64() * 1e6 / made })
}
