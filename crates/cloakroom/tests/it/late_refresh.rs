//! A refresh whose commit is held up while others rotate twice past it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom::core::event::EventKind;
use cloakroom::core::refresh::Channel;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Client, Delivery, EndReason};
use cloakroom::store::faulty::{Call, Fault, Faulty, Wait};
use cloakroom::{Context, Opened};

use crate::directory::node;
use crate::world::{World, ctx, ended, refusal, settings};

/// The refusal of a request by `late`, with the first token of a session, when `others` rotate
/// twice while its own rotation is on its way to the store.
async fn overtaken(late: Context, others: Context) -> (World, Opened, Refusal) {
    let world = Arc::new(World::new().await);
    let opened = world.open(Delivery::Bearer).await;
    let token = opened.token.expose().clone();
    let (fast, first) = (Arc::clone(&world), token.clone());
    let pause = move |_| -> Wait {
        let (fast, first, others) = (Arc::clone(&fast), first.clone(), others.clone());
        Box::pin(async move {
            let rotate = async |token: &str| {
                let rotated = fast.authority.refresh(token, Channel::Body, None, &others).await;
                rotated.expect("a rotation").token.expose().clone()
            };
            rotate(&rotate(&first).await).await;
        })
    };
    let held_up = AtomicBool::new(false);
    let plan = move |call: Call<'_>| match call {
        Call::Commit(..) if !held_up.swap(true, Ordering::SeqCst) => {
            Fault { there: Duration::from_millis(1), ..Fault::NONE }
        }
        _ => Fault::NONE,
    };
    let store = Faulty::new(world.authority.store().clone(), plan, pause);
    let slow = node(store, &world, settings()).await;
    let refused = refusal(slow.refresh(&token, Channel::Body, None, &late).await);
    drop(slow);
    let world = Arc::into_inner(world).expect("nobody else has it");
    (world, opened, refused)
}

fn from(address: u8) -> Context {
    let client = Client { ip: Some([198, 51, 100, address].into()), ..ctx().client };
    Context { client, ..ctx() }
}

#[tokio::test]
async fn f1_whoever_is_overtaken_from_elsewhere_uncovers_a_thief() {
    let (world, opened, refused) = overtaken(ctx(), from(7)).await;
    assert_eq!(refused, Refusal::RefreshTokenReused);
    assert_eq!(ended(world.verify_access(&opened).await), EndReason::RefreshReused);
    assert_eq!(world.count_events(EventKind::SessionReuseDetected).await, 1);
}

#[tokio::test]
async fn f1_whoever_is_overtaken_by_himself_is_late_and_no_thief() {
    let (world, opened, refused) = overtaken(ctx(), ctx()).await;
    assert_eq!(refused, Refusal::TokenInvalid);
    assert!(world.verify_access(&opened).await.is_ok());
    assert_eq!(world.count_events(EventKind::SessionReuseDetected).await, 0);
    // Sent once it is overtaken, the same request is a reuse.
    let again = world.refresh(opened.token.expose()).await;
    assert_eq!(refusal(again), Refusal::RefreshTokenReused);
}
