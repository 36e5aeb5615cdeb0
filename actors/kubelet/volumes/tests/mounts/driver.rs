//! A storage driver that keeps its volumes in a directory: real gRPC on real sockets, real bind mounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Response};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// What a driver can do, in CSI's numbers.
pub(crate) const STAGES: u8 = 1;
pub(crate) const GETS_STATS: u8 = 2;
pub(crate) const EXPANDS: u8 = 3;

/// What was called, in order, with the texts of the request by field number.
pub(crate) type Calls = Vec<(String, BTreeMap<u64, String>)>;

/// A driver named `test.example.com`.
pub(crate) struct Driver {
    home: PathBuf,
    calls: Arc<watch::Sender<Calls>>,
}

impl Driver {
    /// Listens in the registry; one socket serves registration and volumes. It stages.
    pub(crate) fn start(registry: &Path, home: &Path) -> Self {
        Self::with(registry, home, &[STAGES])
    }

    /// The same of one that can do these.
    #[expect(clippy::disallowed_methods, reason = "a server of the test's, which ends with its runtime")]
    pub(crate) fn with(registry: &Path, home: &Path, can: &[u8]) -> Self {
        let can: Arc<[u8]> = can.into();
        fs::create_dir_all(registry).unwrap();
        let socket = registry.join("test.example.com-reg.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let calls = Arc::new(watch::Sender::new(Calls::new()));
        let (home, log) = (home.to_owned(), calls.clone());
        let files = home.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (files, log, can) = (files.clone(), log.clone(), can.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let (files, log, can) = (files.clone(), log.clone(), can.clone());
                        tokio::spawn(async move {
                            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
                            let mut body = request.into_body();
                            let mut read = BytesMut::new();
                            while let Some(Ok(part)) = body.data().await {
                                body.flow_control().release_capacity(part.len()).unwrap();
                                read.extend_from_slice(&part);
                            }
                            read.advance(5);
                            let fields = texts(&read);
                            let answer = answer(&files, &can, &method, &fields);
                            log.send_modify(|calls| calls.push((method, fields)));
                            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                            let mut stream = respond.send_response(head, false).unwrap();
                            let mut framed = BytesMut::new();
                            framed.put_u8(0);
                            framed.put_u32(u32::try_from(answer.len()).unwrap());
                            framed.put_slice(&answer);
                            stream.send_data(framed.freeze(), false).unwrap();
                            let mut trailers = HeaderMap::new();
                            trailers.insert("grpc-status", "0".parse().unwrap());
                            stream.send_trailers(trailers).unwrap();
                        });
                    }
                });
            }
        });
        Self { home, calls }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn called(&self) -> Vec<String> {
        self.calls.borrow().iter().map(|(method, _)| method.clone()).collect()
    }

    /// How often a method was called.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.calls.borrow().iter().filter(|(name, _)| name == method).count()
    }

    /// The texts of the last call of a method.
    pub(crate) fn last(&self, method: &str) -> BTreeMap<u64, String> {
        let calls = self.calls.borrow();
        calls.iter().rev().find(|(name, _)| name == method).map(|(_, fields)| fields.clone()).unwrap_or_default()
    }

    /// Waits until a method was called.
    pub(crate) async fn wait(&self, method: &str) {
        let mut calls = self.calls.subscribe();
        calls.wait_for(|calls| calls.iter().any(|(name, _)| name == method)).await.unwrap();
    }
}

fn is_mounted(path: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(path))
}

fn answer(home: &Path, can: &[u8], method: &str, fields: &BTreeMap<u64, String>) -> Vec<u8> {
    let text = |number: u64, text: &str| {
        let mut field = vec![u8::try_from(number << 3 | 2).unwrap(), u8::try_from(text.len()).unwrap()];
        field.extend(text.as_bytes());
        field
    };
    let volume = |id: &str| {
        let path = home.join(id);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let mount = |from: &Path, at: &str| {
        fs::create_dir_all(at).unwrap();
        assert!(Command::new("mount").arg("--bind").arg(from).arg(at).status().unwrap().success());
    };
    let unmount = |at: &str| {
        assert!(Command::new("umount").arg(at).status().unwrap().success(), "umount {at}");
    };
    match method {
        "GetInfo" => [text(1, "CSIPlugin"), text(2, "test.example.com"), text(4, "1.0.0")].concat(),
        // One label of topology, three volumes at most.
        "NodeGetInfo" => {
            let pair = [text(1, "topology.test/zone"), text(2, "z1")].concat();
            let map = [vec![0x0a, u8::try_from(pair.len()).unwrap()], pair].concat();
            [text(1, "node-id"), vec![0x10, 3], vec![0x1a, u8::try_from(map.len()).unwrap()], map].concat()
        }
        "NodeGetCapabilities" => can.iter().flat_map(|one| [0x0a, 4, 0x0a, 2, 0x08, *one]).collect(),
        // A thousand bytes of which ten are used, and five files.
        "NodeGetVolumeStats" => {
            let (bytes, files) = ([0x08, 0xde, 7, 0x10, 0xe8, 7, 0x18, 10, 0x20, 1], [0x18, 5, 0x20, 2]);
            [&[0x0a, 10][..], &bytes, &[0x0a, 4], &files].concat()
        }
        "NodeStageVolume" if fields[&3].contains("volumeDevices") => Vec::new(),
        "NodePublishVolume" if fields[&4].contains("volumeDevices") => {
            fs::write(&fields[&4], "").unwrap();
            let device = home.join(format!("{}-device", fields[&1]));
            assert!(Command::new("mount").arg("--bind").arg(device).arg(&fields[&4]).status().unwrap().success());
            Vec::new()
        }
        // What is published again is there already.
        "NodePublishVolume" if is_mounted(&fields[&4]) => Vec::new(),
        "NodeStageVolume" => {
            mount(&volume(&fields[&1]), &fields[&3]);
            Vec::new()
        }
        "NodePublishVolume" => {
            let staged = fields.get(&3).filter(|path| !path.is_empty()).map(PathBuf::from);
            mount(&staged.unwrap_or_else(|| volume(&fields[&1])), &fields[&4]);
            Vec::new()
        }
        "NodeUnstageVolume" if fields[&2].contains("volumeDevices") => Vec::new(),
        "NodeUnpublishVolume" | "NodeUnstageVolume" => {
            unmount(&fields[&2]);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// The texts of a message by field number; of a field that comes again, all of them.
fn texts(message: &[u8]) -> BTreeMap<u64, String> {
    let mut fields: BTreeMap<u64, String> = BTreeMap::new();
    let mut rest = Bytes::copy_from_slice(message);
    while rest.has_remaining() {
        let key = varint(&mut rest);
        match key & 7 {
            0 => {
                fields.insert(key >> 3, varint(&mut rest).to_string());
            }
            2 => {
                let length = usize::try_from(varint(&mut rest)).unwrap();
                let part = rest.split_to(length);
                fields.entry(key >> 3).or_default().push_str(&String::from_utf8_lossy(&part));
            }
            other => panic!("wire type {other}"),
        }
    }
    fields
}

fn varint(rest: &mut Bytes) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = rest.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}
