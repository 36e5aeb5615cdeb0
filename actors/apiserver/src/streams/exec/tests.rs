//! A client with messages, and a kubelet with streams.

use std::time::Duration;

use bytes::Buf as _;
use tokio::io::{DuplexStream, duplex};

use super::*;

/// Longest wait for what has to happen.
const LIMIT: Duration = Duration::from_secs(10);

/// The kubelet's side, by hand.
struct Kubelet {
    stream: DuplexStream,
    read: BytesMut,
}

impl Kubelet {
    /// The next frame: its first word, flags and contents.
    async fn frame(&mut self) -> (u32, u8, Bytes) {
        loop {
            if let Some(mut head) = self.read.get(..8) {
                let (first, second) = (head.get_u32(), head.get_u32());
                let length = (second & 0x00ff_ffff) as usize;
                if self.read.len() >= 8 + length {
                    self.read.advance(8);
                    return (first, (second >> 24) as u8, self.read.split_to(length).freeze());
                }
            }
            let read = tokio::time::timeout(LIMIT, self.stream.read_buf(&mut self.read)).await;
            assert!(read.expect("in time").expect("it goes on") > 0, "it ended");
        }
    }

    /// Takes streams, and tells their numbers.
    async fn opened(&mut self, count: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        for _ in 0..count {
            let (first, _, mut contents) = self.frame().await;
            assert_eq!(first, 0x8003_0001, "a new stream");
            numbers.push(contents.get_u32());
        }
        numbers
    }

    async fn say(&mut self, stream: u32, flags: u8, bytes: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u32(stream);
        frame.put_u32(u32::from(flags) << 24 | u32::try_from(bytes.len()).unwrap());
        frame.put_slice(bytes);
        self.stream.write_all(&frame).await.expect("it is heard");
    }
}

type Client = WebSocketStream<DuplexStream>;

async fn heard(client: &mut Client) -> Message {
    tokio::time::timeout(LIMIT, client.next()).await.expect("in time").expect("it goes on").expect("a message")
}

/// Both ends, and what carries between them.
async fn ends(query: &str) -> (Client, Kubelet, impl Future<Output = ()>) {
    let (client, inner) = duplex(64 * 1024);
    let (kubelet, outer) = duplex(64 * 1024);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let wanted = Wanted::of(&Query::parse(query));
    (client, Kubelet { stream: kubelet, read: BytesMut::new() }, translate(inner, outer, wanted))
}

#[tokio::test]
async fn a_command_reads_writes_and_ends() {
    let (mut client, mut kubelet, carried) = ends("stdin=true&stdout=true&stderr=true").await;
    let talk = async {
        assert_eq!(kubelet.opened(4).await, [1, 3, 5, 7], "error, stdin, stdout, stderr");
        client.send(channel_message(STDIN, b"in")).await.unwrap();
        assert_eq!(kubelet.frame().await, (3, 0, Bytes::from_static(b"in")));
        // A ping is answered, and no stream is touched by what is for none.
        kubelet.stream.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 2]).await.unwrap();
        assert_eq!(kubelet.frame().await, (0x8003_0006, 0, Bytes::from_static(&[0, 0, 0, 2])));
        client.send(channel_message(RESIZE, b"{}")).await.unwrap();
        client.send(channel_message(CLOSE, &[STDIN])).await.unwrap();
        assert_eq!(kubelet.frame().await, (3, 1, Bytes::new()), "the end of stdin alone");
        kubelet.say(5, 0, b"out").await;
        assert_eq!(heard(&mut client).await, channel_message(STDOUT, b"out"));
        kubelet.say(7, 0, b"err").await;
        assert_eq!(heard(&mut client).await, channel_message(STDERR, b"err"));
        // The status may come before the last of the output.
        kubelet.say(1, 1, b"{\"status\":\"Failure\"}").await;
        kubelet.say(5, 1, b"late").await;
        kubelet.say(7, 1, b"").await;
        assert_eq!(heard(&mut client).await, channel_message(STDOUT, b"late"));
        assert_eq!(heard(&mut client).await, channel_message(ERROR, b"{\"status\":\"Failure\"}"));
        let Message::Close(Some(farewell)) = heard(&mut client).await else { panic!("not the end") };
        assert_eq!(farewell.code, CloseCode::Normal);
        while client.next().await.is_some() {}
    };
    tokio::join!(carried, talk);
}

