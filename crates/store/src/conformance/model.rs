//! Whatever is done to it in whatever order, a store answers as the reference model does.

use super::samples::audit;
use super::*;
use crate::{Change, MemoryStore, Write};

const SEEDS: u64 = 3;
const STEPS: u64 = 120;
const KEYS: u64 = 7;

/// Random commits to a few records; after each, all that can be read is compared.
pub async fn a_store_behaves_like_its_model<H: Harness>(harness: &H) {
    for seed in 0..SEEDS {
        let model = MemoryStore::new(4, || Timestamp::from_secs(1));
        let mut pair = Pair {
            store: harness.fresh().await,
            model,
            ticks: vec![(Tick::ZERO, Tick::ZERO)],
            chance: Chance(seed),
        };
        for step in 0..STEPS {
            pair.commit(step).await;
            if pair.chance.one_in(20) {
                pair.trim().await;
            }
            pair.compare().await;
        }
    }
}

/// A store and the model, to which the same was done.
struct Pair<S> {
    store: S,
    model: MemoryStore,
    /// Each commit's ticks, the store's and the model's: versions are compared by them.
    ticks: Vec<(Tick, Tick)>,
    chance: Chance,
}

/// SplitMix64: not to be predicted by a store, and the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// A number that indexes something of this length.
    fn index(&mut self, length: usize) -> usize {
        let bound = u64::try_from(length).expect("a length");
        usize::try_from(self.below(bound)).expect("below a length")
    }
}

impl<S: Store> Pair<S> {
    /// Commits the same to both.
    async fn commit(&mut self, step: u64) {
        let (ours, theirs) = self.draw_batch(step).await;
        let expected = self.model.commit(HERE, theirs.clone()).await.expect("a commit");
        let answer = self.store.commit(HERE, ours).await.expect("a commit");
        match (answer, expected) {
            (Commit::Done(ours), Commit::Done(theirs)) => {
                assert!(Some(ours.tick) > self.ticks.last().map(|last| last.0));
                self.ticks.push((ours.tick, theirs.tick));
            }
            (Commit::Conflict(named), Commit::Conflict(_)) => {
                let reads = theirs.reads.iter().map(|(key, version)| (key, *version));
                let writes = theirs.writes.iter().map(|write| (&write.key, write.expected));
                let expected = reads.chain(writes).find(|(key, _)| **key == named);
                let (key, expected) = expected.expect("a key of the batch");
                assert_ne!(version(&self.model, key).await, expected, "{named} hasn't moved");
            }
            (answer, expected) => panic!("{answer:?} where the model says {expected:?}"),
        }
    }

    /// A batch for the store, and the same for the model.
    async fn draw_batch(&mut self, step: u64) -> (Batch, Batch) {
        let (mut ours, mut theirs) = (Batch::default(), Batch::default());
        let first = self.chance.below(KEYS);
        for offset in 0..self.chance.below(4) {
            let key = key((first + offset) % KEYS);
            let (expected, of_model) = self.draw_version(&key).await;
            if self.chance.one_in(4) {
                ours.expect(key.clone(), expected);
                theirs.expect(key, of_model);
                continue;
            }
            let change = self.draw_change(step);
            theirs.writes.push(Write {
                key: key.clone(),
                expected: of_model,
                change: change.clone(),
            });
            ours.writes.push(Write { key, expected, change });
        }
        let logged = self.chance.below(3);
        ours.entries = (0..logged).map(|number| audit(&format!("{step}-{number}"))).collect();
        // Followers must be told something of each step, or an empty batch would be a step.
        ours.entries.push(Entry::Feed(FeedEntry::RecordChanged));
        theirs.entries.clone_from(&ours.entries);
        (ours, theirs)
    }

    /// Mostly the version that is there, sometimes any other that ever was.
    async fn draw_version(&mut self, key: &Key) -> (Version, Version) {
        let right = version(&self.model, key).await;
        let chosen = if self.chance.one_in(8) {
            self.ticks[self.chance.index(self.ticks.len())]
        } else {
            *self.ticks.iter().find(|(_, tick)| *tick == right).expect("a commit's tick")
        };
        (chosen.0, chosen.1)
    }

