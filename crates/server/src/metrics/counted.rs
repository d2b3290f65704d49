//! Counters for closed sets of things, each under the name that its own type gives it.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Family;

/// One of a closed set of things that are counted apart; [`counted!`](crate::metrics::counted)
/// makes it from one table, so that none can be without a counter.
pub(crate) trait Countable: Copy + 'static {
    /// The names of all, as the metric's label has them.
    const NAMES: &'static [&'static str];

    /// Where its own name is among them.
    fn place(self) -> usize;
}

/// Declares a closed set of things that are counted apart, with their names.
macro_rules! counted {
    ($(#[$about:meta])* $vis:vis enum $set:ident {
        $( $(#[$doc:meta])* $variant:ident = $name:literal, )+
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $set { $( $(#[$doc])* $variant, )+ }

        impl $crate::metrics::Countable for $set {
            const NAMES: &'static [&'static str] = &[$( $name ),+];

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use counted;

/// A counter for each of a closed set.
#[derive(Debug)]
pub(super) struct Counted<K> {
    counts: Vec<AtomicU64>,
    set: PhantomData<fn(K)>,
}

impl<K: Countable> Counted<K> {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        Self { counts: K::NAMES.iter().map(|_| AtomicU64::new(0)).collect(), set: PhantomData }
    }

    pub(super) fn add(&self, one: K) {
        if let Some(count) = self.counts.get(one.place()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fill(&self, family: Family) -> Family {
        K::NAMES.iter().zip(&self.counts).fold(family, |family, (name, count)| {
            family.count(&[name], count.load(Ordering::Relaxed))
        })
    }
}
