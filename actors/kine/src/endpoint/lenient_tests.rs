use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `/run/k.sock` in the code of HTTP/2: a letter after the other, filled up with ones.
fn compressed(text: &str) -> Vec<u8> {
    let code = |letter| match letter {
        '/' => (6, 0x18),
        '-' => (6, 0x16),
        '.' => (6, 0x17),
        'r' => (6, 0x2c),
        'u' => (6, 0x2d),
        'n' => (6, 0x2a),
        'k' => (7, 0x75),
        's' => (5, 0x8),
        'o' => (5, 0x7),
        'c' => (5, 0x4),
        '~' => (13, 0x1ffd),
        other => panic!("{other:?} is not needed"),
    };
    let mut bits = String::new();
    for letter in text.chars() {
        let (count, code): (usize, u32) = code(letter);
        bits += &format!("{code:0count$b}");
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    let byte = |bits: &[u8]| u8::from_str_radix(std::str::from_utf8(bits).unwrap(), 2).unwrap();
    bits.as_bytes().chunks(8).map(byte).collect()
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// The fields of a request, with the authority as it is given.
fn request(authority: &[u8], is_compressed: bool) -> Vec<u8> {
    let mark = if is_compressed { 0x80 } else { 0 };
    let length = u8::try_from(authority.len()).unwrap() | mark;
    // POST, http, a path for the table, the authority for the table, a field with a name of its own, and one without.
    [
        &[0x83, 0x86, 0x44, 2],
        &b"/p"[..],
        &[0x41, length],
        authority,
        &[0x40, 1],
        b"a",
        &[1],
        b"/",
        &[0x0f, 0x0d, 1, b'/'],
    ]
    .concat()
}

async fn through(sent: &[u8], step: usize) -> Vec<u8> {
    let (mut client, server) = duplex(1 << 20);
    let mut lenient = Lenient::new(server);
    let mut got = Vec::new();
    for part in sent.chunks(step) {
        client.write_all(part).await.unwrap();
    }
    drop(client);
    lenient.read_to_end(&mut got).await.unwrap();
    got
}

#[tokio::test]
async fn slashes_in_the_authority_become_hyphens_and_nothing_else_changes() {
    for (bad, good, is_compressed) in [
        (b"/run/k.sock".to_vec(), b"-run-k.sock".to_vec(), false),
        (compressed("/run/k.sock"), compressed("-run-k.sock"), true),
        (compressed("~/o/~/"), compressed("~-o-~-"), true),
    ] {
        let connection = |authority: &[u8]| {
            let request = request(authority, is_compressed);
            let padded = [&[3][..], &request, &[0; 3]].concat();
            let with_priority = [&[0; 5][..], &request].concat();
            [
                PREFACE.to_vec(),
                frame(4, 0, &[]),
                frame(HEADERS, 4, &request),
                frame(0, 1, b"/data/"),
                frame(HEADERS, 4 | PADDED, &padded),
                frame(HEADERS, 4 | PRIORITY, &with_priority),
                frame(HEADERS, 4, &[0x83, 0x86, 0xbe]),
            ]
            .concat()
        };
        for step in [1, 7, 1000] {
            assert_eq!(through(&connection(&bad), step).await, connection(&good), "{step}");
        }
    }
}

#[tokio::test]
async fn a_proper_client_is_left_alone_from_its_first_request_on() {
    let sent = [
        PREFACE.to_vec(),
        frame(HEADERS, 4, &request(b"localhost", false)),
        frame(HEADERS, 4, &request(b"/run/k.sock", false)),
        vec![0xff; 100],
    ]
    .concat();
    for step in [1, 1000] {
        assert_eq!(through(&sent, step).await, sent, "{step}");
    }
}

#[tokio::test]
async fn what_is_no_http_comes_through_as_it_is() {
    let broken =
        [PREFACE.to_vec(), frame(HEADERS, 4, &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff]), frame(9, 0, &[])].concat();
    let cut = frame(HEADERS, 4, &request(b"/run", false));
    let cut = [PREFACE, &cut[..cut.len() - 3]].concat();
    for sent in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![], vec![0xff; 3000], broken, cut] {
        for step in [1, 1000] {
            assert_eq!(through(&sent, step).await, sent);
        }
    }
}
