//! Races over two nodes, as an attacker would run them: whatever wins, the invariant holds.

use cloakroom::UserView;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{Pair, on_each_server, refresh};
use crate::http::{Answer, Ask, send};
use crate::world::{ADA, BOB, PASSWORD, World, login};

const OTHER_PASSWORD: &str = "seven lanterns over the river";

/// Limits that no round meets.
const UNLIMITED: [(&str, &str); 4] = [
    ("limit.session", "1000000/1m"),
    ("limit.network", "1000000/1m"),
    ("limit.login", "1000000/1m"),
    ("limit.login_identifier", "1000000/1m"),
];

/// Sends a request without waiting for its answer.
fn fly(node: &World, ask: Ask) -> JoinHandle<Answer> {
    let address = node.public;
    tokio::spawn(async move { send(address, &ask).await })
}

/// Neither of these tokens counts, on any node.
async fn is_dead(Pair { one, two }: &Pair, tokens: &Answer, told: &str) {
    for node in [two, one] {
        let access = tokens.text("access_token");
        assert!(node.alive(&access).await.is_err(), "{told}");
        let refreshed = node.send(refresh(&tokens.text("refresh_token"))).await;
        assert_eq!(refreshed.status, 401, "{told}");
    }
}

/// What voids a sign-in whose password is being checked.
#[derive(Clone, Copy, Debug)]
enum Overtaking {
    SignOutEverywhere,
    PasswordChange,
    Disabling,
}

impl Overtaking {
    const ALL: [Self; 3] = [Self::SignOutEverywhere, Self::PasswordChange, Self::Disabling];

    async fn on(self, node: &World, ada: &UserView, new_password: &str) {
        let id = ada.id.as_str();
        let user = format!("/admin/v1/users/{id}");
        let patch = |body: Value| Ask::new("PATCH", &user).json(&body);
        let ask = match self {
            Self::SignOutEverywhere => Ask::delete(&format!("/admin/v1/subjects/{id}/sessions")),
            Self::PasswordChange => patch(json!({"password": new_password})),
            Self::Disabling => patch(json!({"disabled": true})),
        };
        node.admin(ask).await.ok();
    }
}

