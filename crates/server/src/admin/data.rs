//! `/admin/v1/sessions/{sid}/data`: a session's data, with versions.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use cloakroom::store::Version;
use cloakroom::{ApiKeyIdentity, DataView, IfMatch};
use cloakroom_core::refusal::Refusal;
use cloakroom_core::types::Sid;
use hyper::header::{ETAG, IF_MATCH};
use hyper::{HeaderMap, StatusCode};

use super::guard::actor_of;
use super::query::Segment;
use super::view::header_value;
use crate::http::{Ask, Need, json};
use crate::problem::Problem;
use crate::site::Site;

pub(super) async fn read(State(site): State<Arc<Site>>, sid: Segment) -> Result<Response, Problem> {
    Ok(answer(&site.authority.data(sid.sid()?).await?))
}

pub(super) async fn replace(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    sid: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let (sid, condition) = (sid.sid()?, Condition::of(ask.headers())?);
    let data = ask.members(Need::Required).await?.into_object();
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let condition = condition.against(current(&site, sid)).await?;
    Ok(answer(&site.authority.put_data(sid, data, condition, &ctx).await?))
}

pub(super) async fn change(
    State(site): State<Arc<Site>>,
    Extension(identity): Extension<ApiKeyIdentity>,
    sid: Segment,
    mut ask: Ask,
) -> Result<Response, Problem> {
    let (sid, condition) = (sid.sid()?, Condition::of(ask.headers())?);
    let patch = ask.members(Need::Required).await?.into_object();
    let ctx = ask.context(actor_of(&identity), site.trusted());
    let condition = condition.against(current(&site, sid)).await?;
    Ok(answer(&site.authority.patch_data(sid, &patch, condition, &ctx).await?))
}

/// The version of a session's data.
async fn current(site: &Site, sid: Sid) -> Result<Version, Problem> {
    Ok(site.authority.data(sid).await?.version)
}

fn answer(view: &DataView) -> Response {
    let mut response = json(StatusCode::OK, &view.data);
    let tag = format!("\"{}\"", view.version.0);
    response.headers_mut().insert(ETAG, header_value(&tag));
    response
}

/// What a request's `If-Match` asks for (RFC 9110 section 13.1.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Any,
    Exists,
    /// One of these versions. Tags that none of ours can be, weak ones too, are left out: the
    /// comparison is the strong one, so they match nothing.
    OneOf(Vec<Version>),
}

impl Condition {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let malformed = || Problem::malformed("If-Match is malformed (RFC 9110 section 13.1.1)");
        let mut lines = Vec::new();
        for value in headers.get_all(IF_MATCH) {
            lines.push(value.to_str().map_err(|_| malformed())?);
        }
        if lines.is_empty() {
            return Ok(Self::Any);
        }
        let list = lines.join(",");
        if list.trim() == "*" {
            return Ok(Self::Exists);
        }
        let mut versions = Vec::new();
        let tags = split_tags(&list).ok_or_else(malformed)?;
        if tags.is_empty() {
            return Err(malformed());
        }
        for tag in tags {
            let canonical = |number: &u64| number.to_string() == tag;
            versions.extend(tag.parse().ok().filter(canonical).map(cloakroom::store::Tick));
        }
        Ok(Self::OneOf(versions))
    }

    /// The condition as the engine takes it: of several versions the one that is current, if any.
    pub(super) async fn against(
        self,
        current: impl Future<Output = Result<Version, Problem>>,
    ) -> Result<IfMatch, Problem> {
        match self {
            Self::Any => Ok(IfMatch::Any),
            Self::Exists => Ok(IfMatch::Exists),
            Self::OneOf(versions) => match versions.as_slice() {
                [version] => Ok(IfMatch::Version(*version)),
                versions => {
                    let current = current.await?;
                    if versions.contains(&current) {
                        // The write expects it still, so nothing is lost meanwhile.
                        Ok(IfMatch::Version(current))
                    } else {
                        Err(Refusal::PreconditionFailed.into())
                    }
                }
            },
        }
    }
}

/// The opaque parts of a list of entity tags, without quotes; weak ones only as a place that
/// matches nothing. `None`: the list is malformed.
fn split_tags(list: &str) -> Option<Vec<&str>> {
    let mut tags = Vec::new();
    let mut rest = list.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let weak = rest.starts_with("W/");
        let quoted = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let end = quoted.find('"')?;
        let (tag, after) = quoted.split_at(end);
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        tags.push(if weak { "" } else { tag });
        let after = after.get(1..)?.trim_start_matches([' ', '\t']);
        if !after.is_empty() && !after.starts_with(',') {
            return None;
        }
        rest = after.trim_start_matches([' ', '\t', ',']);
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn of(lines: &[&str]) -> Result<Condition, Code> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(IF_MATCH, line.parse().expect("a header value"));
        }
        Condition::of(&headers).map_err(|problem| problem.code())
    }

    fn versions(numbers: &[u64]) -> Result<Condition, Code> {
        Ok(Condition::OneOf(numbers.iter().copied().map(cloakroom::store::Tick).collect()))
    }

    #[test]
    fn g4_if_match_is_compared_strongly_and_may_be_a_list() {
        assert_eq!(of(&[]), Ok(Condition::Any));
        assert_eq!(of(&["*"]), Ok(Condition::Exists));
        assert_eq!(of(&["\"7\""]), versions(&[7]));
        assert_eq!(of(&["\"7\", \"8\",W/\"9\", \"x\""]), versions(&[7, 8]));
        assert_eq!(of(&["\"7\"", "\"8\""]), versions(&[7, 8]));
        assert_eq!(of(&["W/\"7\""]), versions(&[]));
        assert_eq!(of(&["\"07\""]), versions(&[]));
        for bad in ["7", "\"7", "\"7\" \"8\"", "*, \"7\"", "", ",", "w/\"7\"", "\"a b\""] {
            assert_eq!(of(&[bad]), Err(Code::MalformedRequest), "{bad}");
        }
    }
}
