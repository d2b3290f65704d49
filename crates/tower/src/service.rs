//! The chain around every request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloakroom_core::csrf::{NextStep, check_token};
use cloakroom_core::given::{Given, Header};
use cloakroom_core::limits::BODY_BYTES_MAX;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, SET_COOKIE};
use http::{Request, Response, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use tower_service::Service;

use crate::credential::header;
use crate::error::{Error, RateNote, header_value};
use crate::layer::House;
use crate::session::Session;
use crate::visit::{Standing, Visit, is_by_cookie};

/// The request's body as the inner service gets it: as it came, or a form that has been read to
/// find its CSRF token.
pub type RequestBody<B> = Either<B, Full<Bytes>>;
/// The answer's body: the inner service's, or a refusal.
pub type ResponseBody<B> = Either<B, Full<Bytes>>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const X_CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// The form's field that stands for the header.
const CSRF_FIELD: &[u8] = b"csrf_token";

/// A service behind a [`CloakroomLayer`](crate::CloakroomLayer).
#[derive(Clone)]
pub struct CloakroomService<S> {
    inner: S,
    house: Arc<House>,
}

impl<S: std::fmt::Debug> std::fmt::Debug for CloakroomService<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloakroomService").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S> CloakroomService<S> {
    pub(crate) const fn new(inner: S, house: Arc<House>) -> Self {
        Self { inner, house }
    }
}

impl<S, B, R> Service<Request<B>> for CloakroomService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that was polled ready is the one to call.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        Box::pin(chain(inner, Arc::clone(&self.house), request))
    }
}

async fn chain<S, B, R>(
    mut inner: S,
    house: Arc<House>,
    request: Request<B>,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut parts, body) = request.into_parts();
    let visit = Visit::of(&house, &parts).await;
    let (body, note) = match admit(&visit, &parts, body).await {
        Ok(admitted) => admitted,
        Err(error) => return Ok(refused(&error)),
    };
    parts.extensions.insert(visit.clone());
    let response = inner.call(Request::from_parts(parts, body)).await?;
    let mut response = response.map(Either::Left);
    if visit.has_changes() {
        // Apart from the rest: each request would carry the room for it along.
        let session = Session { visit: visit.clone() };
        if let Err(error) = Box::pin(async move { session.finish().await }).await {
            return Ok(refused(&error));
        }
    }
    if let Some(note) = note {
        note.write(response.headers_mut());
    }
    set_cookie(&visit, &mut response);
    Ok(response)
}

/// CSRF, then the per-session limit, for a request with a live session.
async fn admit<B>(
    visit: &Visit,
    parts: &request::Parts,
    body: B,
) -> Result<(RequestBody<B>, Option<RateNote>), Error>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let live = match &visit.state().standing {
        Standing::Live(pass) => Arc::clone(pass),
        Standing::Nobody { .. } | Standing::Unknown(_) => return Ok((Either::Left(body), None)),
    };
    let mut body = Either::Left(body);
    if is_by_cookie(&live) {
        match visit.provenance()? {
            NextStep::Passed => {}
            NextStep::Token => {
                let token;
                (token, body) = Box::pin(token_of(parts, body)).await?;
                let key = live.csrf_key.as_ref();
                let key = key.ok_or(cloakroom_core::csrf::CsrfRefusal::TokenInvalid)?;
                check_token(
                    key,
                    match &token {
                        Given::Absent => Header::Absent,
                        Given::One(token) => Header::One(token),
                        Given::Several => Header::Several,
                    },
                )?;
            }
        }
    }
    let house = visit.house();
    let note = match &house.meters {
        Some(meters) => Some(meters.admit(live.sid, house.guard.now())?),
        None => None,
    };
    Ok((body, note))
}

/// The CSRF token of a request: the header's, else the form's field.
async fn token_of<B>(
    parts: &request::Parts,
    body: RequestBody<B>,
) -> Result<(Given<Vec<u8>>, RequestBody<B>), Error>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match (header(&parts.headers, X_CSRF_TOKEN), is_form(parts), body) {
        (Header::One(token), _, body) => Ok((Given::One(token.to_vec()), body)),
        (Header::Several, _, body) => Ok((Given::Several, body)),
        (Header::Absent, true, Either::Left(body)) => {
            let read = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Error::FormTooLarge { max: BODY_BYTES_MAX }
                } else {
                    cloakroom_core::csrf::CsrfRefusal::TokenMissing.into()
                }
            })?;
            let bytes = read.to_bytes();
            let token = bytes
                .split(|byte| *byte == b'&')
                .filter_map(|pair| pair.strip_prefix(CSRF_FIELD)?.strip_prefix(b"="))
                .map(<[u8]>::to_vec)
                .collect();
            Ok((token, Either::Right(Full::new(bytes))))
        }
        (Header::Absent, true | false, body) => Ok((Given::Absent, body)),
    }
}

fn is_form(parts: &request::Parts) -> bool {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(FORM)
}

fn refused<R>(error: &Error) -> Response<ResponseBody<R>> {
    error.to_response().map(Either::Right)
}

fn set_cookie<R>(visit: &Visit, response: &mut Response<R>) {
    let Some(line) = visit.state().set_cookie.take() else { return };
    let headers = response.headers_mut();
    headers.append(SET_COOKIE, header_value(&line));
    // Whoever keeps this answer would hand one visitor's cookie to all.
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
