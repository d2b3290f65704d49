//! File, environment, flags and secrets' files: the same key by every way.

use super::super::keys::keys;
use super::super::value::Shape;
use super::super::{LogFormat, Source, StoreUrl};
use super::{World, companions, key, line_of};

/// What is left of the problems but "this build doesn't have it".
fn real_problems(world: &World) -> Vec<String> {
    world
        .problems()
        .iter()
        .filter(|problem| !problem.text.contains("was built without OTLP"))
        .map(ToString::to_string)
        .collect()
}

/// All that is shown, without where it comes from, and the typed configuration if there is one.
fn effect(world: &World) -> String {
    let loaded = world.load();
    let shown: Vec<_> = loaded.show().into_iter().map(|shown| (shown.key, shown.value)).collect();
    format!("{shown:?} {:?}", loaded.outcome.ok())
}

#[test]
fn every_key_is_set_by_the_file_and_by_the_environment_alike() {
    for tested in keys() {
        let beside = companions(tested.name);
        let mut text = String::new();
        let mut by_variables = World::new();
        for name in [tested.name].iter().chain(beside) {
            text.push_str(&line_of(key(name)));
            by_variables = by_variables.variable(&key(name).variable(), key(name).example);
        }
        let by_file = World::new().file(&text);
        assert_eq!(real_problems(&by_file), [""; 0], "{} by the file", tested.name);
        assert_eq!(real_problems(&by_variables), [""; 0], "{} by a variable", tested.name);

        let untouched = World::new();
        for name in beside {
            untouched.write("cloakroom.toml", &line_of(key(name)));
        }
        // The example is no default, so that a key which is read and dropped can't pass.
        let same = tested.name == "cookie.secure" || tested.name == "log.format";
        if same || by_file.load().outcome.is_err() {
            continue;
        }
        let changed = format!("{:?}", by_file.config());
        assert_eq!(changed, format!("{:?}", by_variables.config()), "{}", tested.name);
        if beside.is_empty() {
            assert_ne!(changed, format!("{:?}", untouched.config()), "{}", tested.name);
        }
    }
}

#[test]
fn every_value_names_its_line_or_its_variable() {
    for tested in keys().filter(|key| !matches!(key.shape, Shape::Map(_))) {
        let text = format!("# a comment\n\n{}", line_of(tested));
        let (value, source) = World::new().file(&text).shown(tested.name);
        assert!(source.ends_with("cloakroom.toml:3"), "{}: {source}", tested.name);
        let expected = tested.shape.notation_of(tested.example);
        assert_eq!(value, Some(expected), "{}", tested.name);

        let variable = tested.variable();
        let (_, source) = World::new().variable(&variable, tested.example).shown(tested.name);
        assert_eq!(source, format!("env {variable}"));
    }
}

#[test]
fn every_secret_is_read_from_a_file_by_both_ways_without_its_newline() {
    for tested in keys().filter(|key| key.shape.is_secret()) {
        for end in ["", "\n", "\r\n"] {
            let world = World::new();
            let path = world.write("secret", &format!("{}{end}", tested.example));
            let name = tested.file_name().expect("secrets have one");
            let mut text = format!("{name} = {:?}\n", path.to_str().expect("UTF-8"));
            for beside in companions(tested.name) {
                text.push_str(&line_of(key(beside)));
            }
            let by_file = World::new().file(&text);
            let inline: String = [tested.name]
                .iter()
                .chain(companions(tested.name))
                .map(|name| line_of(key(name)))
                .collect();
            assert_eq!(effect(&by_file), effect(&World::new().file(&inline)), "{name} {end:?}");

            let variable = format!("{}_FILE", tested.variable());
            let by_variable = World::new().variable(&variable, path.to_str().expect("UTF-8"));
            assert_eq!(by_variable.shown(tested.name).1, format!("env {variable}"));
        }
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    for tested in keys() {
        let world = World::new().variable(&tested.variable(), "");
        assert_eq!(effect(&world), effect(&World::new()), "{}", tested.name);
    }
    let world = World::new().file("refresh.grace = \"7s\"\n").variable("CLOAKROOM_NOT_OURS", "");
    let world = world.variable("CLOAKROOM_REFRESH__GRACE", "");
    assert_eq!(world.shown("refresh.grace").0.as_deref(), Some("\"7s\""));
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let mut world = World::new()
        .file("store.url = \"file:./a\"\nrefresh.grace = \"7s\"\n")
        .variable("CLOAKROOM_REFRESH__GRACE", "8s")
        .variable("CLOAKROOM_STORE__URL", "file:./b");
    assert_eq!(world.config().refresh.grace.as_secs(), 8);
    assert_eq!(world.config().data_dir.to_str(), Some("./b"));
    world.flags.data = Some("./c".into());
    let config = world.config();
    assert_eq!(config.data_dir.to_str(), Some("./c"));
    assert!(matches!(config.store.url, StoreUrl::File(path) if path.to_str() == Some("./c")));
    assert_eq!(config.root_api_key_file.to_str(), Some("./c/root-api.key"));
    assert_eq!(world.shown("store.url"), (Some("\"file:./c\"".into()), "flag --data".into()));
}

#[test]
fn the_data_directory_is_the_nodes_own_where_the_store_has_none() {
    let mut world = World::new().file("store.url = \"memory:\"\n");
    assert_eq!(world.config().data_dir.to_str(), Some("./cloakroom-data"));
    world.flags.data = Some("./node".into());
    assert!(matches!(world.config().store.url, StoreUrl::Memory));
    assert_eq!(world.config().data_dir.to_str(), Some("./node"));
}

#[test]
fn a_named_file_is_read_instead_of_a_found_one_and_must_exist() {
    let mut world = World::new().file("refresh.grace = \"7s\"\n");
    let other = world.write("other.toml", "refresh.grace = \"9s\"\n");
    assert_eq!(world.config().refresh.grace.as_secs(), 7);
    world = world.variable("CLOAKROOM_CONFIG", other.to_str().expect("UTF-8"));
    assert_eq!(world.config().refresh.grace.as_secs(), 9);
    world.flags.config = Some(world.path("absent.toml"));
    let problems = world.problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].text.starts_with("can't be read"), "{problems:?}");
}

