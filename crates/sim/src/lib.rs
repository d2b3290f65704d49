//! Seeded worlds.
//!
//! One thread runs several authorities over one store, with honest users, thieves and operators,
//! under delays, failures before and after a commit took effect, crashes, cut feeds, skewed
//! clocks and a store that goes back. The engine under test is the one that production runs: it
//! meets this world through its `Store`, its `Clock` and its `Entropy`. Every choice comes from
//! one seed, so a seed that breaks an invariant breaks it again.
//!
//! - [`plan`]: what a seed holds in store; [`schedule`]: tasks, and a clock that jumps.
//! - [`world`], [`store`]: the nodes, their lines, what befalls them.
//! - [`clients`]: who lives there; [`witness`], [`changes`], [`succession`]: their calls, judged
//!   one by one.
//! - [`book`], [`rules`]: the reference model, which judges every commit; [`finale`]: what must
//!   hold at the end.
//! - [`mutation`]: rules broken on purpose, to prove that this notices.

pub mod book;
pub mod changes;
pub mod clients;
pub mod finale;
pub mod mutation;
pub mod plan;
pub mod report;
pub mod rng;
pub mod rules;
pub mod schedule;
pub mod store;
pub mod succession;
pub mod tally;
pub mod witness;
pub mod world;

use std::sync::Arc;

use cloakroom_core::types::Subject;

use book::{Line, Violation};
use clients::Application;
use mutation::Mutation;
use plan::{CALM, Failover, Plan, STORMY};
use rng::Rng;
use schedule::{Owner, Schedule};
use tally::Tally;
use world::World;

/// What one seed came to.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The counts.
    pub tally: Tally,
    /// The history in one number: equal for equal histories.
    pub digest: u64,
    /// The first invariant that was broken.
    pub violation: Option<Violation>,
    /// The history, where it was wanted.
    pub history: Vec<Line>,
}

/// Lives through one seed.
pub fn run(seed: u64, mutation: Option<Mutation>, with_history: bool) -> Outcome {
    let plan = Plan::draw(&mut Rng::new(rng::mix(seed)));
    let mut schedule = Schedule::new(seed);
    let world = World::new(schedule.handle(), plan, mutation, with_history);
    let _in_force = Force::of(mutation);
    populate(&world);
    schedule.run_until(STORMY + CALM);
    finale::judge(&world);
    schedule.end();
    world.end();
    let mut book = world.book();
    book.tally.steps = schedule.handle().moment().step;
    Outcome {
        seed,
        tally: std::mem::take(&mut book.tally),
        digest: schedule.digest(),
        violation: book.violation.take(),
        history: book.history.take().unwrap_or_default(),
    }
}

/// Brings nodes, clients and disasters into being.
fn populate(world: &Arc<World>) {
    for node in 0..world.plan.nodes {
        world.boot(node);
    }
    for crash in world.plan.crashes.clone() {
        world.handle.spawn(Owner::World, Arc::clone(world).crash(crash));
    }
    if let Some(failover) = world.plan.failover {
        world.handle.spawn(Owner::World, Arc::clone(world).fail_over(failover, true));
    }
    if world.broken(Mutation::AnsweredBeforeDurable) {
        let loss = Failover { at: STORMY / 2, back: 800 };
        world.handle.spawn(Owner::World, Arc::clone(world).fail_over(loss, false));
    }
    let subjects: Vec<Subject> = ["ada", "grace", "edsger"]
        .into_iter()
        .filter_map(|name| Subject::parse(name).ok())
        .collect();
    for (at, subject) in subjects.iter().enumerate() {
        let address = |offset: usize| u8::try_from(10 * at + offset).unwrap_or(1);
        let (world, subject) = (Arc::clone(world), subject.clone());
        let handle = world.handle.clone();
        let start = |work| handle.spawn(Owner::World, work);
        let client = |work: clients::Life| start(work);
        client(Box::pin(clients::browse(Arc::clone(&world), subject.clone(), address(1))));
        let kind = if at == 0 { Application::Unkeyed } else { Application::Keyed };
        client(Box::pin(clients::apply(Arc::clone(&world), subject.clone(), address(2), kind)));
        if at < 2 {
            client(Box::pin(clients::browse_split(world, subject, address(3))));
        }
    }
    if let Some(subject) = subjects.first().cloned() {
        world.handle.spawn(Owner::World, succession::visit(Arc::clone(world), subject));
    }
    world.handle.spawn(Owner::World, clients::steal(Arc::clone(world)));
    world.handle.spawn(Owner::World, clients::operate(Arc::clone(world), subjects));
}

/// A rule of the engine that is broken for as long as this lives.
struct Force;

impl Force {
    fn of(mutation: Option<Mutation>) -> Self {
        #[cfg(feature = "mutants")]
        if let Some(Mutation::Inner(mutant)) = mutation {
            cloakroom_core::mutants::activate(Some(mutant));
        }
        let _ = mutation;
        Self
    }
}

impl Drop for Force {
    fn drop(&mut self) {
        #[cfg(feature = "mutants")]
        cloakroom_core::mutants::activate(None);
    }
}
