//! Reads what kubelets measure, while somebody wants to know.
//!
//! Owns:    the last texts of each node.
//! Needs:   the API, for nodes and pods, and the way to kubelets.
//! Restart: permanent. It knows nothing at first; who asked has to ask again.
//! Fails:   never; a node that doesn't answer is unknown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use k3sd_client::api::Connect;
use k3sd_client::informer::{Informer, Snapshot};
use k3sd_runtime::{Actor, ActorError, Address, Clock, Context, Moment, ReplyPort, message_kinds};
use k8s_openapi::api::core::v1::{Node, Pod};
use tokio::sync::watch;

use crate::history::{History, Readings};
use crate::text::{Scrape, parse};

/// How far texts are apart; metrics-server's, and what autoscalers count on.
const RESOLUTION: Duration = Duration::from_secs(15);
/// The same for the first two, for which somebody waits. Kubelets measure anew after a second.
const FIRST_GAP: Duration = Duration::from_secs(2);
/// Nothing is read any more so long after the last question.
const IDLE_AFTER: Duration = Duration::from_secs(150);
/// How long a kubelet may take.
const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// Kubelets that are asked at once.
const FETCHES: usize = 16;
/// The longest text: some hundred bytes for each container.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// Who waits beyond these is told that nothing is known.
const WAITING_MAX: usize = 256;

/// What there is, and what it uses.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) readings: Arc<Readings>,
    pub(crate) nodes: Arc<Snapshot<Node>>,
    pub(crate) pods: Arc<Snapshot<Pod>>,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// What the actor is started with.
#[derive(Clone, Debug)]
pub(crate) struct ScraperArgs {
    pub(crate) connect: Connect,
    pub(crate) nodes: Informer<Node>,
    pub(crate) pods: Informer<Pod>,
    pub(crate) place: Arc<watch::Sender<Option<Address<ScraperMsg>>>>,
}

/// See the variants.
pub(crate) enum ScraperMsg {
    /// Say what is used; waits until something is known.
    Read {
        /// What is known.
        reply: ReplyPort<Arc<View>>,
    },
    /// Read all texts.
    RoundTick,
    /// They were read.
    Told {
        /// By node; those that didn't answer are missing.
        texts: Vec<(String, Scrape)>,
    },
}
message_kinds!(ScraperMsg { Read, RoundTick, Told });

/// The actor itself.
pub(crate) struct Scraper {
    args: ScraperArgs,
    client: kube::Client,
    history: History,
    readings: Option<Arc<Readings>>,
    waiting: Vec<ReplyPort<Arc<View>>>,
    asked: Moment,
    /// Texts that were read since it began; none while nobody asks.
    rounds: u32,
    /// A round is under way, or its time is set.
    is_awake: bool,
}

impl Actor for Scraper {
    type Args = ScraperArgs;
    type Msg = ScraperMsg;

    async fn init(ctx: &mut Context<ScraperMsg>, args: ScraperArgs) -> Result<Self, ActorError> {
        args.place.send_replace(Some(ctx.address()));
        let client = args.connect.client();
        let (history, waiting, asked) = (History::default(), Vec::new(), ctx.clock().now());
        Ok(Self { args, client, history, readings: None, waiting, asked, rounds: 0, is_awake: false })
    }

    async fn handle(&mut self, ctx: &mut Context<ScraperMsg>, message: ScraperMsg) -> Result<(), ActorError> {
        match message {
            ScraperMsg::Read { reply } => {
                self.asked = ctx.clock().now();
                match self.view(ctx.clock()) {
                    Some(view) => reply.send(view),
                    None => {
                        self.waiting.retain(|waiting| !waiting.is_abandoned());
                        if self.waiting.len() < WAITING_MAX {
                            self.waiting.push(reply);
                        }
                    }
                }
                if !self.is_awake {
                    self.is_awake = true;
                    self.begin(ctx);
                }
            }
            ScraperMsg::RoundTick => self.begin(ctx),
            ScraperMsg::Told { texts } => self.fold(ctx, texts),
        }
        Ok(())
    }
}

impl Scraper {
    /// Reads the texts of all nodes.
    fn begin(&self, ctx: &mut Context<ScraperMsg>) {
        let (client, mut nodes, clock) = (self.client.clone(), self.args.nodes.clone(), ctx.clock().clone());
        ctx.pipe(async move {
            let names: Vec<String> = match nodes.synced().await {
                Some(nodes) => nodes.keys().map(|key| key.name.clone()).collect(),
                None => Vec::new(),
            };
            let texts = stream::iter(names).map(move |node| {
                let (client, clock) = (client.clone(), clock.clone());
                async move {
                    let late = clock.sleep_until(clock.now() + FETCH_LIMIT);
                    let text = tokio::select! {
                        text = fetch(&client, &node) => text,
                        () = late => Err("it doesn't answer in time".to_owned()),
                    };
                    match text {
                        Ok(text) => Some((node, parse(&text, nanos(&clock)))),
                        Err(why) => {
                            tracing::debug!(node, why, "a node doesn't say what it uses");
                            None
                        }
                    }
                }
            });
            let texts = texts.buffer_unordered(FETCHES).filter_map(std::future::ready).collect().await;
            ScraperMsg::Told { texts }
        });
    }

    /// Takes the texts in, and says when the next ones are read.
    fn fold(&mut self, ctx: &mut Context<ScraperMsg>, texts: Vec<(String, Scrape)>) {
        let nodes: BTreeSet<String> = texts.iter().map(|(node, _)| node.clone()).collect();
        self.history.keep(&nodes);
        for (node, scrape) in texts {
            self.history.take(&node, scrape);
        }
        self.rounds += 1;
        let now = ctx.clock().now();
        if self.rounds == 1 {
            ctx.send_after(FIRST_GAP, ScraperMsg::RoundTick);
            return;
        }
        if now.since(self.asked) > IDLE_AFTER {
            // What is known grows old; who asks next has it read anew.
            (self.history, self.readings, self.rounds, self.is_awake) = (History::default(), None, 0, false);
            return;
        }
        self.readings = Some(Arc::new(self.history.readings()));
        if let Some(view) = self.view(ctx.clock()) {
            self.waiting.drain(..).for_each(|reply| reply.send(view.clone()));
        }
        ctx.send_after(RESOLUTION, ScraperMsg::RoundTick);
    }

    fn view(&self, clock: &Clock) -> Option<Arc<View>> {
        let readings = self.readings.clone()?;
        let (nodes, pods) = (self.args.nodes.snapshot()?, self.args.pods.snapshot()?);
        let now = i64::try_from(clock.wall().as_secs()).unwrap_or(i64::MAX);
        Some(Arc::new(View { readings, nodes, pods, now }))
    }
}

fn nanos(clock: &Clock) -> i64 {
    i64::try_from(clock.wall().as_nanos()).unwrap_or(i64::MAX)
}

/// The text of a node's kubelet.
async fn fetch(client: &kube::Client, node: &str) -> Result<String, String> {
    let request = Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource"));
    let request = request.body(kube::client::Body::empty()).map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if !answer.status().is_success() {
        return Err(format!("it answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), TEXT_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}
