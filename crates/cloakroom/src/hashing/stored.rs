//! Password hashes as they are stored: our own, and those that came with users from elsewhere.
//!
//! A foreign one is kept as it is, checked by its own algorithm, and replaced at the next sign-in.

use std::num::NonZeroU32;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cloakroom_core::types::{Secret, same_bytes};

/// Bytes of a hash of our own, and of its salt.
pub(super) const OUTPUT_BYTES: usize = 32;
pub(super) const SALT_BYTES: usize = 16;
/// A stored hash with parameters beyond these is refused, so that no import makes one sign-in eat
/// the machine. What is configured is always taken. Memory in KiB.
const MEMORY_MAX: u32 = 256 * 1024;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 16;
/// Memory times passes, in KiB: about a second of one core.
const WORK_MAX: u64 = 1024 * 1024;
/// The cost of bcrypt, which doubles the work: about a second at 14.
const BCRYPT_COST_MAX: u32 = 14;
/// Rounds of PBKDF2: about a second.
const PBKDF2_ROUNDS_MAX: u32 = 4_000_000;
/// Memory of scrypt, `128 · N · r` bytes, and the same times its lanes.
const SCRYPT_MEMORY_MAX: u64 = 256 * 1024 * 1024;
const SCRYPT_WORK_MAX: u64 = 512 * 1024 * 1024;
/// Bytes of a foreign hash: under 16 a guess would do, over 64 nothing is gained.
const FOREIGN_OUTPUT_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Characters of a stored hash.
const TEXT_MAX: usize = 512;

/// Base64 as the frameworks write it: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A hash as stored, taken apart.
pub(super) enum StoredHash {
    /// Our own, or another's with other parameters.
    Argon2 { algorithm: Algorithm, version: Version, params: Params, salt: Salt, output: Vec<u8> },
    /// In its own form, `$2b$…`.
    Bcrypt(String),
    /// RFC 7914.
    Scrypt { params: scrypt::Params, salt: Vec<u8>, output: Vec<u8> },
    /// RFC 8018, section 5.2.
    Pbkdf2 { algorithm: pbkdf2::Algorithm, rounds: NonZeroU32, salt: Vec<u8>, output: Vec<u8> },
}

