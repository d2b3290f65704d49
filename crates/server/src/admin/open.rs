//! `POST /admin/v1/sessions`: a session for a user whom a backend has checked itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::{ApiKeyIdentity, OpenRequest, Opened};
use cloakroom_core::cookie::CookieKind;
use cloakroom_core::json::Map;
use cloakroom_core::limits::{
    AMR_VALUES_MAX, LABEL_CHARS_MAX, LIFETIME_MAX, METHOD_BYTES_MAX, USER_AGENT_CHARS_MAX,
};
use cloakroom_core::session::{Client, Delivery, Grant};
use cloakroom_core::types::Subject;
use hyper::StatusCode;
use hyper::header::LOCATION;
use serde::Serialize;
use serde_json::Value;

use super::guard::actor_of;
use super::view::{AdminSession, header_value, session_of, with_durability};
use crate::http::{Ask, Members, Need, clean_text, json};
use crate::problem::Problem;
use crate::public::idempotency_key;
use crate::site::Site;

pub(super) async fn open(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&ask)?.map(str::to_owned);
    let request = read(idempotency_key, ask.members(Need::Required).await?)?;
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let opened = site.authority.open_session(request, &ctx).await?;
    let mut response = json(StatusCode::CREATED, &Answer::of(&site, &opened));
    let location = format!("/admin/v1/sessions/{}", opened.session.sid);
    response.headers_mut().insert(LOCATION, header_value(&location));
    Ok(with_durability(response, opened.ended))
}

fn read(idempotency_key: Option<String>, mut members: Members) -> Result<OpenRequest, Problem> {
    let subject = subject(&mut members)?;
    let replaces = members.opt_text("replaces")?;
    let carry_data = members.opt_bool("carry_data")?.unwrap_or(false);
    if carry_data && replaces.is_none() {
        return Err(Problem::invalid_member("carry_data", "needs `replaces`"));
    }
    let actor = members.opt_text("actor")?;
    let epoch = members.opt_u64("epoch")?;
    if subject.is_none() && (actor.is_some() || epoch.is_some()) {
        let name = if actor.is_some() { "actor" } else { "epoch" };
        return Err(Problem::invalid_member(name, "needs a subject"));
    }
    let grant = Grant {
        delivery: delivery(&mut members)?,
        remember: false,
        claims: members.opt_object("claims")?.unwrap_or_default(),
        amr: amr(&mut members)?,
        acr: acr(&mut members, subject.is_some())?,
        actor,
        idle_timeout: seconds(&mut members, "idle_timeout")?,
        lifetime: seconds(&mut members, "lifetime")?,
        client: client(members.opt_object("client")?)?,
        subject,
    };
    let data = members.opt_object("data")?;
    members.finish()?;
    Ok(OpenRequest { grant, epoch, replaces, carry_data, idempotency_key, data })
}

/// Whose the session will be. It has to be said, even where it is nobody's.
fn subject(members: &mut Members) -> Result<Option<Subject>, Problem> {
    match members.take("subject") {
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Subject::parse(&text)
            .map(Some)
            .map_err(|malformed| Problem::invalid_member("subject", malformed.0)),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Problem::invalid_member("subject", "must be a string, or null for nobody"))
        }
        None => Err(Problem::invalid_member("subject", "is required; null means nobody")),
    }
}

fn delivery(members: &mut Members) -> Result<Delivery, Problem> {
    let Some(name) = members.opt_text("delivery")? else { return Ok(Delivery::Cookie) };
    Delivery::parse(&name)
        .ok_or_else(|| Problem::invalid_member("delivery", "is cookie, bearer or split"))
}

fn amr(members: &mut Members) -> Result<Vec<String>, Problem> {
    let amr = members.opt_texts("amr")?.unwrap_or_default();
    if amr.len() <= AMR_VALUES_MAX && amr.iter().all(|method| is_method(method)) {
        Ok(amr)
    } else {
        Err(Problem::invalid_member("amr", "has at most 16 values of 1 to 64 visible characters"))
    }
}

