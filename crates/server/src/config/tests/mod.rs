//! What the configuration promises: every key by every way, all errors at once, nothing leaked.

mod bounds;
mod layers;
mod report;
mod safety;

use std::path::PathBuf;

use tempfile::TempDir;

use super::keys::{Key, keys};
use super::{Config, Flags, Loaded, Problem, Surroundings};

/// A directory with a configuration file, and an environment of its own.
struct World {
    directory: TempDir,
    surroundings: Surroundings,
    flags: Flags,
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let search = vec![directory.path().join("cloakroom.toml")];
        let surroundings = Surroundings { cores: 4, search, ..Surroundings::bare() };
        Self { directory, surroundings, flags: Flags::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a writable directory");
        path
    }

    fn file(self, text: &str) -> Self {
        self.write("cloakroom.toml", text);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.surroundings.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Loaded {
        Loaded::read(&self.flags, &self.surroundings)
    }

    fn config(&self) -> Config {
        match self.load().outcome {
            Ok(config) => *config,
            Err(problems) => panic!("refused:\n{problems}"),
        }
    }

    fn problems(&self) -> Vec<Problem> {
        self.load().outcome.err().map(|problems| problems.0).unwrap_or_default()
    }

    /// What stands in `config show` for a key, and where it says that it comes from.
    fn shown(&self, key: &str) -> (Option<String>, String) {
        let shown = self.load().show().into_iter().find(|shown| shown.key == key);
        let shown = shown.unwrap_or_else(|| panic!("{key} isn't shown"));
        (shown.value, shown.source.to_string())
    }
}

/// A line of the file that sets a key to its example.
fn line_of(key: &Key) -> String {
    if key.shape == super::value::Shape::Secret {
        return format!("{} = {:?}\n", key.name, key.example);
    }
    format!("{} = {}\n", key.name, key.shape.notation_of(key.example))
}

/// Keys that make sense only beside others: what to set with them.
fn companions(key: &str) -> &'static [&'static str] {
    match key {
        "server.tls.cert_file" => &["server.tls.key_file"],
        "server.tls.key_file" => &["server.tls.cert_file"],
        "server.admin_tls.cert_file" => &["server.admin_tls.key_file"],
        "server.admin_tls.key_file" => &["server.admin_tls.cert_file"],
        "store.tls.cert_file" => &["store.tls.key_file"],
        "store.tls.key_file" => &["store.tls.cert_file"],
        "server.admin_tls.client_ca_file" => {
            &["server.admin_tls.cert_file", "server.admin_tls.key_file"]
        }
        "cookie.partitioned" => &["cookie.secure"],
        "master_key_previous" => &["master_key"],
        _ => &[],
    }
}

fn key(name: &str) -> &'static Key {
    keys().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} is no key"))
}

/// Files that are refused because of one key: the key, and a part of what is said.
fn refused(cases: &[(&str, &str, &str)]) {
    for (text, key, part) in cases {
        let problems = World::new().file(text).problems();
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "{text}\n{told:#?}");
        assert_eq!(problems[0].key, *key, "{text}\n{told:#?}");
        assert!(problems[0].text.contains(part), "{text}\n{told:#?}");
    }
}

/// Files that are taken, with the keys that are warned of.
fn taken(cases: &[(&str, &[&str])]) {
    for (text, warned) in cases {
        let loaded = World::new().file(text).load();
        let outcome = loaded.outcome.map(|_| ()).map_err(|problems| problems.to_string());
        assert_eq!(outcome, Ok(()), "{text}");
        let keys: Vec<_> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
        assert_eq!(keys, *warned, "{text}");
    }
}

/// TLS by the public listener itself.
const TLS: &str = "server.tls = { cert_file = \"c.pem\", key_file = \"k.pem\" }\n";
