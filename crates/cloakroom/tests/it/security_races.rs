//! Races that an attacker would try to win: a refresh or a write against an ending.

use std::sync::Arc;

use cloakroom::core::event::EventKind;
use cloakroom::core::refresh::Channel;
use cloakroom::core::refusal::Refusal;
use cloakroom::core::session::{Delivery, Object};
use cloakroom::core::types::Sid;
use cloakroom::store::memory::MemoryStore;
use cloakroom::{
    Authority, Credential, Error, IfMatch, OpenRequest, Opened, Settings, UserPatch, VerifySettings,
};

use crate::directory::*;
use crate::world::*;

type Node = Arc<Authority<MemoryStore>>;

/// How often each race is run.
const ROUNDS: usize = 200;

/// A second node on the same store, which reads the store for every verdict.
async fn second_node(world: &World) -> Node {
    let store = world.authority.store().clone();
    let verify = VerifySettings { cache: false, ..settings().verify };
    Arc::new(node(store, world, Settings { verify, ..roomy() }).await)
}

/// Settings with room for the sessions of all rounds, and limits that no round meets.
fn roomy() -> Settings {
    Settings { max_per_subject: 10_000, ..settings() }
}

/// What beats a refresh.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Logout,
    RevokeToken,
    Operator,
    Everywhere,
    Disable,
    Reuse,
}

impl Ending {
    const ALL: [Self; 6] = [
        Self::Logout,
        Self::RevokeToken,
        Self::Operator,
        Self::Everywhere,
        Self::Disable,
        Self::Reuse,
    ];

    async fn run(self, node: &Node, opened: &Opened, old: &str) {
        let subject = opened.session.subject.clone().expect("a subject");
        let token = opened.token.expose();
        match self {
            Self::Logout => {
                // The predecessor of a rotation that went first still signs out within its grace.
                let ended = node.logout(Credential::Refresh(token), &ctx()).await;
                assert!(ended.expect("an answer").is_some());
            }
            Self::RevokeToken => {
                let access = opened.access.as_ref().expect("an access token").token.expose();
                let ended = node.revoke_token(access, &ctx()).await;
                assert!(ended.expect("an answer").is_some());
            }
            Self::Operator => {
                node.end_session(opened.session.sid, None, &ctx()).await.expect("ended");
            }
            Self::Everywhere => {
                node.end_subject(&subject, &ctx()).await.expect("ended");
            }
            Self::Disable => {
                let patch = UserPatch { disabled: Some(true), ..UserPatch::default() };
                node.patch_user(&subject, patch, &ctx()).await.expect("disabled");
            }
            Self::Reuse => {
                let reused = node.refresh(old, Channel::Body, None, &ctx()).await;
                assert_eq!(refusal(reused), Refusal::RefreshTokenReused);
            }
        }
    }
}

