//! `token generate`: a random token in Kubernetes' bootstrap form, not yet known to any cluster.

use std::io;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, SeedableRng};

/// The characters of a token.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Characters before the dot; they name the token.
const ID_LENGTH: usize = 6;
/// Characters after the dot; they are the secret.
const SECRET_LENGTH: usize = 16;

/// A new token from the system's randomness.
///
/// # Errors
/// When the system has no randomness to give.
pub fn run() -> io::Result<String> {
    let mut rng = StdRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
    Ok(token(&mut rng))
}

/// A new token, `<id>.<secret>`. Each character is equally likely.
fn token(rng: &mut impl Rng) -> String {
    let mut word = |length: usize| -> String {
        (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
    };
    format!("{}.{}", word(ID_LENGTH), word(SECRET_LENGTH))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_have_the_bootstrap_form() {
        let mut rng = StdRng::seed_from_u64(1);
        let tokens: BTreeSet<String> = (0..1000).map(|_| token(&mut rng)).collect();
        assert_eq!(tokens.len(), 1000, "no two are alike");
        let mut seen = BTreeSet::new();
        for token in tokens {
            let (id, secret) = token.split_once('.').unwrap();
            assert_eq!((id.len(), secret.len()), (6, 16), "{token}");
            seen.extend(id.bytes().chain(secret.bytes()));
        }
        assert_eq!(seen, ALPHABET.iter().copied().collect(), "every character turns up, and no other");
    }

    #[test]
    fn the_system_makes_different_ones() {
        assert_ne!(run().unwrap(), run().unwrap());
    }
}
