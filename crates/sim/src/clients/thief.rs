//! Somebody with a copy of another's credential.

use std::sync::Arc;

use cloakroom::Error;
use cloakroom_core::refresh::Channel;
use cloakroom_core::session::Delivery;

use super::{probe, show};
use crate::plan::GRACE;
use crate::witness::{Party, Rotation};
use crate::world::{Held, World};

/// Copies a credential at some moment and uses it until that works no more.
pub async fn steal(world: Arc<World>) {
    while world.is_stormy() {
        world.pause(2_000, 15_000).await;
        let Some(copy) = world.any_held(None) else { continue };
        if copy.delivery == Delivery::Cookie {
            if let Some(probe) = probe(&copy) {
                let _ = show(&world, world.any_node(), probe).await;
            }
            continue;
        }
        note_theft(&world, &copy);
        exploit(&world, copy).await;
    }
}

fn note_theft(world: &World, copy: &Held) {
    let moment = world.handle.moment();
    let mut book = world.book();
    if let Some(track) = book.tracks.get_mut(&copy.sid) {
        track.stolen = true;
    }
    book.note(moment, Some(copy.sid), || "a THIEF copies its token".to_owned());
}

/// Some thieves go on with what they are given, some only repeat what they stole.
async fn exploit(world: &Arc<World>, copy: Held) {
    let (goes_on, waits) = world.handle.draw(|rng| (rng.chance(600), rng.chance(500)));
    let mut held = copy;
    while world.is_stormy() {
        world.pause(0, if waits { GRACE + 8_000 } else { GRACE / 2 }).await;
        let channel = match held.delivery {
            Delivery::Split => Channel::Cookie,
            Delivery::Cookie | Delivery::Bearer => Channel::Body,
        };
        let rotation = Rotation {
            sid: held.sid,
            token: Arc::clone(&held.token),
            channel,
            key: None,
            party: Party::Thief,
            address: 66,
        };
        let at = world.any_node();
        let inner = Arc::clone(world);
        let answer = world.ask(at, move |node| async move {
            let call = inner.begin(at);
            inner.refresh(call, &node, &rotation).await
        });
        match answer.await {
            Some(Ok(renewed)) if goes_on => held = renewed,
            Some(Err(Error::Refused(_))) => return,
            Some(Ok(_)) | Some(Err(Error::Unavailable(_) | Error::Overloaded)) | None => {}
        }
    }
}