/// No credential of any answer counts, on any node.
async fn all_dead(nodes: &[Node], answers: &[&Opened]) {
    for node in nodes {
        for opened in answers {
            let token = opened.token.expose();
            let refreshed = node.refresh(token, Channel::Body, None, &ctx()).await;
            assert!(matches!(refreshed, Err(Error::Refused(_))), "{refreshed:?}");
            let verified = node.verify(Credential::Refresh(token)).await;
            assert!(matches!(verified, Err(Error::Refused(_))), "{verified:?}");
            let access = opened.access.as_ref().expect("an access token").token.expose();
            let verified = node.verify(Credential::Access(access)).await;
            assert!(matches!(verified, Err(Error::Refused(_))), "{verified:?}");
            assert!(node.introspect(access).await.expect("an answer").is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f3_an_ending_beats_a_refresh_in_flight() {
    let world = World::with(roomy()).await;
    let nodes = [Arc::clone(&world.authority), second_node(&world).await];
    let mut refreshed_first = 0;
    for round in 0..ROUNDS {
        let ending = Ending::ALL[round % Ending::ALL.len()];
        let name = format!("user{round}@example.com");
        let user = world.user(&name).await;
        let first = world
            .open_as(cloakroom::core::session::Grant {
                subject: Some(user.id.clone()),
                ..grant(Delivery::Bearer)
            })
            .await;
        let opened = world.refresh(first.token.expose()).await.expect("rotated");
        // The grace of the first rotation is over: its predecessor is a reuse from now on.
        world.advance(31 * SECOND);
        let (opened, old) = (Arc::new(opened), Arc::new(first.token.expose().clone()));
        let answers = together(4, |n| {
            let node = Arc::clone(&nodes[n % 2]);
            let (opened, old) = (Arc::clone(&opened), Arc::clone(&old));
            async move {
                if n == 0 {
                    ending.run(&node, &opened, &old).await;
                    return None;
                }
                let token = opened.token.expose();
                match node.refresh(token, Channel::Body, None, &ctx()).await {
                    Ok(answer) => Some(answer),
                    Err(Error::Refused(_)) => None,
                    Err(fault) => panic!("{fault}"),
                }
            }
        })
        .await;
        let answers: Vec<Opened> = answers.into_iter().flatten().collect();
        refreshed_first += usize::from(!answers.is_empty());
        let all: Vec<&Opened> = answers.iter().chain([&first, &*opened]).collect();
        all_dead(&nodes, &all).await;
        assert!(nodes[0].sessions_of(&user.id).await.expect("a list").is_empty(), "{ending:?}");
    }
    // The control: some of the refreshes were in time, and it helped them nothing.
    assert!(refreshed_first > 0);
}

/// What could write to a session that is being ended.
#[derive(Clone, Copy, Debug)]
enum Writing {
    Use,
    TouchBySid,
    PutData,
    PatchData,
    Claims,
    Reauthenticate,
    Refresh,
    Replace,
}

impl Writing {
    const ALL: [Self; 8] = [
        Self::Use,
        Self::TouchBySid,
        Self::PutData,
        Self::PatchData,
        Self::Claims,
        Self::Reauthenticate,
        Self::Refresh,
        Self::Replace,
    ];

    const fn delivery(self) -> Delivery {
        match self {
            Self::Refresh => Delivery::Bearer,
            Self::Use
            | Self::TouchBySid
            | Self::PutData
            | Self::PatchData
            | Self::Claims
            | Self::Reauthenticate
            | Self::Replace => Delivery::Cookie,
        }
    }

    /// Writes once. Gives back a credential of the session, if the write made a new one.
    async fn once(self, node: &Node, opened: &Opened) -> Result<Option<Opened>, Error> {
        let sid = opened.session.sid;
        let token = opened.token.expose();
        let some = object(serde_json::json!({"some": "thing"}));
        match self {
            Self::Use => {
                node.verify(Credential::Cookie(token)).await?;
                node.flush_touches().await?;
            }
            Self::TouchBySid => {
                node.touch(&[sid]).await?;
                node.flush_touches().await?;
            }
            Self::PutData => {
                node.put_data(sid, some, IfMatch::Any, &ctx()).await?;
            }
            Self::PatchData => {
                node.patch_data(sid, &some, IfMatch::Any, &ctx()).await?;
            }
            Self::Claims => {
                node.change_claims(sid, &some, &ctx()).await?;
            }
            Self::Reauthenticate => {
                let verified = node.verify(Credential::Cookie(token)).await?;
                let again = node.reauthenticate(&verified, secret(PASSWORD), &ctx()).await?;
                return Ok(Some(again));
            }
            Self::Refresh => {
                return node.refresh(token, Channel::Body, None, &ctx()).await.map(Some);
            }
            Self::Replace => {
                // The successor is another session; what must not come back is this one.
                let replaces = Some(token.clone());
                let grant = grant(Delivery::Cookie);
                node.open_session(
                    OpenRequest { replaces, carry_data: true, ..request(grant) },
                    &ctx(),
                )
                .await?;
            }
        }
        Ok(None)
    }
}

/// Writes for as long as it may, and a little longer; says what credentials came of it.
async fn write_on(writing: Writing, node: Node, opened: Arc<Opened>) -> Vec<Opened> {
    let mut made: Vec<Opened> = Vec::new();
    let mut refused = 0;
    // A replacement that is asked for again is a retry, however often: hence the bound.
    for _ in 0..40 {
        if refused == 3 {
            break;
        }
        let latest = made.last().unwrap_or(&opened);
        match writing.once(&node, latest).await {
            Ok(Some(next)) => made.push(next),
            Ok(None) if matches!(writing, Writing::TouchBySid) => refused += 1,
            Ok(None) => {}
            Err(Error::Refused(_)) => refused += 1,
            Err(fault) => panic!("{fault}"),
        }
        tokio::task::yield_now().await;
    }
    made
}

async fn is_dead(nodes: &[Node], sid: Sid, opened: &Opened) {
    for node in nodes {
        let token = opened.token.expose();
        let credential = match opened.session.delivery {
            Delivery::Cookie => Credential::Cookie(token),
            Delivery::Bearer | Delivery::Split => Credential::Refresh(token),
        };
        let verified = node.verify(credential).await;
        assert!(matches!(verified, Err(Error::Refused(_))), "{verified:?}");
        match node.session(sid).await {
            Ok(listed) => assert!(listed.ending.is_some(), "{listed:?}"),
            Err(Error::Refused(Refusal::NotFound)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g3_no_write_of_any_kind_brings_an_ended_session_back() {
    for round in 0..ROUNDS {
        let writing = Writing::ALL[round % Writing::ALL.len()];
        let world = World::with(roomy()).await;
        let user = world.user(NAME).await;
        let nodes = [Arc::clone(&world.authority), second_node(&world).await];
        let opened = Arc::new(world.sign_in_for(writing.delivery()).await);
        let sid = opened.session.sid;
        // Long enough since the last use for the next one to be written down.
        world.advance(HOUR);
        assert!(world.verify(&opened).await.is_ok(), "the control");
        let writers: Vec<_> = (0..3)
            .map(|n| {
                let (node, opened) = (Arc::clone(&nodes[n % 2]), Arc::clone(&opened));
                tokio::spawn(write_on(writing, node, opened))
            })
            .collect();
        for _ in 0..round % 7 {
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            nodes[1].end_session(sid, None, &ctx()).await.expect("ended");
        } else {
            nodes[1].end_subject(&user.id, &ctx()).await.expect("ended");
        }
        // At once where it was ended, and where the store is read.
        is_dead(&nodes[1..], sid, &opened).await;
        world.authority.follow().await.expect("followed");
        is_dead(&nodes, sid, &opened).await;
        for writer in writers {
            for made in writer.await.expect("no panic") {
                is_dead(&nodes, sid, &made).await;
            }
        }
        is_dead(&nodes, sid, &opened).await;
        // Nor once the ending itself is forgotten.
        world.advance(DAY + HOUR);
        world.authority.sweep().await.expect("swept");
        world.advance(DAY + HOUR);
        world.authority.sweep().await.expect("swept");
        for node in &nodes {
            let _ = writing.once(node, &opened).await;
        }
        is_dead(&nodes, sid, &opened).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f1_f2_racing_reuses_end_the_session_once() {
    for _ in 0..ROUNDS {
        let world = World::new().await;
        let first = world.open(Delivery::Bearer).await;
        let second = world.refresh(first.token.expose()).await.expect("rotated");
        world.advance(31 * SECOND);
        let (authority, old) = (Arc::clone(&world.authority), first.token.expose().clone());
        let refused = together(4, move |_| {
            let (authority, old) = (Arc::clone(&authority), old.clone());
            async move { authority.refresh(&old, Channel::Body, None, &ctx()).await.is_err() }
        })
        .await;
        assert_eq!(refused, [true; 4]);
        assert!(world.refresh(second.token.expose()).await.is_err());
        assert_eq!(world.count_events(EventKind::SessionReuseDetected).await, 1);
        assert_eq!(world.count_events(EventKind::SessionEnded).await, 1);
    }
}

#[tokio::test]
async fn an_ended_session_shows_no_data() {
    let world = World::new().await;
    let opened = world.open(Delivery::Cookie).await;
    let sid = opened.session.sid;
    let data = Object::from_iter([("cart".to_owned(), 3.into())]);
    world.authority.put_data(sid, data, IfMatch::Any, &ctx()).await.expect("saved");
    world.authority.end_session(sid, None, &ctx()).await.expect("ended");
    assert!(world.authority.data(sid).await.is_err());
}
