//! The audit log as an operator reads, keeps and checks it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_world::{AdminWorld, text};
use crate::cli_world::{Ended, Node, program, run};

/// Runs `cloakroom events …` against a world.
fn events(world: &AdminWorld, arguments: &[&str]) -> Ended {
    let mut command = program();
    command.args(["events"]).args(arguments);
    command.env("CLOAKROOM_ADMIN_URL", &world.admin).env("CLOAKROOM_API_KEY", &world.key);
    run(&mut command, "")
}

/// Opens and ends some sessions.
fn live(world: &AdminWorld, rounds: usize) {
    for round in 0..rounds {
        let opened = world.open(&format!("usr_{round}"), "cookie");
        let sid = text(&opened["session"]["id"]).to_owned();
        world.ask("DELETE", &format!("/admin/v1/sessions/{sid}?reason=round"));
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON Lines")).collect()
}

#[test]
fn m4_a_start_and_a_clean_up_are_in_the_log() {
    let world = AdminWorld::new();
    let all = world.events();
    let started: Vec<&Value> =
        all.iter().filter(|event| event["type"] == "authority.started").collect();
    assert_eq!(started.len(), 1, "{all:?}");
    let event = started[0];
    assert_eq!(event["actor"], json!({"type": "system", "id": null}));
    let reason = format!("{} on memory", env!("CARGO_PKG_VERSION"));
    assert_eq!(event["reason"], reason.as_str());
    for member in ["id", "cursor", "time", "sid", "subject", "client", "request_id", "count"] {
        assert!(event.get(member).is_some(), "{member}: {event}");
    }
    let swept = |world: &AdminWorld| {
        world.events().iter().filter(|event| event["type"] == "authority.swept").count()
    };
    world.ask("POST", "/admin/v1/sweep").expect(200);
    assert_eq!(swept(&world), 0, "nothing was removed");
    let body = json!({"subject": "usr_short", "lifetime": 1, "delivery": "cookie"});
    world.post("/admin/v1/sessions", &body).expect(201);
    std::thread::sleep(std::time::Duration::from_millis(2200));
    world.ask("POST", "/admin/v1/sweep").expect(200);
    assert_eq!(swept(&world), 1);
    let events = world.events();
    let event = events.iter().find(|event| event["type"] == "authority.swept").expect("it");
    assert_eq!(event["actor"]["type"], "operator");
    assert!(text(&event["reason"]).starts_with("sessions ended 1,"), "{event}");
    let ended = events.iter().find(|event| event["type"] == "session.ended").expect("its event");
    assert_eq!(
        (&ended["reason"], &ended["actor"]["type"]),
        (&"absolute_timeout".into(), &"system".into())
    );
}

#[test]
fn an_export_has_every_event_once_and_can_be_continued() {
    let world = AdminWorld::new();
    live(&world, 150);
    let whole = events(&world, &["export"]).expect(0);
    let exported = lines(&whole.out);
    assert!(exported.len() > 300, "{}", exported.len());
    let mut ids: Vec<&str> = exported.iter().map(|event| text(&event["id"])).collect();
    assert!(ids.is_sorted(), "the oldest first");
    ids.dedup();
    assert_eq!(ids.len(), exported.len());
    assert!(whole.err.contains(&format!("{} events", exported.len())), "{}", whole.err);
    let ended = events(&world, &["export", "--type", "session.ended"]).expect(0);
    assert_eq!(lines(&ended.out).len(), 150);
    let middle = text(&exported[200]["cursor"]);
    let rest = events(&world, &["export", "--after", middle]).expect(0);
    assert_eq!(lines(&rest.out), exported[201..]);
    let file = world.dir.path().join("events.jsonl");
    let path = file.to_str().expect("a path");
    events(&world, &["export", "--out", path]).expect(0);
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), whole.out);
    events(&world, &["export", "--out", path]).expect(1);
    events(&world, &["export", "--after", "junk"]).expect(1);
}

#[test]
fn m8_a_log_is_checked_and_an_export_tells_what_was_taken_from_it() {
    let world = AdminWorld::new();
    live(&world, 30);
    let checked = events(&world, &["verify", "--json"]).expect(0).json();
    assert_eq!(checked["faults"], 0, "{checked}");
    assert!(checked["events"].as_u64() > Some(60));
    let said = events(&world, &["verify"]).expect(0).out;
    assert!(said.contains("Not shown by this"), "{said}");
    let file = world.dir.path().join("kept.jsonl");
    let path = file.to_str().expect("a path").to_owned();
    events(&world, &["export", "--out", &path]).expect(0);
    let against = || events(&world, &["verify", "--against", &path, "--json"]);
    let same = against().expect(0).json();
    assert_eq!((&same["faults"], &same["compared"]), (&json!(0), &same["events"]));

    let kept = std::fs::read_to_string(&file).expect("a file");
    let changed = kept.replacen("\"type\":\"session.ended\"", "\"type\":\"user.changed\"", 1);
    assert_ne!(kept, changed, "the control");
    std::fs::write(&file, &changed).expect("a file");
    assert_eq!(against().expect(1).json()["faults"], 1);

    // As if somebody had taken an event out of the store since.
    let mut more = lines(&kept);
    let mut invented = more[5].clone();
    let digits = format!(
        "{:016x}{:04x}{:04x}",
        u64::from_str_radix(&text(&more[5]["id"])[4..20], 16).expect("hex"),
        7,
        9
    );
    invented["id"] = format!("evt_{digits}").into();
    more.insert(6, invented);
    let text: String = more.iter().map(|event| format!("{event}\n")).collect();
    std::fs::write(&file, text).expect("a file");
    let missing = against().expect(1).json();
    assert_eq!(missing["faults"], 1, "{missing}");
    assert!(missing["told"][0].as_str().expect("text").contains("no longer in the log"));
    std::fs::write(&file, "{}\n").expect("a file");
    against().expect(1);
}

