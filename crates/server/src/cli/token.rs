//! `cloakroom token inspect`: what a token is, and why it is or isn't valid.

use std::io::{self, IsTerminal, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use cloakroom::is_reset_token;
use cloakroom_core::token::Looks;
use cloakroom_core::token::opaque::OpaqueKind;
use cloakroom_core::types::{Secret, Sid, Subject};
use serde_json::{Map, Value, json};
use ureq::http::Method;
use zeroize::Zeroizing;

use super::client::{Answer, Body, Client, KeyWanted, Reach, encoded};
use super::failure::Failure;
use super::output::{Style, print_json, print_pairs};
use super::sessions::pairs_of;

/// The arguments of `cloakroom token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cloakroom token inspect < token.txt
  wl-paste | cloakroom token inspect
  printf '%s' \"$ACCESS_TOKEN\" | cloakroom token inspect --json")]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Say what the token on standard input is and why it is or isn't valid; exit 0 if it is
    ///
    /// Takes a session cookie's value (cks_…), a refresh token (ckr_…), an API key (cka_…) or an
    /// access token, with or without `Bearer` before it. It has no effect on the session, and
    /// never prints the secret part. Of a password's reset token (ckp_…) it says whose it is.
    #[command(after_help = "\
Examples:
  cloakroom token inspect < token.txt
  wl-paste | cloakroom token inspect
  printf '%s' \"$ACCESS_TOKEN\" | cloakroom token inspect --json")]
    Inspect(Reach),
}

/// Longer input is no token, in bytes.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

/// Runs a command.
///
/// # Errors
///
/// Why it didn't succeed; [`Failure::Silent`] for a token that isn't valid.
pub fn run(args: &TokenArgs, style: Style, out: &mut dyn Write) -> Result<(), Failure> {
    let TokenCommand::Inspect(reach) = &args.command;
    let token = read_token()?;
    let mut report = Report::of(token.expose());
    if is_reset_token(token.expose()) {
        report.print(None, style, out)?;
        return Err(Failure::Failed(UNTOLD.into()));
    }
    let judged = match Looks::of(token.expose()) {
        // Nobody need be asked, and no key be had, to say so.
        Looks::Csrf | Looks::Unknown => Ok(Verdict {
            detail: "no credential of Cloakroom looks like this".to_owned(),
            ..Verdict::default()
        }),
        Looks::Opaque(kind) => {
            reach.client(KeyWanted::Yes).and_then(|client| judge_opaque(&client, kind, &token))
        }
        Looks::Jwt => {
            reach.client(KeyWanted::Yes).and_then(|client| judge_session_token(&client, &token))
        }
    };
    let verdict = match judged {
        Ok(verdict) => verdict,
        Err(failure) => {
            // What could be read without the authority is worth showing all the same.
            report.print(None, style, out)?;
            return Err(failure);
        }
    };
    report.session = verdict.session.clone();
    report.print(Some(&verdict), style, out)?;
    if verdict.valid { Ok(()) } else { Err(Failure::Silent(1)) }
}

fn read_token() -> Result<Secret<String>, Failure> {
    if io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "give the token on standard input: cloakroom token inspect < token.txt".into(),
        ));
    }
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .take(INPUT_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Failure::Failed(format!("can't read standard input: {error}")))?;
    match text.trim() {
        "" => Err(Failure::Usage("nothing came on standard input".into())),
        // As it stands in a header, from which it may have been copied.
        token => Ok(Secret::new(without_scheme(token).to_owned())),
    }
}

fn without_scheme(text: &str) -> &str {
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => token.trim_start(),
        _ => text,
    }
}

/// Why a reset token isn't judged.
const UNTOLD: &str = "whether a reset token counts is told only by using it: it does so once, \
                      within an hour of its making, until another is made";

/// What the token says of itself. Holds nothing secret.
#[derive(Clone, Debug, Default)]
struct Report {
    kind: &'static str,
    sid: Option<Sid>,
    /// Whose password it sets.
    user: Option<Subject>,
    lineage: Option<u32>,
    generation: Option<u32>,
    header: Option<Value>,
    claims: Option<Value>,
    /// The session by the authority's account.
    session: Option<Value>,
}

impl Report {
    fn of(token: &str) -> Self {
        if is_reset_token(token) {
            return Self::of_reset(token);
        }
        match Looks::of(token) {
            Looks::Opaque(kind) => Self::of_opaque(kind, token),
            Looks::Jwt => Self::of_jwt(token),
            Looks::Csrf => Self { kind: "CSRF token, perhaps", ..Self::default() },
            Looks::Unknown => Self { kind: "nothing known", ..Self::default() },
        }
    }

