//! What is kept of a session between its requests, and that it never outlives what it was made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, EndReason, Object};
use cloakroom::store::faulty::{Call, Fault, Faulty, Outcome, Wait};
use cloakroom::store::memory::MemoryStore;
use cloakroom::{Authority, Credential, IfMatch, Opened, Settings, SubjectPatch, VerifySettings};
use tokio::sync::Notify;

use crate::directory::node;
use crate::world::*;

type Plan = Box<dyn Fn(Call<'_>) -> Fault + Send + Sync>;
type Store = Faulty<MemoryStore, Plan>;

fn patch(role: &str) -> Object {
    [("role".to_owned(), role.into())].into_iter().collect()
}

#[tokio::test]
async fn what_was_made_of_a_session_is_made_anew_when_the_session_or_its_subject_changes() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let role = async || {
        let verified = world.verify(&opened).await.expect("live");
        verified.made(|| verified.claims().get("role").cloned())
    };
    let first = role().await;
    assert!(Arc::ptr_eq(&first, &role().await), "made once");
    let sid = opened.session.sid;
    let of_subject = SubjectPatch { claims: Some(patch("user")), disabled: None };
    world.authority.patch_subject(&ada(), of_subject, &ctx()).await.expect("changed");
    assert_eq!(role().await.as_ref().as_ref().expect("a role"), "user");
    world.authority.change_claims(sid, &patch("admin"), &ctx()).await.expect("changed");
    assert_eq!(role().await.as_ref().as_ref().expect("a role"), "admin");
}

#[tokio::test]
async fn what_was_made_of_a_session_is_let_go_of_when_it_ends() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let verified = world.verify(&opened).await.expect("live");
    let made = Arc::downgrade(&verified.made(|| 1));
    drop(verified);
    assert!(made.upgrade().is_some(), "the control");
    world.authority.end_session(opened.session.sid, None, &ctx()).await.expect("ended");
    assert!(made.upgrade().is_none());
}

/// A node that counts its reads and, while it is told to, loses the answers to its commits.
struct Counted {
    node: Authority<Store>,
    reads: Arc<AtomicUsize>,
    loses: Arc<AtomicBool>,
    opened: Opened,
}

impl Counted {
    async fn with(world: &World, settings: Settings) -> Self {
        let (reads, loses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, losing) = (Arc::clone(&reads), Arc::clone(&loses));
        let plan: Plan = Box::new(move |call| {
            count.fetch_add(usize::from(matches!(call, Call::Load(..))), Ordering::SeqCst);
            let is_lost = matches!(call, Call::Commit(..)) && losing.load(Ordering::SeqCst);
            if is_lost { Fault::of(Outcome::AnswerLost) } else { Fault::NONE }
        });
        let at_once = |_| -> Wait { Box::pin(std::future::ready(())) };
        let store = Faulty::new(world.authority.store().clone(), plan, at_once);
        let node = node(store, world, settings).await;
        let opened = node.open_session(request(grant(Delivery::Cookie)), &ctx()).await;
        Self { node, reads, loses, opened: opened.expect("a session") }
    }

    /// The session's data after it was proven by its cookie, and what it took to read it.
    async fn data(&self) -> (Object, usize) {
        let cookie = Credential::Cookie(self.opened.token.expose());
        self.node.verify(cookie).await.expect("live");
        let before = self.reads.load(Ordering::SeqCst);
        let view = self.node.data(self.opened.session.sid).await.expect("data");
        (view.data, self.reads.load(Ordering::SeqCst) - before)
    }
}

