//! Those who use the application, and hold on to what they have: requests on new connections, questions for names, and
//! connections that are never closed. Each notes what went wrong, and when.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use chaos_tests::api::client::Server;
use chaos_tests::history::{Nanos, Origin};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpStream, UdpSocket};
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long an answer may take. Nobody who answers is ours, but for names.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The pause between two requests of one client, and after a failure.
const PAUSE: Duration = Duration::from_millis(25);
/// What an endless transfer takes at once.
const CHUNK_BYTES: usize = 32 << 10;
/// How long anybody may be without an answer after everything is back.
const ROUND_WITHIN: Duration = Duration::from_secs(15);
/// The name that is asked for, in the form of the protocol.
const QUESTION: &[u8] = b"\x05front\x04shop\x03svc\x07cluster\x05local\0\0\x01\0\x01";

/// What somebody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Asks the load balancer for a page, on a new connection.
    Page,
    /// The same of the Service's own address.
    Cluster,
    /// Asks for the address of a name.
    Name,
    /// Talks to a pod on one connection, through a Service.
    Line,
    /// Fetches something without an end, through the load balancer.
    Transfer,
    /// Follows the pods of the application in the API.
    Watch,
    /// Talks to a program in a container, through `kubectl exec`.
    Session,
}

impl What {
    /// Everything.
    pub(crate) const ALL: [Self; 7] =
        [Self::Page, Self::Cluster, Self::Name, Self::Line, Self::Transfer, Self::Watch, Self::Session];
}

/// Where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// The node, which the load balancer uses.
    pub(crate) node: IpAddr,
    /// The front end's Service.
    pub(crate) front: IpAddr,
    /// The talker's.
    pub(crate) talker: IpAddr,
    /// Where names are answered.
    pub(crate) names: IpAddr,
}

/// Something that went wrong.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// For whom.
    pub(crate) what: What,
    /// When it was asked for.
    pub(crate) called: Nanos,
    /// When it was over.
    pub(crate) returned: Nanos,
    why: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = self.returned.saturating_sub(self.called) / 1_000_000;
        write!(f, "{:?}: {} after {took} ms", self.what, self.why)
    }
}

/// What one client needs.
#[derive(Clone)]
struct Own {
    what: What,
    origin: Origin,
    answers: Arc<AtomicU64>,
    notes: UnboundedSender<Trouble>,
}

impl Own {
    fn answered(&self) {
        self.answers.fetch_add(1, SeqCst);
    }

    fn failed(&self, called: Nanos, why: impl fmt::Display) {
        let trouble = Trouble { what: self.what, called, returned: self.origin.now(), why: why.to_string() };
        // Who no longer reads has ended.
        self.notes.send(trouble).ok();
    }

    /// Takes note of one request.
    async fn one(&self, request: impl Future<Output = io::Result<()>>) -> bool {
        self.one_since(self.origin.now(), request).await
    }

    /// Takes note of one exchange on a connection that was well at `called`, which may be before the exchange began.
    async fn one_since(&self, called: Nanos, request: impl Future<Output = io::Result<()>>) -> bool {
        match timeout(ANSWER_WITHIN, request).await {
            Ok(Ok(())) => {
                self.answered();
                return true;
            }
            Ok(Err(error)) => self.failed(called, error),
            Err(_) => self.failed(called, "no answer"),
        }
        false
    }
}

/// All of them.
pub(crate) struct Traffic {
    clients: JoinSet<()>,
    answers: Vec<(What, Arc<AtomicU64>)>,
    notes: UnboundedReceiver<Trouble>,
}

impl Traffic {
    /// Begins. `session` starts a program that says back what it is told.
    pub(crate) fn begin(places: Places, server: Server, session: &Command, origin: &Origin) -> Self {
        let (sender, notes) = unbounded_channel();
        let mut traffic = Self { clients: JoinSet::new(), answers: Vec::new(), notes };
        let session = Program::of(session);
        for what in What::ALL {
            let answers = Arc::new(AtomicU64::new(0));
            traffic.answers.push((what, answers.clone()));
            let own = Own { what, origin: *origin, answers, notes: sender.clone() };
            match what {
                What::Page => drop(traffic.clients.spawn(pages(own, places.node))),
                What::Cluster => drop(traffic.clients.spawn(pages(own, places.front))),
                What::Name => drop(traffic.clients.spawn(names(own, places.names))),
                What::Line => drop(traffic.clients.spawn(line(own, places.talker))),
                What::Transfer => drop(traffic.clients.spawn(transfer(own, places.node))),
                What::Watch => drop(traffic.clients.spawn(watch(own, server.clone()))),
                What::Session => drop(traffic.clients.spawn(sessions(own, session.clone()))),
            }
        }
        traffic
    }

