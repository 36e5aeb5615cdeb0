//! The connections between clients and the API server of this process, as bad as a network can be: slow, cut, away, and
//! with answers that are lost on their way back. Those from the API server to its node are as bad, without the last.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use k3sd_apiserver::LocalService;
use k3sd_client::api::Connect;
use k3sd_runtime::{Clock, Rng};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tower_service::Service;

/// Any error.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// What a client learns of a bad connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Nobody can be reached; the request never left.
    Away,
    /// The connection ended before there was an answer, or within it.
    Cut,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Away => "the server can't be reached",
            Self::Cut => "the connection was cut",
        })
    }
}

impl std::error::Error for WireError {}

struct State {
    rng: Rng,
    delay_ms_max: u64,
    lost: u32,
    is_away: bool,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// Exchanges of an older number are cut.
    cuts: watch::Sender<u64>,
}

/// All connections to the server, and from it. Clones share it.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}

impl Wire {
    /// Connections that are good.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let state = State { rng: clock.rng("wire"), delay_ms_max: 0, lost: 0, is_away: false };
        Self(Arc::new(Shared { clock, state: Mutex::new(state), cuts: watch::channel(0).0 }))
    }

    /// The same service at the other end of a connection.
    #[must_use]
    pub fn reach(&self, service: LocalService) -> Reach {
        Reach { service, wire: self.clone() }
    }

    /// The way over a connection.
    #[must_use]
    pub fn connect(&self, service: LocalService) -> Connect {
        Connect::over(self.reach(service))
    }

    /// Has each request, each answer, and each piece of what is said on a connection of bytes take up to so many
    /// milliseconds.
    pub fn set_delay(&self, ms_max: u64) {
        self.state().delay_ms_max = ms_max;
    }

    /// Loses the answers to the next so many requests; what they asked for is done.
    pub fn lose_answers(&self, requests: u32) {
        self.state().lost += requests;
    }

    /// Ends all that is under way, long watches too.
    pub fn cut(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nobody through, or everybody again.
    pub fn set_away(&self, is_away: bool) {
        self.state().is_away = is_away;
        if is_away {
            self.cut();
        }
    }

    /// All is well from now on.
    pub fn heal(&self) {
        let state = &mut *self.state();
        (state.lost, state.is_away) = (0, false);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) -> impl Future<Output = ()> + use<> {
        let state = &mut *self.state();
        let wait = Duration::from_millis(state.rng.below(state.delay_ms_max + 1));
        let clock = self.0.clock.clone();
        async move { clock.sleep_until(clock.now() + wait).await }
    }

    fn is_away(&self) -> bool {
        self.state().is_away
    }

    fn loses(&self) -> bool {
        let state = &mut *self.state();
        let loses = state.lost > 0;
        state.lost -= u32::from(loses);
        loses
    }
}

/// What is taken off a connection at once.
const PIECE_BYTES: usize = 1 << 16;

/// Bytes both ways.
impl Wire {
    /// Waits for as long as opening a connection takes.
    ///
    /// # Errors
    /// Nobody can be reached.
    pub async fn open(&self) -> Result<(), WireError> {
        self.wait().await;
        if self.is_away() { Err(WireError::Away) } else { Ok(()) }
    }

    /// Carries what comes out of either pipe over to the other one, until both have ended or the connection is cut.
    pub fn carry(&self, left: DuplexStream, right: DuplexStream) -> impl Future<Output = ()> + Send + use<> {
        // From now on, and not from when the future is polled first.
        let mut cuts = self.0.cuts.subscribe();
        let ((left_out, left_in), (right_out, right_in)) = (tokio::io::split(left), tokio::io::split(right));
        let (there, back) = (self.clone().carry_over(left_out, right_in), self.clone().carry_over(right_out, left_in));
        async move {
            tokio::select! {
                biased;
                _ = cuts.changed() => {}
                _ = async { tokio::try_join!(there, back) } => {}
            }
        }
    }

    /// Carries one direction, its end too.
    async fn carry_over(self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = from.read(&mut piece).await?;
            self.wait().await;
            if read == 0 {
                return to.shutdown().await;
            }
            to.write_all(&piece[..read]).await?;
        }
    }
}

/// A service over a connection.
#[derive(Clone, Debug)]
pub struct Reach {
    service: LocalService,
    wire: Wire,
}

impl<B> Service<Request<B>> for Reach
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<AnyError>,
{
    type Response = Response<Answer>;
    type Error = WireError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, WireError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { mut service, wire } = self.clone();
        Box::pin(async move {
            let mut cuts = wire.0.cuts.subscribe();
            if wire.is_away() {
                wire.wait().await;
                return Err(WireError::Away);
            }
            let loses = wire.loses();
            let exchange = async {
                wire.wait().await;
                let Ok(answer) = service.call(request).await;
                wire.wait().await;
                answer
            };
            let answer = tokio::select! {
                biased;
                _ = cuts.changed() => return Err(WireError::Cut),
                answer = exchange => answer,
            };
            if loses {
                return Err(WireError::Cut);
            }
            let cut = Box::pin(async move { _ = cuts.changed().await });
            Ok(answer.map(|body| Answer { body: Box::pin(body), cut, is_cut: false }))
        })
    }
}

/// The body of an answer, as long as the connection is there.
pub struct Answer {
    body: Pin<Box<k3sd_apiserver::Body>>,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_cut: bool,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnyError>>> {
        if self.is_cut {
            return Poll::Ready(None);
        }
        if self.cut.as_mut().poll(cx).is_ready() {
            self.is_cut = true;
            return Poll::Ready(Some(Err(WireError::Cut.into())));
        }
        self.body.as_mut().poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
