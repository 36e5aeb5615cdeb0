//! The body of an answer: one piece, pieces made as they are sent, changes as they happen, or what somebody else answers.
//! Or none, when the connection becomes something else.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use k3sd_apiserver_wire::list::Step;
use k3sd_objects::status::Status;

use super::websocket::Talk;

/// Shorter answers are not worth the work of compressing them.
pub(crate) const GZIP_BYTES_MIN: usize = 128 * 1024;
/// Compressed bytes are passed on in pieces of about this size.
const GZIP_PIECE_BYTES: usize = 32 * 1024;

/// A list that is written as it is wanted.
pub(crate) type Pieces = Box<dyn FnMut() -> Step + Send>;
/// Pieces that come when something happens.
pub(crate) type Changes = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// What hangs on an answer until its last byte is out: its seat, its place in the numbers.
pub(crate) trait Held: Send {
    /// So many bytes more are on their way.
    fn sent(&mut self, bytes: usize);
}

/// See the module's page.
pub struct Body {
    kind: Kind,
    held: Option<Box<dyn Held>>,
}

enum Kind {
    Whole(Option<Bytes>),
    Pieces(Begun),
    Zipped(Begun, Option<GzEncoder<Vec<u8>>>),
    Changes(Changes),
    Passed(UnsyncBoxBody<Bytes, io::Error>),
    Talk(Option<Talk>),
}

/// What was made before it was known how it is sent, and how it goes on.
struct Begun {
    first: VecDeque<Bytes>,
    pieces: Pieces,
}

impl Begun {
    fn step(&mut self) -> Step {
        self.first.pop_front().map_or_else(|| (self.pieces)(), Step::Piece)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.kind {
            Kind::Whole(_) => "Whole",
            Kind::Pieces(_) => "Pieces",
            Kind::Zipped(..) => "Zipped",
            Kind::Changes(_) => "Changes",
            Kind::Passed(_) => "Passed",
            Kind::Talk(_) => "Talk",
        })
    }
}

/// Makes the next compressed piece. Ends the encoder with the list.
fn zip(begun: &mut Begun, encoder: &mut Option<GzEncoder<Vec<u8>>>) -> Poll<Option<io::Result<Bytes>>> {
    let Some(open) = encoder else { return Poll::Ready(None) };
    while open.get_ref().len() < GZIP_PIECE_BYTES {
        match begun.step() {
            Step::Piece(piece) => {
                if let Err(error) = open.write_all(&piece) {
                    return Poll::Ready(Some(Err(error)));
                }
            }
            Step::Working => return Poll::Pending,
            Step::Failed(status) => return Poll::Ready(Some(Err(io::Error::other(status.message)))),
            Step::Done => {
                let finished = encoder.take().map(|open| open.finish().map(Bytes::from));
                return Poll::Ready(finished);
            }
        }
    }
    Poll::Ready(Some(Ok(std::mem::take(open.get_mut()).into())))
}

impl Body {
    /// One piece.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { kind: Kind::Whole((!bytes.is_empty()).then_some(bytes)), held: None }
    }

    /// Changes as they happen.
    pub(crate) fn changes(changes: Changes) -> Self {
        Self { kind: Kind::Changes(changes), held: None }
    }

    /// What somebody else answers, as it comes. Where it breaks off, so does this.
    pub(crate) fn passed(body: impl HttpBody<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        Self { kind: Kind::Passed(UnsyncBoxBody::new(body)), held: None }
    }

    /// Nothing, for what is said comes when the connection is something else.
    pub(crate) fn talk(talk: Talk) -> Self {
        Self { kind: Kind::Talk(Some(talk)), held: None }
    }

    /// What is said then. Once.
    pub(crate) fn take_talk(&mut self) -> Option<Talk> {
        match &mut self.kind {
            Kind::Talk(talk) => talk.take(),
            _ => None,
        }
    }

    /// One piece, compressed if it is long and the client can read that; says whether it is.
    pub(crate) fn whole_or_zipped(bytes: Bytes, takes_gzip: bool) -> (Self, bool) {
        if !takes_gzip || bytes.len() < GZIP_BYTES_MIN {
            return (Self::whole(bytes), false);
        }
        let begun = Begun { first: VecDeque::from([bytes]), pieces: Box::new(|| Step::Done) };
        (Self { kind: Kind::Zipped(begun, Some(encoder())), held: None }, true)
    }

    /// Pieces, and whether they are compressed, which needs a client that can read it and a long answer. A short answer
    /// becomes one piece, so that its length is known.
    ///
    /// # Errors
    /// The list can't be made, and nothing of it is sent.
    pub(crate) async fn pieces(mut pieces: Pieces, takes_gzip: bool) -> Result<(Self, bool), Status> {
        let (mut first, mut bytes) = (VecDeque::new(), 0);
        while bytes < GZIP_BYTES_MIN {
            match pieces() {
                Step::Piece(piece) => {
                    bytes += piece.len();
                    first.push_back(piece);
                }
                Step::Working => tokio::task::yield_now().await,
                Step::Failed(status) => return Err(status),
                Step::Done => {
                    let mut all: Vec<Bytes> = first.into();
                    let whole = if all.len() == 1 { all.swap_remove(0) } else { all.concat().into() };
                    return Ok((Self::whole(whole), false));
                }
            }
        }
        let begun = Begun { first, pieces };
        let kind = if takes_gzip { Kind::Zipped(begun, Some(encoder())) } else { Kind::Pieces(begun) };
        Ok((Self { kind, held: None }, takes_gzip))
    }

    /// The same, with something that is let go when the last byte is out, or when nobody wants it any more.
    #[must_use]
    pub(crate) fn holding(self, held: Box<dyn Held>) -> Self {
        Self { held: Some(held), ..self }
    }
}

fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::with_capacity(GZIP_PIECE_BYTES), Compression::fast())
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        let made = match &mut this.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Kind::Pieces(begun) => match begun.step() {
                Step::Piece(piece) => Poll::Ready(Some(Ok(piece))),
                Step::Working => Poll::Pending,
                Step::Failed(status) => Poll::Ready(Some(Err(io::Error::other(status.message)))),
                Step::Done => Poll::Ready(None),
            },
            Kind::Zipped(begun, encoder) => zip(begun, encoder),
            Kind::Changes(changes) => match changes.as_mut().poll_next(context) {
                Poll::Ready(next) => Poll::Ready(next.map(Ok)),
                Poll::Pending => return Poll::Pending,
            },
            Kind::Passed(body) => match Pin::new(body).poll_frame(context) {
                // What stands behind a body is of no use to anybody here.
                Poll::Ready(next) => {
                    Poll::Ready(next.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default())))
                }
                Poll::Pending => return Poll::Pending,
            },
            Kind::Talk(_) => Poll::Ready(None),
        };
        let Poll::Ready(next) = made else {
            // It goes on at once, but others get their turn.
            context.waker().wake_by_ref();
            return Poll::Pending;
        };
        match (&next, &mut this.held) {
            (Some(Ok(bytes)), Some(held)) => held.sent(bytes.len()),
            (None, held) => *held = None,
            _ => {}
        }
        Poll::Ready(next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Whole(None) | Kind::Talk(_) => true,
            Kind::Passed(body) => body.is_end_stream(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Talk(_) => SizeHint::with_exact(0),
            Kind::Passed(body) => body.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Steps of which every other only works.
    fn pieces(count: usize) -> Pieces {
        let mut number = 0;
        Box::new(move || {
            number += 1;
            match number {
                _ if number > 2 * count => Step::Done,
                _ if number % 2 == 0 => Step::Piece(Bytes::from(vec![b'a' + u8::try_from(number % 26).unwrap(); 1000])),
                _ => Step::Working,
            }
        })
    }

    fn plain(count: usize) -> Vec<u8> {
        let mut pieces = pieces(count);
        let mut plain = Vec::new();
        loop {
            match pieces() {
                Step::Piece(piece) => plain.extend_from_slice(&piece),
                Step::Done => return plain,
                _ => {}
            }
        }
    }

    async fn collect(body: Body) -> Vec<u8> {
        body.collect().await.expect("it can be read").to_bytes().to_vec()
    }

    #[tokio::test]
    async fn short_answers_have_a_length_and_are_left_as_they_are() {
        let (body, zipped) = Body::pieces(pieces(3), true).await.unwrap();
        assert_eq!((body.size_hint().exact(), zipped), (Some(3000), false));
        assert_eq!(collect(body).await.len(), 3000);
    }

    #[tokio::test]
    async fn long_answers_are_compressed_for_those_who_can_read_it() {
        let plain = plain(1000);
        let (body, zipped) = Body::pieces(pieces(1000), true).await.unwrap();
        assert!(zipped);
        let mut read = Vec::new();
        let compressed = collect(body).await;
        GzDecoder::new(&*compressed).read_to_end(&mut read).expect("it is gzip");
        assert!(compressed.len() < 100_000 && read == plain);
        let (body, zipped) = Body::pieces(pieces(1000), false).await.unwrap();
        assert!(!zipped && collect(body).await == plain);
        let (body, zipped) = Body::whole_or_zipped(plain.clone().into(), true);
        let compressed = collect(body).await;
        let mut read = Vec::new();
        GzDecoder::new(&*compressed).read_to_end(&mut read).expect("it is gzip");
        assert!(zipped && read == plain);
    }

    #[tokio::test]
    async fn a_list_that_can_not_be_made_is_an_error_at_first_and_breaks_off_later() {
        let failing = |after: usize| -> Pieces {
            let mut number = 0;
            Box::new(move || {
                number += 1;
                if number > after {
                    Step::Failed(Status::internal_error("drill"))
                } else {
                    Step::Piece(vec![0; 100_000].into())
                }
            })
        };
        assert!(Body::pieces(failing(1), false).await.is_err());
        for gzip in [false, true] {
            let (body, _) = Body::pieces(failing(3), gzip).await.unwrap();
            assert!(body.collect().await.is_err());
        }
    }
}