    /// Waits until everybody who asks all the time was answered something that they asked for after this call.
    ///
    /// # Panics
    /// When somebody isn't.
    pub(crate) async fn round(&self) {
        let began = Instant::now();
        for (what, answers) in self.answers.iter().filter(|(what, _)| *what != What::Watch) {
            let wanted = answers.load(SeqCst) + 2;
            while answers.load(SeqCst) < wanted {
                assert!(began.elapsed() < ROUND_WITHIN, "{what:?} has no answer");
                sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// How many answers everybody got.
    pub(crate) fn answers(&self) -> String {
        let all = self.answers.iter().map(|(what, answers)| format!("{what:?} {}", answers.load(SeqCst)));
        all.collect::<Vec<_>>().join(", ")
    }

    /// Ends, and hands over what went wrong.
    pub(crate) async fn end(mut self) -> Vec<Trouble> {
        self.clients.shutdown().await;
        let mut all = Vec::new();
        while let Ok(trouble) = self.notes.try_recv() {
            all.push(trouble);
        }
        all
    }
}

/// Asks for a page again and again.
async fn pages(own: Own, at: IpAddr) {
    loop {
        own.one(page(at)).await;
        sleep(PAUSE).await;
    }
}

async fn page(at: IpAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect((at, 8080)).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    if text.contains("200 OK") && text.contains("shop one") { Ok(()) } else { Err(other(&text)) }
}

fn other(text: &str) -> io::Error {
    io::Error::other(format!("an odd answer: {text:?}"))
}

/// Asks for a name again and again.
async fn names(own: Own, at: IpAddr) {
    let mut number: u16 = 0;
    loop {
        number = number.wrapping_add(1);
        own.one(name(at, number)).await;
        sleep(PAUSE).await;
    }
}

async fn name(at: IpAddr, number: u16) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((at, 53)).await?;
    // A question, with the wish for recursion.
    let mut packet = Vec::from(number.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(QUESTION);
    socket.send(&packet).await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    let [high, low, _, flags, _, _, _, answers, ..] = answer;
    let is_answer = length > packet.len() && [high, low] == number.to_be_bytes() && flags & 0xf == 0 && answers == 1;
    if is_answer { Ok(()) } else { Err(other(&format!("{:?}", &answer[..length]))) }
}

/// Talks on one connection for as long as it lasts.
async fn line(own: Own, at: IpAddr) {
    loop {
        let called = own.origin.now();
        match timeout(ANSWER_WITHIN, TcpStream::connect((at, 9000))).await {
            Ok(Ok(stream)) => {
                let (hear, say) = stream.into_split();
                talk(&own, say, hear).await;
            }
            Ok(Err(error)) => own.failed(called, format!("no connection: {error}")),
            Err(_) => own.failed(called, "no connection"),
        }
        sleep(PAUSE).await;
    }
}

/// Says words and hears them until that fails. The first failure is noted, unless nothing was ever heard and that is no
/// wonder.
async fn talk(own: &Own, mut say: impl AsyncWrite + Unpin, hear: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(hear).lines();
    // What cuts the connection between two words is noticed by the second.
    let mut well = own.origin.now();
    for number in 0_u64.. {
        let word = format!("word {number}");
        let exchange = async {
            say.write_all(format!("{word}\n").as_bytes()).await?;
            match lines.next_line().await? {
                Some(heard) if heard == word => Ok(()),
                Some(heard) => Err(other(&heard)),
                None => Err(io::Error::other("it was closed")),
            }
        };
        if own.what == What::Session && number == 0 {
            // Whoever opens it while nobody can is told so; only what was open can be cut.
            if !timeout(ROUND_WITHIN, exchange).await.is_ok_and(|done| done.is_ok()) {
                return;
            }
        } else if !own.one_since(well, exchange).await {
            return;
        }
        well = own.origin.now();
        sleep(PAUSE).await;
    }
}

/// Fetches for as long as it lasts.
async fn transfer(own: Own, at: IpAddr) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let called = own.origin.now();
        match timeout(ANSWER_WITHIN, TcpStream::connect((at, 9001))).await {
            Ok(Ok(mut stream)) => {
                let mut well = called;
                while own.one_since(well, async { stream.read_exact(&mut chunk).await.map(drop) }).await {
                    well = own.origin.now();
                    sleep(PAUSE).await;
                }
            }
            Ok(Err(error)) => own.failed(called, format!("no connection: {error}")),
            Err(_) => own.failed(called, "no connection"),
        }
        sleep(PAUSE).await;
    }
}

/// Follows pods. That nobody can be asked is for others to note.
async fn watch(own: Own, server: Server) {
    let path = "/api/v1/namespaces/shop/pods?watch=1&timeoutSeconds=7200";
    loop {
        let mut client = server.client();
        if let Ok(Ok(mut lines)) = client.watch(path).await {
            loop {
                let called = own.origin.now();
                match lines.next().await {
                    Ok(Some(line)) if line["type"] != "ERROR" => own.answered(),
                    Ok(Some(line)) => {
                        own.failed(called, line["object"]["message"].clone());
                        break;
                    }
                    Ok(None) => {
                        own.failed(called, "it was closed");
                        break;
                    }
                    Err(why) => {
                        own.failed(called, why);
                        break;
                    }
                }
            }
        }
        sleep(PAUSE).await;
    }
}

/// A program that can be started again and again.
#[derive(Clone)]
struct Program {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    fn of(command: &Command) -> Self {
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
        let set = command.get_envs().filter_map(|(name, value)| Some((name.into(), value?.into())));
        Self { words, environment: set.collect() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).env_clear().envs(self.environment.clone()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

async fn sessions(own: Own, program: Program) {
    loop {
        let mut child = program.command().spawn().expect("kubectl was found before");
        let say = child.stdin.take().expect("it is piped");
        let hear = child.stdout.take().expect("it is piped");
        talk(&own, say, hear).await;
        child.kill().await.ok();
        sleep(PAUSE).await;
    }
}
