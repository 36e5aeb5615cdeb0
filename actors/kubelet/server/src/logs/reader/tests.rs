//! Logs in real files, written while they are read.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use k3sd_kubelet_base::{ContainerView, PodView, PodsPublisher};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;

/// Longest wait for what has to happen.
const LIMIT: Duration = Duration::from_secs(10);

struct World {
    directory: TempDir,
    publisher: PodsPublisher,
}

fn snapshot(state: ContainerState) -> Arc<PodsSnapshot> {
    let container = ContainerView {
        name: "c".to_owned(),
        id: "id".to_owned(),
        attempt: 0,
        state,
        log: PathBuf::new(),
        image: String::new(),
    };
    let view = PodView {
        pod: Arc::new(Pod::default()),
        uid: "u".to_owned(),
        sandbox: None,
        addresses: Vec::new(),
        cgroup: None,
        containers: vec![container],
    };
    Arc::new(PodsSnapshot { pods: BTreeMap::from([("u".to_owned(), Arc::new(view))]) })
}

impl World {
    fn new() -> Self {
        let (publisher, _) = watch::channel(snapshot(ContainerState::Running));
        Self { directory: TempDir::new().unwrap(), publisher }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    fn write(&self, text: &str) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(self.path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn line(&self, content: &str) {
        self.write(&format!("2030-01-01T00:00:00.000000001Z stdout F {content}\n"));
    }

    async fn open(&self, options: LogOptions) -> LogReader {
        let writer = Writer { pods: self.publisher.subscribe(), uid: "u".to_owned(), container: "id".to_owned() };
        LogReader::open(self.path(), options, writer, Timestamp::UNIX_EPOCH).await.unwrap()
    }

    async fn read(&self, options: LogOptions) -> String {
        rest(&mut self.open(options).await).await
    }
}

async fn next(reader: &mut LogReader) -> Option<String> {
    let piece = tokio::time::timeout(LIMIT, reader.next()).await.expect("in time").unwrap();
    piece.map(|piece| String::from_utf8(piece.to_vec()).unwrap())
}

async fn rest(reader: &mut LogReader) -> String {
    let mut all = String::new();
    while let Some(piece) = next(reader).await {
        all.push_str(&piece);
    }
    all
}

#[tokio::test]
async fn a_log_is_read_to_its_end() {
    let world = World::new();
    for number in 0..5000 {
        world.line(&format!("line {number}"));
    }
    let all = world.read(LogOptions::default()).await;
    assert_eq!(all.lines().count(), 5000);
    assert!(all.ends_with("line 4999\n"));
    assert_eq!(world.read(LogOptions { tail: Some(2), ..LogOptions::default() }).await, "line 4998\nline 4999\n");
    assert_eq!(world.read(LogOptions { tail: Some(0), ..LogOptions::default() }).await, "");
    assert_eq!(world.read(LogOptions { bytes_max: Some(9), ..LogOptions::default() }).await, "line 0\nli");
    world.write("2030-01-01T00:00:00Z stdout F unfinished");
    assert!(world.read(LogOptions::default()).await.ends_with("line 4999\nunfinished"));
}

#[tokio::test]
async fn who_follows_gets_lines_as_they_come_and_the_end_with_the_container() {
    let world = World::new();
    world.line("one");
    world.line("two");
    let mut reader = world.open(LogOptions { follow: true, tail: Some(1), ..LogOptions::default() }).await;
    assert_eq!(next(&mut reader).await.as_deref(), Some("two\n"));
    world.write("2030-01-01T00:00:00Z stdout F thr");
    let waits = tokio::time::timeout(Duration::from_millis(50), reader.next()).await;
    assert!(waits.is_err(), "half a line is not shown");
    world.write("ee\n");
    assert_eq!(next(&mut reader).await.as_deref(), Some("three\n"));
    world.line("last");
    world.publisher.send_replace(snapshot(ContainerState::Exited));
    assert_eq!(rest(&mut reader).await, "last\n");
}

#[tokio::test]
async fn who_follows_waits_for_the_end_without_a_line() {
    let world = World::new();
    world.line("one");
    let mut reader = world.open(LogOptions { follow: true, ..LogOptions::default() }).await;
    assert_eq!(next(&mut reader).await.as_deref(), Some("one\n"));
    let (end, ()) = tokio::join!(next(&mut reader), async {
        // By then the other waits.
        tokio::task::yield_now().await;
        world.publisher.send_replace(Arc::default());
    });
    assert_eq!(end, None, "a container that is gone has ended");
}

#[tokio::test]
async fn nothing_is_lost_when_the_log_is_rotated() {
    let world = World::new();
    world.line("one");
    let mut reader = world.open(LogOptions { follow: true, ..LogOptions::default() }).await;
    assert_eq!(next(&mut reader).await.as_deref(), Some("one\n"));
    let rotated = world.directory.path().join("0.log.20300101-000000");
    for round in 0..20 {
        std::fs::rename(world.path(), &rotated).unwrap();
        let mut old = std::fs::OpenOptions::new().append(true).open(&rotated).unwrap();
        writeln!(old, "2030-01-01T00:00:00Z stdout F old {round}").unwrap();
        world.line(&format!("new {round}"));
        let mut heard = String::new();
        while !heard.ends_with(&format!("new {round}\n")) {
            heard.push_str(&next(&mut reader).await.unwrap());
        }
        assert_eq!(heard, format!("old {round}\nnew {round}\n"));
    }
}

#[tokio::test]
async fn what_is_no_log_is_refused() {
    let world = World::new();
    let writer = Writer { pods: world.publisher.subscribe(), uid: String::new(), container: String::new() };
    let open = |path: PathBuf| LogReader::open(path, LogOptions::default(), writer.clone(), Timestamp::UNIX_EPOCH);
    assert_eq!(open(world.path()).await.expect_err("absent").kind(), io::ErrorKind::NotFound);
    let directory = open(world.directory.path().to_owned()).await.expect_err("a directory");
    assert_eq!(directory.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn endless_lines_are_left_out() {
    let (mut lines, mut seen) = (Lines::default(), Vec::new());
    for _ in 0..100 {
        lines.push(&vec![b'x'; LINE_BYTES_MAX / 10], |line| seen.push(line.to_vec()));
        assert!(lines.rest.len() <= LINE_BYTES_MAX);
    }
    lines.push(b"y\nz\n", |line| seen.push(line.to_vec()));
    assert_eq!(seen, [b"z\n"]);
}

proptest! {
    #[test]
    fn lines_do_not_depend_on_how_they_are_read(
        text in proptest::collection::vec(prop_oneof![3 => Just(b'a'), 1 => Just(b'\n')], 0..300),
        cuts in proptest::collection::vec(0_usize..300, 0..10),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for pair in cuts.windows(2) {
            lines.push(&text[pair[0]..pair[1]], |line| seen.extend_from_slice(line));
        }
        seen.extend(lines.finish());
        prop_assert_eq!(seen, text);
    }
}
