//! Endings and writes, asked of a node and judged by what the book knows.

use cloakroom::{Credential, Error, IfMatch, SubjectPatch};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::session::{Delivery, Object};
use cloakroom_core::types::{Sid, Subject};
use serde_json::Value;

use crate::book::Track;
use crate::rules::{ACKNOWLEDGED_IS_DURABLE, LOST_ANSWER_COSTS_NOTHING};
use crate::witness::{Call, operator, user};
use crate::world::{Held, Node, World};

/// What is to end.
#[derive(Clone, Debug)]
pub enum Ending {
    /// A session, by an operator.
    Session(Sid),
    /// A session, by whoever holds it.
    Logout(Held),
    /// A session, by a token of it (RFC 7009).
    Revoke(Held),
    /// All sessions of a subject.
    Subject(Subject),
    /// All sessions of the user of a session, but that one.
    Others(Held),
    /// One of the user's other sessions.
    Own(Held, Sid),
    /// Everything.
    Everything,
}

impl Ending {
    fn concerns(&self, sid: Sid, track: &Track, world: &World) -> bool {
        match self {
            Self::Session(ended) => sid == *ended,
            Self::Logout(held) | Self::Revoke(held) => sid == held.sid,
            Self::Own(_, ended) => sid == *ended,
            Self::Subject(subject) => track.subject.as_ref() == Some(subject),
            Self::Others(held) => {
                let owner = world.book().tracks.get(&held.sid).and_then(|own| own.subject.clone());
                sid != held.sid && track.subject == owner
            }
            Self::Everything => true,
        }
    }
}

/// A write of data or claims; its mark tells whether it took effect.
#[derive(Clone, Debug)]
pub enum Save {
    /// Reads a session's data, counts up, and puts all of it, if nobody wrote meanwhile.
    Put(Sid),
    /// Adds a member to a session's data.
    Patch(Sid),
    /// Adds a member to a session's data, if nobody wrote meanwhile.
    PatchIfUnchanged(Sid),
    /// Adds a claim to a session.
    Claim(Sid),
    /// Adds a claim to a subject.
    SubjectClaim(Subject),
}

impl World {
    /// Ends something at a node, and judges the answer.
    pub async fn end_at(&self, call: Call, node: &Node, ending: &Ending) -> Result<(), Error> {
        let over_before = match ending {
            Ending::Own(_, sid) => self.is_over(*sid),
            _ => false,
        };
        let answer = self.do_end(node, ending).await;
        let end = self.handle.moment();
        let concerned: Vec<Sid> = {
            let tracks = self.book().tracks.clone();
            let opened_before = tracks.iter().filter(|(_, track)| track.opened < call.begin);
            opened_before
                .filter(|(sid, track)| ending.concerns(**sid, track, self))
                .map(|(sid, _)| *sid)
                .collect()
        };
        let mut book = self.book();
        book.tally.judged += 1;
        for sid in &concerned {
            book.note(end, Some(*sid), || {
                let begin = call.begin.at;
                format!("node {} ends {ending:?} (since {begin}): {answer:?}", call.node)
            });
        }
        match &answer {
            Ok(()) => {
                for sid in concerned {
                    let went_back = book.went_back(sid);
                    let Some(track) = book.tracks.get_mut(&sid) else { continue };
                    if track.ended.is_some() {
                        track.told.entry(call.node).or_insert((end, call.life));
                        continue;
                    }
                    let is_expired = self.is_expired(book.session(sid), end);
                    if !is_expired && !went_back {
                        let text = format!("{ending:?} was answered, and it lives");
                        book.violate(ACKNOWLEDGED_IS_DURABLE, end, Some(sid), text);
                    }
                }
            }
            Err(Error::Refused(Refusal::NotFound)) => {
                if let Ending::Own(_, sid) = ending
                    && !over_before
                    && book.tracks.get(sid).is_some_and(|track| track.ended.is_some())
                    && !book.went_back(*sid)
                    && book.ends_by_own.get(sid) == Some(&1)
                {
                    let text = "ending it took effect and was answered \"not found\"".to_owned();
                    book.violate(LOST_ANSWER_COSTS_NOTHING, end, Some(*sid), text);
                }
            }
            Err(Error::Refused(_)) => {}
            Err(Error::Unavailable(_) | Error::Overloaded) => book.tally.unavailable += 1,
        }
        drop(book);
        self.stop_if_broken();
        answer
    }

