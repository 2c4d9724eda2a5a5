//! What an agent leaves for the next one.

use super::*;
use crate::discover::kube::{saved_file, state::Saved};

#[test]
fn a_saved_world_is_the_same_world() {
    let mut told = Told::new();
    told.world.service(service("echo", "10.96.0.1"));
    let target = json!({"kind": "Service", "name": "echo"});
    told.world.policy(policy("p", 1, target.clone(), "roundRobin"));
    // The newest version has a fault: the good one is saved.
    told.world.policy(policy("p", 1, target, "fastest"));
    told.world.watch_endpoints(&name("echo"));
    told.world.slice(&name("echo"), slice("a", &["10.0.0.1"]));
    told.world.slice(&name("echo"), Event::Listed);
    let saved = Saved::of(&told.world, Some("z".into()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("below/state.json");
    saved_file::write(&path, &saved).unwrap();
    let mut saved: Saved = saved_file::read(&path).unwrap().unwrap();
    assert_eq!(saved.zone.as_deref(), Some("z"));
    let mut again = Told::default();
    let routes = saved.read_routes(&mut Shares::new(PatternShare::UNLIMITED));
    assert_eq!(saved.restore(&mut again.world, routes), [name("echo")]);
    assert!(again.world.is_whole());
    assert_eq!(again.endpoints("echo"), "10.0.0.1:8080");
    assert_eq!(again.port("echo", 80), told.port("echo", 80));
}