    fn draw_change(&mut self, step: u64) -> Change {
        if self.chance.one_in(4) {
            return Change::Delete;
        }
        let review = match self.chance.below(4) {
            0 | 1 => Review::Keep,
            2 => Review::Never,
            _ => Review::At(Timestamp::from_secs(i64::try_from(step).expect("a few steps"))),
        };
        let expires_at = match self.chance.below(6) {
            0 => Some(Timestamp::EPOCH),
            1 => Some(Timestamp::MAX),
            _ => None,
        };
        Change::Put { record: Box::new(Record::Throttle(step)), review, expires_at }
    }

    async fn trim(&mut self) {
        let (log, limit) = (Log::Audit, self.chance.index(5));
        let ours = self.store.trim(HERE, log, Timestamp::MAX, limit).await.expect("trims");
        let theirs = self.model.trim(HERE, log, Timestamp::MAX, limit).await.expect("trims");
        assert_eq!(ours, theirs);
    }

    async fn compare(&mut self) {
        let keys: Vec<Key> = (0..KEYS).map(key).collect();
        let ours = self.store.load(HERE, &keys).await.expect("a load");
        let theirs = self.model.load(HERE, &keys).await.expect("a load");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours.as_ref().map(count_of), theirs.as_ref().map(count_of));
            let (ours, theirs) = (ours.as_ref().map(|f| f.version), theirs.as_ref());
            assert_eq!(ours.map(|tick| self.of_model(tick)), theirs.map(|f| f.version));
        }
        self.compare_due().await;
        self.compare_pages().await;
        for log in [Log::Feed, Log::Audit] {
            self.compare_log(log).await;
        }
    }

    /// The model's tick of a commit of the store.
    fn of_model(&self, tick: Tick) -> Tick {
        let known = self.ticks.iter().find(|(ours, _)| *ours == tick);
        known.expect("a commit's tick").1
    }

    async fn compare_due(&mut self) {
        let before = Timestamp::from_secs(i64::try_from(self.chance.below(STEPS)).expect("small"));
        let limit = 1 + self.chance.index(5);
        let ours = self.store.due(HERE, before, limit).await.expect("what is due");
        let theirs = self.model.due(HERE, before, limit).await.expect("what is due");
        // Which of those filed at one instant comes first is not defined.
        assert_eq!(ours.len(), theirs.len(), "{ours:?} where the model says {theirs:?}");
        let (mut ours, mut theirs) = (all_due(&self.store).await, all_due(&self.model).await);
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs);
    }

    async fn compare_pages(&mut self) {
        let kind = Kind::Throttle;
        let ours = self.store.page(HERE, kind, None, 100).await.expect("a page");
        let theirs = self.model.page(HERE, kind, None, 100).await.expect("a page");
        let keys = |page: &[(Key, Versioned)]| {
            let mut keys: Vec<_> = page.iter().map(|(key, _)| key.clone()).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&ours), keys(&theirs));
        let (after, limit) = (key(self.chance.below(KEYS)), 1 + self.chance.index(3));
        let rest = self.store.page(HERE, kind, Some(&after), limit).await.expect("a page");
        let place = ours.iter().position(|(key, _)| *key == after);
        if let Some(place) = place {
            let expected: Vec<_> = ours[place + 1..].iter().take(limit).map(|(k, _)| k).collect();
            assert_eq!(rest.iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
        }
    }

    async fn compare_log(&mut self, log: Log) {
        let (from, of_model) = self.ticks[self.chance.index(self.ticks.len())];
        let limit = 1 + self.chance.index(6);
        let ours = self.store.log(HERE, log, from, limit).await.expect("a log");
        let theirs = self.model.log(HERE, log, of_model, limit).await.expect("a log");
        assert_eq!(self.translated(ours), theirs);
        let ours = self.store.log_back(HERE, log, from, limit).await.expect("a log");
        let theirs = self.model.log_back(HERE, log, of_model, limit).await.expect("a log");
        assert_eq!(self.translated(ours), theirs);
    }

    fn translated(&self, page: Vec<Logged>) -> Vec<Logged> {
        let translate = |logged: Logged| Logged { cursor: self.of_model(logged.cursor), ..logged };
        page.into_iter().map(translate).collect()
    }
}

fn key(number: u64) -> Key {
    counter(u8::try_from(number).expect("a few keys"))
}