/// A `cloakroom events tail --follow` in a process of its own, killed at the latest with this.
struct Follower {
    child: Child,
    told: Receiver<String>,
}

impl Follower {
    /// Starts to follow; `command` says where.
    fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .args(["events", "tail", "--follow", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, told) = channel();
        std::thread::spawn(move || {
            let _ = lines.map_while(Result::ok).try_for_each(|line| sender.send(line));
        });
        Self { child, told }
    }

    /// The next event.
    fn next(&self) -> Value {
        let line = self.told.recv_timeout(PATIENCE).expect("an event in time");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Presses Ctrl-C; its exit code, and what it told besides.
    fn interrupt(mut self) -> (Option<i32>, Vec<String>) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
        let code = self.child.wait().expect("ended").code();
        (code, self.told.try_iter().collect())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Only where a test failed before it ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

fn at(world: &AdminWorld) -> Command {
    let mut command = program();
    command.env("CLOAKROOM_ADMIN_URL", &world.admin).env("CLOAKROOM_API_KEY", &world.key);
    command
}

#[test]
fn what_happens_is_told_as_it_happens() {
    let world = AdminWorld::new();
    live(&world, 3);
    world.add_user("ada@example.com");
    let follower = Follower::start(at(&world), &["-n", "1"]);
    let ended = Follower::start(at(&world), &["-n", "1", "--type", "session.ended"]);
    // The latest alone, however lately there were others.
    assert_eq!(follower.next()["type"], "user.created");
    let latest = ended.next();
    assert_eq!((text(&latest["type"]), text(&latest["subject"])), ("session.ended", "usr_2"));
    for round in 0..3 {
        let opened = world.open("usr_1", "cookie");
        let sid = text(&opened["session"]["id"]);
        assert_eq!(follower.next()["sid"], sid, "{round}");
        world.ask("DELETE", &format!("/admin/v1/sessions/{sid}")).expect(204);
        assert_eq!(follower.next()["type"], "session.ended");
        assert_eq!(ended.next()["sid"], sid, "{round}");
    }
    // More than the follower reads ahead, at once.
    live(&world, 300);
    let told: Vec<Value> = (0..600).map(|_| follower.next()).collect();
    let ids: BTreeSet<&str> = told.iter().map(|event| text(&event["id"])).collect();
    assert_eq!(ids.len(), 600, "each once");
    assert_eq!(follower.interrupt(), (Some(0), Vec::new()));
    assert_eq!(ended.interrupt().0, Some(0));
}

/// An authority on a socket, which can be stopped and started again.
struct Restartable {
    dir: tempfile::TempDir,
    socket: String,
}

impl Restartable {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().expect("a directory");
        let socket = format!("unix:{}/admin.sock", dir.path().display());
        Self { dir, socket }
    }

    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    fn serve(&self) -> Node {
        let mut command = program();
        command.args(["serve", "--data"]).arg(self.data());
        command.env("CLOAKROOM_SERVER__PUBLIC", "127.0.0.1:0");
        command.env("CLOAKROOM_SERVER__ADMIN", &self.socket);
        command.env("CLOAKROOM_STORE__PARTITIONS", "8");
        Node::start(&mut command, "  curl ")
    }

    fn cli(&self) -> Command {
        let mut command = program();
        command.env("CLOAKROOM_ADMIN_URL", &self.socket);
        command.env("CLOAKROOM_API_KEY_FILE", self.data().join("root-api.key"));
        command
    }

    /// Adds a user; the id.
    fn add(&self, name: &str) -> String {
        let added = run(self.cli().args(["users", "add", name, "--no-password", "--json"]), "");
        text(&added.expect(0).json()["user"]["id"]).to_owned()
    }
}

/// What is told until a user's creation is.
fn until_user(follower: &Follower, user: &str) -> Vec<Value> {
    let mut told = vec![follower.next()];
    while told.last().is_some_and(|event| event["subject"] != user) {
        told.push(follower.next());
    }
    told
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_when_the_authority_restarts() {
    let world = Restartable::new();
    let mut node = world.serve();
    world.add("ada");
    let follower = Follower::start(world.cli(), &["-n", "200"]);
    let mut told = until_user(&follower, &world.add("bob"));
    // Told to go, and killed: what is logged before the follower is back counts too.
    for (signal, name) in [("-TERM", "carol"), ("-KILL", "dave")] {
        node.stop(signal);
        node = world.serve();
        told.extend(until_user(&follower, &world.add(name)));
    }
    assert_eq!(follower.interrupt(), (Some(0), Vec::new()));
    let all = lines(&run(world.cli().args(["events", "export"]), "").expect(0).out);
    assert_eq!(node.stop("-TERM").0, 0);
    let ids = |events: &[Value]| -> Vec<String> {
        let mut ids: Vec<String> = events.iter().map(|event| text(&event["id"]).into()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&told), ids(&all));
    let started = told.iter().filter(|event| event["type"] == "authority.started").count();
    assert_eq!(started, 3, "{told:?}");
}

#[test]
fn a_follower_goes_on_in_a_log_that_doesnt_reach_back_to_where_it_was() {
    let world = Restartable::new();
    let node = world.serve();
    let follower = Follower::start(world.cli(), &["-n", "1"]);
    until_user(&follower, &world.add("ada"));
    node.stop("-TERM");
    // Another store in its place, as after a restore.
    std::fs::remove_dir_all(world.data().join("store")).expect("removed");
    let node = world.serve();
    until_user(&follower, &world.add("bob"));
    assert_eq!(follower.interrupt().0, Some(0));
    assert_eq!(node.stop("-TERM").0, 0);
}