/// Waits until a node has read whom it signs in, and checks the password.
async fn checks_a_password(node: &World, hashed_before: u64) {
    let authority = &node.running().site().authority;
    let checking = async {
        loop {
            let load = authority.password_load();
            if load.running > 0 || load.hashed > hashed_before {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, checking).await.expect("a password is checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn g1_g2_a_sign_in_under_way_on_one_node_is_void_by_what_another_does() {
    const ROUNDS: usize = 200;
    on_each_server(&UNLIMITED, async |pair, server| {
        let Pair { one, two } = pair;
        let ada = one.user(ADA).await;
        let (mut password, mut other) = (PASSWORD, OTHER_PASSWORD);
        let sign_in = |password: &str| {
            let body = json!({"identifier": ADA, "password": password, "delivery": "bearer"});
            Ask::post("/auth/login").json(&body)
        };
        let mut voided = 0;
        for round in 0..ROUNDS {
            let overtaking = Overtaking::ALL[round % Overtaking::ALL.len()];
            let told = format!("{}: {overtaking:?} in round {round}", server.name());
            let hashed = one.running().site().authority.password_load().hashed;
            let flying = fly(one, sign_in(password));
            checks_a_password(one, hashed).await;
            overtaking.on(two, &ada, other).await;
            let answer = flying.await.expect("an answer");
            if answer.status == 200 {
                is_dead(pair, &answer, &told).await;
            } else {
                assert_eq!(answer.status, 401, "{told}: {answer:?}");
                voided += 1;
            }
            assert!(two.sessions_of(&ada).await.is_empty(), "{told}");
            match overtaking {
                Overtaking::SignOutEverywhere => {}
                Overtaking::PasswordChange => std::mem::swap(&mut password, &mut other),
                Overtaking::Disabling => {
                    let user = format!("/admin/v1/users/{}", ada.id.as_str());
                    let enable = Ask::new("PATCH", &user).json(&json!({"disabled": false}));
                    two.admin(enable).await.ok();
                }
            }
        }
        // The controls: some were overtaken, and what comes after all of it is let in.
        assert!(voided > 0, "{}", server.name());
        let access = one.send(sign_in(password)).await.ok().text("access_token");
        assert_eq!(two.alive(&access).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_former_credential_is_dead_on_both_nodes_at_the_next_request() {
    on_each_server(&UNLIMITED, async |Pair { one, two }, _| {
        one.user(ADA).await;
        let mut browser = one.signed_in(ADA, "cookie").await;
        for _ in 0..20 {
            let session = |cookie: &str| Ask::get("/auth/session").cookie(cookie);
            let old = browser.cookie_line();
            for node in [one, two] {
                node.send(session(&old)).await.ok();
            }
            let again = Ask::post("/auth/reauthenticate").json(&json!({"password": PASSWORD}));
            browser.send(again).await.ok();
            let new = browser.cookie_line();
            assert_ne!(new, old);
            for node in [two, one] {
                assert_eq!(node.send(session(&old)).await.status, 401);
                node.send(session(&new)).await.ok();
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f2_sixty_four_refreshes_over_two_nodes_agree_on_one_successor() {
    on_each_server(&UNLIMITED, async |Pair { one, two }, server| {
        let ada = one.user(ADA).await;
        let mut token = one.tokens(ADA).await.text("refresh_token");
        for round in 0..10 {
            let flying: Vec<_> = (0..64).map(|n| fly([one, two][n % 2], refresh(&token))).collect();
            let mut successors = Vec::new();
            for answer in flying {
                let answer = answer.await.expect("an answer");
                successors.push(answer.ok().text("refresh_token"));
            }
            successors.dedup();
            assert_eq!(successors.len(), 1, "{}: round {round}", server.name());
            assert_ne!(successors[0], token);
            token = successors.remove(0);
        }
        // And it is one that counts, on either node.
        let access = two.send(refresh(&token)).await.ok().text("access_token");
        assert_eq!(one.alive(&access).await, Ok(()));
        assert_eq!(two.sessions_of(&ada).await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f3_an_ending_on_one_node_beats_refreshes_under_way_on_both() {
    on_each_server(&UNLIMITED, async |pair, server| {
        let Pair { one, two } = pair;
        let ada = one.user(ADA).await;
        one.user(BOB).await;
        let bob = two.tokens(BOB).await.text("access_token");
        let mut in_time = 0;
        for round in 0..60 {
            let body = json!({"subject": ada.id.as_str(), "delivery": "bearer"});
            let first = one.admin(Ask::post("/admin/v1/sessions").json(&body)).await;
            let (access, token) = (first.is(201).text("access_token"), first.text("refresh_token"));
            let flying: Vec<_> = (0..4).map(|n| fly([one, two][n % 2], refresh(&token))).collect();
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            two.send(Ask::post("/auth/logout").bearer(&access)).await.is(204);
            for answer in flying {
                let answer = answer.await.expect("an answer");
                if answer.status == 200 {
                    in_time += 1;
                    is_dead(pair, &answer, &format!("{}: round {round}", server.name())).await;
                } else {
                    answer.refused(401, "session_ended");
                }
            }
            is_dead(pair, &first, server.name()).await;
        }
        assert!(in_time > 0, "no refresh was in time: nothing raced");
        assert_eq!(one.alive(&bob).await, Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_key_deleted_by_one_node_is_nobodys_on_the_other() {
    const KEYS: &str = "/admin/v1/api-keys";
    on_each_server(&UNLIMITED, async |Pair { one, two }, _| {
        for _ in 0..10 {
            let body = json!({"name": "shop", "scopes": ["sessions:read"]});
            let made = one.admin(Ask::post(KEYS).json(&body)).await;
            let secret = made.is(201).text("secret");
            let ask = || Ask::get("/admin/v1/sessions").bearer(&secret);
            for node in [two, one] {
                node.send_admin(ask()).await.ok();
            }
            let path = format!("{KEYS}/{}", made.text("api_key.id"));
            one.admin(Ask::delete(&path)).await.is(204);
            for node in [two, one] {
                node.send_admin(ask()).await.refused(401, "token_invalid");
            }
        }
    })
    .await;
}

/// Signs in 50 times at once over both nodes; the answers.
async fn crowd(Pair { one, two }: &Pair) -> Vec<Answer> {
    let flying: Vec<_> = (0..50).map(|n| fly([one, two][n % 2], login(ADA, "bearer"))).collect();
    let mut answers = Vec::new();
    for answer in flying {
        answers.push(answer.await.expect("an answer"));
    }
    answers
}

/// How many of these are alive; every node says the same.
async fn alive(Pair { one, two }: &Pair, answers: &[Answer]) -> usize {
    let mut alive = 0;
    for answer in answers.iter().filter(|answer| answer.status == 200) {
        let access = answer.text("access_token");
        let verdict = one.alive(&access).await;
        assert_eq!(verdict, two.alive(&access).await);
        alive += usize::from(verdict.is_ok());
    }
    alive
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_with_end_oldest_exactly_three_of_fifty_over_two_nodes_live() {
    // All want the same record: on a busy machine the last one's turn takes its time.
    let limit =
        [("session.max_per_subject", "3"), ("password.pool", "8"), ("store.timeout", "10s")];
    let settings: Vec<_> = UNLIMITED.into_iter().chain(limit).collect();
    on_each_server(&settings, async |pair, _| {
        let ada = pair.one.user(ADA).await;
        let answers = crowd(pair).await;
        for answer in &answers {
            answer.ok();
        }
        assert_eq!(alive(pair, &answers).await, 3);
        let path = "/admin/v1/events?type=session.ended&limit=200";
        let events = pair.two.admin(Ask::get(path)).await.ok().at("events");
        let events = events.as_array().expect("a list").clone();
        assert!(events.iter().all(|event| event["reason"] == "too_many_sessions"), "{events:?}");
        assert_eq!((events.len(), pair.one.sessions_of(&ada).await.len()), (47, 3));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_with_refuse_exactly_three_of_fifty_over_two_nodes_are_let_in() {
    let limit =
        [("session.max_per_subject", "3"), ("session.on_limit", "refuse"), ("password.pool", "8")];
    let settings: Vec<_> = UNLIMITED.into_iter().chain(limit).collect();
    on_each_server(&settings, async |pair, _| {
        let ada = pair.one.user(ADA).await;
        let answers = crowd(pair).await;
        let (let_in, refused): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|answer| answer.status == 200);
        for answer in &refused {
            answer.refused(409, "too_many_sessions");
        }
        assert_eq!((let_in.len(), alive(pair, &let_in).await), (3, 3));
        assert_eq!(pair.two.sessions_of(&ada).await.len(), 3);
    })
    .await;
}
