//! What verifiers and auditors are told as it happens.

use std::time::Duration;

use cloakroom::core::event::{EventKind, FeedEntry};
use cloakroom::core::session::{Delivery, EndReason};
use cloakroom::core::types::Sid;
use cloakroom::{Signal, Subscription};

use crate::world::{SECOND, World, ada, ctx, grant};

/// What a listener is told after a complete reading.
async fn heard(world: &World, listener: &mut Subscription) -> Vec<String> {
    world.authority.pump_streams().await.expect("a reading");
    let mut heard = Vec::new();
    loop {
        let told = world.authority.told(listener).await.expect("a store").unwrap_or_default();
        let over = told.is_empty();
        for told in told {
            heard.push(match &told.signal {
                Signal::Feed(FeedEntry::SessionEnded { sid, .. }) => format!("ended {sid}"),
                Signal::Feed(FeedEntry::SubjectRaised { subject, .. }) => {
                    format!("raised {subject}")
                }
                Signal::Feed(FeedEntry::AllEnded { .. }) => "all".to_owned(),
                Signal::Feed(other) => format!("{other:?}"),
                Signal::Event(event) => event.kind.as_str().to_owned(),
                Signal::Reset => "reset".to_owned(),
                Signal::Heartbeat { at } => {
                    assert_eq!(*at, world.authority.now());
                    return heard;
                }
            });
        }
        if over {
            return heard;
        }
    }
}

async fn end(world: &World, sid: Sid) {
    world.authority.end_session(sid, None, &ctx()).await.expect("an ending");
}

#[tokio::test]
async fn what_ends_while_somebody_listens_is_told_once() {
    let world = World::new().await;
    let mut listener = world.authority.listen_to_revocations(None).await.expect("a listener");
    let opened = world.open(Delivery::Cookie).await;
    end(&world, opened.session.sid).await;
    assert_eq!(heard(&world, &mut listener).await, [format!("ended {}", opened.session.sid)]);
    assert!(heard(&world, &mut listener).await.is_empty());
    // A commit is told at once, without waiting for the next complete reading.
    let opened = world.open(Delivery::Cookie).await;
    end(&world, opened.session.sid).await;
    world.authority.stream_news().await;
    world.authority.pump_news().await.expect("a reading");
    let told = world.authority.told(&mut listener).await.expect("a store").expect("news");
    assert!(told.iter().any(|t| matches!(t.signal, Signal::Feed(FeedEntry::SessionEnded { .. }))));
}

#[tokio::test]
async fn g10_what_ends_between_snapshot_and_subscription_arrives() {
    let world = World::new().await;
    let first = world.open(Delivery::Bearer).await.session.sid;
    let second = world.open(Delivery::Bearer).await.session.sid;
    let third = world.open(Delivery::Bearer).await.session.sid;
    end(&world, first).await;
    world.advance(SECOND);
    let snapshot = world.authority.revocations().await.expect("a snapshot");
    assert_eq!(snapshot.ended.get(&first).map(|(why, _)| *why), Some(EndReason::EndedByOperator));
    end(&world, second).await;
    let cursor = Some(snapshot.cursor.as_bytes());
    let listen = world.authority.listen_to_revocations(cursor);
    let mut listener = listen.await.expect("a listener");
    end(&world, third).await;
    let told = heard(&world, &mut listener).await;
    for sid in [second, third] {
        let count = told.iter().filter(|line| **line == format!("ended {sid}")).count();
        assert_eq!(count, 1, "{told:?}");
    }
}

