//! Section 2: our cookies, line by line, and look-alikes that are none of ours.

use crate::http::{Answer, Ask};
use crate::world::{ADA, World, login, on_each_store};

/// Cookies as they are behind TLS.
const SECURE: &[(&str, &str)] =
    &[("cookie.secure", "true"), ("server.origin", "https://app.example")];

/// The lines of an answer, with what differs each time put aside.
fn lines(answer: &Answer) -> Vec<String> {
    answer
        .all("set-cookie")
        .into_iter()
        .map(|line| {
            let (name, rest) = line.split_once('=').expect("a name");
            let (value, attributes) = rest.split_once(';').expect("attributes");
            let value = if value.is_empty() { "" } else { "…" };
            let attributes =
                attributes.split("; ").map(|attribute| match attribute.split_once('=') {
                    Some(("Max-Age", age)) if age != "0" => "Max-Age=…".to_owned(),
                    Some(_) | None => attribute.to_owned(),
                });
            format!("{name}={value};{}", attributes.collect::<Vec<_>>().join("; "))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_every_cookie_line_is_as_written_down() {
    let mut found = String::new();
    let shared = [SECURE, &[("cookie.domain", "app.example")]].concat();
    for (title, settings) in
        [("loopback", &[][..]), ("secure", SECURE), ("domain", shared.as_slice())]
    {
        let settings = [&[("store.url", "memory:")][..], settings].concat();
        let world = World::start(&settings).await;
        world.user(ADA).await;
        let mut note = |what: &str, answer: &Answer| {
            assert!(answer.status < 300, "{answer:?}");
            for line in lines(answer) {
                found.push_str(&format!("{title} | {what} | {line}\n"));
            }
        };
        for delivery in ["cookie", "split"] {
            let mut browser = world.browser();
            note("csrf-token", &browser.send(Ask::get("/auth/csrf-token")).await);
            note(&format!("login {delivery}"), &browser.send(login(ADA, delivery)).await);
            note(&format!("refresh {delivery}"), &browser.send(Ask::post("/auth/refresh")).await);
            note(&format!("logout {delivery}"), &browser.send(Ask::post("/auth/logout")).await);
        }
        let body = serde_json::json!({"identifier": ADA, "password": crate::world::PASSWORD,
            "remember": true});
        let remembered = world.send(Ask::post("/auth/login").json(&body)).await;
        note("login cookie remember", &remembered);
        world.stop().await;
    }
    crate::world::golden("cookies.txt", &found);
}

#[tokio::test(flavor = "multi_thread")]
async fn c2_a_look_alike_is_no_session_cookie() {
    on_each_store(SECURE, async |world| {
        world.user(ADA).await;
        let answer = world.send(login(ADA, "cookie")).await;
        let value = answer.set_cookie("__Host-session").expect("a session cookie");
        let ask = |line: &str| Ask::get("/auth/session").cookie(line);
        world.send(ask(&format!("__Host-session={value}"))).await.ok();
        for line in [
            format!("__host-session={value}"),
            format!("__HOST-SESSION={value}"),
            format!("session={value}"),
            format!("\u{2000}__Host-session={value}"),
            format!("\u{85}__Host-session={value}"),
            format!("=__Host-session={value}"),
            format!("$Version=1; __Host-session={value}"),
            format!("__Host-session=\"{value}\""),
            format!("__Host-session ={value}"),
            format!("__Host-session={value} "),
            format!("__Host-session= {value}"),
            format!("__Secure-session={value}"),
        ] {
            let status = world.send(ask(&line)).await.status;
            // A trailing blank belongs to the header's own syntax, not to the cookie.
            let expected = if line.ends_with(' ') { 200 } else { 401 };
            assert_eq!(status, expected, "{line:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_two_of_one_cookie_are_none_and_neither_is_touched() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let one = world.signed_in(ADA, "cookie").await;
        let (a, b) = (one.jar["session"].clone(), world.signed_in(ADA, "cookie").await);
        let b = b.jar["session"].clone();
        let lines = [
            vec![format!("session={a}; session={b}")],
            vec![format!("session={b}; session={a}")],
            vec![format!("session={a}"), format!("session={b}")],
            vec![format!("session={a}; session={a}")],
        ];
        for lines in &lines {
            let ask = lines.iter().fold(Ask::get("/auth/session"), |ask, line| ask.cookie(line));
            let answer = world.send(ask).await;
            answer.refused(401, "credentials_required");
            assert!(answer.all("set-cookie").is_empty());
        }
        let split = world.signed_in(ADA, "split").await.jar["refresh"].clone();
        let ask = Ask::post("/auth/refresh").cookie(&format!("refresh=x; refresh={split}"));
        let answer = world.send(ask).await;
        answer.refused(401, "token_invalid");
        assert_eq!(world.sessions_of(&ada).await.len(), 3);
        // Different names in two lines are put together again (RFC 9113 section 8.2.3).
        let ask = Ask::get("/auth/session").cookie("theme=dark").cookie(&format!("session={a}"));
        world.send(ask).await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c6_a_jar_full_of_junk_signs_nobody_out() {
    on_each_store(&[], async |world| {
        let ada = world.user(ADA).await;
        let cookie = world.signed_in(ADA, "cookie").await.jar["session"].clone();
        let junk = |count: usize| -> String {
            (0..count).map(|n| format!("junk{n:03}={}; ", "x".repeat(25))).collect()
        };
        let line = format!("{}session={cookie}; {}last=1", junk(90), junk(90));
        world.send(Ask::get("/auth/session").cookie(&line)).await.ok();
        let line = format!("{}session={cookie}", junk(1800));
        let answer = world.send(Ask::get("/auth/session").cookie(&line)).await;
        assert_eq!(answer.status, 431);
        assert!(answer.all("set-cookie").is_empty());
        assert_eq!(world.sessions_of(&ada).await.len(), 1);
    })
    .await;
}