    async fn do_end(&self, node: &Node, ending: &Ending) -> Result<(), Error> {
        let (own, admin) = (user(1), operator());
        match ending {
            Ending::Session(sid) => {
                node.end_session(*sid, Some("on request"), &admin).await.map(drop)
            }
            Ending::Logout(held) => {
                let credential = match held.delivery {
                    Delivery::Cookie => Credential::Cookie(&held.token),
                    Delivery::Bearer | Delivery::Split => Credential::Refresh(&held.token),
                };
                self.expect_ended(node.logout(credential, &own).await, held)
            }
            Ending::Revoke(held) => {
                self.expect_ended(node.revoke_token(&held.token, &own).await, held)
            }
            Ending::Subject(subject) => node.end_subject(subject, &admin).await.map(drop),
            Ending::Others(held) => {
                let verified = node.verify(credential(held)).await?;
                node.end_all_own(&verified, true, &own).await.map(drop)
            }
            Ending::Own(held, sid) => {
                let verified = node.verify(credential(held)).await?;
                *self.book().ends_by_own.entry(*sid).or_default() += 1;
                node.end_own(&verified, *sid, &own).await.map(drop)
            }
            Ending::Everything => node.end_everything(&admin).await.map(drop),
        }
    }

    /// "Nothing to end" is fine where the credential was overtaken, or its session was over.
    fn expect_ended<T>(&self, answer: Result<Option<T>, Error>, held: &Held) -> Result<(), Error> {
        match answer? {
            Some(_) => Ok(()),
            None if self.is_over(held.sid) => Ok(()),
            None => Err(Refusal::TokenInvalid.into()),
        }
    }

    fn is_over(&self, sid: Sid) -> bool {
        let book = self.book();
        let now = self.handle.moment();
        book.tracks.get(&sid).is_none_or(|track| track.ended.is_some())
            || self.is_expired(book.session(sid), now)
    }

    /// Writes at a node, and judges the answer.
    pub async fn save(&self, call: Call, node: &Node, save: &Save) -> Result<(), Error> {
        let mark = format!("m{}", call.begin.step);
        let answer = self.do_save(node, save, &mark).await;
        let end = self.handle.moment();
        let sid = match save {
            Save::Put(sid) | Save::Patch(sid) | Save::PatchIfUnchanged(sid) | Save::Claim(sid) => {
                Some(*sid)
            }
            Save::SubjectClaim(_) => None,
        };
        let mut book = self.book();
        book.tally.judged += 1;
        book.note(end, sid, || format!("node {} saves {save:?} as {mark}: {answer:?}", call.node));
        let applied = book.applied.contains_key(&mark);
        match &answer {
            Ok(()) if !applied => {
                let text = format!("{save:?} was answered and isn't stored");
                book.violate(ACKNOWLEDGED_IS_DURABLE, end, sid, text);
            }
            Err(Error::Refused(refusal @ Refusal::PreconditionFailed)) if applied => {
                let text = format!("{save:?} took effect and was answered {refusal:?}");
                book.violate(LOST_ANSWER_COSTS_NOTHING, end, sid, text);
            }
            Ok(()) | Err(Error::Refused(_)) => {}
            Err(Error::Unavailable(_) | Error::Overloaded) => book.tally.unavailable += 1,
        }
        drop(book);
        self.stop_if_broken();
        answer
    }

    async fn do_save(&self, node: &Node, save: &Save, mark: &str) -> Result<(), Error> {
        let (own, admin) = (user(1), operator());
        let marked = || Object::from_iter([(mark.to_owned(), Value::from(1))]);
        match save {
            Save::Put(sid) => {
                let view = node.data(*sid).await?;
                self.pause(0, 60).await;
                let mut data = view.data;
                let count = data.get("n").and_then(Value::as_u64).unwrap_or(0);
                data.insert("n".to_owned(), Value::from(count + 1));
                data.insert("by".to_owned(), Value::from(mark));
                node.put_data(*sid, data, IfMatch::Version(view.version), &own).await.map(drop)
            }
            Save::Patch(sid) => {
                node.patch_data(*sid, &marked(), IfMatch::Any, &own).await.map(drop)
            }
            Save::PatchIfUnchanged(sid) => {
                let view = node.data(*sid).await?;
                let condition = IfMatch::Version(view.version);
                node.patch_data(*sid, &marked(), condition, &own).await.map(drop)
            }
            Save::Claim(sid) => node.change_claims(*sid, &marked(), &admin).await.map(drop),
            Save::SubjectClaim(subject) => {
                let patch = SubjectPatch { claims: Some(marked()), disabled: None };
                node.patch_subject(subject, patch, &admin).await.map(drop)
            }
        }
    }
}

fn credential(held: &Held) -> Credential<'_> {
    match (&held.access, held.delivery) {
        (Some((access, _)), _) => Credential::Access(access),
        (None, Delivery::Cookie) => Credential::Cookie(&held.token),
        (None, Delivery::Bearer | Delivery::Split) => Credential::Refresh(&held.token),
    }
}
