//! Questions to the server, each bounded in time and size, and fewer of them while it is away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom_core::guard::Fault;
use cloakroom_core::json::{self, Map};
use cloakroom_core::types::Secret;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

/// An answer's body, at most.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// After a connection failed, nothing is tried for so long.
const BACK_OFF: Duration = Duration::from_millis(250);
/// When a client should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a server can't be used. Told when the application starts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address can't be used.
    #[error("{url:?} is no address of a Cloakroom admin listener: {why}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server didn't answer.
    #[error("the Cloakroom server at {url} can't be reached: {why}")]
    Unreachable {
        /// Its address.
        url: String,
        /// What happened.
        why: String,
    },
    /// The key is wrong.
    #[error(
        "the Cloakroom server at {url} refuses the API key; make one by `cloakroom api-keys create`"
    )]
    ApiKey {
        /// Its address.
        url: String,
    },
    /// The key may not do what is needed.
    #[error(
        "the API key for {url} lacks a scope: it needs sessions:read and sessions:write ({why})"
    )]
    Scope {
        /// The server's address.
        url: String,
        /// What the server said.
        why: String,
    },
    /// Something else answers there.
    #[error("what answers at {url} is no Cloakroom admin listener: {why}")]
    Foreign {
        /// The address.
        url: String,
        /// What it answered.
        why: String,
    },
}

/// An answer.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    /// The number in its `ETag`.
    pub(crate) version: Option<u64>,
    pub(crate) body: Map,
}

/// One server, and the key for it.
pub(crate) struct Asker {
    client: Client,
    base: Url,
    authorization: HeaderValue,
    started: Instant,
    /// Until when nothing is tried, in milliseconds since the start.
    quiet_until: AtomicU64,
    failing: AtomicBool,
    timeout: Duration,
}

impl Asker {
    pub(crate) fn new(
        url: &str,
        api_key: &Secret<String>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let address = |why: String| ConnectError::Address { url: url.to_owned(), why };
        let base = Url::parse(url).map_err(|error| address(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            return Err(address("it must begin with http:// or https://".to_owned()));
        }
        let bearer = format!("Bearer {}", api_key.expose().trim());
        let mut authorization = HeaderValue::from_str(&bearer)
            .map_err(|_| ConnectError::ApiKey { url: url.to_owned() })?;
        authorization.set_sensitive(true);
        let client = Client::builder()
            // A redirect would take the key along to somewhere else, a proxy would read it.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(timeout)
            .build()
            .map_err(|error| address(error.to_string()))?;
        Ok(Self {
            client,
            base,
            authorization,
            started: Instant::now(),
            quiet_until: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            timeout,
        })
    }

    /// How long this has been running, by a clock that is never set.
    pub(crate) fn steady(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn url(&self) -> &str {
        self.base.as_str()
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, Fault> {
        let mut url = self.base.clone();
        // Segments are encoded, so no subject or handle reaches another endpoint.
        url.path_segments_mut()
            .map_err(|()| fault("the server's address has no path".to_owned()))?
            .clear()
            .extend(path);
        let request = self.client.request(method, url);
        Ok(request.header(AUTHORIZATION, self.authorization.clone()))
    }

    /// Asks, with a JSON body if there is one, and reads the whole answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Map>,
    ) -> Result<Reply, Fault> {
        self.ask_with(method, path, |request| match body {
            Some(body) => {
                let text = serde_json::Value::Object(body.clone()).to_string();
                request.header(CONTENT_TYPE, "application/json").body(text)
            }
            None => request,
        })
        .await
    }

    /// The same, for a write that names the version it is made on.
    pub(crate) async fn put_if(
        &self,
        path: &[&str],
        body: Map,
        version: u64,
    ) -> Result<Reply, Fault> {
        self.ask_with(Method::PUT, path, |request| {
            request
                .header(IF_MATCH, format!("\"{version}\""))
                .header(CONTENT_TYPE, "application/json")
                .body(serde_json::Value::Object(body).to_string())
        })
        .await
    }

    pub(crate) async fn ask_with(
        &self,
        method: Method,
        path: &[&str],
        complete: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<Reply, Fault> {
        let now = u64::try_from(self.steady().as_millis()).unwrap_or(u64::MAX);
        if now < self.quiet_until.load(Ordering::Relaxed) {
            return Err(fault("it couldn't be reached a moment ago".to_owned()));
        }
        let request = complete(self.request(method, path)?).header(ACCEPT, "application/json");
        let read = async {
            let response = request.send().await?;
            let (status, version) = (response.status(), version_of(&response));
            Ok((status, version, bounded(response).await?))
        };
        let timed = tokio::time::timeout(self.timeout, read).await;
        let answered: Result<_, reqwest::Error> = match timed {
            Ok(answered) => answered,
            Err(_) => return Err(self.failed("it didn't answer in time")),
        };
        let (status, version, bytes) = answered.map_err(|error| {
            // Why is in the causes; the address that the library would add is known.
            self.failed(&root_cause(&error.without_url()))
        })?;
        let bytes = bytes.ok_or_else(|| fault("its answer is too long".to_owned()))?;
        let body =
            if bytes.is_empty() { Some(Map::new()) } else { json::parse_object(&bytes).ok() };
        let body = body.ok_or_else(|| fault(format!("its answer ({status}) is no JSON")))?;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(fault(format!("it answered {status}")));
        }
        self.answered();
        Ok(Reply { status, version, body })
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, path: &[&str], cursor: &str) -> Result<Response, Fault> {
        let request = self.request(Method::GET, path)?;
        let request = request.header("last-event-id", cursor).header(ACCEPT, "text/event-stream");
        let opened = tokio::time::timeout(self.timeout, request.send()).await;
        match opened {
            Ok(Ok(response)) if response.status().is_success() => {
                self.answered();
                Ok(response)
            }
            Ok(Ok(response)) => Err(fault(format!("it answered {}", response.status()))),
            Ok(Err(error)) => Err(self.failed(&root_cause(&error.without_url()))),
            Err(_) => Err(self.failed("it didn't answer in time")),
        }
    }

    /// Whether it couldn't be asked when it was last tried; that has been told.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    fn answered(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!(url = self.url(), "the session authority answers again");
        }
    }

    /// Notes a failure: told loudly once until something works again.
    fn failed(&self, why: &str) -> Fault {
        let quiet = self.steady() + BACK_OFF;
        let quiet = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
        self.quiet_until.store(quiet, Ordering::Relaxed);
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(url = self.url(), why, "the session authority still can't be asked");
        } else {
            tracing::error!(
                url = self.url(),
                why,
                "the session authority can't be asked; what needs it answers 503"
            );
        }
        fault(why.to_owned())
    }
}

/// "I can't tell".
pub(crate) fn fault(why: String) -> Fault {
    Fault::Unavailable { why, retry_after: RETRY_AFTER }
}

fn version_of(response: &Response) -> Option<u64> {
    let tag = response.headers().get(ETAG)?.to_str().ok()?;
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

async fn bounded(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