    fn of_opaque(kind: OpaqueKind, token: &str) -> Self {
        let name = match kind {
            OpaqueKind::Session => "session cookie",
            OpaqueKind::Refresh => "refresh token",
            OpaqueKind::ApiKey => "API key",
        };
        let body = token.get(kind.prefix().len()..).unwrap_or_default();
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).unwrap_or_default());
        let part = |from: usize| {
            let part = bytes.get(from..from + 4)?;
            Some(u32::from_be_bytes(part.try_into().ok()?))
        };
        // Format, id, lineage, generation; then the secret and the tag, which stay unread.
        let known = bytes.first() == Some(&1) && bytes.len() == OPAQUE_BYTES;
        let id = bytes.get(1..17).and_then(|id| id.try_into().ok()).map(Sid::from_bytes);
        let counts = known && kind != OpaqueKind::ApiKey;
        Self {
            kind: name,
            sid: id.filter(|_| known),
            lineage: part(17).filter(|_| counts),
            generation: part(21).filter(|_| counts && kind == OpaqueKind::Refresh),
            ..Self::default()
        }
    }

    /// The user that it names after the secret and the tag, which stay unread.
    fn of_reset(token: &str) -> Self {
        let body = token.split_once('_').map_or("", |(_, body)| body);
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(body).unwrap_or_default());
        let user = bytes.get(RESET_SECRET_BYTES..).and_then(|id| str::from_utf8(id).ok());
        let user = user.filter(|id| id.starts_with("usr_")).and_then(|id| Subject::parse(id).ok());
        Self { kind: "password reset token", user, ..Self::default() }
    }

    /// Header and claims only: the signature is what makes the token usable.
    fn of_jwt(token: &str) -> Self {
        let mut parts = token.split('.').map(|part| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<Value>(&bytes).ok().filter(Value::is_object)
        });
        let header = parts.next().flatten();
        let claims = parts.next().flatten();
        let typ = header.as_ref().and_then(|header| header["typ"].as_str()).unwrap_or_default();
        let kind = match typ.to_ascii_lowercase().as_str() {
            "at+jwt" | "application/at+jwt" => "access token",
            _ => "JWT of another type",
        };
        Self { kind, header, claims, ..Self::default() }
    }

    fn print(
        &self,
        verdict: Option<&Verdict>,
        style: Style,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        if style.json {
            return Ok(print_json(&self.to_json(verdict), out)?);
        }
        let mut pairs = vec![("kind", self.kind.to_owned())];
        if let Some(verdict) = verdict {
            pairs.push(("verdict", verdict.in_words()));
        }
        if let (None, Some(id)) = (&self.session, self.sid) {
            pairs.push(("id", id.to_string()));
        }
        pairs.extend(self.user.as_ref().map(|user| ("user", user.as_str().to_owned())));
        let count = |name, count: Option<u32>| count.map(|count| (name, count.to_string()));
        pairs.extend(count("lineage", self.lineage));
        pairs.extend(count("generation", self.generation));
        pairs.extend(self.header.as_ref().map(|header| ("header", header.to_string())));
        pairs.extend(self.claims.as_ref().map(|claims| ("token's claims", claims.to_string())));
        pairs.extend(times_of(self.claims.as_ref()));
        pairs.extend(self.session.as_ref().map(pairs_of).unwrap_or_default());
        Ok(print_pairs(&pairs, style, out)?)
    }

    fn to_json(&self, verdict: Option<&Verdict>) -> Value {
        let mut map = Map::new();
        map.insert("kind".into(), self.kind.into());
        map.insert("id".into(), json!(self.sid.map(|sid| sid.to_string())));
        map.insert("user".into(), json!(self.user.as_ref().map(Subject::as_str)));
        map.insert("lineage".into(), json!(self.lineage));
        map.insert("generation".into(), json!(self.generation));
        map.insert("header".into(), json!(self.header));
        map.insert("claims".into(), json!(self.claims));
        map.insert("valid".into(), json!(verdict.map(|verdict| verdict.valid)));
        map.insert("code".into(), json!(verdict.and_then(|verdict| verdict.code.clone())));
        map.insert("reason".into(), json!(verdict.and_then(|verdict| verdict.reason.clone())));
        map.insert("detail".into(), json!(verdict.map(|verdict| verdict.detail.clone())));
        map.insert("session".into(), json!(self.session));
        Value::Object(map)
    }
}

/// Bytes of an opaque token after its prefix.
const OPAQUE_BYTES: usize = 65;
/// Bytes of a reset token's secret and tag, after its prefix and before the user's id.
const RESET_SECRET_BYTES: usize = 40;

/// When a token began and ends, for people.
fn times_of(claims: Option<&Value>) -> Vec<(&'static str, String)> {
    let time = |name: &str| {
        let secs = claims?.get(name)?.as_i64()?;
        Some(jiff::Timestamp::from_second(secs).ok()?.to_string())
    };
    let times = [("issued", time("iat")), ("expires", time("exp"))];
    times.into_iter().filter_map(|(name, time)| Some((name, time?))).collect()
}