#[tokio::test]
async fn g10_a_reconnect_misses_nothing_and_repeats_with_the_same_cursor() {
    let world = World::new().await;
    let mut listener = world.authority.listen_to_revocations(None).await.expect("a listener");
    let first = world.open(Delivery::Cookie).await.session.sid;
    end(&world, first).await;
    world.authority.pump_streams().await.expect("a reading");
    let told = world.authority.told(&mut listener).await.expect("a store").expect("news");
    let last = told[0].cursor.clone().expect("a cursor");
    drop(listener);
    let second = world.open(Delivery::Cookie).await.session.sid;
    end(&world, second).await;
    world.advance(60 * SECOND);
    let listen = world.authority.listen_to_revocations(Some(last.as_bytes()));
    let mut listener = listen.await.expect("a listener");
    let told = world.authority.told(&mut listener).await.expect("a store").expect("news");
    let cursors: Vec<_> = told.iter().map(|told| told.cursor.clone()).collect();
    assert!(cursors.contains(&Some(last)), "what is repeated has the id that it had");
    let ends_second = |signal: &Signal| match signal {
        Signal::Feed(FeedEntry::SessionEnded { sid, .. }) => *sid == second,
        _ => false,
    };
    assert!(told.iter().any(|told| ends_second(&told.signal)));
}

#[tokio::test]
async fn g10_a_cursor_that_leads_nowhere_is_a_reset_never_silence() {
    let world = World::new().await;
    let other = World::new().await;
    let fresh = world.authority.revocations().await.expect("a snapshot").cursor;
    let mut foreign = fresh.clone();
    let flipped = if foreign.ends_with('0') { "1" } else { "0" };
    foreign.replace_range(foreign.len() - 1.., flipped);
    let mut unheard = fresh.clone();
    unheard.replace_range(16..24, "00000000");
    other.advance(3600 * SECOND);
    let future = other.authority.revocations().await.expect("a snapshot").cursor;
    let long = "a".repeat(64 * 1024);
    let garbage = ["", "x", "0", &long, "\u{e9}", "../../etc/passwd", &fresh[1..]];
    let bad = garbage.iter().copied().chain([foreign.as_str(), &unheard, &future]);
    for cursor in bad {
        // Beyond what a listener's beginning looks back to.
        world.advance(20 * SECOND);
        let listen = world.authority.listen_to_revocations(Some(cursor.as_bytes()));
        let mut listener = listen.await.expect("a listener");
        assert_eq!(heard(&world, &mut listener).await, ["reset"], "{cursor:.60}");
        // It goes on from there.
        let sid = world.open(Delivery::Cookie).await.session.sid;
        end(&world, sid).await;
        assert_eq!(heard(&world, &mut listener).await, [format!("ended {sid}")]);
    }
    // The control, and the same one when it has become too old.
    let listen = world.authority.listen_to_revocations(Some(fresh.as_bytes()));
    let mut listener = listen.await.expect("a listener");
    assert!(!heard(&world, &mut listener).await.contains(&"reset".to_owned()));
    drop(listener);
    world.advance(Duration::from_secs(900 + 600));
    let listen = world.authority.listen_to_revocations(Some(fresh.as_bytes()));
    let mut listener = listen.await.expect("a listener");
    assert_eq!(heard(&world, &mut listener).await, ["reset"]);
}

#[tokio::test]
async fn everything_ended_is_told_once_and_only_when_it_is_true() {
    let world = World::new().await;
    let mut listener = world.authority.listen_to_revocations(None).await.expect("a listener");
    let opened = world.open(Delivery::Bearer).await;
    world.authority.end_everything(&ctx()).await.expect("an end");
    assert_eq!(heard(&world, &mut listener).await, ["all"]);
    let snapshot = world.authority.revocations().await.expect("a snapshot");
    assert!(snapshot.all.is_some_and(|at| at >= opened.session.created_at));
}

#[tokio::test]
async fn the_snapshot_folds_what_verifiers_need() {
    let world = World::new().await;
    let opened = world.open(Delivery::Bearer).await;
    let access = opened.access.as_ref().expect("an access token").token.expose().clone();
    let verified = world.authority.verify_any(&access).await.expect("live");
    world.authority.end_all_own(&verified, true, &ctx()).await.expect("a raise");
    world.authority.end_subject(&ada(), &ctx()).await.expect("a raise");
    let snapshot = world.authority.revocations().await.expect("a snapshot");
    let raised = snapshot.subjects.get(&ada()).expect("the subject");
    assert_eq!((raised.epoch, raised.except), (2, None), "the later raise is what counts");
    // Beyond the life of every token there is nothing to know.
    world.advance(Duration::from_secs(911));
    let snapshot = world.authority.revocations().await.expect("a snapshot");
    assert!(snapshot.subjects.is_empty() && snapshot.ended.is_empty());
}

