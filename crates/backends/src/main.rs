//! `cloakroom-backends`: what an application pays for its sessions, beside what it would pay for
//! those that its developers would have had.

mod apps;
mod lanes;
mod process;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloakroom_bench::Outcome;
use cloakroom_bench::report::{Aim, Report, skipped};
use cloakroom_bench::server::{self, Launch, Server};
use cloakroom_bench::{generator, machine};

use lanes::{APPLICATION_CORE, BARE, Duel, OTHERS_CORE, bearer, cookie, data, race};
use process::{Process, pinned};

/// Measure a protected route with ours, with nothing, and with what one would have otherwise.
///
/// Rounds are made in turn; a ratio is the median of the rounds, with the least and the greatest.
/// A missed aim is told, and is no failure.
#[derive(Parser)]
#[command(name = "cloakroom-backends")]
struct Options {
    /// Only the figures whose names contain one of these, such as `express` or `bearer`.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// A line of JSON for each figure.
    #[arg(long)]
    json: bool,
    /// The folder of the Express SDK, built and with what its tests need; skipped without it.
    #[arg(long, value_name = "DIR")]
    express: Option<PathBuf>,
    /// A Python that has what the Flask SDK's tests need, and the SDK's folder; skipped without.
    #[arg(long, value_names = ["PYTHON", "DIR"], num_args = 2)]
    flask: Option<Vec<PathBuf>>,
    /// Be one of the axum applications.
    #[arg(long, hide = true, requires = "address")]
    serve: Option<apps::Kind>,
    /// On this address.
    #[arg(long, hide = true)]
    address: Option<String>,
    /// With its store here.
    #[arg(long, hide = true, default_value = ".")]
    folder: PathBuf,
}

/// Clients at once.
const CONNECTIONS: usize = 64;
/// For Flask, whose server has a thread for each of four.
const FLASK_CONNECTIONS: usize = 16;

const PEER: Aim = Aim::AtLeast(1.0);

const AXUM: [Duel; 9] = [
    Duel {
        names: ["backends/axum-cookie-bare", "backends/axum-cookie-bare-cpu"],
        added: None,
        ours: cookie("embedded"),
        reference: BARE,
        aim: Aim::AtLeast(0.8),
    },
    Duel {
        names: ["backends/axum-bearer-bare", "backends/axum-bearer-bare-cpu"],
        added: None,
        ours: bearer("embedded"),
        reference: BARE,
        aim: Aim::AtLeast(0.8),
    },
    Duel {
        names: ["backends/axum-cookie-memory", "backends/axum-cookie-memory-cpu"],
        added: Some("backends/axum-cookie-memory-added"),
        ours: cookie("embedded"),
        reference: cookie("tower-memory"),
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/axum-cookie-redis", "backends/axum-cookie-redis-cpu"],
        added: Some("backends/axum-cookie-redis-added"),
        ours: cookie("embedded"),
        reference: cookie("tower-redis"),
        aim: Aim::AtLeast(5.0),
    },
    Duel {
        names: ["backends/axum-data-memory", "backends/axum-data-memory-cpu"],
        added: Some("backends/axum-data-memory-added"),
        ours: data("embedded"),
        reference: data("tower-memory"),
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/axum-data-redis", "backends/axum-data-redis-cpu"],
        added: Some("backends/axum-data-redis-added"),
        ours: data("embedded"),
        reference: data("tower-redis"),
        aim: PEER,
    },
    Duel {
        names: ["backends/axum-remote-cookie-redis", "backends/axum-remote-cookie-redis-cpu"],
        added: Some("backends/axum-remote-cookie-redis-added"),
        ours: cookie("remote"),
        reference: cookie("tower-redis"),
        aim: PEER,
    },
    Duel {
        names: ["backends/axum-remote-cookie-bare", "backends/axum-remote-cookie-bare-cpu"],
        added: None,
        ours: cookie("remote"),
        reference: BARE,
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/axum-remote-bearer-bare", "backends/axum-remote-bearer-bare-cpu"],
        added: None,
        ours: bearer("remote"),
        reference: BARE,
        aim: Aim::Open,
    },
];

const EXPRESS: [Duel; 5] = [
    Duel {
        names: ["backends/express-cookie-bare", "backends/express-cookie-bare-cpu"],
        added: None,
        ours: cookie("cloakroom"),
        reference: BARE,
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/express-bearer-bare", "backends/express-bearer-bare-cpu"],
        added: None,
        ours: bearer("cloakroom"),
        reference: BARE,
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/express-cookie-redis", "backends/express-cookie-redis-cpu"],
        added: Some("backends/express-cookie-redis-added"),
        ours: cookie("cloakroom"),
        reference: cookie("express-session"),
        aim: PEER,
    },
    Duel {
        names: ["backends/express-data-redis", "backends/express-data-redis-cpu"],
        added: Some("backends/express-data-redis-added"),
        ours: data("cloakroom"),
        reference: data("express-session"),
        aim: PEER,
    },
    Duel {
        names: ["backends/express-bearer-jsonwebtoken", "backends/express-bearer-jsonwebtoken-cpu"],
        added: Some("backends/express-bearer-jsonwebtoken-added"),
        ours: bearer("cloakroom"),
        reference: bearer("jsonwebtoken"),
        aim: PEER,
    },
];