#[tokio::test]
async fn a_terminal_is_resized_and_has_one_output() {
    let (mut client, mut kubelet, carried) = ends("stdin=1&stdout=1&stderr=1&tty=1").await;
    let talk = async {
        assert_eq!(kubelet.opened(4).await, [1, 3, 5, 7], "error, stdin, stdout, resize");
        client.send(channel_message(RESIZE, b"{\"Width\":80,\"Height\":24}")).await.unwrap();
        assert_eq!(kubelet.frame().await, (7, 0, Bytes::from_static(b"{\"Width\":80,\"Height\":24}")));
        kubelet.say(1, 1, b"").await;
        kubelet.say(5, 1, b"").await;
        assert_eq!(heard(&mut client).await, channel_message(ERROR, br#"{"metadata":{},"status":"Success"}"#));
        client.close(None).await.ok();
    };
    tokio::join!(carried, talk);
}

#[tokio::test]
async fn a_kubelet_that_goes_is_a_failure() {
    for garbage in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n"] {
        let (mut client, mut kubelet, carried) = ends("stdout=true").await;
        let talk = async {
            kubelet.opened(2).await;
            kubelet.stream.write_all(garbage).await.unwrap();
            drop(kubelet);
            let Message::Binary(word) = heard(&mut client).await else { panic!("not the status") };
            assert_eq!(word[0], ERROR);
            let status: serde_json::Value = serde_json::from_slice(&word[1..]).unwrap();
            assert_eq!((&status["status"], &status["code"]), (&"Failure".into(), &500.into()), "{status}");
            client.close(None).await.ok();
        };
        tokio::join!(carried, talk);
    }
}

#[tokio::test]
async fn a_client_that_goes_ends_it() {
    let (client, mut kubelet, carried) = ends("stdout=true").await;
    let talk = async {
        kubelet.opened(2).await;
        drop(client);
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(carried, talk) }).await.expect("in time");
}

#[tokio::test]
async fn both_ways_are_carried_at_once_and_nobody_is_drowned() {
    let (client, mut kubelet, carried) = ends("stdin=true&stdout=true").await;
    let (mut tell, mut hear) = client.split();
    let talk = async {
        kubelet.opened(3).await;
        // Neither reads before it has written far more than there is room for on the way.
        let piece = vec![b'x'; 16 * 1024];
        let sending = async {
            for _ in 0..100 {
                tell.send(channel_message(STDIN, &piece)).await.unwrap();
            }
        };
        let echoing = async {
            for _ in 0..100 {
                let (stream, _, bytes) = kubelet.frame().await;
                assert_eq!(stream, 3);
                kubelet.say(5, 0, &bytes).await;
            }
            kubelet.say(1, 1, b"").await;
            kubelet.say(5, 1, b"").await;
        };
        let hearing = async {
            let mut heard = 0;
            while let Some(Ok(message)) = hear.next().await {
                let Message::Binary(bytes) = message else { break };
                heard += if bytes[0] == STDOUT { bytes.len() - 1 } else { 0 };
            }
            heard
        };
        let ((), (), heard) = tokio::join!(sending, echoing, hearing);
        assert_eq!(heard, 100 * piece.len());
        // The answer to the good-bye is on its way.
        tell.flush().await.ok();
    };
    tokio::join!(carried, talk);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_as_they_are() {
    let (client, inner) = duplex(64 * 1024);
    let (mut kubelet, outer) = duplex(64 * 1024);
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let talk = async {
        client.send(Message::binary(vec![0x80, 3, 0, 1])).await.unwrap();
        let mut bytes = [0; 4];
        kubelet.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, [0x80, 3, 0, 1]);
        kubelet.write_all(b"back").await.unwrap();
        assert_eq!(heard(&mut client).await, Message::binary(&b"back"[..]));
        drop(kubelet);
        assert!(matches!(heard(&mut client).await, Message::Close(Some(_))));
        while client.next().await.is_some() {}
    };
    tokio::join!(tunnel(inner, outer), talk);
}
