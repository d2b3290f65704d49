//! Listings: pages over all partitions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::core::session::{Delivery, EndReason, Grant};
use cloakroom::core::types::{Sid, Subject};
use cloakroom::store::faulty::{Call, Fault, Faulty, Wait};
use cloakroom::{Authority, SessionPage};

use crate::directory::node;
use crate::world::*;

const PEOPLE: usize = 12;

/// A session of each of many people, in all partitions, and one of nobody's.
async fn crowded() -> (World, BTreeSet<Sid>) {
    let world = World::new().await;
    let mut sids = BTreeSet::new();
    for number in 0..PEOPLE {
        let subject = Some(Subject::parse(&format!("usr_{number}")).expect("a subject"));
        let opened = world.open_as(Grant { subject, ..grant(Delivery::Cookie) }).await;
        sids.insert(opened.session.sid);
    }
    let nobody = Grant { subject: None, ..grant(Delivery::Cookie) };
    sids.insert(world.open_as(nobody).await.session.sid);
    (world, sids)
}

fn sids_of(page: &SessionPage) -> Vec<Sid> {
    page.sessions.iter().map(|listed| listed.session.sid).collect()
}

#[tokio::test]
async fn pages_of_every_size_hold_each_session_once() {
    let (world, all) = crowded().await;
    for limit in [1, 2, 5, all.len(), all.len() + 1] {
        let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = world.authority.page_sessions(after.as_deref(), limit, None).await;
            let page = page.expect("a page");
            assert!(page.sessions.len() <= limit);
            seen.extend(sids_of(&page));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), pages), (all.len(), all.len().div_ceil(limit)), "by {limit}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
    }
}

#[tokio::test]
async fn a_page_of_sessions_costs_a_load_for_each_partition_and_none_for_each_session() {
    let (world, all) = crowded().await;
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let plan = move |call: Call<'_>| {
        let is_load = matches!(call, Call::Load(..));
        counted.fetch_add(usize::from(is_load), Ordering::SeqCst);
        Fault::NONE
    };
    let at_once = |_| -> Wait { Box::pin(std::future::ready(())) };
    let store = Faulty::new(world.authority.store().clone(), plan, at_once);
    let node: Authority<_> = node(store, &world, settings()).await;
    let partitions: BTreeSet<_> = all.iter().map(|sid| sid.partition()).collect();
    let before = loads.load(Ordering::SeqCst);
    let page = node.page_sessions(None, 200, None).await.expect("a page");
    assert_eq!(page.sessions.len(), all.len());
    assert_eq!(loads.load(Ordering::SeqCst) - before, partitions.len());
    assert!(partitions.len() < all.len());
}

#[tokio::test]
async fn a_page_says_of_each_session_whether_it_lives() {
    let (world, all) = crowded().await;
    let first = Subject::parse("usr_0").expect("a subject");
    world.authority.end_subject(&first, &ctx()).await.expect("ended");
    let page = world.authority.page_sessions(None, 200, None).await.expect("a page");
    assert_eq!(page.sessions.len(), all.len());
    for listed in &page.sessions {
        let reason = listed.ending.map(|ending| ending.reason);
        let is_first = listed.session.subject.as_ref() == Some(&first);
        assert_eq!(reason, is_first.then_some(EndReason::SignedOutEverywhere));
    }
}
