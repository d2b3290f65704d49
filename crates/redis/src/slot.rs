//! Which slot of a cluster a partition lies in.

use cloakroom_core::types::Partition;

/// How many slots a cluster has.
pub(crate) const SLOTS: u16 = 16_384;

/// The slot of all keys of a partition: that of what stands between their braces.
pub(crate) fn of_partition(namespace: &str, partition: Partition) -> u16 {
    crc16(format!("{namespace}:{partition}").as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn partitions_spread_over_the_slots() {
        let slots: std::collections::BTreeSet<_> =
            (0..256).map(|number| of_partition("cloakroom", Partition(number))).collect();
        assert!(slots.len() > 240, "{}", slots.len());
        assert!(slots.iter().all(|slot| *slot < SLOTS));
    }
}
