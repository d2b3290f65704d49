//! Stores of a given size, filled through the store itself in large batches.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloakroom::Authority;
use cloakroom_core::session::{Delivery, Epochs, Session, SessionRules};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use cloakroom_store::{Batch, Commit, Key, Record, Review, Store, Version};

use crate::random::Random;
use crate::setting::{self, Engine};
use crate::{Outcome, server};

/// Sessions of each subject.
pub const PER_SUBJECT: usize = 5;
/// Subjects of one commit.
const SUBJECTS_AT_ONCE: usize = 100;
/// Commits under way at once.
const COMMITS_AT_ONCE: usize = 8;
/// A store is at rest when its size stays the same over so many looks.
const QUIET_LOOKS: usize = 6;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Makes a data directory, as `cloakroom serve` takes it, with `sessions` live sessions.
pub async fn data_directory(folder: &Path, sessions: usize) -> Outcome<()> {
    std::fs::create_dir_all(folder)?;
    let master = cloakroom_core::store_key::MasterKey::from_bytes(setting::MASTER_KEY);
    server::write_secret(&folder.join("master.key"), master.encode().expose())?;
    let engine = setting::open(&folder.join("store"), true).await?;
    let now = engine.now();
    plant(&engine, "user", sessions / PER_SUBJECT, PER_SUBJECT, now).await?;
    settle(&engine).await
}

/// Waits until the store has put in order, in the background, what was filled in so fast.
async fn settle(engine: &Engine) -> Outcome<()> {
    let (started, mut size) = (Instant::now(), 0);
    let mut quiet = 0;
    while quiet < QUIET_LOOKS && started.elapsed() < SETTLE_MAX {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = engine.store().size_on_disk()?;
        quiet = if now == size { quiet + 1 } else { 0 };
        size = now;
    }
    Ok(())
}

/// Opens `each` sessions for each of `subjects` new subjects, at `now`, without an event.
pub async fn plant<S: Store>(
    engine: &Arc<Authority<S>>,
    prefix: &str,
    subjects: usize,
    each: usize,
    now: Timestamp,
) -> Outcome<()> {
    let mut homes = vec![Vec::new(); usize::from(engine.store().partitions())];
    for number in 0..subjects {
        let subject = Subject::parse(&format!("{prefix}{number}"))?;
        let home = engine.keys().partition_of(&subject, engine.store().partitions());
        homes[usize::from(home.0)].push(subject);
    }
    let mut random = Random::new(now.as_millis().unsigned_abs(), 0);
    let mut under_way = Vec::new();
    for (partition, subjects) in (0..).map(Partition).zip(homes) {
        for subjects in subjects.chunks(SUBJECTS_AT_ONCE) {
            let batch = batch_of(subjects, each, partition, now, &mut random)?;
            let engine = Arc::clone(engine);
            under_way.push(tokio::spawn(async move { commit(&engine, partition, batch).await }));
            if under_way.len() >= COMMITS_AT_ONCE {
                for commit in under_way.drain(..) {
                    commit.await??;
                }
            }
        }
    }
    for commit in under_way {
        commit.await??;
    }
    Ok(())
}

async fn commit<S: Store>(
    engine: &Authority<S>,
    partition: Partition,
    batch: Batch,
) -> Outcome<()> {
    match engine.store().commit(partition, batch).await? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict(key) => Err(format!("{key} is there already").into()),
    }
}

fn batch_of(
    subjects: &[Subject],
    each: usize,
    partition: Partition,
    now: Timestamp,
    random: &mut Random,
) -> Outcome<Batch> {
    let rules = rules();
    let mut batch = Batch::default();
    for subject in subjects {
        let mut sids = Vec::new();
        for _ in 0..each {
            let sid = Sid::new(now, partition, random.draw().to_be_bytes());
            let grant = setting::grant(subject.as_str(), Delivery::Cookie)?;
            let secret = Secret::new([u8::try_from(random.below(256)).unwrap_or(0); 32]);
            let (session, _) = Session::open(grant, &rules, sid, Epochs::default(), now, secret);
            let review = Review::At(session.refused_from());
            let record = Record::Session(Box::new(session));
            batch.put(Key::Session(sid), Version::ZERO, record, review);
            sids.push(sid);
        }
        let state = Record::Subject(SubjectState::new(subject.clone()));
        batch.put(Key::Subject(subject.clone()), Version::ZERO, state, Review::Never);
        let index = Key::Index(subject.clone());
        batch.put(index, Version::ZERO, Record::Index(sids), Review::Never);
    }
    Ok(batch)
}

fn rules() -> SessionRules {
    let day = Duration::from_secs(24 * 3600);
    SessionRules {
        idle: day,
        idle_remember: day,
        idle_anonymous: day,
        absolute: 7 * day,
        absolute_remember: 7 * day,
        refresh_ttl: day,
        aal_caps: Vec::new(),
    }
}
