//! What every request goes through, on both listeners, and how handlers read one.

mod ask;
mod body;
mod cors;
mod form;
mod members;
mod network_meters;
mod pulse;
mod request_id;
mod shell;
pub(crate) mod urlencoded;
mod watched;

pub use ask::{Ask, Asked, Peer, QuotaName, RateNote, header};
pub use body::{Need, refuse_body};
pub use form::Form;
pub use members::Members;
pub use network_meters::NetworkMeters;
pub use pulse::Pulse;
pub use request_id::RequestId;
pub use shell::{Door, Shell, json};

pub(crate) use cloakroom_core::clean::clean_text;
