//! Without axum, without the layer, without an authority.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use bytes::Bytes;
use cloakroom_tower::{CurrentUser, Error, Session, testing};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

use crate::browser::raw;
use crate::world::{Doors, World, routes};

#[tokio::test]
async fn a_missing_layer_is_told_with_the_line_to_add() {
    let app = routes(Doors::default());
    for path in ["/me", "/csrf", "/data/k", "/maybe", "/role", "/guarded", "/limited"] {
        let answer = raw(&app, Request::get(path), "").await.code(500, "internal");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(".layer(cloakroom.layer())"), "{detail}");
        assert!(detail.contains(path), "{detail}");
    }
}

#[tokio::test]
async fn any_tower_service_can_stand_behind_the_layer() {
    let world = World::memory().await;
    let inner = service_fn(|request: Request<cloakroom_tower::RequestBody<Full<Bytes>>>| async {
        let session = Session::of(&request).expect("the layer is there");
        assert_eq!(session.user().expect_err("nobody").status(), StatusCode::UNAUTHORIZED);
        session.insert("k", 1).await.expect("kept");
        let bytes = request.into_body().collect().await.expect("a body").to_bytes();
        Ok::<_, Infallible>(Response::new(Full::new(bytes)))
    });
    let mut service = world.cloakroom.layer().layer(inner);
    let request = Request::post("/").body(Full::new(Bytes::from_static(b"hello")));
    let service = service.ready().await.expect("ready");
    let answer = service.call(request.expect("a request")).await.expect("infallible");
    assert!(answer.headers().contains_key("set-cookie"), "a visitor's session was opened");
    let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
    assert_eq!(&bytes[..], b"hello");
    assert!(Session::of(&Request::new(())).is_err());
}

#[tokio::test]
async fn an_application_is_tested_without_an_authority() {
    async fn count(user: CurrentUser, session: Session) -> Result<String, Error> {
        let n: u32 = session.get("n").await?.unwrap_or(0) + 1;
        session.insert("n", n).await?;
        Ok(format!("{} {:?} {n}", user.id(), user.claim("role")))
    }
    let leave = |session: Session| async move { session.sign_out().await.map(|()| "out") };
    let app: Router = Router::new()
        .route("/count", get(count))
        .route("/out", post(leave))
        .layer(testing::layer());
    let ada = || testing::signed_in("ada").claim("role", "admin");
    let ask = async |request: http::request::Builder| {
        let request = request.body(Body::empty()).expect("a request");
        let answer = app.clone().oneshot(request).await.expect("infallible");
        let status = answer.status();
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    };
    let ok = |text: &str| (StatusCode::OK, text.to_owned());
    assert_eq!(ask(ada().get("/count")).await, ok("ada Some(\"admin\") 1"));
    assert_eq!(ask(ada().get("/count")).await, ok("ada Some(\"admin\") 2"));
    assert_eq!(ask(testing::signed_in("eve").get("/count")).await, ok("eve None 1"));
    assert_eq!(ask(Request::get("/count")).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(ada().post("/out")).await, ok("out"));
    assert_eq!(ask(ada().get("/count")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn sessions_outlive_the_process_where_they_are_on_disk() {
    let kept = tempfile::TempDir::new().expect("a directory");
    let open = async || cloakroom::Cloakroom::embedded(kept.path().join("data")).await;
    let app = |ck: &cloakroom::Cloakroom| {
        routes(Doors::default()).layer(ck.layer().origin(crate::world::ORIGIN).expect("valid"))
    };
    let first = open().await.expect("opened");
    let mut browser = crate::browser::Browser::new(app(&first));
    browser.post("/sign-in?user=ada").await.expect(200);
    let cookie = browser.cookie.clone().expect("signed in");
    drop((browser, first));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let second = open().await.expect("opened again");
    let mut browser = crate::browser::Browser::new(app(&second)).with_cookie(&cookie);
    assert_eq!(browser.get("/me").await.expect(200).body, "ada");
}
