//! The suite on the reference model, and the stored forms.

mod conformance;
mod memory;
mod stored;