#[tokio::test]
async fn data_is_read_once_and_again_after_each_write_where_nobody_else_writes() {
    let world = World::new().await;
    let counted = Counted::with(&world, settings()).await;
    let sid = counted.opened.session.sid;
    assert_eq!(counted.data().await, (Object::new(), 1));
    assert_eq!(counted.data().await, (Object::new(), 0));
    for (role, put) in [("user", true), ("editor", false), ("admin", true)] {
        let any = IfMatch::Any;
        let written = match put {
            true => counted.node.put_data(sid, patch(role), any, &ctx()).await,
            false => counted.node.patch_data(sid, &patch(role), any, &ctx()).await,
        };
        let version = written.expect("written").version;
        assert_eq!(counted.data().await, (patch(role), 1));
        assert_eq!(counted.data().await, (patch(role), 0));
        assert_eq!(counted.node.data(sid).await.expect("data").version, version);
    }
    let large: Object = [("k".to_owned(), "x".repeat(5_000).into())].into_iter().collect();
    counted.node.put_data(sid, large.clone(), IfMatch::Any, &ctx()).await.expect("written");
    for _ in 0..2 {
        assert_eq!(counted.data().await, (large.clone(), 1), "too large to be kept");
    }
    counted.node.end_session(sid, None, &ctx()).await.expect("ended");
    assert_eq!(ended(counted.node.data(sid).await), EndReason::EndedByOperator);
}

#[tokio::test]
async fn data_whose_write_got_no_answer_is_read_again() {
    let world = World::new().await;
    let counted = Counted::with(&world, settings()).await;
    counted.data().await;
    assert_eq!(counted.data().await.1, 0, "the control");
    counted.loses.store(true, Ordering::SeqCst);
    let sid = counted.opened.session.sid;
    // Whether it is known in the end doesn't matter here.
    let _ = counted.node.put_data(sid, patch("admin"), IfMatch::Any, &ctx()).await;
    counted.loses.store(false, Ordering::SeqCst);
    assert_eq!(counted.data().await.0, patch("admin"));
}

#[tokio::test]
async fn data_is_read_each_time_where_others_write_too() {
    let world = World::new().await;
    let verify = VerifySettings { max_staleness: Some(HOUR), ..settings().verify };
    let counted = Counted::with(&world, Settings { verify, ..settings() }).await;
    counted.node.follow().await.expect("followed");
    assert_eq!(counted.data().await, (Object::new(), 1));
    let sid = counted.opened.session.sid;
    let elsewhere = &world.authority;
    elsewhere.put_data(sid, patch("admin"), IfMatch::Any, &ctx()).await.expect("written");
    assert_eq!(counted.data().await, (patch("admin"), 1));
}

#[tokio::test]
async fn whoever_was_overtaken_reads_the_write_that_overtook_it() {
    let world = World::new().await;
    let (slow, door) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (is_slow, opens) = (Arc::clone(&slow), Arc::clone(&door));
    let plan: Plan = Box::new(move |call| {
        let waits = matches!(call, Call::Commit(..)) && is_slow.swap(false, Ordering::SeqCst);
        let back = if waits { SECOND } else { Duration::ZERO };
        Fault { back, ..Fault::NONE }
    });
    let until_opened = move |_| -> Wait {
        let opens = Arc::clone(&opens);
        Box::pin(async move { opens.notified().await })
    };
    let store = Faulty::new(world.authority.store().clone(), plan, until_opened);
    let node = node(store, &world, settings()).await;
    let opened = node.open_session(request(grant(Delivery::Cookie)), &ctx()).await;
    let opened = opened.expect("a session");
    let sid = opened.session.sid;
    node.verify(Credential::Cookie(opened.token.expose())).await.expect("live");
    let before = node.data(sid).await.expect("data");
    slow.store(true, Ordering::SeqCst);
    let write = async |role, condition| node.put_data(sid, patch(role), condition, &ctx()).await;
    let overtaken = async {
        while slow.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        // The first took effect, and its own node doesn't know yet.
        let second = write("second", IfMatch::Version(before.version)).await;
        assert_eq!(refusal(second), Refusal::PreconditionFailed);
        let seen = node.data(sid).await.expect("data");
        door.notify_one();
        seen
    };
    let (first, seen) = tokio::join!(write("first", IfMatch::Any), overtaken);
    assert_eq!((seen.data, seen.version), (patch("first"), first.expect("written").version));
}
