//! What a store gives back may be damaged: it is refused, or read and written as the same.
#![no_main]

use cloakroom_store::Kind;
use cloakroom_store::record::{decode, decode_entry, encode, encode_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|stored: (u8, &[u8])| {
    let (kind, bytes) = stored;
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    if let Ok(record) = decode(kind, bytes) {
        let written = encode(&record);
        let again = decode(kind, &written).expect("what was written is read");
        assert_eq!(encode(&again), written);
    }
    if let Ok(entry) = decode_entry(bytes) {
        let written = encode_entry(&entry);
        let again = decode_entry(&written).expect("what was written is read");
        assert_eq!(encode_entry(&again), written);
    }
});
