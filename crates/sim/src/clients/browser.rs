//! A browser with a session cookie, in two tabs.

use std::sync::Arc;

use cloakroom::Error;
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Delivery, EndReason};
use cloakroom_core::types::Subject;

use super::{probe, show, sign_in};
use crate::changes::{Ending, Save};
use crate::plan::IDLE;
use crate::rules::NEVER_EARLY_NEVER_LATE;
use crate::schedule::Millis;
use crate::world::{Held, World};

/// A user who is never idle for longer than this keeps the session.
const PAUSE_MAX: Millis = IDLE / 5;

/// Browses until the storm is over: reads, saves, signs out, signs in again.
pub async fn browse(world: Arc<World>, subject: Subject, address: u8) {
    while let Some(held) = sign_in(&world, &subject, Delivery::Cookie, address).await {
        let other = {
            let (world, held) = (Arc::clone(&world), held.clone());
            async move { tab(&world, &held).await }
        };
        let other = world.handle.spawn(crate::schedule::Owner::World, other);
        tab(&world, &held).await;
        world.handle.cancel(other);
    }
}

/// One tab; returns when the session is over.
async fn tab(world: &Arc<World>, held: &Held) {
    let mut served_at = world.handle.now();
    while world.is_stormy() {
        world.pause(100, PAUSE_MAX).await;
        let Some(probe) = probe(held) else { return };
        match show(world, world.any_node(), probe).await {
            Some(Ok(())) => served_at = world.handle.now(),
            Some(Err(Error::Refused(refusal))) => {
                judge_idle(world, held, served_at, &refusal);
                return;
            }
            Some(Err(Error::Unavailable(_) | Error::Overloaded)) | None => {}
        }
        match world.handle.draw(|rng| rng.below(24)) {
            0..=2 => save(world, Save::Put(held.sid)).await,
            3 => save(world, Save::Patch(held.sid)).await,
            4 => save(world, Save::PatchIfUnchanged(held.sid)).await,
            5 => end(world, Ending::Others(held.clone())).await,
            6 => {
                if let Some(other) = sibling(world, held) {
                    end(world, Ending::Own(held.clone(), other.sid)).await;
                }
            }
            7 if world.handle.draw(|rng| rng.chance(300)) => {
                end(world, Ending::Logout(held.clone())).await;
            }
            _ => {}
        }
    }
}

/// Somebody who was served again and again, without long pauses, isn't idle.
fn judge_idle(world: &World, held: &Held, served_at: Millis, refusal: &Refusal) {
    let now = world.handle.moment();
    let busy = now.at.saturating_sub(served_at) < IDLE / 3;
    let mut book = world.book();
    let rested = world.plan.crashes.is_empty() && !book.went_back(held.sid);
    let opened = book.tracks.get(&held.sid).map_or(now.at, |track| track.opened.at);
    let called_idle = matches!(refusal, Refusal::SessionEnded(EndReason::IdleTimeout));
    if called_idle && busy && rested && now.at > opened + IDLE {
        let text = format!("called idle, and was served {} ms ago", now.at - served_at);
        book.violate(NEVER_EARLY_NEVER_LATE, now, Some(held.sid), text);
        drop(book);
        world.stop_if_broken();
    }
}

/// Another session of the same user, as far as anybody knows one.
fn sibling(world: &World, held: &Held) -> Option<Held> {
    let subject = world.book().tracks.get(&held.sid)?.subject.clone()?;
    world.any_held(Some(&subject)).filter(|other| other.sid != held.sid)
}

pub(super) async fn save(world: &Arc<World>, save: Save) {
    let at = world.any_node();
    let inner = Arc::clone(world);
    let answer = world.ask(at, move |node| async move {
        let call = inner.begin(at);
        inner.save(call, &node, &save).await
    });
    // Whether it worked is judged where it was served.
    let _ = answer.await;
}

/// Ends something; asks again while no answer comes.
pub async fn end(world: &Arc<World>, ending: Ending) {
    for _ in 0..3 {
        let at = world.any_node();
        let (inner, again) = (Arc::clone(world), ending.clone());
        let answer = world.ask(at, move |node| async move {
            let call = inner.begin(at);
            inner.end_at(call, &node, &again).await
        });
        match answer.await {
            Some(Ok(())) => {
                super::ghost(world, at, &ending);
                return;
            }
            Some(Err(Error::Refused(_))) => return,
            Some(Err(Error::Unavailable(_) | Error::Overloaded)) | None => {}
        }
        world.pause(50, 800).await;
    }
}