const FLASK: [Duel; 5] = [
    Duel {
        names: ["backends/flask-cookie-bare", "backends/flask-cookie-bare-cpu"],
        added: None,
        ours: cookie("cloakroom"),
        reference: BARE,
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/flask-bearer-bare", "backends/flask-bearer-bare-cpu"],
        added: None,
        ours: bearer("cloakroom"),
        reference: BARE,
        aim: Aim::Open,
    },
    Duel {
        names: ["backends/flask-cookie-redis", "backends/flask-cookie-redis-cpu"],
        added: Some("backends/flask-cookie-redis-added"),
        ours: cookie("cloakroom"),
        reference: cookie("flask-session"),
        aim: PEER,
    },
    Duel {
        names: ["backends/flask-data-redis", "backends/flask-data-redis-cpu"],
        added: Some("backends/flask-data-redis-added"),
        ours: data("cloakroom"),
        reference: data("flask-session"),
        aim: PEER,
    },
    Duel {
        names: ["backends/flask-bearer-extended", "backends/flask-bearer-extended-cpu"],
        added: Some("backends/flask-bearer-extended-added"),
        ours: bearer("cloakroom"),
        reference: bearer("flask-jwt-extended"),
        aim: PEER,
    },
];

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("cloakroom-backends: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Outcome<()> {
    if let (Some(kind), Some(address)) = (options.serve, &options.address) {
        return apps::serve(kind, address, &options.folder);
    }
    let report = Report::new(options.json, options.names);
    let wants = |duels: &[Duel]| duels.iter().any(|duel| duel.is_wanted(&report));
    if !generator::is_ready() || !machine::has("redis-server") {
        skipped("backends/*", "there is no wrk or no redis-server, and they can't be installed");
        return Ok(());
    }
    if machine::pinned_to(APPLICATION_CORE).is_empty() {
        skipped("pinning", "one core or no taskset: all processes share what there is");
    }
    let stage = Stage::set(options.express, options.flask)?;
    let folder = stage.folder.path();
    if wants(&AXUM) {
        race(&report, &AXUM, CONNECTIONS, folder, &|app| stage.axum(app))?;
    }
    match &stage.express {
        Some(sdk) if wants(&EXPRESS) => {
            race(&report, &EXPRESS, CONNECTIONS, folder, &|app| stage.express(sdk, app))?;
        }
        None if wants(&EXPRESS) => skipped("backends/express-*", "no SDK was built for it"),
        Some(_) | None => {}
    }
    match stage.flask.as_deref() {
        Some([python, sdk]) if wants(&FLASK) => {
            race(&report, &FLASK, FLASK_CONNECTIONS, folder, &|app| stage.flask(python, sdk, app))?;
        }
        None if wants(&FLASK) => skipped("backends/flask-*", "there is no Python for it"),
        Some(_) | None => {}
    }
    Ok(())
}

/// What the applications of all languages have in common.
struct Stage {
    folder: tempfile::TempDir,
    authority: Server,
    redis: Process,
    express: Option<PathBuf>,
    flask: Option<Vec<PathBuf>>,
}

impl Stage {
    fn set(express: Option<PathBuf>, flask: Option<Vec<PathBuf>>) -> io::Result<Self> {
        let parent = std::env::current_exe()?.parent().map(PathBuf::from).unwrap_or_default();
        let folder = tempfile::Builder::new().prefix("cloakroom-backends-").tempdir_in(parent)?;
        generator::write_scripts(folder.path())?;
        let launch = Launch::new(&server::build()?, &folder.path().join("authority"))
            .under(machine::pinned_to(OTHERS_CORE));
        let authority = launch.start()?;
        let redis = process::redis(OTHERS_CORE, folder.path())?;
        Ok(Self { folder, authority, redis, express, flask })
    }

    fn axum(&self, app: &str) -> io::Result<Process> {
        let address = server::free_address()?;
        let mut command = pinned(APPLICATION_CORE, std::env::current_exe()?);
        command.args(["--serve", app, "--address", &address]);
        command.arg("--folder").arg(self.folder.path().join("in-process"));
        self.start(command, address, &format!("axum-{app}"))
    }

    fn express(&self, sdk: &Path, app: &str) -> io::Result<Process> {
        let address = server::free_address()?;
        let mut command = pinned(APPLICATION_CORE, "node");
        command.current_dir(sdk).env("NODE_ENV", "production");
        command.args(["bench/apps.mjs", app, port_of(&address), port_of(&self.redis.address)]);
        self.start(command, address, &format!("express-{app}"))
    }

    fn flask(&self, python: &Path, sdk: &Path, app: &str) -> io::Result<Process> {
        let address = server::free_address()?;
        let mut command = pinned(APPLICATION_CORE, python);
        command.current_dir(sdk.join("bench")).env("PYTHONPATH", sdk.join("src"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(["-m", "gunicorn", "--bind", &address, "--log-level", "warning"]);
        command.args(["--workers", "1", "--threads", "4", "--keep-alive", "60"]);
        command.arg(format!("backends:make('{app}')"));
        self.start(command, address, &format!("flask-{app}"))
    }

    fn start(
        &self,
        mut command: std::process::Command,
        address: String,
        name: &str,
    ) -> io::Result<Process> {
        command.env("CLOAKROOM_URL", format!("http://{}", self.authority.admin));
        command.env("CLOAKROOM_API_KEY", &self.authority.root_key);
        command.env("BENCH_REDIS_PORT", port_of(&self.redis.address));
        Process::start(command, address, &self.folder.path().join(format!("{name}.log")))
    }
}

fn port_of(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}
