//! Base64 as Go's standard encoding has it: padded, and line breaks in the text are skipped.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of some bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0_u32, |group, (at, byte)| group | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = ALPHABET[(group >> (18 - 6 * at) & 0x3f) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The bytes of a text, or the place of the first letter that does not fit.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, usize> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut letters, mut padding) = (0_u32, 0, 0);
    for (place, letter) in text.bytes().enumerate() {
        if matches!(letter, b'\r' | b'\n') {
            continue;
        }
        if letter == b'=' && letters >= 2 && letters + padding < 4 {
            padding += 1;
        } else if padding == 0 {
            group = group << 6 | u32::from(value(letter).ok_or(place)?);
            letters += 1;
        } else {
            return Err(place);
        }
        if letters + padding == 4 {
            let whole = group << (6 * padding);
            bytes.extend_from_slice(&whole.to_be_bytes()[1..4 - padding]);
            if padding > 0 {
                // Nothing but line breaks may follow.
                let rest = text.bytes().enumerate().skip(place + 1);
                return rest
                    .into_iter()
                    .find(|(_, b)| !matches!(b, b'\r' | b'\n'))
                    .map_or(Ok(bytes), |(at, _)| Err(at));
            }
            (group, letters) = (0, 0);
        }
    }
    if letters > 0 { Err(text.len() - letters - padding) } else { Ok(bytes) }
}

fn value(letter: u8) -> Option<u8> {
    Some(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_texts_come_out() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(decode("Zm9v\r\nYmFy\n").unwrap(), b"foobar");
        assert_eq!(decode("Zg==\n").unwrap(), b"f");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        for (text, place) in [("Zm9*", 3), ("Zg", 0), ("Zg=", 0), ("Z===", 1), ("Zg==Zg==", 4), ("=", 0), ("Zm9vY", 4)]
        {
            assert_eq!(decode(text), Err(place), "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive_the_way_there_and_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_breaks_it(text: String) {
            decode(&text).ok();
        }
    }
}
