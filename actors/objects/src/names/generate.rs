//! Names for objects that come with `generateName` only.

/// What a suffix is made of: no vowels and no digits that look like letters, so that no word comes out.
pub const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Letters of a suffix.
pub const SUFFIX_LETTERS_COUNT: usize = 5;

/// What is kept of a longer base, so that base and suffix make a label of DNS.
pub const GENERATED_BASE_BYTES_MAX: usize = super::LABEL_BYTES_MAX - SUFFIX_LETTERS_COUNT;

/// A base with a suffix. `random` is 64 bits from the caller's source; the same bits make the same name.
#[must_use]
pub fn generate(base: &str, random: u64) -> String {
    let mut end = base.len().min(GENERATED_BASE_BYTES_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut bits = random;
    let count = SUFFIX_LETTERS.len() as u64;
    for _ in 0..SUFFIX_LETTERS_COUNT {
        // 27^5 is far below 2^64, so that every suffix is as likely as the others but for one in 10^12.
        let letter = usize::try_from(bits % count).expect("the remainder is below 27");
        name.push(char::from(SUFFIX_LETTERS[letter]));
        bits /= count;
    }
    name
}

/// An id of version 4 (RFC 9562) in its usual writing, from 128 bits of the caller's source of which six go unused.
#[must_use]
pub fn uuid(high: u64, low: u64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (high & !0xf000 | 0x4000, low & !(3 << 62) | 2 << 62);
    let number = u128::from(high) << 64 | u128::from(low);
    // Each write and each request has one, so it is made without the machinery of formatting.
    let mut text = String::with_capacity(36);
    for place in 0..32 {
        if matches!(place, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(char::from(DIGITS[(number >> (124 - 4 * place) & 15) as usize]));
    }
    text
}
