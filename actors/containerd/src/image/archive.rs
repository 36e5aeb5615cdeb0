//! Reads archives, piece by piece, on a thread.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tar::EntryType;
use tokio::sync::mpsc;

use crate::error::ImportError;

/// Bytes of a blob that travel at once; below what gRPC takes.
const CHUNK_BYTES: usize = 256 << 10;
/// More entries than any image has, and little enough to remember.
const ENTRIES_MAX: usize = 100_000;

/// Where an archive is.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(PathBuf),
    Memory(Arc<[u8]>),
}

/// What comes out of it.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A file begins.
    Begin { path: String, size: u64 },
    /// It goes on.
    Data(Vec<u8>),
    /// It is over.
    End,
    /// A link to another file of the archive.
    Link { path: String, target: String },
}

/// Reads to the end, or until nobody takes the pieces any more.
pub(crate) fn read(source: Source, to: &mpsc::Sender<Piece>) -> Result<(), ImportError> {
    match source {
        Source::File(path) => decode(File::open(path).map_err(ImportError::Read)?, to),
        Source::Memory(bytes) => decode(Cursor::new(bytes), to),
    }
}

/// Looks what it is packed with, by its first bytes as the engine does.
fn decode(source: impl Read, to: &mpsc::Sender<Piece>) -> Result<(), ImportError> {
    let mut source = BufReader::with_capacity(CHUNK_BYTES, source);
    let start = source.fill_buf().map_err(ImportError::Read)?;
    match start {
        [0x1f, 0x8b, ..] => untar(MultiGzDecoder::new(source), to),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => untar(Frames::new(source)?, to),
        [0x04, 0x22, 0x4d, 0x18, ..] => untar(lz4_flex::frame::FrameDecoder::new(source), to),
        [b'B', b'Z', b'h', ..] => Err(ImportError::Kind { kind: "bz2".to_owned() }),
        _ => untar(source, to),
    }
}

/// zstd, which may come in several frames.
struct Frames<R: Read>(Option<StreamingDecoder<BufReader<R>, FrameDecoder>>);

impl<R: Read> Frames<R> {
    fn new(source: BufReader<R>) -> Result<Self, ImportError> {
        Self::open(source).map(|decoder| Self(Some(decoder))).map_err(ImportError::Read)
    }

    fn open(source: BufReader<R>) -> io::Result<StreamingDecoder<BufReader<R>, FrameDecoder>> {
        StreamingDecoder::new(source).map_err(io::Error::other)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let count = decoder.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(mut source) = self.0.take().map(StreamingDecoder::into_inner) else { break };
            if !source.fill_buf()?.is_empty() {
                self.0 = Some(Self::open(source)?);
            }
        }
        Ok(0)
    }
}

fn untar(source: impl Read, to: &mpsc::Sender<Piece>) -> Result<(), ImportError> {
    let mut tar = tar::Archive::new(source);
    let mut count = 0;
    for entry in tar.entries().map_err(ImportError::Read)? {
        let mut entry = entry.map_err(ImportError::Read)?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(ImportError::Content(format!("the archive has more than {ENTRIES_MAX} entries")));
        }
        let path = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        // Nobody takes it when the import has failed; whoever imports knows why.
        let send = |piece| to.blocking_send(piece).is_ok();
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            let target = entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned());
            let target = target.unwrap_or_default();
            let target = if kind == EntryType::Link { clean(&target) } else { beside(&path, &target) };
            if !send(Piece::Link { path, target }) {
                return Ok(());
            }
        } else if kind.is_file() {
            let (size, mut left) = (entry.size(), entry.size());
            if !send(Piece::Begin { path, size }) {
                return Ok(());
            }
            while left > 0 {
                let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES))];
                entry.read_exact(&mut chunk).map_err(ImportError::Read)?;
                left -= chunk.len() as u64;
                if !send(Piece::Data(chunk)) {
                    return Ok(());
                }
            }
            if !send(Piece::End) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A path without what says nothing.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Where a symbolic link leads.
fn beside(path: &str, target: &str) -> String {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    if target.starts_with('/') { clean(target) } else { clean(&format!("{dir}/{target}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{BuiltImage, ImageBuilder};
    use std::io::Write as _;

    fn paths(bytes: Vec<u8>) -> Result<Vec<String>, ImportError> {
        let (sender, mut receiver) = mpsc::channel(1000);
        read(Source::Memory(bytes.into()), &sender)?;
        drop(sender);
        let mut found = Vec::new();
        while let Some(piece) = receiver.blocking_recv() {
            if let Piece::Begin { path, .. } = piece {
                found.push(path);
            }
        }
        Ok(found)
    }

    #[test]
    fn every_way_to_pack_gives_the_same() {
        let plain = BuiltImage::oci_archive(&[ImageBuilder::new("a").file("f", 0o644, vec![7; 300_000]).build()]);
        let wanted = paths(plain.clone()).unwrap();
        assert_eq!(wanted.len(), 5);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&plain).unwrap();
        assert_eq!(paths(gz.finish().unwrap()).unwrap(), wanted);
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        assert_eq!(paths(lz4.finish().unwrap()).unwrap(), wanted);
        let (first, second) = plain.split_at(plain.len() / 2);
        let pack = |part| ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest);
        assert_eq!(paths([pack(first), pack(second)].concat()).unwrap(), wanted, "two frames");
    }

    #[test]
    fn what_is_no_archive_or_ends_early_is_an_error() {
        assert!(matches!(paths(b"BZh91AY".to_vec()), Err(ImportError::Kind { .. })));
        assert!(paths(b"this is no archive".repeat(100)).is_err());
        let plain = BuiltImage::oci_archive(&[ImageBuilder::new("a").file("f", 0o644, vec![7; 3000]).build()]);
        assert!(paths(plain[..plain.len() / 2].to_vec()).is_err());
        assert_eq!((clean("./a//b/../c"), beside("a/b/l", "../x/layer.tar")), ("a/c".into(), "a/x/layer.tar".into()));
    }
}
