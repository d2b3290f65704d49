//! Passwords hashed and checked off the async threads: so many at once, and so many waiting.

mod stored;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use cloakroom_core::types::Secret;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::context::{Error, Unavailable};
use crate::figures::{Distribution, Histogram};

use stored::{OUTPUT_BYTES, SALT_BYTES, StoredHash, phc};

/// What may wait for each hash that runs; beyond, the answer is "overloaded" at once.
const WAITING_PER_RUNNING: usize = 8;
/// How long one waits for its turn at most.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What a password came to against a stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    /// It isn't the one, or there is none.
    Wrong,
    /// It is the one.
    Right,
    /// It is the one, and its hash is weaker than is configured now.
    RightButWeak,
}

/// How busy the pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordLoad {
    /// Hashes being made right now.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Hashes made since the start.
    pub hashed: u64,
}

/// How busy the pool is, and was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PasswordFigures {
    /// What it is doing.
    pub load: PasswordLoad,
    /// How many hashes may run at once.
    pub running_max: usize,
    /// How many requests may wait.
    pub waiting_max: usize,
    /// Requests that were turned away: too many waited, or one waited for too long.
    pub overloaded: u64,
    /// How long requests waited for their turn.
    pub waits: Distribution,
}

/// Hashes passwords by argon2id, in a bounded pool of its own.
#[derive(Debug)]
pub(crate) struct HashPool {
    params: Params,
    size: usize,
    /// Held by the work, not by the request: one that is given up on still counts until it ends.
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
    hashed: AtomicU64,
    overloaded: AtomicU64,
    waits: Histogram,
    /// What a password is checked against where no hash is stored: the same work, never right.
    stand_in: Arc<str>,
}

impl HashPool {
    /// A pool of `size` hashes at once by argon2id: memory in KiB, passes, lanes.
    pub(crate) fn new(size: usize, argon2: (u32, u32, u32)) -> Self {
        let (memory, passes, lanes) = argon2;
        // The configuration was checked; were it not, the recommended strength is never wrong.
        let params = Params::new(memory, passes, lanes, Some(OUTPUT_BYTES)).unwrap_or_default();
        let size = size.max(1);
        Self {
            stand_in: phc(&params, &[0; SALT_BYTES], &[0; OUTPUT_BYTES]).unwrap_or_default().into(),
            params,
            size,
            turns: Arc::new(Semaphore::new(size)),
            places: Arc::new(Semaphore::new(size.saturating_mul(WAITING_PER_RUNNING))),
            hashed: AtomicU64::new(0),
            overloaded: AtomicU64::new(0),
            waits: Histogram::default(),
        }
    }

    /// The PHC string of a normalised password.
    pub(crate) async fn hash(
        &self,
        password: Secret<String>,
        salt: [u8; SALT_BYTES],
    ) -> Result<String, Error> {
        let params = self.params.clone();
        let work = move || {
            let mut output = [0; OUTPUT_BYTES];
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
                .hash_password_into(password.expose().as_bytes(), &salt, &mut output)
                .ok()?;
            phc(&params, &salt, &output)
        };
        let made = self.work(work).await?;
        Ok(made.ok_or_else(|| Unavailable::Key("the password can't be hashed".into()))?)
    }

    /// Checks a normalised password against a stored hash, or does the same work without one.
    pub(crate) async fn verify(
        &self,
        password: Secret<String>,
        stored: Option<String>,
    ) -> Result<Checked, Error> {
        let stored = stored.as_deref().and_then(|text| self.usable(text));
        let genuine = stored.is_some();
        let weak = stored.as_ref().is_some_and(|stored| stored.is_weaker_than(&self.params));
        let (target, besides) = self.targets(stored)?;
        let work = move || {
            let matches = target.matches(&password);
            // Only the answer that it isn't the one must not tell by its time whose hash this is.
            if let Some(besides) = besides.filter(|_| !matches) {
                besides.matches(&password);
            }
            matches
        };
        let matches = self.work(work).await?;
        Ok(match (matches && genuine, weak) {
            (false, _) => Checked::Wrong,
            (true, false) => Checked::Right,
            (true, true) => Checked::RightButWeak,
        })
    }

    /// What to check a password against, and what besides: a hash that is cheaper than our own
    /// would say by its time that there is one.
    fn targets(
        &self,
        stored: Option<StoredHash>,
    ) -> Result<(StoredHash, Option<StoredHash>), Error> {
        let stand_in = self.usable(&self.stand_in);
        let stand_in = stand_in.ok_or_else(|| Unavailable::Key("argon2 can't be set up".into()))?;
        Ok(match stored {
            Some(stored) if stored.is_weaker_than(&self.params) => (stored, Some(stand_in)),
            Some(stored) => (stored, None),
            None => (stand_in, None),
        })
    }

    /// Whether a hash that comes from elsewhere could be checked here.
    pub(crate) fn accepts(&self, stored: &str) -> bool {
        self.usable(stored).is_some()
    }

    /// How busy it is.
    pub(crate) fn load(&self) -> PasswordLoad {
        let places = self.size.saturating_mul(WAITING_PER_RUNNING);
        PasswordLoad {
            running: self.size.saturating_sub(self.turns.available_permits()),
            waiting: places.saturating_sub(self.places.available_permits()),
            hashed: self.hashed.load(Ordering::Relaxed),
        }
    }

