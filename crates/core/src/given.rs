//! What a request gives, where it may give it once.

use std::fmt;

/// A header or cookie that a request may give once.
///
/// `Debug` doesn't print what was given: it may be a credential.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Given<T> {
    /// It is not there.
    #[default]
    Absent,
    /// It is there once.
    One(T),
    /// It is there more than once, or in a form that two readers would read differently. Whoever
    /// picks one of several lets an attacker choose, so none of them counts.
    Several,
}

/// A header's value, or that it is absent or repeated.
pub type Header<'a> = Given<&'a [u8]>;

impl<T> Given<T> {
    /// The same after one more was found.
    #[must_use]
    pub fn and(self, another: T) -> Self {
        match self {
            Self::Absent => Self::One(another),
            Self::One(_) | Self::Several => Self::Several,
        }
    }

    /// Whether there is none.
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T> FromIterator<T> for Given<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        all.into_iter().fold(Self::Absent, Self::and)
    }
}

impl<T> fmt::Debug for Given<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::One(_) => "One(..)",
            Self::Several => "Several",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_one_are_several_even_when_equal() {
        assert_eq!(Given::<u8>::from_iter([]), Given::Absent);
        assert_eq!(Given::from_iter([1]), Given::One(1));
        assert_eq!(Given::from_iter([1, 1]), Given::Several);
        assert_eq!(format!("{:?}", Given::One("secret")), "One(..)");
    }
}
