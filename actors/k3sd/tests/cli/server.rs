//! Web servers and proxies on this machine, for the time of one closure.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Ends the loop that accepts, however the closure ends.
struct Stop<'a> {
    over: &'a AtomicBool,
    port: u16,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}

/// Hands each connection to `serve`, one after the other, until `test` has ended.
fn listening<T>(serve: impl Fn(TcpStream) + Sync, test: impl FnOnce(u16) -> T) -> T {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok((stream, _)) = listener.accept() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                serve(stream);
            }
        });
        let _stop = Stop { over: &over, port };
        test(port)
    })
}

/// The header of a request; nothing if the client went away, or does not speak HTTP.
fn header(stream: &mut impl Read) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok().filter(|()| byte[0].is_ascii())?;
        text.extend_from_slice(&byte);
    }
    String::from_utf8(text).ok()
}

/// Answers a request with what `page` makes of its header, and hangs up. Clients may have left already.
fn answer(mut stream: impl Read + Write, page: &(impl Fn(&str) -> String + Sync)) {
    if let Some(request) = header(&mut stream) {
        stream.write_all(page(&request).as_bytes()).and_then(|()| stream.flush()).ok();
    }
}

/// A server that speaks HTTP in the clear.
pub(super) fn http<T>(page: impl Fn(&str) -> String + Sync, test: impl FnOnce(u16) -> T) -> T {
    listening(|stream| answer(stream, &page), test)
}

/// A server that speaks HTTPS, with this certificate.
pub(super) fn https<T>(
    certificate: &Certificate,
    page: impl Fn(&str) -> String + Sync,
    test: impl FnOnce(u16) -> T,
) -> T {
    let chain = CertificateDer::pem_file_iter(&certificate.chain).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let serve = |stream: TcpStream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        answer(&mut stream, &page);
        stream.conn.send_close_notify();
        stream.flush().ok();
    };
    listening(serve, test)
}

/// A proxy that puts everybody through to one port, whatever name they ask for. `admits` judges the request.
pub(super) fn proxy<T>(to: u16, admits: impl Fn(&str) -> bool + Sync, test: impl FnOnce(u16) -> T) -> T {
    let serve = |mut client: TcpStream| {
        let Some(request) = header(&mut client) else { return };
        if !admits(&request) {
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").ok();
            return;
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).unwrap();
        client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").unwrap();
        both_ways((&client, &client), (&server, &server));
    };
    listening(serve, test)
}

/// A port that leads to a unix socket, for clients that can't speak through one. One at a time.
pub(super) fn forward<T>(to: &Path, test: impl FnOnce(u16) -> T) -> T {
    let serve = |client: TcpStream| {
        // Nobody is there between two lives of a daemon.
        let Ok(server) = UnixStream::connect(to) else { return };
        both_ways((&client, &client), (&server, &server));
    };
    listening(serve, test)
}

/// Copies between two streams, each given as its reading and its writing end, until the first has no more to say.
fn both_ways(mut a: (impl Read + Send, impl Write + HangUp), mut b: (impl Read + Send, impl Write + HangUp)) {
    thread::scope(|scope| {
        scope.spawn(|| {
            io::copy(&mut b.0, &mut a.1).ok();
            a.1.hang_up();
        });
        io::copy(&mut a.0, &mut b.1).ok();
        b.1.hang_up();
    });
}

/// A stream whose other end can be told that nothing more comes.
trait HangUp: Send {
    fn hang_up(&self);
}

impl HangUp for &TcpStream {
    fn hang_up(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}

impl HangUp for &UnixStream {
    fn hang_up(&self) {
        self.shutdown(Shutdown::Write).ok();
    }
}

/// A whole answer that holds a file.
pub(super) fn page(text: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// A server's certificate, and the authority that vouches for it.
pub(super) struct Certificate {
    pub(super) authority: PathBuf,
    chain: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// For a host of this name, made in this directory.
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        let path = |file: &str| directory.join(file).display().to_string();
        let run = |args: &[&str]| {
            let new =
                ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
            let output = Command::new("openssl").args(new).args(args).output().expect("openssl is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let (authority, authority_key) = (path("ca.crt"), path("ca.key"));
        run(&["-subj", "/CN=authority", "-keyout", &authority_key, "-out", &authority]);
        let (chain, key, names) = (path("server.crt"), path("server.key"), format!("subjectAltName=DNS:{name}"));
        let extensions = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &names];
        let signer = ["-CA", &authority, "-CAkey", &authority_key];
        run(&[&["-subj", "/CN=server", "-keyout", &key, "-out", &chain], &signer[..], &extensions].concat());
        Self { authority: authority.into(), chain: chain.into(), key: key.into() }
    }
}
