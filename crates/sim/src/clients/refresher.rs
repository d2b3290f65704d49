//! Honest holders of refresh tokens: applications, and a page in four tabs with one cookie jar.

use std::sync::{Arc, Mutex};

use cloakroom::Error;
use cloakroom_core::refresh::Channel;
use cloakroom_core::session::Delivery;
use cloakroom_core::types::Subject;

use super::{probe, show, sign_in};
use crate::changes::Ending;
use crate::plan::ACCESS_TTL;
use crate::schedule::{Millis, Owner, lock};
use crate::tally::ClientKind;
use crate::witness::{Party, Rotation};
use crate::world::{Held, World};

/// Whether an application sends an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// It does, and keeps it until the answer is there.
    Keyed,
    /// It doesn't.
    Unkeyed,
}

/// How a try went.
enum Try {
    /// There is something new to hold.
    Renewed(Held),
    /// The session is over.
    Over,
    /// Nobody knows.
    Unknown,
}

/// Uses access tokens, refreshes them, and signs in again when it must.
pub async fn apply(world: Arc<World>, subject: Subject, address: u8, kind: Application) {
    while let Some(mut held) = sign_in(&world, &subject, Delivery::Bearer, address).await {
        // A token is shown a few times, then exchanged; sometimes the device sleeps.
        loop {
            if !world.is_stormy() {
                return;
            }
            for _ in 0..world.handle.draw(|rng| rng.below(4)) {
                world.pause(100, 4_000).await;
                if let Some(probe) = probe(&held) {
                    let _ = show(&world, world.any_node(), probe).await;
                }
            }
            let sleeps = world.handle.draw(|rng| rng.chance(60));
            world.pause(0, if sleeps { 20_000 } else { 1_500 }).await;
            match renew(&world, &held, address, kind).await {
                Some(renewed) => held = renewed,
                None => break,
            }
            if world.handle.draw(|rng| rng.chance(20)) {
                super::browser::end(&world, Ending::Revoke(held.clone())).await;
                break;
            }
        }
    }
}

/// Exchanges the token until an answer comes; none: the session is over.
async fn renew(
    world: &Arc<World>,
    held: &Held,
    address: u8,
    application: Application,
) -> Option<Held> {
    let key = world.handle.draw(|rng| format!("attempt-{:016x}", rng.draw()));
    let (key, kind) = match application {
        Application::Keyed => (Some(key), ClientKind::Keyed),
        Application::Unkeyed => (None, ClientKind::Unkeyed),
    };
    loop {
        let rotation = Rotation {
            sid: held.sid,
            token: Arc::clone(&held.token),
            channel: Channel::Body,
            key: key.clone(),
            party: Party::Honest(kind),
            address,
        };
        match exchange(world, rotation).await {
            Try::Renewed(renewed) => return Some(renewed),
            Try::Over => return None,
            Try::Unknown if world.is_stormy() => {}
            Try::Unknown => return None,
        }
        // Some ask again at once, some wait for the network to come back.
        let patient = world.handle.draw(|rng| rng.chance(200));
        world.pause(100, if patient { 9_000 } else { 1_000 }).await;
    }
}

async fn exchange(world: &Arc<World>, rotation: Rotation) -> Try {
    let at = world.any_node();
    let inner = Arc::clone(world);
    let answer = world.ask(at, move |node| async move {
        let call = inner.begin(at);
        inner.refresh(call, &node, &rotation).await
    });
    match answer.await {
        Some(Ok(renewed)) => Try::Renewed(renewed),
        Some(Err(Error::Refused(_))) => Try::Over,
        Some(Err(Error::Unavailable(_) | Error::Overloaded)) | None => Try::Unknown,
    }
}

/// What the tabs of one page share.
struct Jar {
    /// The refresh cookie, as the last answer that arrived left it.
    cookie: Held,
    over: bool,
}

/// A page in four tabs: each has an access token of its own, all share the refresh cookie.
pub async fn browse_split(world: Arc<World>, subject: Subject, address: u8) {
    while let Some(held) = sign_in(&world, &subject, Delivery::Split, address).await {
        let jar = Arc::new(Mutex::new(Jar { cookie: held, over: false }));
        let mut others = Vec::new();
        for _ in 0..3 {
            let (inner, jar) = (Arc::clone(&world), Arc::clone(&jar));
            let other = async move { tab(&inner, &jar, address).await };
            others.push(world.handle.spawn(Owner::World, other));
        }
        tab(&world, &jar, address).await;
        for other in others {
            world.handle.cancel(other);
        }
    }
}

async fn tab(world: &Arc<World>, jar: &Arc<Mutex<Jar>>, address: u8) {
    let mut access: Option<Held> = None;
    while world.is_stormy() && !lock(jar).over {
        let now = world.handle.now();
        let fresh = access.as_ref().and_then(|held| held.access.as_ref());
        let fresh = fresh.is_some_and(|(_, until)| now + ACCESS_TTL / 5 < *until);
        if !fresh {
            access = renew_by_cookie(world, jar, address).await;
            if access.is_none() {
                return;
            }
        }
        if let Some(probe) = access.as_ref().and_then(probe) {
            let _ = show(world, world.any_node(), probe).await;
        }
        let span: Millis = if world.handle.draw(|rng| rng.chance(100)) { 9_000 } else { 3_000 };
        world.pause(50, span).await;
    }
}

/// Asks with whatever cookie the jar has at that moment, until an answer comes.
async fn renew_by_cookie(world: &Arc<World>, jar: &Arc<Mutex<Jar>>, address: u8) -> Option<Held> {
    loop {
        if lock(jar).over {
            return None;
        }
        let cookie = lock(jar).cookie.clone();
        let rotation = Rotation {
            sid: cookie.sid,
            token: cookie.token,
            channel: Channel::Cookie,
            key: None,
            party: Party::Honest(ClientKind::Split),
            address,
        };
        match exchange(world, rotation).await {
            Try::Renewed(renewed) => {
                // A real jar takes whatever answer arrives last.
                lock(jar).cookie = renewed.clone();
                return Some(renewed);
            }
            Try::Over => {
                lock(jar).over = true;
                return None;
            }
            Try::Unknown if world.is_stormy() => {}
            Try::Unknown => return None,
        }
        world.pause(50, 700).await;
    }
}
