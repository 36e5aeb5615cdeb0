//! Questions that are none, one by one, and what is answered.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::UdpSocket;

use crate::space::DNS;

/// As long as that is waited before it is believed that nothing comes.
const SILENCE: Duration = Duration::from_millis(200);

/// A good question: `web.shop.svc.cluster.local`, A, with room for 1232 bytes.
pub(crate) fn good() -> Vec<u8> {
    let mut bytes = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01".to_vec();
    bytes.extend_from_slice(b"\x03web\x04shop\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01");
    bytes.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
    bytes
}

/// The questions, each with what it is and the code of the answer; none if there is to be no answer.
pub(crate) fn table() -> Vec<(&'static str, Vec<u8>, Option<u8>)> {
    let changed = |changes: &[(usize, u8)]| {
        let mut bytes = good();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes
    };
    let cut = |length: usize| good()[..length].to_vec();
    let named = |name: &[u8]| [&good()[..11], &[0], name, b"\x00\x01\x00\x01"].concat();
    let extension = good().len() - 11;
    let long: Vec<u8> = std::iter::repeat_n([&[63][..], &[b'x'; 63]].concat(), 5).flatten().chain([0]).collect();
    let twice = [&good()[..11], &[2], &good()[12..], &good()[extension..]].concat();
    vec![
        ("nothing", Vec::new(), None),
        ("half a header", cut(11), None),
        ("an answer", changed(&[(2, 0x81)]), None),
        ("a header alone", cut(12), Some(1)),
        ("half a name", cut(20), Some(1)),
        ("no question", changed(&[(5, 0)]), Some(1)),
        ("two questions", changed(&[(5, 2)]), Some(1)),
        ("65535 questions", changed(&[(4, 255), (5, 255)]), Some(1)),
        ("a name that is itself", named(b"\xc0\x0c"), Some(1)),
        ("a name that leads to one that leads back", named(b"\xc0\x0e\xc0\x0c"), Some(1)),
        ("a name that leads out", named(b"\xc3\xff"), Some(1)),
        ("a name that goes on for ever", named(b"\x01a\xc0\x0c"), Some(1)),
        ("an unknown kind of label", named(b"\x40a\x00"), Some(1)),
        ("a name of 320 bytes", named(&long), Some(1)),
        ("an update", changed(&[(2, 0x28)]), Some(4)),
        ("records that aren't there", changed(&[(10, 255), (11, 255)]), Some(1)),
        ("a record that is longer than the message", changed(&[(extension + 9, 255)]), Some(1)),
        ("two extensions", twice, Some(1)),
        ("an extension from the future", changed(&[(extension + 6, 1)]), Some(0)),
        ("a class of its own", changed(&[(extension - 1, 3)]), Some(5)),
        ("a zone transfer", changed(&[(extension - 3, 252)]), Some(5)),
    ]
}

/// Sends one, and says the code of what comes back.
pub(crate) async fn answer(bytes: &[u8]) -> Option<u8> {
    let server: SocketAddr = format!("{DNS}:53").parse().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(bytes, server).await.unwrap();
    let mut buffer = [0; 1232];
    let received = tokio::time::timeout(SILENCE, socket.recv(&mut buffer)).await.ok()?;
    let length = received.unwrap();
    assert!(length >= 12 && buffer[..2] == bytes[..2] && buffer[2] & 0x80 != 0, "{:?}", &buffer[..length]);
    Some(buffer[3] & 15)
}
