//! Where the last lines of a file begin, found by reading backwards.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncSeek, AsyncSeekExt as _, SeekFrom};

/// What is read at once.
const BLOCK_BYTES: usize = 16 * 1024;

/// Looks for the end of line behind which the wanted lines begin; `skip` is how many ends of line belong to them.
/// `None` if it lies before this block, and then `skip` is lower.
fn begin(block: &[u8], skip: &mut u64) -> Option<usize> {
    for (position, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
        if *skip == 0 {
            return Some(position + 1);
        }
        *skip -= 1;
    }
    None
}

/// The position of the first of the last `lines` lines. A line without an end, the last one, doesn't count, and follows.
///
/// # Errors
/// The file can't be read.
pub(crate) async fn tail(file: &mut (impl AsyncRead + AsyncSeek + Unpin), lines: u64) -> io::Result<u64> {
    let mut right = file.seek(SeekFrom::End(0)).await?;
    let (mut block, mut skip) = (vec![0; BLOCK_BYTES], lines);
    while right > 0 {
        let length = usize::try_from(right).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        let left = right - length as u64;
        file.seek(SeekFrom::Start(left)).await?;
        match file.read_exact(&mut block[..length]).await {
            Ok(_) => {}
            // The file was cut meanwhile; what is left of it is what there is.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
            Err(error) => return Err(error),
        }
        if let Some(position) = begin(&block[..length], &mut skip) {
            return Ok(left + position as u64);
        }
        right = left;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn found(text: &[u8], lines: u64) -> u64 {
        let threads = tokio::runtime::Builder::new_current_thread().build().unwrap();
        threads.block_on(tail(&mut Cursor::new(text), lines)).unwrap()
    }

    #[test]
    fn the_last_lines_are_found() {
        let text = b"a\nbb\nccc\n";
        for (lines, wanted) in [(0, 9), (1, 5), (2, 2), (3, 0), (4, 0), (u64::MAX, 0)] {
            assert_eq!(found(text, lines), wanted, "{lines} lines");
        }
        assert_eq!(found(b"a\nb", 0), 2);
        assert_eq!(found(b"", 5), 0);
    }

    proptest! {
        #[test]
        fn it_is_what_reading_forwards_finds(lengths in proptest::collection::vec(0_usize..30_000, 0..8), lines in 0_u64..10) {
            let text: Vec<u8> =
                lengths.iter().flat_map(|length| std::iter::repeat_n(b'x', *length).chain([b'\n'])).collect();
            let whole: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            let skipped = whole.len().saturating_sub(usize::try_from(lines).unwrap());
            let wanted: usize = whole[..skipped].iter().map(|line| line.len()).sum();
            prop_assert_eq!(found(&text, lines), wanted as u64);
        }
    }
}
