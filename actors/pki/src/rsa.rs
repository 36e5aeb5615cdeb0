//! Makes RSA keys, which ring only uses: two random primes, found as FIPS 186-5 describes (appendix A.1.3), and what
//! follows from them. ring checks the result when the key is loaded, and does all that is done with it afterwards.
//!
//! The arithmetic takes different times for different numbers. Nobody can measure it: it runs once in the life of a
//! cluster, before anything listens.

use num_bigint::BigUint;

use crate::error::MaterialError;
use crate::key::random;
use crate::x509::der;

/// The public exponent.
const EXPONENT: u32 = 65_537;
/// Bytes of each of the two primes.
const PRIME_BYTES: usize = 128;
/// Rounds of the test of Miller and Rabin; each of them is fooled by at most a quarter of all bases.
const ROUNDS: u32 = 32;
/// Candidates are first divided by all numbers below this one, which is cheap.
const SMALL_MAX: u32 = 2_000;
/// So many odd numbers are tried from one random start; the chance that none is prime is below one in a million.
const STEPS: u32 = 8_192;

/// A new key of 2048 bits as PKCS#1 writes it.
///
/// # Errors
/// [`MaterialError::Random`].
pub(crate) fn generate() -> Result<Vec<u8>, MaterialError> {
    loop {
        let (one, two) = (prime()?, prime()?);
        let (p, q) = if one > two { (one, two) } else { (two, one) };
        // Primes so near to each other would be found from their product.
        if (&p - &q).bits() < PRIME_BYTES as u64 * 8 - 100 {
            continue;
        }
        if let Some(key) = encode(&p, &q) {
            return Ok(key);
        }
    }
}

fn encode(p: &BigUint, q: &BigUint) -> Option<Vec<u8>> {
    let (p_less, q_less) = (p - 1_u32, q - 1_u32);
    let exponent = BigUint::from(EXPONENT);
    let period = &p_less * &q_less / common_divisor(&p_less, &q_less);
    let private = exponent.modinv(&period)?;
    // A small one could be found from the public key.
    if private.bits() <= PRIME_BYTES as u64 * 8 {
        return None;
    }
    let numbers = [
        &BigUint::ZERO,
        &(p * q),
        &exponent,
        &private,
        p,
        q,
        &(&private % &p_less),
        &(&private % &q_less),
        &q.modinv(p)?,
    ]
    .map(|number| der::integer(&number.to_bytes_be()));
    Some(der::element(der::SEQUENCE, &numbers.concat()))
}

fn common_divisor(one: &BigUint, two: &BigUint) -> BigUint {
    let (mut one, mut two) = (one.clone(), two.clone());
    while two != BigUint::ZERO {
        (one, two) = (two.clone(), one % two);
    }
    one
}

/// A prime of 1024 bits, of which the first two are set: so a product of two of them has 2048.
fn prime() -> Result<BigUint, MaterialError> {
    let small: Vec<u32> = (3..SMALL_MAX).step_by(2).collect();
    loop {
        let mut bytes: [u8; PRIME_BYTES] = random()?;
        bytes[0] |= 0b1100_0000;
        bytes[PRIME_BYTES - 1] |= 1;
        let start = BigUint::from_bytes_be(&bytes);
        let rests: Vec<u32> = small.iter().map(|by| remainder(&start, *by)).collect();
        for step in (0..STEPS * 2).step_by(2) {
            if small.iter().zip(&rests).any(|(by, rest)| (rest + step) % by == 0) {
                continue;
            }
            let candidate = &start + step;
            if candidate.bits() == PRIME_BYTES as u64 * 8
                && remainder(&candidate, EXPONENT) != 1
                && is_probably_prime(&candidate)?
            {
                return Ok(candidate);
            }
        }
    }
}

fn remainder(number: &BigUint, by: u32) -> u32 {
    (number % by).to_u32_digits().first().copied().unwrap_or(0)
}

/// The test of Miller and Rabin with random bases. `number` is odd and greater than 4.
fn is_probably_prime(number: &BigUint) -> Result<bool, MaterialError> {
    let (one, less) = (BigUint::from(1_u32), number - 1_u32);
    let twos = less.trailing_zeros().unwrap_or(0);
    let odd = &less >> twos;
    'rounds: for round in 0..ROUNDS {
        // 2 finds nearly all that are not prime; the others are for those that it does not.
        let base = if round == 0 { BigUint::from(2_u32) } else { base(number)? };
        let mut power = base.modpow(&odd, number);
        if power == one || power == less {
            continue;
        }
        for _ in 1..twos {
            power = &power * &power % number;
            if power == less {
                continue 'rounds;
            }
        }
        return Ok(false);
    }
    Ok(true)
}

/// From 2 up to the number less 2.
fn base(number: &BigUint) -> Result<BigUint, MaterialError> {
    let bytes: [u8; PRIME_BYTES + 8] = random()?;
    Ok(BigUint::from_bytes_be(&bytes) % (number - 3_u32) + 2_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_the_numbers_that_look_like_them() {
        let is_prime = |text: &str| {
            is_probably_prime(&BigUint::parse_bytes(text.as_bytes(), 10).expect("a number")).expect("random")
        };
        for text in ["5", "7", "104729", "2147483647", "170141183460469231731687303715884105727"] {
            assert!(is_prime(text), "{text}");
        }
        // Carmichael numbers, strong pseudoprimes to base 2, and a product of two primes.
        for text in ["9", "561", "1105", "2047", "3215031751", "3825123056546413051", "1000036000099"] {
            assert!(!is_prime(text), "{text}");
        }
    }

    #[test]
    fn greatest_common_divisors() {
        let divisor = |one: u32, two: u32| common_divisor(&one.into(), &two.into());
        assert_eq!(divisor(12, 18), 6_u32.into());
        assert_eq!(divisor(7, 5), 1_u32.into());
    }
}
