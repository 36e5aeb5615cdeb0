//! A registry on loopback: what `/v2/` needs for pulls, with passwords or tokens where a test wants them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k3sd_containerd::image::BuiltImage;

/// The token that everybody with the right password gets.
const TOKEN: &str = "the-token";
/// The first byte of a client that begins TLS (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A registry that ends with the process.
pub(crate) struct Registry {
    /// Its port on 127.0.0.1.
    pub(crate) port: u16,
}

/// What it serves. A repository below `basic/` wants a password, one below `bearer/` a token; its second part is the user
/// who may have it.
struct Content {
    port: u16,
    blobs: PathBuf,
    digest: String,
    passwords: BTreeMap<String, String>,
}

impl Registry {
    /// Serves this image under every name, to users with these passwords. `directory` is for its blobs.
    pub(crate) fn start(directory: &Path, image: &BuiltImage, passwords: &[(&str, &str)]) -> Self {
        let place = directory.join("registry");
        fs::create_dir_all(&place).expect("a directory");
        let archive = place.join("image.tar");
        fs::write(&archive, BuiltImage::oci_archive(std::slice::from_ref(image))).expect("a file");
        let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&place).status().expect("tar runs");
        assert!(unpacked.success(), "the archive is good");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let passwords = passwords.iter().map(|(user, word)| ((*user).to_owned(), (*word).to_owned())).collect();
        let content = Arc::new(Content { port, blobs: place.join("blobs/sha256"), digest: image.digest(), passwords });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = content.clone();
                thread::spawn(move || content.serve(stream));
            }
        });
        Self { port }
    }

    /// An image's name in this registry.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Content {
    fn serve(&self, mut stream: TcpStream) {
        // Later releases of containerd try TLS on loopback first, and go on without it after an answer that isn't TLS.
        let mut first = [0];
        if stream.peek(&mut first).is_ok_and(|read| read == 1) && first[0] == TLS_HANDSHAKE {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").ok();
            return;
        }
        let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        let Some(Ok(first)) = lines.next() else { return };
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut authorization = String::new();
        for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
            if let Some((name, value)) = line.split_once(": ")
                && name.eq_ignore_ascii_case("authorization")
            {
                value.clone_into(&mut authorization);
            }
        }
        let (status, headers, body) = self.answer(method, path, &authorization);
        let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{text}\r\n").as_bytes()).ok();
        if method != "HEAD" {
            stream.write_all(&body).ok();
        }
    }

    fn user(&self, authorization: &str) -> Option<String> {
        let plain = STANDARD.decode(authorization.strip_prefix("Basic ")?).ok()?;
        let (user, word) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
        (self.passwords.get(user)? == word).then(|| user.to_owned())
    }

    fn answer(&self, method: &str, path: &str, authorization: &str) -> (&str, Vec<(&str, String)>, Vec<u8>) {
        let none = || ("404 Not Found", vec![], b"{\"errors\":[]}".to_vec());
        let path = path.split('?').next().unwrap_or_default();
        if path == "/token" {
            return match (method, self.user(authorization)) {
                ("GET", Some(user)) => ("200 OK", vec![], format!("{{\"token\":\"{TOKEN}-{user}\"}}").into_bytes()),
                ("GET", None) => ("401 Unauthorized", vec![], vec![]),
                _ => none(),
            };
        }
        let Some(name) = path.strip_prefix("/v2/") else { return none() };
        let owner = name.split('/').nth(1).unwrap_or_default();
        let (is_allowed, challenge) = match name.split('/').next() {
            Some("basic") => (self.user(authorization).as_deref() == Some(owner), "Basic realm=\"test\"".to_owned()),
            Some("bearer") => (
                authorization == format!("Bearer {TOKEN}-{owner}"),
                format!("Bearer realm=\"http://127.0.0.1:{}/token\",service=\"test\"", self.port),
            ),
            _ => (true, String::new()),
        };
        if !is_allowed {
            return ("401 Unauthorized", vec![("www-authenticate", challenge)], b"{\"errors\":[]}".to_vec());
        }
        let read = |digest: &str| fs::read(self.blobs.join(digest.strip_prefix("sha256:")?)).ok();
        let manifest = name.split_once("/manifests/").map(|(_, wanted)| wanted);
        let blob = name.split_once("/blobs/").and_then(|(_, digest)| read(digest));
        match (manifest, blob) {
            (Some("absent"), _) => none(),
            (Some(_), _) => {
                let kind = "application/vnd.oci.image.manifest.v1+json".to_owned();
                let headers = vec![("content-type", kind), ("docker-content-digest", self.digest.clone())];
                ("200 OK", headers, read(&self.digest).expect("it is there"))
            }
            (None, Some(blob)) => ("200 OK", vec![("content-type", "application/octet-stream".to_owned())], blob),
            _ => none(),
        }
    }
}
