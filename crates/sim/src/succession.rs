//! A visitor who signs in: one session takes the place of another, over two partitions.

use std::sync::Arc;

use cloakroom::{Error, OpenRequest, Opened};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Delivery, EndReason, Grant, Object};
use cloakroom_core::types::Subject;
use serde_json::Value;

use crate::plan::{GRACE, SKEW_MAX};
use crate::rules::{LOST_ANSWER_COSTS_NOTHING, NO_LOST_UPDATE, REVOKED_IS_REFUSED};
use crate::schedule::Moment;
use crate::witness::{Call, grant, operator};
use crate::world::{Held, Node, World};

/// What a visitor has put into the session before signing in.
const CART: &str = "cart";

impl World {
    /// Opens a session for a visitor whom nobody knows yet.
    pub async fn welcome(&self, node: &Node) -> Result<Held, Error> {
        let nobody = Grant { subject: None, ..grant_of_nobody() };
        let data = Object::from_iter([(CART.to_owned(), Value::from(1))]);
        let request = OpenRequest { data: Some(data), ..OpenRequest::new(nobody) };
        let opened = node.open_session(request, &operator()).await?;
        let held = self.held_of(&opened);
        self.hold(&held);
        Ok(held)
    }

    /// Opens a session for `subject` in place of a visitor's, and judges the answer. However often
    /// it is asked for, there is one successor, and it has the visitor's data.
    pub async fn succeed(
        &self,
        call: Call,
        node: &Node,
        visitor: &Held,
        subject: &Subject,
    ) -> Result<Held, Error> {
        let request = OpenRequest {
            replaces: Some(visitor.token.to_string()),
            carry_data: true,
            ..OpenRequest::new(grant(subject, Delivery::Cookie, "succession", 9))
        };
        let answer = node.open_session(request, &operator()).await;
        let end = self.handle.moment();
        self.book().note(end, Some(visitor.sid), || {
            let answer = answer.as_ref().map(|opened| opened.session.sid);
            format!("node {} signs the visitor in as {subject:?}: {answer:?}", call.node)
        });
        match &answer {
            Ok(opened) => self.judge_successor(call, visitor, opened, end),
            Err(Error::Refused(refusal)) => self.judge_no_successor(visitor, refusal, end),
            Err(Error::Unavailable(_) | Error::Overloaded) => {}
        }
        self.stop_if_broken();
        let held = answer.map(|opened| self.held_of(&opened))?;
        self.hold(&held);
        Ok(held)
    }

    fn judge_successor(&self, call: Call, visitor: &Held, opened: &Opened, end: Moment) {
        let mut book = self.book();
        let sid = visitor.sid;
        if book.went_back(sid) || book.went_back(opened.session.sid) {
            return;
        }
        let token = opened.token.expose();
        let first = book
            .successors
            .entry(visitor.token.to_string())
            .or_insert_with(|| token.clone())
            .clone();
        if first != *token {
            let text = "a repeated sign-in opened a second session".to_owned();
            book.violate(LOST_ANSWER_COSTS_NOTHING, end, Some(sid), text);
        }
        if book.tracks.get(&sid).is_some_and(|track| track.ended.is_none()) {
            let text = "a session that another took the place of lives".to_owned();
            book.violate(REVOKED_IS_REFUSED, end, Some(sid), text);
        }
        if let Some(track) = book.tracks.get_mut(&sid) {
            track.told.entry(call.node).or_insert((end, call.life));
        }
        let carried = book.applied.contains_key(&format!("carried {}", opened.session.sid));
        let lives = book.tracks.get(&opened.session.sid).is_some_and(|t| t.ended.is_none());
        if lives && !carried {
            let text = "the visitor's data didn't come along".to_owned();
            book.violate(NO_LOST_UPDATE, end, Some(opened.session.sid), text);
        }
    }

    /// Within the grace a repeated request must not be told that its own first try ended it.
    fn judge_no_successor(&self, visitor: &Held, refusal: &Refusal, end: Moment) {
        let mut book = self.book();
        let ended = book.tracks.get(&visitor.sid).and_then(|track| track.ended);
        let Some((at, EndReason::Replaced)) = ended else { return };
        let is_young = end.at.saturating_sub(at.at) + 2 * SKEW_MAX < GRACE;
        let blames_itself = *refusal == Refusal::SessionEnded(EndReason::Replaced);
        if is_young && blames_itself && !book.went_back(visitor.sid) {
            let text = "a repeated sign-in was refused for its own first try".to_owned();
            book.violate(LOST_ANSWER_COSTS_NOTHING, end, Some(visitor.sid), text);
        }
    }
}

fn grant_of_nobody() -> Grant {
    let label = "visitor".to_owned();
    let client = cloakroom_core::session::Client { label: Some(label), ..Default::default() };
    Grant {
        subject: None,
        delivery: Delivery::Cookie,
        remember: false,
        claims: Object::new(),
        amr: Vec::new(),
        acr: "aal0".to_owned(),
        actor: None,
        idle_timeout: None,
        lifetime: None,
        client,
    }
}

/// Whether data is what a visitor had put there.
pub(crate) fn is_cart(data: &Object) -> bool {
    data.contains_key(CART)
}

/// Visits, then signs in, again and again.
pub async fn visit(world: Arc<World>, subject: Subject) {
    while world.is_stormy() {
        world.pause(500, 6_000).await;
        let at = world.any_node();
        let inner = Arc::clone(&world);
        let welcome = world.ask(at, move |node| async move { inner.welcome(&node).await });
        let Some(Ok(visitor)) = welcome.await else { continue };
        world.pause(100, 3_000).await;
        // An answer that doesn't come is asked for again, for as long as that is a retry.
        for _ in 0..3 {
            let at = world.any_node();
            let (inner, visitor, subject) = (Arc::clone(&world), visitor.clone(), subject.clone());
            let answer = world.ask(at, move |node| async move {
                let call = inner.begin(at);
                inner.succeed(call, &node, &visitor, &subject).await
            });
            match answer.await {
                Some(Ok(_) | Err(Error::Refused(_))) => break,
                Some(Err(Error::Unavailable(_) | Error::Overloaded)) | None => {}
            }
            world.pause(50, 500).await;
        }
    }
}