/// What the authority says of a token.
#[derive(Clone, Debug, Default)]
struct Verdict {
    valid: bool,
    code: Option<String>,
    reason: Option<String>,
    detail: String,
    session: Option<Value>,
}

impl Verdict {
    fn valid(detail: &str, session: Option<Value>) -> Self {
        Self { valid: true, detail: detail.to_owned(), session, ..Self::default() }
    }

    fn in_words(&self) -> String {
        let state = if self.valid { "valid" } else { "not valid" };
        let code = self.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        format!("{state}: {}{code}", self.detail)
    }
}

fn judge_opaque(
    client: &Client,
    kind: OpaqueKind,
    token: &Secret<String>,
) -> Result<Verdict, Failure> {
    match kind {
        OpaqueKind::Session => judge_session_token(client, token),
        OpaqueKind::Refresh => judge_refresh(client, token),
        OpaqueKind::ApiKey => judge_key(client, token),
    }
}

fn judge_session_token(client: &Client, token: &Secret<String>) -> Result<Verdict, Failure> {
    // Introspection has no effect on the session; a refusal is then explained by `verify`, which
    // has none on a session that is refused.
    if let Some(sid) = introspected(client, token)? {
        return Ok(Verdict::valid("its session is live", session_of(client, &sid)?));
    }
    let body = json!({"token": token.expose()});
    let answer = client.send(Method::POST, "/admin/v1/sessions/verify", Some(Body::Json(&body)))?;
    if answer.status != 401 {
        let session = answer.successful()?.get("session").cloned();
        return Ok(Verdict::valid("its session is live", session));
    }
    refused(client, &answer, token)
}

fn judge_refresh(client: &Client, token: &Secret<String>) -> Result<Verdict, Failure> {
    if let Some(sid) = introspected(client, token)? {
        return Ok(Verdict::valid("it can be used", session_of(client, &sid)?));
    }
    let session = Report::of(token.expose()).sid.map(|sid| sid.to_string());
    let session = session.map(|sid| session_of(client, &sid)).transpose()?.flatten();
    let ended = session.as_ref().is_some_and(|session| !session["ended"].is_null());
    let detail = match (&session, ended) {
        (Some(_), true) => "its session has ended",
        (Some(_), false) => "it was rotated away, or it is forged",
        (None, _) => "it is forged, or its session is forgotten",
    };
    Ok(Verdict { detail: detail.to_owned(), session, ..Verdict::default() })
}

/// The id of the session that a token holds, if it counts now.
fn introspected(client: &Client, token: &Secret<String>) -> Result<Option<String>, Failure> {
    let form = Zeroizing::new(format!("token={}", encoded(token.expose())));
    let answer = client.send(Method::POST, "/oauth2/introspect", Some(Body::Form(&form)))?;
    let answer = answer.successful()?;
    let sid = answer["sid"].as_str().filter(|_| answer["active"] == true);
    Ok(sid.map(str::to_owned))
}

fn refused(client: &Client, answer: &Answer, token: &Secret<String>) -> Result<Verdict, Failure> {
    let member = |name: &str| answer.body[name].as_str().map(str::to_owned);
    let code = member("code").unwrap_or_default();
    if code == "credentials_required" || code == "credentials_invalid" {
        // It is the key that asked which was refused, not the token.
        return Err(Failure::NotAllowed(answer.explanation()));
    }
    let report = Report::of(token.expose());
    let claimed = report.claims.as_ref().and_then(|claims| claims["sid"].as_str());
    let sid = report.sid.map(|sid| sid.to_string()).or(claimed.map(str::to_owned));
    let session = sid.map(|sid| session_of(client, &sid)).transpose()?.flatten();
    let mut detail = member("detail").unwrap_or_default();
    if let Some(why) = why_refused(client, &report, &code)? {
        detail = format!("{detail}: {why}");
    }
    Ok(Verdict { valid: false, code: Some(code), reason: member("reason"), detail, session })
}

/// What the token's own words and the published keys say about a refusal.
fn why_refused(client: &Client, report: &Report, code: &str) -> Result<Option<String>, Failure> {
    let Some(header) = &report.header else { return Ok(None) };
    match code {
        "token_wrong_type" => {
            let typ = header["typ"].as_str().unwrap_or("not named");
            Ok(Some(format!("its type is {typ}, that of an access token is at+jwt")))
        }
        "token_invalid" => {
            let published = client.get("/.well-known/jwks.json")?;
            let kids = published["keys"].as_array().into_iter().flatten().map(|key| &key["kid"]);
            let is_ours = kids.into_iter().any(|kid| kid.is_string() && *kid == header["kid"]);
            let why = match (header["alg"] == "HS256", is_ours) {
                (true, _) | (false, true) => {
                    "its signature is wrong, a claim (iss, aud) is another authority's, or its id \
                     (jti) was revoked"
                }
                (false, false) => {
                    "its key (kid) is none of this authority's: another one made it, or the key \
                     was revoked or is gone"
                }
            };
            Ok(Some(why.to_owned()))
        }
        _ => Ok(None),
    }
}

