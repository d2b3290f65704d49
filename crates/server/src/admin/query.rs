//! Queries and path segments: read strictly, each parameter once, unknown ones refused.

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path};
use cloakroom_core::limits::PAGE_MAX;
use cloakroom_core::types::{Sid, Subject};
use hyper::http::request::Parts;

use crate::http::{Ask, urlencoded};
use crate::problem::Problem;

/// The parameters of a query.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a request's query.
    pub(super) fn of(ask: &Ask) -> Result<Self, Problem> {
        Self::parse(ask.query().unwrap_or_default())
    }

    /// Reads a query's text.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        urlencoded::parse(text.as_bytes(), "the query").map(Self)
    }

    /// A parameter's text. An empty one counts as none.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    /// A parameter that narrows down what is listed. An empty one is refused: whoever looks for a
    /// name that went missing on the way must not be shown everybody, and take the first.
    pub(super) fn filter(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        match self.0.remove(name) {
            Some(value) if value.is_empty() => {
                Err(Problem::invalid_member(name, "must not be empty"))
            }
            value => Ok(value),
        }
    }

    /// `limit`: 1 to 200, by default all of them.
    pub(super) fn limit(&mut self) -> Result<usize, Problem> {
        let Some(text) = self.0.remove("limit") else { return Ok(PAGE_MAX) };
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|limit| plain && (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
            let why = format!("must be a whole number from 1 to {PAGE_MAX}");
            Problem::invalid_member("limit", why)
        })
    }

    /// `subject`.
    pub(super) fn subject(&mut self) -> Result<Option<Subject>, Problem> {
        let parse = |text: String| {
            Subject::parse(&text).map_err(|why| Problem::invalid_member("subject", why.0))
        };
        self.filter("subject")?.map(parse).transpose()
    }

    /// `sid`.
    pub(super) fn sid(&mut self) -> Result<Option<Sid>, Problem> {
        let parse = |text: String| {
            text.parse().map_err(|_| Problem::invalid_member("sid", "isn't the id of a session"))
        };
        self.filter("sid")?.map(parse).transpose()
    }

    /// Refuses what is left over.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.keys().next() {
            Some(name) => Err(Problem::unknown_parameter(name)),
            None => Ok(()),
        }
    }
}

/// The one variable segment of a path, decoded.
#[derive(Debug)]
pub(super) struct Segment(String);

impl Segment {
    /// Its text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// A session's id; what is none names no session.
    pub(super) fn sid(&self) -> Result<Sid, Problem> {
        self.0.parse().map_err(|_| Problem::not_found())
    }

    /// A subject; what can't be one is none.
    pub(super) fn subject(&self) -> Result<Subject, Problem> {
        Subject::parse(&self.0).map_err(|_| Problem::not_found())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        segment
            .map(|Path(text)| Self(text))
            .map_err(|_| Problem::malformed("the path is malformed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    fn limit(text: &str) -> Result<usize, Code> {
        Query::parse(text).and_then(|mut query| query.limit()).map_err(|problem| problem.code())
    }

    #[test]
    fn k3_limits_are_whole_numbers_from_1_to_200() {
        assert_eq!(limit(""), Ok(PAGE_MAX));
        assert_eq!(limit("limit=1"), Ok(1));
        assert_eq!(limit("limit=200"), Ok(200));
        for bad in [
            "0",
            "-1",
            "201",
            "2147483648",
            "9007199254740993",
            "9223372036854775808",
            "1e308",
            "%221%22",
            "1.5",
            "+5",
            "%2B5",
            "",
            "0x10",
        ] {
            assert_eq!(limit(&format!("limit={bad}")), Err(Code::InvalidMember), "{bad}");
        }
    }

    #[test]
    fn a_query_is_read_one_way_only() {
        let mut query = Query::parse("subject=a%2Fb+c&").expect("a query");
        assert_eq!(query.subject().ok().flatten().map(|s| s.to_string()).as_deref(), Some("a/b c"));
        assert_eq!(query.sid(), Ok(None));
        assert_eq!(query.finish(), Ok(()));
        let left = Query::parse("x=1").expect("a query").finish();
        assert_eq!(left, Err(Problem::unknown_parameter("x")));
        for bad in ["a=1&a=1", "a=%", "a=%zz", "a=%ff", "a=1&%61=2"] {
            let code = Query::parse(bad).err().map(|problem| problem.code());
            assert_eq!(code, Some(Code::MalformedRequest), "{bad}");
        }
        let mut query = Query::parse("subject=a%00b").expect("a query");
        assert!(query.subject().is_err());
    }

    #[test]
    fn an_empty_filter_is_refused_and_never_shows_everything() {
        let refused = |problem: Problem| problem.code() == Code::InvalidMember;
        for text in ["subject=&sid=&identifier=", "subject&sid&identifier"] {
            let mut query = Query::parse(text).expect("a query");
            assert!(query.subject().is_err_and(refused), "{text}");
            assert!(query.sid().is_err_and(refused), "{text}");
            assert!(query.filter("identifier").is_err_and(refused), "{text}");
        }
        let mut none = Query::parse("").expect("a query");
        assert_eq!(none.filter("identifier"), Ok(None));
    }
}
