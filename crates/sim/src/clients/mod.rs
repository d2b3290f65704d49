//! Those who live in the world: honest users, thieves, operators.

mod admin;
mod browser;
mod refresher;
mod thief;

pub use admin::{ghost, operate};
pub use browser::{browse, end};
pub use refresher::{Application, apply, browse_split};
pub use thief::steal;

use std::sync::Arc;

use cloakroom::Error;
use cloakroom_core::session::Delivery;
use cloakroom_core::types::Subject;

use crate::witness::{Probe, grant};
use crate::world::{Held, World};

/// Somebody's life.
pub type Life = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Signs in until it works; none: the world is about to end.
async fn sign_in(
    world: &Arc<World>,
    subject: &Subject,
    delivery: Delivery,
    address: u8,
) -> Option<Held> {
    while world.is_stormy() {
        let label = format!("o{}", world.handle.moment().step);
        let grant = grant(subject, delivery, &label, address);
        let at = world.any_node();
        let inner = Arc::clone(world);
        let answer = world.ask(at, move |node| async move {
            let call = inner.begin(at);
            inner.open_session(call, &node, grant).await
        });
        if let Some(Ok(held)) = answer.await {
            return Some(held);
        }
        world.pause(100, 1_500).await;
    }
    None
}

/// Shows a credential to some node.
async fn show(world: &Arc<World>, at: usize, probe: Probe) -> Option<Result<(), Error>> {
    let inner = Arc::clone(world);
    let answer = world.ask(at, move |node| async move {
        let call = inner.begin(at);
        inner.verify(call, &node, &probe).await
    });
    answer.await
}

/// What somebody shows of what they hold.
fn probe(held: &Held) -> Option<Probe> {
    match (&held.access, held.delivery) {
        (Some((access, until)), _) => {
            Some(Probe { sid: held.sid, text: Arc::clone(access), access_until: Some(*until) })
        }
        (None, Delivery::Cookie) => {
            Some(Probe { sid: held.sid, text: Arc::clone(&held.token), access_until: None })
        }
        (None, Delivery::Bearer | Delivery::Split) => None,
    }
}