#[test]
fn members_of_a_table_are_set_one_by_one() {
    let world = World::new()
        .file(
            "[forward_auth.policies.admin]\nrequire = [\"role:admin\"]\n\
             [forward_auth.policies]\nopen = {}\n\
             [session.aal_caps.aal2]\nidle = \"30m\"\n",
        )
        .variable("CLOAKROOM_FORWARD_AUTH__POLICIES__ADMIN__ACR", "aal2")
        .variable("CLOAKROOM_SESSION__AAL_CAPS", "{ aal3 = { absolute = \"6h\" } }");
    let config = world.config();
    let policies = &config.forward_auth.policies;
    let names: Vec<_> = policies.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["admin", "default", "open"]);
    let admin = policies.find("admin").expect("set");
    assert_eq!((admin.require.len(), admin.acr.as_deref()), (1, Some("aal2")));
    let caps = |acr| config.session.aal_caps.find(acr).expect("a default");
    assert_eq!((caps("aal2").idle.as_secs(), caps("aal2").absolute.as_secs()), (1800, 86400));
    assert_eq!((caps("aal3").idle.as_secs(), caps("aal3").absolute.as_secs()), (900, 21600));
    let (value, source) = world.shown("forward_auth.policies.admin.require");
    assert_eq!(value.as_deref(), Some("[\"role:admin\"]"));
    assert!(source.ends_with("cloakroom.toml:2"), "{source}");
}

#[test]
fn a_systemd_credential_stands_in_for_a_secret_that_nobody_set() {
    let world = World::new();
    world.write("master_key", &format!("{}\n", key("master_key").example));
    let directory = world.directory.path().to_str().expect("UTF-8").to_owned();
    let world = world.variable("CREDENTIALS_DIRECTORY", &directory);
    assert!(world.config().master_key.is_some());
    assert!(world.shown("master_key").1.starts_with("credential "));
    let world = world.variable("CLOAKROOM_MASTER_KEY", key("master_key").example);
    assert_eq!(world.shown("master_key").1, "env CLOAKROOM_MASTER_KEY");
}

#[test]
fn defaults_follow_from_what_they_depend_on() {
    let plain = World::new().config();
    assert_eq!(plain.token.issuer, "http://localhost:7400");
    assert!(!plain.cookie.secure);
    assert_eq!(plain.password.pool, 4);
    assert_eq!(plain.log.format, LogFormat::Json);
    assert_eq!(plain.refresh.grace.as_secs(), 30);

    let mut world = World::new().file("server.origin = \"https://app.example\"\n");
    world.surroundings.terminal = true;
    let config = world.config();
    assert_eq!(config.token.issuer, "https://app.example");
    assert!(config.cookie.secure);
    assert_eq!(config.log.format, LogFormat::Text);

    let short = World::new().file("refresh.ttl = \"10s\"\n");
    assert_eq!(short.config().refresh.grace.as_secs(), 5);
}

#[test]
fn links_that_an_orchestrator_makes_for_a_service_of_our_name_are_no_keys() {
    let world = World::new()
        .variable("CLOAKROOM_SERVICE_HOST", "10.0.0.1")
        .variable("CLOAKROOM_SERVICE_PORT_PUBLIC", "7400")
        .variable("CLOAKROOM_PORT", "tcp://10.0.0.1:7400")
        .variable("CLOAKROOM_PORT_7400_TCP_ADDR", "10.0.0.1")
        .variable("CLOAKROOM_ADMIN_PORT_7401_TCP", "tcp://10.0.0.1:7401");
    assert_eq!(world.problems(), []);
    let world = World::new().variable("CLOAKROOM_SERVER__PORT", "7400");
    assert_eq!(world.problems().len(), 1);
}

#[test]
fn a_variable_that_is_no_text_is_told() {
    let mut world = World::new();
    world.surroundings.unreadable.push("CLOAKROOM_MASTER_KEY".to_owned());
    let problems = world.problems();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].source, Source::Environment("CLOAKROOM_MASTER_KEY".to_owned()));
}
