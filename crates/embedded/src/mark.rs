//! How far commits were acknowledged, beside the journal.
//!
//! The journal alone can't tell a torn tail, which nobody was promised, from a damaged one. So the
//! tick of each acknowledged group goes into a file of its own, after the group is durable and
//! before anybody hears of it. It is not flushed each time: whatever reached the disk of it is a
//! lower bound of what the journal must hold, after a crash of the process the exact one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use cloakroom_store::Tick;

use crate::error::OpenError;

/// The file with the last acknowledged tick.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
}

impl Mark {
    /// Opens it and reads what it says; [`Tick::ZERO`] where it says nothing.
    pub(crate) fn open(path: &Path) -> Result<(Self, Tick), OpenError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| OpenError::io("open", path, error))?;
        let mut bytes = Vec::new();
        (&mut file)
            .take(LENGTH as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| OpenError::io("read", path, error))?;
        let tick = if bytes.is_empty() {
            Tick::ZERO
        } else {
            decode(&bytes).ok_or_else(|| OpenError::damaged(path, AFFECTED))?
        };
        Ok((Self { file }, tick))
    }

    /// Raises it.
    pub(crate) fn set(&mut self, tick: Tick) -> io::Result<()> {
        self.file.rewind()?;
        self.file.write_all(&encode(tick))
    }

    /// Makes it survive a power loss as well.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The tick, and its complement as a check.
fn encode(tick: Tick) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let (value, check) = bytes.split_at_mut(8);
    value.copy_from_slice(&tick.0.to_be_bytes());
    check.copy_from_slice(&(!tick.0).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Tick> {
    let (value, check) = bytes.split_first_chunk()?;
    let value = u64::from_be_bytes(*value);
    let check = u64::from_be_bytes(check.try_into().ok()?);
    (check == !value).then_some(Tick(value))
}

const LENGTH: usize = 16;

const AFFECTED: &str = "it should say up to where commits were acknowledged; the commits \
     themselves are elsewhere, and if nothing else was damaged, removing this file loses only \
     the check that they are complete";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_survives_its_bytes_and_nothing_else_passes_for_one() {
        for tick in [Tick::ZERO, Tick(1), Tick(u64::MAX)] {
            assert_eq!(decode(&encode(tick)), Some(tick));
        }
        let mut bytes = encode(Tick(77)).to_vec();
        bytes.push(0);
        assert_eq!(decode(&bytes), None);
        bytes.truncate(15);
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&[0; 16]), None);
    }
}
