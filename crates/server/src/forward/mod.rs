//! Forward authentication: gateways ask for every request whether it may pass, and as whom.

pub(crate) mod identity;
pub(crate) mod verify;
