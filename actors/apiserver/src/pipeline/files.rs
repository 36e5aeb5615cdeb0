//! Files that everybody may read, as [`Files`] finds them: whole, in pieces as they are taken off the disk.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::fs::File;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::answer;
use crate::config::Files;
use crate::front::Body;

/// Bytes of a piece.
const PIECE_BYTES: usize = 32 * 1024;
/// Packed files, as Go's servers call them; of all others nobody knows what they are.
const PACKED: (&[&str], &str) = (&[".tgz", ".gz"], "application/x-gzip");
const UNKNOWN: &str = "application/octet-stream";

/// The answer to a request for a file; `None` if its path isn't one of files.
pub(super) fn answer(files: &Files, parts: &Parts) -> Option<Response<Body>> {
    let path = parts.uri.path();
    if !files.are_at(path) {
        return None;
    }
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let mut response = answer::text(405, "Method Not Allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let Some(seat) = files.seat() else { return Some(answer::too_many()) };
    let found = files.open(path).and_then(|file| Some((file.metadata().ok()?.len(), file)));
    let Some((bytes, file)) = found else { return Some(answer::no_such_path()) };
    let body = match parts.method {
        Method::HEAD => Body::whole(Bytes::new()),
        _ => Body::passed(Reading { file: File::from_std(file), left: bytes, _seat: seat }),
    };
    let mut response = Response::new(body);
    let kind = if PACKED.0.iter().any(|end| path.ends_with(end)) { PACKED.1 } else { UNKNOWN };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_LENGTH, bytes.into());
    Some(response)
}

/// A file on its way to somebody.
struct Reading {
    file: File,
    /// Bytes that were promised and are still to come.
    left: u64,
    /// Given back with the file.
    _seat: OwnedSemaphorePermit,
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = vec![0; most];
        let mut room = ReadBuf::new(&mut piece);
        if let Err(error) = ready!(Pin::new(&mut self.file).poll_read(context, &mut room)) {
            return Poll::Ready(Some(Err(error)));
        }
        let read = room.filled().len();
        piece.truncate(read);
        if read == 0 {
            // Somebody made it shorter: what was promised can't be kept.
            return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
        }
        self.left = self.left.saturating_sub(read as u64);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn parts(method: Method, path: &str) -> Parts {
        http::Request::builder().method(method).uri(path).body(()).unwrap().into_parts().0
    }

    async fn read(response: Response<Body>) -> (u16, usize) {
        (response.status().as_u16(), response.into_body().collect().await.map_or(0, |body| body.to_bytes().len()))
    }

    #[tokio::test]
    async fn files_are_sent_whole_and_by_so_many_at_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.tgz");
        std::fs::write(&path, vec![7; 100_001]).unwrap();
        let (of, opened) = (path.clone(), place.path().join("gone"));
        let files = Files::new("/static/", move |path| {
            std::fs::File::open(if path == "/static/a.tgz" { &of } else { &opened }).ok()
        });
        let ask = |method, path| answer(&files, &parts(method, path));
        assert!(ask(Method::GET, "/api").is_none() && ask(Method::GET, "/static").is_none());
        let found = ask(Method::GET, "/static/a.tgz").unwrap();
        assert_eq!(found.headers()[CONTENT_TYPE], "application/x-gzip");
        assert_eq!(read(found).await, (200, 100_001));
        let head = ask(Method::HEAD, "/static/a.tgz").unwrap();
        assert_eq!(head.headers()[CONTENT_LENGTH], "100001");
        assert_eq!(read(head).await, (200, 0));
        assert_eq!(read(ask(Method::GET, "/static/b.tgz").unwrap()).await.0, 404);
        assert_eq!(read(ask(Method::POST, "/static/a.tgz").unwrap()).await.0, 405);

        let held: Vec<_> = std::iter::from_fn(|| ask(Method::GET, "/static/a.tgz"))
            .take_while(|response| response.status() == 200)
            .collect();
        assert_eq!(held.len(), Files::AT_ONCE);
        drop(held);
        let shorter = ask(Method::GET, "/static/a.tgz").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert!(shorter.into_body().collect().await.is_err());
    }
}
