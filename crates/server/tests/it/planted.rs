//! Faults put into a store by hand, one of each kind.

use std::path::Path;

use cloakroom_core::event::FeedEntry;
use cloakroom_core::session::{EndReason, Ending, Lifecycle, Session};
use cloakroom_core::subject::SubjectState;
use cloakroom_core::types::{Partition, Secret, Sid, Subject, Timestamp};
use cloakroom_embedded::{Embedded, Options};
use cloakroom_postgres::{PostgresSettings, PostgresStore};
use cloakroom_redis::{RedisSettings, RedisStore};
use cloakroom_store::record::{DeniedToken, HandlePointer};
use cloakroom_store::{Batch, Commit, Key, Record, Review, Store, Version};

use crate::servers::Server;

/// Whose sessions are broken.
pub struct Plan {
    pub subject: Subject,
    pub sids: Vec<String>,
}

impl Plan {
    /// Breaks a store that no node has open; names of the faults to be found.
    pub async fn plant(
        &self,
        server: Option<&Server>,
        settings: &[(&str, String)],
        data: &Path,
    ) -> Vec<String> {
        let mut expected = self.names();
        match server {
            Some(Server::Redis(process)) => {
                self.break_it(&redis(settings).await).await;
                // Filed for nothing: only by going around the store.
                let partition = self.partition();
                let namespace = value(settings, "store.namespace");
                let due = format!("{{{namespace}:{partition}}}:due");
                let filed = process.cli(&["ZRANGE", &due, "0", "-1"]);
                let one = filed.lines().find(|line| line.contains(&self.sids[0]));
                let stray = Sid::new(Timestamp::EPOCH, partition, [9; 8]).to_string();
                let member = one.expect("it is filed").replace(&self.sids[0], &stray);
                assert_eq!(process.cli(&["ZADD", &due, "1", &member]), "1");
                expected.push("filed_without_record".to_owned());
            }
            Some(Server::Postgres(_)) => self.break_it(&postgres(settings).await).await,
            None => self.break_it(&embedded(data)).await,
        }
        expected
    }

    /// Puts a session in whose subject nobody knows.
    pub async fn plant_a_stranger(
        &self,
        server: Option<&Server>,
        settings: &[(&str, String)],
        data: &Path,
    ) {
        match server {
            Some(Server::Redis(_)) => self.estrange(&redis(settings).await).await,
            Some(Server::Postgres(_)) => self.estrange(&postgres(settings).await).await,
            None => self.estrange(&embedded(data)).await,
        }
    }

    fn names(&self) -> Vec<String> {
        let names = [
            "index_without_session",
            "session_without_index",
            "data_without_session",
            "handle_without_session",
            "session_not_filed",
            "opening_without_event",
            "opening_without_event",
            "ending_without_event",
            "ending_without_feed_entry",
            "ending_without_feed_entry",
            "ending_without_feed_entry",
        ];
        names.map(str::to_owned).to_vec()
    }

    fn partition(&self) -> Partition {
        self.sid(0).partition()
    }

    fn sid(&self, number: usize) -> Sid {
        self.sids[number].parse().expect("a sid")
    }