impl StoredHash {
    /// Takes a stored hash apart. None: of no known form, or beyond what a sign-in can bear, where
    /// what is configured (`own`) is always borne.
    pub(super) fn parse(text: &str, own: &Params) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        // Django names the library first.
        let text = text.strip_prefix("argon2").filter(|rest| rest.starts_with('$')).unwrap_or(text);
        let text = text.strip_prefix("bcrypt$").unwrap_or(text);
        if text.starts_with("$argon2") {
            return argon2_of(text, own);
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|form| text.starts_with(form)) {
            return bcrypt_of(text);
        }
        let parts: Vec<&str> = text.split('$').collect();
        match parts[..] {
            ["", "scrypt", params, salt, output] => {
                let [log_n, r, p] = named(params, ["ln", "r", "p"])?;
                let log_n = u8::try_from(log_n).ok()?;
                scrypt_of(log_n, r, p, BASE64.decode(salt).ok()?, BASE64.decode(output).ok()?)
            }
            ["", scheme, rounds, salt, output] => {
                let digest = scheme.strip_prefix("pbkdf2")?.trim_start_matches('-');
                let rounds = match rounds.split(',').next()?.strip_prefix("i=") {
                    Some(rounds) => rounds,
                    None => rounds,
                };
                let bytes = |text: &str| BASE64.decode(text.replace('.', "+")).ok();
                pbkdf2_of(digest, rounds, bytes(salt)?, bytes(output)?)
            }
            // Django's.
            [scheme, rounds, salt, output] => {
                let digest = scheme.strip_prefix("pbkdf2_")?;
                pbkdf2_of(digest, rounds, salt.into(), BASE64.decode(output).ok()?)
            }
            // Werkzeug's: the salt is text, the hash hexadecimal.
            [method, salt, output] => {
                let output = hexadecimal(output)?;
                match method.split(':').collect::<Vec<_>>()[..] {
                    ["scrypt", n, r, p] => {
                        let n: u64 = n.parse().ok().filter(|n: &u64| n.is_power_of_two())?;
                        let log_n = u8::try_from(n.trailing_zeros()).ok()?;
                        let (r, p) = (r.parse().ok()?, p.parse().ok()?);
                        scrypt_of(log_n, r, p, salt.into(), output)
                    }
                    ["pbkdf2", digest, rounds] => pbkdf2_of(digest, rounds, salt.into(), output),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Whether `password` is the one.
    pub(super) fn matches(&self, password: &Secret<String>) -> bool {
        let password = password.expose().as_bytes();
        match self {
            Self::Argon2 { algorithm, version, params, salt, output } => {
                let mut own = vec![0; output.len()];
                let argon2 = Argon2::new(*algorithm, *version, params.clone());
                argon2.hash_password_into(password, salt, &mut own).is_ok()
                    && same_bytes(&own, output)
            }
            // The library compares in constant time, and takes 72 bytes, as all do.
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Scrypt { params, salt, output } => {
                let mut own = vec![0; output.len()];
                scrypt::scrypt(password, salt, params, &mut own).is_ok() && same_bytes(&own, output)
            }
            Self::Pbkdf2 { algorithm, rounds, salt, output } => {
                pbkdf2::verify(*algorithm, *rounds, salt, password, output).is_ok()
            }
        }
    }

    /// Whether it is to be replaced by one of `wanted` strength.
    pub(super) fn is_weaker_than(&self, wanted: &Params) -> bool {
        match self {
            Self::Argon2 { algorithm, version, params, salt, output } => {
                *algorithm != Algorithm::Argon2id
                    || *version != Version::V0x13
                    || params.m_cost() < wanted.m_cost()
                    || params.t_cost() < wanted.t_cost()
                    || output.len() < OUTPUT_BYTES
                    || salt.len() < SALT_BYTES
            }
            Self::Bcrypt(_) | Self::Scrypt { .. } | Self::Pbkdf2 { .. } => true,
        }
    }
}

/// The PHC string of a hash of our own.
pub(super) fn phc(params: &Params, salt: &[u8], output: &[u8]) -> Option<String> {
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).ok()?,
        salt: Some(Salt::new(salt).ok()?),
        hash: Some(Output::new(output).ok()?),
    };
    Some(hash.to_string())
}

fn argon2_of(text: &str, own: &Params) -> Option<StoredHash> {
    let hash = PasswordHash::new(text).ok()?;
    let version = match hash.version {
        Some(number) => Version::try_from(number).ok()?,
        // The PHC string format: without a version it is the first.
        None => Version::V0x10,
    };
    let params = Params::try_from(&hash).ok()?;
    let within = params.m_cost() <= MEMORY_MAX.max(own.m_cost())
        && params.t_cost() <= PASSES_MAX.max(own.t_cost())
        && params.p_cost() <= LANES_MAX.max(own.p_cost())
        && work(&params) <= WORK_MAX.max(work(own));
    within.then_some(())?;
    Some(StoredHash::Argon2 {
        algorithm: Algorithm::try_from(hash.algorithm.as_str()).ok()?,
        version,
        params,
        salt: hash.salt?,
        output: hash.hash?.as_bytes().to_vec(),
    })
}

fn work(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

fn bcrypt_of(text: &str) -> Option<StoredHash> {
    let parts: bcrypt::HashParts = text.parse().ok()?;
    (4..=BCRYPT_COST_MAX).contains(&parts.get_cost()).then(|| StoredHash::Bcrypt(text.to_owned()))
}

fn scrypt_of(log_n: u8, r: u32, p: u32, salt: Vec<u8>, output: Vec<u8>) -> Option<StoredHash> {
    let memory = 1_u64.checked_shl(u32::from(log_n))?.checked_mul(128)?.checked_mul(r.into())?;
    let work = memory.checked_mul(p.into())?;
    let within = memory <= SCRYPT_MEMORY_MAX && work <= SCRYPT_WORK_MAX;
    if !within || !FOREIGN_OUTPUT_BYTES.contains(&output.len()) {
        return None;
    }
    let params = scrypt::Params::new(log_n, r, p).ok()?;
    Some(StoredHash::Scrypt { params, salt, output })
}

fn pbkdf2_of(digest: &str, rounds: &str, salt: Vec<u8>, output: Vec<u8>) -> Option<StoredHash> {
    let algorithm = match digest {
        "" | "sha1" => pbkdf2::PBKDF2_HMAC_SHA1,
        "sha256" => pbkdf2::PBKDF2_HMAC_SHA256,
        "sha384" => pbkdf2::PBKDF2_HMAC_SHA384,
        "sha512" => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return None,
    };
    let rounds: NonZeroU32 = rounds.parse().ok()?;
    let within = rounds.get() <= PBKDF2_ROUNDS_MAX && FOREIGN_OUTPUT_BYTES.contains(&output.len());
    within.then_some(StoredHash::Pbkdf2 { algorithm, rounds, salt, output })
}

/// The numbers of `a=1,b=2,c=3`, by exactly these names.
fn named<const N: usize>(text: &str, names: [&str; N]) -> Option<[u32; N]> {
    let mut parts = text.split(',');
    let mut numbers = [0; N];
    for (number, name) in numbers.iter_mut().zip(names) {
        *number = parts.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(hash: &str, password: &str) -> Option<bool> {
        let hash = StoredHash::parse(hash, &Params::default())?;
        assert!(hash.is_weaker_than(&Params::default()));
        Some(hash.matches(&Secret::new(password.to_owned())))
    }

    /// Each made by the library whose users would come with it.
    const FOREIGN: [&str; 15] = [
        "$2b$05$mqZOVKFSJ..W9Ayi7D0N2embP0w3DD1fZ5GLNsN4xbg9tFyxWG2hS",
        "$2y$05$VR1KJb3DlFxB5zAGuS8nseV3h0KMl8vtBieTaiugfBSspmNkqG78O",
        "$2a$05$u0S09VD9vPWpxGoXu/IUlOn3Qu6RlryvxZx/E/T2yh/0f5BAnXeNe",
        "$pbkdf2-sha256$1000$b42xdg4hpNRaK.U8J0SolQ$bpV1.v7A.L4h05QqsAGnciyTIeJztAHqPF.7KK5PaX8",
        "$pbkdf2-sha512$1000$YGwN4Rwj5JzTWksJwfjfGw$MNrtvAsLSzF.zi2Ee.G4mKjZw3u2iYdXfrCav\
         Q6Stw8WCaHrFXEvjZbshFF90JFcTcEclB7mOc8JsDldS9vuuA",
        "$pbkdf2$1000$.l9r7d17b60VAkDovdeaMw$UyEeb22ux7pYuH11Uc0TEuoDn6c",
        "$scrypt$ln=8,r=8,p=1$jHGuNQbAGIOQ8p4T4pzTug$udCBcVE4yi+Vklunczoh1duWuvrVhzNzRwAZnWVRi1c",
        "scrypt:256:8:1$A1PjkGQQwnGXh4Hs$12cb0dbb22488221e9f119d7d3c144b4c5a2e9eb8fa2aef8\
         ac368e26f7960cb2ae83a5d24c53ac5b90dfe191611720560623adec500c980d4b30be6a5f0f2874",
        "pbkdf2:sha256:1000$H39DjmnbZ0ytBisJ$5b7607684ce7bc156b4f21ebb2451b299deb1a068637\
         dce43a7302134ff14f4b",
        "pbkdf2:sha512:1000$sW8drCzjKxTgi1gW$4304079e2719f7ab109c2fe10226521a58a4540409f8\
         dcc29df9c4cfcca893034c529be09bb130e437e35d2706f82d2e1d60c74e028fb8a47b6979297459\
         30be",
        "pbkdf2_sha256$1000$saltsaltsalt$F7o7+5VTVzFAO998X6s3AHrDsJVdMiIlgndIMe19NvY=",
        "pbkdf2_sha1$1000$saltsaltsalt$JfNU29qvQkW1UgahO6OQ0oP6O0I=",
        "bcrypt$$2b$05$n37ERJfV3OmK.nug9Wniu.Kdm6s0xwaDeLAJyjKbf3rk6ZMvWVwba",
        "argon2$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$Kw3/ZjLNvvrvmWv7DSmJdvIaVuO5y\
         zpUAyMmNiCnHLI",
        "$pbkdf2-sha256$i=1000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$cBg8D2DungRB9k76szThf5ehfyBz99\
         1ay6PT8Srwk4M",
    ];

    #[test]
    fn j5_hashes_of_other_libraries_are_checked_as_they_checked_them() {
        for hash in FOREIGN {
            assert_eq!(checked(hash, "correct horse"), Some(true), "{hash}");
            assert_eq!(checked(hash, "correct horsf"), Some(false), "{hash}");
            assert_eq!(checked(hash, ""), Some(false), "{hash}");
        }
    }

    #[test]
    fn j5_foreign_hashes_that_no_sign_in_could_bear_are_refused() {
        let hex = "ab".repeat(32);
        for absurd in [
            "$2b$15$VpiMEP5eff9pCulVd/NvTehka5ImI0L2BPobvwhb9XIgKJQYt4aRa".to_owned(),
            "$2b$03$VpiMEP5eff9pCulVd/NvTehka5ImI0L2BPobvwhb9XIgKJQYt4aRa".to_owned(),
            format!("scrypt:4194304:8:1$salt${hex}"),
            format!("scrypt:65536:8:100$salt${hex}"),
            format!("scrypt:1000:8:1$salt${hex}"),
            format!("scrypt:18446744073709551616:8:1$salt${hex}"),
            format!("pbkdf2:sha256:100000000$salt${hex}"),
            format!("pbkdf2:sha256:0$salt${hex}"),
            format!("pbkdf2:md5:1000$salt${hex}"),
            "pbkdf2:sha256:1000$salt$abcd".to_owned(),
            "pbkdf2:sha256:1000$salt$xy".to_owned(),
            "$scrypt$ln=64,r=8,p=1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
            "$scrypt$ln=8,r=8$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
            "5f4dcc3b5aa765d61d8327deb882cf99".to_owned(),
            "sha1$salt$5f4dcc3b5aa765d61d8327deb882cf9900000000".to_owned(),
            "$".repeat(5),
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0".to_owned(),
            format!("$2b$05${}", "x".repeat(600)),
        ] {
            assert_eq!(checked(&absurd, "correct horse"), None, "{absurd}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in r"(\$|argon2|bcrypt|scrypt|pbkdf2|[:=,$a-f0-9])*") {
            let _ = StoredHash::parse(&text, &Params::default());
        }
    }
}
