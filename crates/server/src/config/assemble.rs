//! From the collected values to the typed configuration.

use std::path::{Path, PathBuf};

use super::check::{self, Judge};
use super::keys::{
    Cookie, Cors, Csrf, Events, ForwardAuth, Limit, Log, Outage, Password, Refresh, Registration,
    Roots, Server, Session, Store, Sweep, Telemetry, TlsKeys, Token, Verify, keys,
};
use super::kinds::{Listener, StoreUrl};
use super::load::{Collector, Entries, Flags, Reader, Surroundings};
use super::source::{Problem, Problems, Source};
use super::value::{FromText, Raw};
use super::{AdminTls, Config, Loaded, Purpose, TlsFiles};

/// Where a node keeps its files when nothing says otherwise.
const DATA_DIR: &str = "./cloakroom-data";

/// Reads and checks everything.
pub(super) fn read(flags: &Flags, surroundings: &Surroundings, purpose: Purpose) -> Loaded {
    let mut collector = Collector::default();
    let file = find_file(flags, surroundings);
    if let Some(file) = &file {
        collector.file(file);
    }
    collector.environment(surroundings);
    collector.credentials(surroundings);
    let data_dir = data_dir(flags, surroundings, &mut collector);
    collector.presets();
    derive(&mut collector, surroundings, &data_dir);
    let Collector { entries, mut problems, .. } = collector;
    let (config, mut found, mut warnings) = assemble(&entries, data_dir, purpose);
    if purpose == Purpose::Command {
        let (of_node, rest) = problems.into_iter().partition(is_of_node_alone);
        problems = rest;
        let of_node: Vec<Problem> = of_node;
        warnings.splice(..0, of_node);
    }
    problems.append(&mut found);
    // A key that was refused has been judged with its default in its place.
    warnings.retain(|warning| problems.iter().all(|problem| problem.key != warning.key));
    problems.sort_by_key(|problem| rank(&problem.source));
    let outcome = match config {
        Some(config) if problems.is_empty() => Ok(Box::new(config)),
        Some(_) | None => Err(Problems(problems)),
    };
    Loaded { file, warnings, outcome, entries }
}

/// A secret's file that can't be read, of a secret that only a node uses.
fn is_of_node_alone(problem: &Problem) -> bool {
    matches!(
        problem.key.as_str(),
        "master_key_file" | "master_key_previous_file" | "token.hs256_secret_file"
    )
}

/// The file that a flag or the environment names, else the first one found.
fn find_file(flags: &Flags, surroundings: &Surroundings) -> Option<PathBuf> {
    let named = surroundings.variable("CLOAKROOM_CONFIG").map(PathBuf::from);
    let found = || surroundings.search.iter().find(|path| path.is_file()).cloned();
    flags.config.clone().or(named).or_else(found)
}

/// Decides on the data directory; `--data` also moves an embedded store there.
fn data_dir(flags: &Flags, surroundings: &Surroundings, collector: &mut Collector) -> PathBuf {
    let variable = surroundings
        .variable("CLOAKROOM_DATA")
        .map(|data| (PathBuf::from(data), Source::Environment("CLOAKROOM_DATA".to_owned())));
    let flag = flags.data.clone().map(|data| (data, Source::Flag("--data")));
    let key = keys().find(|key| key.name == "store.url");
    let store = collector.entries.text("store.url").map(StoreUrl::from_text);
    match (flag.or(variable), store, key) {
        (Some((data, source)), None | Some(Ok(StoreUrl::File(_))), Some(key)) => {
            let url = Raw::Bare(format!("file:{}", data.display()));
            collector.override_with(key, url, source);
            data
        }
        (Some((data, _)), _, _) => data,
        (None, Some(Ok(StoreUrl::File(data))), _) => data,
        (None, _, _) => DATA_DIR.into(),
    }
}

/// Sets the defaults that follow from other values or from the machine.
fn derive(collector: &mut Collector, surroundings: &Surroundings, data_dir: &Path) {
    let issuer = collector.entries.text("server.origin").unwrap_or_default().to_owned();
    let grace = refresh_grace(&collector.entries);
    let secure = is_secure(&collector.entries).to_string();
    let keep = match collector.entries.text("store.url").map(StoreUrl::from_text) {
        Some(Ok(StoreUrl::Redis { .. })) => "24h",
        Some(Ok(StoreUrl::File(_) | StoreUrl::Memory | StoreUrl::Postgres(_)) | Err(_)) | None => {
            "30d"
        }
    };
    let format = if surroundings.terminal { "text" } else { "json" };
    let root = data_dir.join("root-api.key").display().to_string();
    let pool = surroundings.cores.to_string();
    let derived = [
        ("token.issuer", issuer.as_str()),
        ("refresh.grace", &grace),
        ("cookie.secure", &secure),
        ("events.keep", keep),
        ("log.format", format),
        ("root_api_key_file", &root),
        ("password.pool", &pool),
    ];
    for (name, text) in derived {
        if let Some(key) = keys().find(|key| key.name == name) {
            collector.preset(key, text);
        }
    }
}

/// 30 s, but never so much of a short lifetime that reuse would go unseen.
fn refresh_grace(entries: &Entries) -> String {
    const GRACE_MS: u128 = 30_000;
    let ttl = entries.text("refresh.ttl").map(std::time::Duration::from_text);
    match ttl {
        Some(Ok(ttl)) if ttl.as_millis() / 2 < GRACE_MS => format!("{}ms", ttl.as_millis() / 2),
        Some(Ok(_) | Err(_)) | None => "30s".to_owned(),
    }
}

