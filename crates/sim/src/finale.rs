//! What must hold once the storm is over and everybody has caught up.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cloakroom_core::session::Lifecycle;
use cloakroom_core::types::{Partition, Sid};
use cloakroom_store::{Key, Kind, Log, Record, Store, Tick};

use crate::book::Book;
use crate::rules::{ACKNOWLEDGED_IS_DURABLE, ENDED_IS_FINAL, ENTRY_IFF_CHANGE};
use crate::schedule::Moment;
use crate::world::World;

/// More than a world ever logs.
const ALL: usize = 1_000_000;

/// Compares the store with the book, and looks for what came back.
pub fn judge(world: &World) {
    let moment = world.handle.moment();
    for number in 0..world.plan.partitions {
        let partition = Partition(number);
        judge_logs(world, partition, moment);
        judge_sessions(world, partition, moment);
        judge_indexes(world, partition, moment);
    }
    judge_told(world, moment);
}

/// Every entry of every commit, once, in order.
fn judge_logs(world: &World, partition: Partition, moment: Moment) {
    for log in [Log::Feed, Log::Audit] {
        let stored = at_once(world.memory.log(partition, log, Tick::ZERO, ALL));
        let mut book = world.book();
        let known = book.part(partition).and_then(|part| part.logs.get(&log)).cloned();
        if stored != Some(known.unwrap_or_default()) {
            let text = format!("the {log:?} log of partition {partition} isn't what was committed");
            book.violate(ENTRY_IFF_CHANGE, moment, None, text);
        }
    }
}

/// What was acknowledged is there, and nothing else.
fn judge_sessions(world: &World, partition: Partition, moment: Moment) {
    let page = world.memory.page(partition, Kind::Session, None, ALL);
    let stored: Vec<(Sid, Lifecycle)> = at_once(page)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(_, found)| match found.record {
            Record::Session(session) => Some((session.sid, session.lifecycle)),
            _ => None,
        })
        .collect();
    let mut book = world.book();
    let known: Vec<(Sid, Lifecycle)> = book
        .part(partition)
        .into_iter()
        .flat_map(|part| part.records.values())
        .filter_map(|record| match record {
            Record::Session(session) => Some((session.sid, session.lifecycle)),
            _ => None,
        })
        .collect();
    if stored != known {
        let text = format!("the sessions of partition {partition} aren't what was committed");
        let sid = known.iter().find(|one| !stored.contains(one)).map(|(sid, _)| *sid);
        book.violate(ACKNOWLEDGED_IS_DURABLE, moment, sid, text);
    }
}

/// Whoever lives is listed, else "sign out everywhere but here" would miss it.
fn judge_indexes(world: &World, partition: Partition, moment: Moment) {
    let mut book = world.book();
    let Some(part) = book.part(partition) else { return };
    let unlisted = part.records.values().find_map(|record| {
        let Record::Session(session) = record else { return None };
        let subject = session.subject.clone()?;
        if part.is_over(session) || world.is_expired(Some(session), moment) {
            return None;
        }
        let listed = match part.records.get(&Key::Index(subject)) {
            Some(Record::Index(sids)) => sids.contains(&session.sid),
            Some(_) | None => false,
        };
        (!listed).then_some(session.sid)
    });
    if let Some(sid) = unlisted {
        let text = "a session that lives isn't in its subject's index".to_owned();
        book.violate(ACKNOWLEDGED_IS_DURABLE, moment, Some(sid), text);
    }
}

/// What a node that still lives said to have ended is over, even where the store went back.
fn judge_told(world: &World, moment: Moment) {
    let mut book = world.book();
    let risen: Option<Sid> = book.tracks.iter().find_map(|(sid, track)| {
        let told = track.told.iter().any(|(node, (_, life))| world.life(*node) == *life);
        let lives = lives(&book, *sid);
        (told && lives).then_some(*sid)
    });
    if let Some(sid) = risen {
        let text = "its ending was answered by a node that still lives, and it lives".to_owned();
        book.violate(ENDED_IS_FINAL, moment, Some(sid), text);
    }
}

fn lives(book: &Book, sid: Sid) -> bool {
    let Some(part) = book.part(sid.partition()) else { return false };
    part.session(sid).is_some_and(|session| !part.is_over(session))
}

/// The answer of a store that never waits.
fn at_once<T, E>(call: impl Future<Output = Result<T, E>>) -> Option<T> {
    let mut call = pin!(call);
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer.ok(),
        Poll::Pending => None,
    }
}
