//! The meaning of [`Store`](crate::Store), as tests that every store has to pass.