/// Whether cookies are `Secure` where nobody says: wherever browsers may come over TLS.
fn is_secure(entries: &Entries) -> bool {
    let https = entries.text("server.origin").is_some_and(|text| text.starts_with("https:"));
    let listener = entries.text("server.public").map(Listener::from_text);
    https || !matches!(listener, Some(Ok(listener)) if listener.is_local())
}

/// Builds the configuration, if nothing is wrong with it, and judges it.
fn assemble(
    entries: &Entries,
    data_dir: PathBuf,
    purpose: Purpose,
) -> (Option<Config>, Vec<Problem>, Vec<Problem>) {
    let mut reader = Reader { entries, problems: Vec::new() };
    let parts = Parts::read(&mut reader);
    let mut judge = Judge::new(entries, purpose, reader.problems);
    let config = parts.map(|parts| parts.join(&mut judge, data_dir));
    if let Some(config) = &config {
        check::everything(&mut judge, config);
    }
    let Judge { problems, warnings, .. } = judge;
    (config, problems, warnings)
}

/// The groups before they are checked against each other.
struct Parts {
    server: Server,
    tls: TlsKeys,
    store: Store,
    roots: Roots,
    token: Token,
    refresh: Refresh,
    session: Session,
    cookie: Cookie,
    csrf: Csrf,
    cors: Cors,
    verify: Verify,
    outage: Outage,
    limit: Limit,
    forward_auth: ForwardAuth,
    password: Password,
    registration: Registration,
    events: Events,
    sweep: Sweep,
    log: Log,
    telemetry: Telemetry,
}

impl Parts {
    /// Reads every group, also after one had a problem: all are wanted at once.
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let server = Server::read(reader);
        let tls = TlsKeys::read(reader);
        let store = Store::read(reader);
        let roots = Roots::read(reader);
        let token = Token::read(reader);
        let refresh = Refresh::read(reader);
        let session = Session::read(reader);
        let cookie = Cookie::read(reader);
        let csrf = Csrf::read(reader);
        let cors = Cors::read(reader);
        let verify = Verify::read(reader);
        let outage = Outage::read(reader);
        let limit = Limit::read(reader);
        let forward_auth = ForwardAuth::read(reader);
        let password = Password::read(reader);
        let registration = Registration::read(reader);
        let events = Events::read(reader);
        let sweep = Sweep::read(reader);
        let log = Log::read(reader);
        let telemetry = Telemetry::read(reader);
        Some(Self {
            server: server?,
            tls: tls?,
            store: store?,
            roots: roots?,
            token: token?,
            refresh: refresh?,
            session: session?,
            cookie: cookie?,
            csrf: csrf?,
            cors: cors?,
            verify: verify?,
            outage: outage?,
            limit: limit?,
            forward_auth: forward_auth?,
            password: password?,
            registration: registration?,
            events: events?,
            sweep: sweep?,
            log: log?,
            telemetry: telemetry?,
        })
    }

    fn join(self, judge: &mut Judge<'_>, data_dir: PathBuf) -> Config {
        let tls = self.tls;
        let public = pair(judge, PUBLIC, tls.cert_file, tls.key_file);
        let admin = pair(judge, ADMIN, tls.admin_cert_file, tls.admin_key_file);
        Config {
            public_tls: public,
            admin_tls: admin
                .map(|files| AdminTls { files, client_ca_file: tls.admin_client_ca_file }),
            data_dir,
            master_key: self.roots.master_key,
            master_key_previous: self.roots.master_key_previous,
            root_api_key_file: self.roots.root_api_key_file,
            server: self.server,
            store: self.store,
            token: self.token,
            refresh: self.refresh,
            session: self.session,
            cookie: self.cookie,
            csrf: self.csrf,
            cors: self.cors,
            verify: self.verify,
            outage: self.outage,
            limit: self.limit,
            forward_auth: self.forward_auth,
            password: self.password,
            registration: self.registration,
            events: self.events,
            sweep: self.sweep,
            log: self.log,
            telemetry: self.telemetry,
        }
    }
}

/// The keys of the public listener's certificate and private key.
const PUBLIC: [&str; 2] = ["server.tls.cert_file", "server.tls.key_file"];
/// The same of the admin listener.
const ADMIN: [&str; 2] = ["server.admin_tls.cert_file", "server.admin_tls.key_file"];

/// A certificate and its key: one without the other is a mistake.
fn pair(
    judge: &mut Judge<'_>,
    [cert_key, key_key]: [&'static str; 2],
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
) -> Option<TlsFiles> {
    match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(TlsFiles { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            judge.refuse(cert_key, format!("needs `{key_key}` beside it"));
            None
        }
        (None, Some(_)) => {
            judge.refuse(key_key, format!("needs `{cert_key}` beside it"));
            None
        }
    }
}

/// The order in which problems are told: the file by its lines, then the rest.
fn rank(source: &Source) -> (u8, usize) {
    match source {
        Source::WholeFile(_) => (0, 0),
        Source::File { line, .. } => (1, *line),
        Source::Environment(_) => (2, 0),
        Source::Credential(_) => (3, 0),
        Source::Flag(_) => (4, 0),
        Source::Default => (5, 0),
    }
}
