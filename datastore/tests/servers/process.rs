//! What starting any server takes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// How many ports were asked for.
static ASKED: AtomicU16 = AtomicU16::new(0);

/// A port of the loopback that nobody has, below those that the system gives to whoever connects: a client that looks
/// for a server in vain would get the server's own port one day, and keep it.
pub(crate) fn free_port() -> Result<u16, String> {
    const PORTS: std::ops::Range<u16> = 10_000..30_000;
    // Suites that run at the same time begin elsewhere.
    let start = std::process::id().wrapping_mul(7919) % u32::from(PORTS.end - PORTS.start);
    let start = PORTS.start + u16::try_from(start).unwrap_or_default();
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let ports = (start..PORTS.end).chain(PORTS.start..start).skip(asked.into());
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.into_iter().find(free).ok_or_else(|| "no port is free".to_owned())
}

/// The user and group to run a server as that refuses to run as root; `None` when nobody is root here.
pub(crate) fn unprivileged(user: &str, directory: &Path) -> Result<Option<(u32, u32)>, String> {
    let root = fs::metadata(directory).map_err(|error| error.to_string())?.uid() == 0;
    if !root {
        return Ok(None);
    }
    ids(user).map(Some).ok_or_else(|| format!("root without a user {user} to run as"))
}

/// The numbers of a user and its group.
fn ids(name: &str) -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// An authority (`ca.crt`), a certificate of it for a server of the name localhost (`server.crt`, `server.key`), and one
/// for a client (`client.crt`, `client.key`).
pub(crate) fn certify(directory: &Path) -> Result<(), String> {
    let path = |name: &str| directory.join(name).display().to_string();
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    let mut authority = Command::new("openssl");
    run(authority.args(new).args(["-subj", "/CN=authority", "-keyout", &path("ca.key"), "-out", &path("ca.crt")]))?;
    for name in ["server", "client"] {
        let (key, certificate) = (path(&format!("{name}.key")), path(&format!("{name}.crt")));
        let mut leaf = Command::new("openssl");
        leaf.args(new).args(["-subj", &format!("/CN={name}"), "-keyout", &key, "-out", &certificate]);
        leaf.args(["-CA", &path("ca.crt"), "-CAkey", &path("ca.key"), "-addext", "basicConstraints=critical,CA:FALSE"]);
        run(leaf.args(["-addext", "subjectAltName=DNS:localhost"]))?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Runs a program to its end; the error is what it complained of.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")))
}
