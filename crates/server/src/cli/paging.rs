//! Listings over several pages.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, encoded};
use super::failure::Failure;

/// Which part of a listing.
#[derive(Clone, Debug, Args)]
pub struct Page {
    /// How many at most
    #[arg(long, default_value_t = 200, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Go on after this cursor, from an earlier listing's end
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// What a listing found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The things.
    pub items: Vec<Value>,
    /// Where to go on.
    next: Option<String>,
}

impl Found {
    /// The same as one answer of the authority.
    pub fn to_json(&self, plural: &str) -> Value {
        json!({plural: self.items, "next": self.next})
    }

    /// Says how to see the rest. Nobody depends on it, so a failure is passed over.
    pub fn hint(&self, err: &mut dyn Write) {
        if let Some(next) = &self.next {
            let _ = writeln!(err, "more: add --after {next}");
        }
    }
}

/// The largest page that the authority gives.
const PAGE_MAX: u32 = 200;

/// Reads pages until there are as many things as wanted.
///
/// # Errors
///
/// A refusal, or no way to the authority.
pub fn pages(
    client: &Client,
    path: &str,
    query: &[(&str, &str)],
    plural: &str,
    page: &Page,
) -> Result<Found, Failure> {
    let mut found = Found { items: Vec::new(), next: page.after.clone() };
    let mut left = page.limit;
    loop {
        let mut url = format!("{path}?limit={}", left.min(PAGE_MAX));
        for (name, value) in query {
            url.push_str(&format!("&{name}={}", encoded(value)));
        }
        if let Some(after) = &found.next {
            url.push_str(&format!("&after={}", encoded(after)));
        }
        let mut answer = client.get(&url)?;
        let items = answer[plural].as_array_mut().map(std::mem::take).unwrap_or_default();
        left = left.saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
        let nothing_came = items.is_empty();
        found.items.extend(items);
        found.next = answer["next"].as_str().map(str::to_owned);
        if left == 0 || found.next.is_none() || nothing_came {
            return Ok(found);
        }
    }
}