    /// How busy it is, and was.
    pub(crate) fn figures(&self) -> PasswordFigures {
        PasswordFigures {
            load: self.load(),
            running_max: self.size,
            waiting_max: self.size.saturating_mul(WAITING_PER_RUNNING),
            overloaded: self.overloaded.load(Ordering::Relaxed),
            waits: self.waits.read(),
        }
    }

    fn overloaded(&self) -> Error {
        self.overloaded.fetch_add(1, Ordering::Relaxed);
        Error::Overloaded
    }

    fn usable(&self, text: &str) -> Option<StoredHash> {
        StoredHash::parse(text, &self.params)
    }

    /// Runs `work` when it is its turn. Without a runtime (in a simulation) it runs right here.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let Ok(runtime) = Handle::try_current() else {
            self.hashed.fetch_add(1, Ordering::Relaxed);
            return Ok(work());
        };
        let place = self.places.try_acquire().map_err(|_| self.overloaded())?;
        let asked_at = tokio::time::Instant::now();
        let turn = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else { return Err(self.overloaded()) };
        self.waits.observe(asked_at.elapsed());
        drop(place);
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let running = runtime.spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        running
            .await
            .map_err(|_| Unavailable::Key("a password's hash was not finished".into()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEAK: (u32, u32, u32) = (8, 1, 1);

    fn password(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn j3_a_password_is_checked_to_its_last_byte() {
        let pool = HashPool::new(2, WEAK);
        let long = "x".repeat(256);
        let phc = pool.hash(password(&long), [7; 16]).await.expect("a hash");
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        let check = async |text: &str| pool.verify(password(text), Some(phc.clone())).await;
        assert_eq!(check(&long).await.ok(), Some(Checked::Right));
        for wrong in [format!("{}y", "x".repeat(255)), "x".repeat(255), format!("{long} ")] {
            assert_eq!(check(&wrong).await.ok(), Some(Checked::Wrong));
        }
    }

    #[tokio::test]
    async fn j1_without_a_hash_the_same_work_is_never_right() {
        let pool = HashPool::new(2, WEAK);
        for text in ["", "x"] {
            let checked = pool.verify(password(text), None).await;
            assert_eq!(checked.ok(), Some(Checked::Wrong));
        }
        assert_eq!(pool.load().hashed, 2);
    }

    #[tokio::test]
    async fn j2_a_cheaper_hash_costs_our_own_work_besides() {
        let pool = HashPool::new(1, (16, 2, 1));
        let costs_more = |stored: Option<&str>| {
            let stored = stored.map(|text| pool.usable(text).expect("a hash"));
            pool.targets(stored).expect("targets").1.is_some()
        };
        let own = pool.hash(password("pw"), [1; 16]).await.expect("a hash");
        let weak = HashPool::new(1, WEAK).hash(password("pw"), [1; 16]).await.expect("a hash");
        let django = "pbkdf2_sha256$1000$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        assert!(!costs_more(None));
        assert!(!costs_more(Some(&own)));
        assert!(costs_more(Some(&weak)));
        assert!(costs_more(Some(django)));
    }

    #[tokio::test]
    async fn j5_weak_hashes_are_told_and_absurd_ones_refused() {
        let weak = HashPool::new(1, WEAK).hash(password("pw"), [1; 16]).await.expect("a hash");
        let pool = HashPool::new(1, (16, 2, 1));
        let checked = pool.verify(password("pw"), Some(weak)).await;
        assert_eq!(checked.ok(), Some(Checked::RightButWeak));
        let hash = "$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
        for (params, taken) in [
            ("m=19456,t=2,p=1", true),
            ("m=4194304,t=1,p=1", false),
            ("m=64,t=1000000,p=1", false),
            ("m=262144,t=5,p=1", false),
            ("m=8192,t=1,p=1000", false),
            ("m=0,t=1,p=1", false),
        ] {
            let stored = format!("$argon2id$v=19${params}{hash}");
            assert_eq!(pool.accepts(&stored), taken, "{params}");
            if !taken {
                let checked = pool.verify(password("pw"), Some(stored)).await;
                assert_eq!(checked.ok(), Some(Checked::Wrong));
            }
        }
        for junk in ["", "plain", "$2y$10$abc", "$argon2id$v=19$m=8,t=1,p=1$"] {
            assert!(!pool.accepts(junk), "{junk}");
        }
    }

    #[tokio::test]
    async fn j7_what_waits_is_bounded_and_work_keeps_its_turn() {
        let pool = Arc::new(HashPool::new(1, (4096, 3, 1)));
        let hash = || {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.hash(password("pw"), [1; 16]).await })
        };
        let all: Vec<_> = (0..40).map(|_| hash()).collect();
        tokio::task::yield_now().await;
        let first = pool.load();
        assert_eq!((first.running, first.waiting), (1, 8));
        let mut overloaded = 0;
        for task in all {
            match task.await.expect("no panic") {
                Ok(_) => {}
                Err(Error::Overloaded) => overloaded += 1,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(overloaded, 40 - 9);
        let aborted = hash();
        tokio::task::yield_now().await;
        aborted.abort();
        assert!(aborted.await.is_err());
        // Nobody waits for it any more, but the hash that runs keeps its turn.
        assert_eq!(pool.load().running, 1);
    }

    #[test]
    fn without_a_runtime_it_works_right_here() {
        use std::future::Future as _;
        let pool = HashPool::new(1, WEAK);
        let mut hashing = Box::pin(pool.hash(password("pw"), [1; 16]));
        let mut ctx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(hashing.as_mut().poll(&mut ctx).is_ready());
    }
}