/// A session by its id; `None` where it isn't known.
fn session_of(client: &Client, sid: &str) -> Result<Option<Value>, Failure> {
    match client.get(&format!("/admin/v1/sessions/{}", encoded(sid))) {
        Ok(mut answer) => {
            if let Some(session) = answer["session"].as_object_mut() {
                session.remove("csrf_key");
            }
            Ok(Some(answer["session"].take()))
        }
        Err(failure) if failure.is_not_found() => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn judge_key(client: &Client, token: &Secret<String>) -> Result<Verdict, Failure> {
    // Any key may introspect, and a token that is none has no effect.
    let presented = client.with_key(token.clone());
    let form = Body::Form("token=none");
    let answer = presented.send(Method::POST, "/oauth2/introspect", Some(form))?;
    match answer.status {
        // A key that may not introspect is a good key all the same.
        200 | 403 => Ok(Verdict::valid("the authority takes it", None)),
        401 => Ok(Verdict {
            code: answer.body["code"].as_str().or(answer.body["error"].as_str()).map(str::to_owned),
            detail: "the authority doesn't take it".to_owned(),
            ..Verdict::default()
        }),
        _ => Err(answer.successful().err().unwrap_or(Failure::Silent(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everything(report: &Report) -> String {
        let verdict = Verdict::valid("fine", None);
        let mut shown = Vec::new();
        for style in [Style { json: true, colour: false }, Style::default()] {
            report.print(Some(&verdict), style, &mut shown).expect("a vector takes everything");
        }
        String::from_utf8(shown).expect("UTF-8")
    }

    #[test]
    fn token_inspect_never_echoes_the_secret_part() {
        let mut bytes = vec![1];
        bytes.extend([7; 16]);
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 9]);
        bytes.extend([0xAB; 40]);
        let body = URL_SAFE_NO_PAD.encode(&bytes);
        for prefix in ["cks_", "ckr_", "cka_"] {
            let report = Report::of(&format!("{prefix}{body}"));
            let shown = everything(&report);
            assert!(shown.contains(&Sid::from_bytes([7; 16]).to_string()), "{shown}");
            let secret = &body[body.len() - 54..];
            for at in 0..secret.len() - 7 {
                assert!(!shown.contains(&secret[at..at + 8]), "{shown}");
            }
        }
        let report = Report::of(&format!("ckr_{body}"));
        assert_eq!((report.lineage, report.generation), (Some(2), Some(9)));
    }

    #[test]
    fn a_jwt_is_shown_without_its_signature() {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = part(json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k"}));
        let claims = part(json!({"sub": "ada", "exp": 1_800_000_000}));
        let report = Report::of(&format!("{header}.{claims}.SIGNATURESIGNATURE"));
        let shown = everything(&report);
        assert_eq!(report.kind, "access token");
        assert!(shown.contains("\"ada\"") && shown.contains("2027-01-15T08:00:00Z"), "{shown}");
        assert!(!shown.contains("SIGNATURE") && !shown.contains(&claims), "{shown}");
    }

    #[test]
    fn a_reset_token_tells_its_user_and_not_its_secret() {
        let mut bytes = vec![0xAB; RESET_SECRET_BYTES];
        bytes.extend(b"usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V");
        let body = URL_SAFE_NO_PAD.encode(&bytes);
        let shown = everything(&Report::of(&format!("ckp_{body}")));
        assert!(shown.contains("password reset token"), "{shown}");
        assert!(shown.contains("usr_01J9ZQ6M5T4W8Y2K3N7P0R1S2V"), "{shown}");
        assert!(!shown.contains(&body[..8]), "{shown}");
    }

    #[test]
    fn a_token_may_come_with_its_scheme() {
        for text in ["Bearer cks_x", "bearer  cks_x", "cks_x"] {
            assert_eq!(without_scheme(text), "cks_x", "{text}");
        }
        assert_eq!(without_scheme("Basic cks_x"), "Basic cks_x");
    }

    #[test]
    fn junk_is_not_echoed() {
        let junk = ["hunter2 is my password", "cks_hunter2", "ckp_hunter2hunter2"];
        for junk in junk.into_iter().chain(["eyJhunter2.hunter2.hunter2"]) {
            let shown = everything(&Report::of(junk));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
