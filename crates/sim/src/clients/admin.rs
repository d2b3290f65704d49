//! Operators and backends, and those who try what they ended.

use std::sync::Arc;

use cloakroom_core::keys::{Algorithm, KeyState};
use cloakroom_core::token::access::AccessClaims;
use cloakroom_core::types::{Sid, Subject, Timestamp};

use super::{browser, probe, show};
use crate::changes::{Ending, Save};
use crate::schedule::Owner;
use crate::witness::{Probe, operator};
use crate::world::World;

/// Ends, denies, and changes things now and then.
pub async fn operate(world: Arc<World>, subjects: Vec<Subject>) {
    while world.is_stormy() {
        world.pause(300, 5_000).await;
        let subject = world.handle.draw(|rng| subjects.get(rng.index(subjects.len())).cloned());
        let (Some(subject), held) = (subject, world.any_held(None)) else { continue };
        match (world.handle.draw(|rng| rng.below(20)), held) {
            (0..=4, Some(held)) => browser::end(&world, Ending::Session(held.sid)).await,
            (5..=7, _) => browser::end(&world, Ending::Subject(subject)).await,
            (8, _) => browser::end(&world, Ending::Everything).await,
            (9..=12, Some(held)) => browser::save(&world, Save::Claim(held.sid)).await,
            (13..=15, _) => browser::save(&world, Save::SubjectClaim(subject)).await,
            (16..=17, _) => deny(&world).await,
            (18, _) if world.plan.algorithm != Algorithm::Hs256 => revoke_key(&world).await,
            _ => {}
        }
    }
}

/// Denies one access token.
async fn deny(world: &Arc<World>) {
    let Some(held) = world.any_held(None) else { return };
    let Some((access, until)) = held.access.clone() else { return };
    let at = world.any_node();
    let inner = Arc::clone(world);
    let shown = Arc::clone(&access);
    let answer = world.ask(at, move |node| async move {
        let claims: Option<Arc<AccessClaims>> = match node.introspect(&shown).await {
            Ok(Some(cloakroom::Introspection::Access(claims, _))) => Some(claims),
            Ok(_) | Err(_) => None,
        };
        let claims = claims?;
        inner.book().denied_of.insert(held.sid);
        let expires_at: Timestamp = claims.expires_at;
        let call = inner.begin(at);
        node.deny_token(&claims.jti, expires_at, &operator()).await.ok()?;
        let told = inner.handle.moment();
        let mut book = inner.book();
        book.note(told, Some(held.sid), || format!("node {at} denied {}", claims.jti));
        if let Some(denial) = book.denied.get_mut(&claims.jti) {
            denial.told.entry(at).or_insert((told, call.life));
        }
        Some(())
    });
    if answer.await.flatten().is_some() {
        let probe = Probe { sid: held.sid, text: access, access_until: Some(until) };
        haunt(world, at, probe);
    }
}

/// Revokes the key that signs now.
async fn revoke_key(world: &Arc<World>) {
    let Some(held) = world.any_held(None) else { return };
    let at = world.any_node();
    let inner = Arc::clone(world);
    let answer = world.ask(at, move |node| async move {
        let records = node.key_records();
        let active = records.iter().find(|record| record.state == KeyState::Active)?;
        let call = inner.begin(at);
        node.revoke_key(active.kid.as_str(), &operator()).await.ok()?;
        let told = inner.handle.moment();
        let mut book = inner.book();
        book.note(told, None, || format!("node {at} revoked the key {}", active.kid.as_str()));
        if let Some(denial) = book.revoked_keys.get_mut(active.kid.as_str()) {
            denial.told.entry(at).or_insert((told, call.life));
        }
        Some(())
    });
    if answer.await.flatten().is_some()
        && let Some((access, until)) = held.access
    {
        haunt(world, at, Probe { sid: held.sid, text: access, access_until: Some(until) });
    }
}

/// Shows what is held of a session that was just ended: at the node that ended it at once, and
/// then at others.
pub fn ghost(world: &Arc<World>, at: usize, ending: &Ending) {
    let sid = match ending {
        Ending::Session(sid) | Ending::Own(_, sid) => Some(*sid),
        Ending::Logout(held) | Ending::Revoke(held) => Some(held.sid),
        Ending::Subject(_) | Ending::Others(_) | Ending::Everything => any_ended(world),
    };
    let Some(probe) = sid.and_then(|sid| world.held(sid)).and_then(|held| probe(&held)) else {
        return;
    };
    haunt(world, at, probe);
}

fn haunt(world: &Arc<World>, at: usize, probe: Probe) {
    let inner = Arc::clone(world);
    world.handle.spawn(Owner::World, async move {
        let mut at = at;
        for _ in 0..5 {
            let _ = show(&inner, at, probe.clone()).await;
            inner.pause(0, 1_500).await;
            if inner.handle.draw(|rng| rng.chance(600)) {
                at = inner.any_node();
            }
        }
    });
}

/// A session that ended last, as far as is known.
fn any_ended(world: &World) -> Option<Sid> {
    let book = world.book();
    let ended = book.tracks.iter().filter_map(|(sid, track)| Some((track.ended?.0, *sid)));
    ended.max().map(|(_, sid)| sid)
}
