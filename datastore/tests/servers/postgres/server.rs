//! A PostgreSQL server with a directory, a port and a password of its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::process::{certify, free_port, run, unprivileged};

pub(crate) const PASSWORD: &str = "p@ss/word";

pub(crate) struct PostgresServer {
    child: Option<Child>,
    directory: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    pub(crate) port: u16,
}

impl PostgresServer {
    /// Makes a cluster and starts it, or says why it can't.
    pub(crate) fn start() -> Result<Self, String> {
        let programs = programs().ok_or("no PostgreSQL server is installed (package postgresql)")?;
        let directory = TempDir::new().map_err(|error| format!("no directory: {error}"))?;
        // The server refuses to run as root.
        let user = unprivileged("postgres", directory.path())?;
        let port = free_port()?;
        let mut server = Self { child: None, directory, programs, user, port };
        fs::write(server.path("password"), PASSWORD).map_err(|error| error.to_string())?;
        certify(server.directory.path())?;
        for path in [server.directory.path().to_owned(), server.path("password"), server.path("server.key")] {
            server.give(&path)?;
        }
        let (data, password) = (server.path("data"), server.path("password"));
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(data).arg("--pwfile").arg(password);
        run(initdb.args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]))?;
        server.resume();
        Ok(server)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn give(&self, path: &Path) -> Result<(), String> {
        let Some((user, group)) = self.user else { return Ok(()) };
        chown(path, Some(user), Some(group)).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let Some((user, group)) = self.user else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups").arg(program);
        command.current_dir(self.directory.path());
        command
    }

    /// Starts the server on what is there.
    pub(crate) fn resume(&mut self) {
        let log = fs::File::create(self.path("log")).expect("a log file");
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.directory.path());
        command.args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"]);
        // A server that is killed loses nothing that it has handed to the kernel, so waiting for the disk tests the disk.
        command.args(["-c", "fsync=off"]);
        for (setting, file) in [("ssl_cert_file", "server.crt"), ("ssl_key_file", "server.key")] {
            command.arg("-c").arg(format!("{setting}={}", self.path(file).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the server starts"));
    }

    /// Ends the server at once, without a chance to write down anything: what it finds later is what was durable.
    pub(crate) fn crash(&mut self) {
        self.signal("-QUIT");
    }

    fn signal(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        run(Command::new("kill").args([signal, &child.id().to_string()])).unwrap_or_else(|error| println!("{error}"));
        if let Err(error) = child.wait() {
            println!("the server could not be waited for: {error}");
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.signal("-INT");
    }
}

/// Where Debian puts the programs: the newest version there is.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").exists().then_some((version, programs))
    });
    versions.max().map(|(_, programs)| programs)
}
