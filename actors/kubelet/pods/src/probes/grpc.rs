//! Asking a container by gRPC how it is: `grpc.health.v1.Health/Check`, over HTTP/2 without TLS.
//!
//! The two messages have one field each, so that a whole gRPC client isn't worth its weight.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use tokio::net::TcpStream;

use super::machine::Try;
use crate::http::{bracketed, plain};

/// Bytes of an answer that are read; a good one has two.
const ANSWER_BYTES_MAX: usize = 4096;
/// gRPC's code for a method that isn't there.
const UNIMPLEMENTED: &str = "12";

/// `HealthCheckRequest { service = 1 }` with gRPC's frame around it.
fn request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or_default());
    framed.put(message);
    framed.freeze()
}

/// `HealthCheckResponse { status = 1 }`: the status' name.
fn status(framed: &[u8]) -> Option<&'static str> {
    let message = framed.get(5..)?;
    let number = match message {
        [] => 0,
        [0x08, number, ..] => *number,
        _ => return None,
    };
    Some(match number {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => return None,
    })
}

/// Asks once.
pub(crate) async fn check(address: &str, port: u16, service: &str) -> Try {
    let place = format!("{}:{port}", bracketed(address));
    let stream = match TcpStream::connect((address, port)).await {
        Ok(stream) => stream,
        Err(error) => return Try::Bad(format!("dial tcp {place}: connect: {}", plain(&error))),
    };
    match ask(stream, &place, service).await {
        Ok(tried) => tried,
        Err(error) => Try::Bad(format!("error: health rpc probe failed: {error}")),
    }
}

async fn ask(stream: TcpStream, place: &str, service: &str) -> Result<Try, h2::Error> {
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let talk = async {
        let request_head = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.34")
            .body(())
            .expect("an address and a port make a URI");
        let (answer, mut body) = client.send_request(request_head, false)?;
        body.send_data(request(service), true)?;
        let answer = answer.await?;
        let code = |headers: &http::HeaderMap| {
            headers.get("grpc-status").and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let mut grpc = code(answer.headers());
        let mut body = answer.into_body();
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                break;
            }
            bytes.extend_from_slice(&data);
        }
        if grpc.is_none() {
            grpc = body.trailers().await?.as_ref().and_then(code);
        }
        Ok(match (grpc.as_deref(), status(&bytes)) {
            (Some("0"), Some("SERVING")) => Try::Good(None),
            (Some("0"), Some(other)) => Try::Bad(format!("service unhealthy (responded with {other:?})")),
            (Some(UNIMPLEMENTED), _) => Try::Bad(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned(),
            ),
            (code, _) => Try::Bad(format!("error: health rpc probe failed: code {}", code.unwrap_or("none"))),
        })
    };
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        ended = connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_grpc_has_them() {
        assert_eq!(&request("")[..], &[0, 0, 0, 0, 0]);
        assert_eq!(&request("ab")[..], &[0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(200));
        assert_eq!(&long[..8], &[0, 0, 0, 0, 203, 0x0a, 0xc8, 0x01]);
        for (bytes, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some("SERVING")),
            (&[0, 0, 0, 0, 2, 8, 2], Some("NOT_SERVING")),
            (&[0, 0, 0, 0, 0], Some("UNKNOWN")),
            (&[0, 0, 0], None),
            (&[0, 0, 0, 0, 2, 9, 1], None),
            (&[0, 0, 0, 0, 2, 8, 9], None),
        ] {
            assert_eq!(status(bytes), expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_server_is_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server = h2::server::handshake(stream).await.unwrap();
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let answer = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut body = respond.send_response(answer, false).unwrap();
            body.send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2]), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(trailers).unwrap();
            while server.accept().await.is_some() {}
        };
        let (tried, ()) = tokio::join!(check("127.0.0.1", port, ""), serve);
        assert_eq!(tried, Try::Bad("service unhealthy (responded with \"NOT_SERVING\")".into()));
    }
}