#[tokio::test]
async fn m7_who_falls_behind_is_cut_and_resumes() {
    let world = World::new().await;
    let mut slow = world.authority.listen_to_revocations(None).await.expect("a listener");
    let first = world.open(Delivery::Cookie).await.session.sid;
    end(&world, first).await;
    world.authority.pump_streams().await.expect("a reading");
    let told = world.authority.told(&mut slow).await.expect("a store").expect("news");
    let last = told[0].cursor.clone().expect("a cursor");
    // Heartbeats fill the bounded ring as well as anything.
    for _ in 0..9000 {
        world.authority.pump_streams().await.expect("a reading");
    }
    let told = world.authority.told(&mut slow).await.expect("a store").expect("a word");
    assert!(matches!(told[0].signal, Signal::Reset));
    assert!(world.authority.told(&mut slow).await.expect("a store").is_none(), "it is over");
    let mut again =
        world.authority.listen_to_revocations(Some(last.as_bytes())).await.expect("a listener");
    assert_eq!(heard(&world, &mut again).await, [format!("ended {first}")]);
}

#[tokio::test]
async fn events_are_told_as_they_are_committed_and_are_resumable() {
    let world = World::new().await;
    let mut listener = world.authority.listen_to_events(None).await.expect("a listener");
    let opened = world.open_as(grant(Delivery::Cookie)).await;
    // Beginning to listen looks back a little: what was there may be repeated.
    let told = heard(&world, &mut listener).await;
    assert_eq!(told.last().map(String::as_str), Some(EventKind::SessionOpened.as_str()));
    let events =
        world.authority.events(cloakroom::EventFilter { limit: 200, ..Default::default() });
    let last = events.await.expect("events").events.last().expect("one").cursor.clone();
    end(&world, opened.session.sid).await;
    let listen = world.authority.listen_to_events(Some(last.as_bytes()));
    let mut resumed = listen.await.expect("a listener");
    let told = heard(&world, &mut resumed).await;
    assert_eq!(told.iter().filter(|kind| *kind == "session.ended").count(), 1, "{told:?}");
    let mut lost = world.authority.listen_to_events(Some(b"garbage")).await.expect("a listener");
    assert_eq!(heard(&world, &mut lost).await[0], "reset");
}

#[tokio::test]
async fn g9_where_others_write_too_a_heartbeat_needs_every_partition() {
    let mut shared = crate::world::settings();
    shared.verify.max_staleness = Some(2 * SECOND);
    let world = World::with(shared).await;
    let authority = &world.authority;
    let mut listener = authority.listen_to_revocations(None).await.expect("a listener");
    let sid = world.open(Delivery::Cookie).await.session.sid;
    end(&world, sid).await;
    // The partition alone: what ended is told, and no heartbeat vouches for the others.
    authority.follow_partition(sid.partition()).await.expect("a reading");
    let told = authority.told(&mut listener).await.expect("a store").expect("news");
    let is_beat = |signal: &Signal| matches!(signal, Signal::Heartbeat { .. });
    assert_eq!(told.iter().filter(|told| is_beat(&told.signal)).count(), 0);
    let ended = |signal: &Signal| matches!(signal, Signal::Feed(FeedEntry::SessionEnded { .. }));
    assert_eq!(told.iter().filter(|told| ended(&told.signal)).count(), 1);
    authority.follow().await.expect("a reading");
    let told = authority.told(&mut listener).await.expect("a store").expect("news");
    assert!(told.iter().all(|told| !ended(&told.signal)), "each is told once");
    assert!(told.iter().any(|told| is_beat(&told.signal)));
}