/// How strongly the user was authenticated: where nothing is said, by one factor (`aal1`).
fn acr(members: &mut Members, somebody: bool) -> Result<String, Problem> {
    let default = if somebody { "aal1" } else { "aal0" };
    match members.opt_text("acr")? {
        None => Ok(default.to_owned()),
        Some(acr) if is_unknown_level(&acr) => {
            Err(Problem::invalid_member("acr", "is `aal0` to `aal3` where it names such a level"))
        }
        Some(acr) if is_method(&acr) => Ok(acr),
        Some(_) => Err(Problem::invalid_member("acr", "has 1 to 64 visible characters")),
    }
}

/// Whether it is a level of NIST SP 800-63B-4 misspelt, such as `AAL3` or `aal4`: it would meet no
/// policy and have none of the level's caps, silently.
fn is_unknown_level(acr: &str) -> bool {
    let level = acr.get(..3).filter(|name| name.eq_ignore_ascii_case("aal"));
    let number = level.and_then(|_| acr.get(3..));
    number.is_some_and(|number| number.parse::<u8>().is_ok())
        && !["aal0", "aal1", "aal2", "aal3"].contains(&acr)
}

fn is_method(text: &str) -> bool {
    (1..=METHOD_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A time in whole seconds, above zero and no longer than anything lives here.
fn seconds(members: &mut Members, name: &str) -> Result<Option<Duration>, Problem> {
    let Some(secs) = members.opt_u64(name)? else { return Ok(None) };
    if (1..=LIFETIME_MAX.as_secs()).contains(&secs) {
        Ok(Some(Duration::from_secs(secs)))
    } else {
        let why = format!("is whole seconds from 1 to {}", LIFETIME_MAX.as_secs());
        Err(Problem::invalid_member(name, why))
    }
}

/// Who signed in, from where, by the backend's account; cleaned and bounded like our own.
fn client(members: Option<Map>) -> Result<Client, Problem> {
    let mut client = Client::default();
    for (name, value) in members.unwrap_or_default() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                let member = format!("client.{name}");
                return Err(Problem::invalid_member(&member, "must be a string"));
            }
        };
        match name.as_str() {
            "ip" => {
                let ip: IpAddr = text.parse().map_err(|_| {
                    Problem::invalid_member("client.ip", "must be an IPv4 or IPv6 address")
                })?;
                client.ip = Some(ip.to_canonical());
            }
            "user_agent" => client.user_agent = filled(&text, USER_AGENT_CHARS_MAX),
            "label" => {
                if text.chars().count() > LABEL_CHARS_MAX {
                    let why = "has at most 128 characters";
                    return Err(Problem::invalid_member("client.label", why));
                }
                client.label = filled(&text, LABEL_CHARS_MAX);
            }
            _ => return Err(Problem::unknown_member(&format!("client.{name}"))),
        }
    }
    Ok(client)
}

fn filled(text: &str, chars_max: usize) -> Option<String> {
    Some(clean_text(text, chars_max)).filter(|text| !text.is_empty())
}

/// The session and its credentials, which are told this once.
#[derive(Serialize)]
struct Answer<'a> {
    session: AdminSession<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_cookie: Option<[String; 1]>,
}

impl<'a> Answer<'a> {
    fn of(site: &Site, opened: &'a Opened) -> Self {
        let session = &opened.session;
        let token = opened.token.expose().as_str();
        let line = |kind| Some([site.cookies.set(kind, token, None)]);
        let csrf_token = || Some(site.authority.csrf_token(session.sid));
        let access = opened.access.as_ref();
        let common = Self {
            session: session_of(site, session, &opened.claims, None),
            token_type: access.map(|_| "Bearer"),
            access_token: access.map(|access| access.token.expose().as_str()),
            expires_in: access.map(|access| access.expires_in),
            refresh_token: None,
            refresh_expires_in: opened.refresh_expires_in,
            session_token: None,
            csrf_token: None,
            set_cookie: None,
        };
        match session.delivery {
            Delivery::Bearer => Self { refresh_token: Some(token), ..common },
            Delivery::Cookie => Self {
                session_token: Some(token),
                csrf_token: csrf_token(),
                set_cookie: line(CookieKind::Session),
                ..common
            },
            Delivery::Split => {
                Self { csrf_token: csrf_token(), set_cookie: line(CookieKind::Refresh), ..common }
            }
        }
    }
}