    async fn break_it<S: Store>(&self, store: &S) {
        let partition = self.partition();
        let now = store.now().await.expect("a clock");
        let stray = |number| Sid::new(now, partition, [number; 8]);
        let (index, second) = (Key::Index(self.subject.clone()), Key::Session(self.sid(1)));
        let keys = [index.clone(), second.clone()];
        let loaded = store.load(partition, &keys).await.expect("loaded");
        let [Some(listed), Some(live)] = loaded.as_slice() else { panic!("they are there") };
        let mut sids = listed.record.as_index().expect("a list").clone();
        // The first isn't listed any more, one that nobody knows is, and so is a new one.
        sids.retain(|sid| *sid != self.sid(0));
        sids.extend([stray(1), stray(4)]);
        let mut batch = Batch::default();
        batch.put(index, listed.version, Record::Index(sids), Review::Never);
        // Nobody would ever clean up the second.
        batch.put(second, live.version, live.record.clone(), Review::Never);
        let data = Record::Data(cloakroom_core::session::Object::new());
        batch.put(Key::Data(stray(2)), Version::ZERO, data, Review::Never);
        let pointer = HandlePointer { sid: stray(3), at: Timestamp::EPOCH, until: None };
        batch.put(Key::Handle([3; 32]), Version::ZERO, Record::Handle(pointer), Review::Never);
        // Two of which the log knows nothing, one of them ended.
        let Record::Session(session) = &live.record else { panic!("a session") };
        let fresh = |sid| Session { sid, created_at: now, ..(**session).clone() };
        let opened = fresh(stray(4));
        let ending = Ending { at: now, reason: EndReason::SignedOut, successor: None };
        let over = Session { lifecycle: Lifecycle::Ended(ending), ..fresh(stray(5)) };
        for session in [opened, over] {
            let key = Key::Session(session.sid);
            let record = Record::Session(Box::new(session));
            batch.put(key, Version::ZERO, record, Review::At(now));
        }
        // Nobody who follows was told of it, nor of these.
        let until = now.plus(std::time::Duration::from_secs(300));
        let denied = Record::DeniedToken(DeniedToken { until });
        let key = Key::DeniedToken("planted".into());
        batch.put_until(key, Version::ZERO, denied, Review::At(until), Some(until));
        let other = Subject::parse("signed-out-elsewhere").expect("a subject");
        let mut state = SubjectState::new(other.clone());
        state.raise(EndReason::SignedOut, now);
        batch.put(Key::Subject(other), Version::ZERO, Record::Subject(state), Review::Never);
        batch.feed(FeedEntry::RecordChanged);
        commit(store, partition, batch).await;
    }

    async fn estrange<S: Store>(&self, store: &S) {
        let partition = self.partition();
        let loaded = store.load(partition, &[Key::Session(self.sid(2))]).await.expect("loaded");
        let Some(Record::Session(session)) = loaded[0].as_ref().map(|found| &found.record) else {
            panic!("it is there");
        };
        let sid = Sid::new(store.now().await.expect("a clock"), partition, [6; 8]);
        let subject = Some(Subject::parse("nobody-knows").expect("a subject"));
        let session = Session { sid, subject, ..(**session).clone() };
        let mut batch = Batch::default();
        let review = Review::At(session.expires_at);
        let record = Record::Session(Box::new(session));
        batch.put(Key::Session(sid), Version::ZERO, record, review);
        commit(store, partition, batch).await;
    }
}

/// Makes a whole store on disk what a copy would have left that was killed before its end.
pub async fn halve(data: &Path) {
    let store = embedded(data);
    let keys = [Key::StoreKey, Key::Settings];
    let found = store.load(Partition::ZERO, &keys).await.expect("loaded");
    let mut batch = Batch::default();
    for (key, found) in keys.into_iter().zip(found) {
        batch.delete(key, found.expect("a whole store").version);
    }
    commit(&store, Partition::ZERO, batch).await;
}

async fn commit<S: Store>(store: &S, partition: Partition, batch: Batch) {
    let committed = store.commit(partition, batch).await.expect("committed");
    assert!(matches!(committed, Commit::Done(_)), "{committed:?}");
}

fn value<'a>(settings: &'a [(&str, String)], wanted: &str) -> &'a str {
    let found = settings.iter().find(|(key, _)| *key == wanted);
    found.map(|(_, value)| value.as_str()).expect("a setting")
}

async fn redis(settings: &[(&str, String)]) -> RedisStore {
    let settings = RedisSettings {
        url: Secret::new(value(settings, "store.url").to_owned()),
        namespace: value(settings, "store.namespace").to_owned(),
        partitions: 4,
        timeout: std::time::Duration::from_secs(5),
        pool: 4,
        tls: cloakroom_redis::TlsFiles::default(),
        replica_wait: std::time::Duration::ZERO,
    };
    RedisStore::connect(&settings).await.expect("a store")
}

async fn postgres(settings: &[(&str, String)]) -> PostgresStore {
    let settings = PostgresSettings {
        url: Secret::new(value(settings, "store.url").to_owned()),
        schema: value(settings, "store.namespace").to_owned(),
        partitions: 4,
        timeout: std::time::Duration::from_secs(5),
        pool: 4,
        tls: cloakroom_postgres::TlsFiles::default(),
        migrate: true,
    };
    PostgresStore::connect(&settings).await.expect("a store")
}

fn embedded(data: &Path) -> Embedded {
    Embedded::open(&data.join("store"), Options::default()).expect("a store")
}
