//! A MariaDB server with a directory, a port and users of its own.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{certify, free_port, run, unprivileged};

/// How often, and how many times, to look whether the server is there: for a minute.
const LOOKS_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 3000;

pub(crate) const PASSWORD: &str = "p@ss/w:rd";

/// Who may log in: one who may do anything, one who has to encrypt, and one who has to show a certificate as well.
const USERS: &str = "
    CREATE USER IF NOT EXISTS 'k3sd'@'%' IDENTIFIED BY 'p@ss/w:rd';
    CREATE USER IF NOT EXISTS 'k3sd'@'localhost' IDENTIFIED BY 'p@ss/w:rd';
    CREATE USER IF NOT EXISTS 'encrypted'@'%' IDENTIFIED BY 'p@ss/w:rd' REQUIRE SSL;
    CREATE USER IF NOT EXISTS 'certified'@'%' IDENTIFIED BY 'p@ss/w:rd' REQUIRE X509;
    GRANT ALL ON *.* TO 'k3sd'@'%', 'k3sd'@'localhost', 'encrypted'@'%', 'certified'@'%';
";

pub(crate) struct MariaDbServer {
    child: Option<Child>,
    directory: TempDir,
    user: Option<(u32, u32)>,
    pub(crate) port: u16,
}

impl MariaDbServer {
    /// Makes a data directory and starts the server, or says why it can't.
    pub(crate) fn start() -> Result<Self, String> {
        let missing =
            ["/usr/sbin/mariadbd", "/usr/bin/mariadb-install-db"].into_iter().find(|path| !Path::new(path).exists());
        if let Some(missing) = missing {
            return Err(format!("no MariaDB server is installed (package mariadb-server): {missing} is missing"));
        }
        let directory = TempDir::new().map_err(|error| format!("no directory: {error}"))?;
        // The server refuses to run as root.
        let user = unprivileged("mysql", directory.path())?;
        let port = free_port()?;
        let mut server = Self { child: None, directory, user, port };
        fs::write(server.path("users.sql"), USERS).map_err(|error| error.to_string())?;
        certify(server.directory.path())?;
        for path in [server.directory.path().to_owned(), server.path("server.key"), server.path("users.sql")] {
            server.give(&path)?;
        }
        let data = server.path("data").display().to_string();
        let mut install = server.command("/usr/bin/mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        run(install.arg(format!("--datadir={data}")))?;
        server.launch();
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Until somebody listens, or the server has ended; the error is then what it complained of.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let (_nobody, nothing) = mpsc::channel::<()>();
        for _ in 0..LOOKS_MAX {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            if self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None))) {
                break;
            }
            nothing.recv_timeout(LOOKS_EVERY).unwrap_or_default();
        }
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]")).collect();
        Err(format!("the server does not start: {}", errors.join("; ")))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn give(&self, path: &Path) -> Result<(), String> {
        let Some((user, group)) = self.user else { return Ok(()) };
        chown(path, Some(user), Some(group)).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn command(&self, program: &str) -> Command {
        let Some((user, group)) = self.user else { return Command::new(program) };
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}")).arg("--clear-groups").arg(program);
        command.current_dir(self.directory.path());
        command
    }

    /// Starts the server on what is there.
    pub(crate) fn resume(&mut self) {
        self.launch();
        self.wait_until_ready().expect("it has run before");
    }

    fn launch(&mut self) {
        let log = fs::File::create(self.path("log")).expect("a log file");
        let mut command = self.command("/usr/sbin/mariadbd");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--log-bin=changes"]);
        command.arg(format!("--port={}", self.port));
        // A server that is killed loses nothing that it has handed to the kernel, so waiting for the disk tests the disk.
        command.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync"]);
        command.args(["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=off"]);
        for (option, file) in [
            ("datadir", "data"),
            ("socket", "mysqld.sock"),
            ("pid-file", "mysqld.pid"),
            ("init-file", "users.sql"),
            ("ssl-ca", "ca.crt"),
            ("ssl-cert", "server.crt"),
            ("ssl-key", "server.key"),
        ] {
            command.arg(format!("--{option}={}", self.path(file).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the server starts"));
    }

    /// Kills the server: what it finds later is what was durable.
    pub(crate) fn crash(&mut self) {
        self.signal("-KILL");
    }

    /// Stops the server in order.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
    }

    /// Has the kernel stop it or let it go on.
    pub(crate) fn signal_only(&mut self, signal: &str) {
        let child = self.child.as_ref().expect("the server runs");
        run(Command::new("kill").args([signal, &child.id().to_string()])).expect("it is ours");
    }

    fn signal(&mut self, signal: &str) {
        let Some(mut child) = self.child.take() else { return };
        run(Command::new("kill").args([signal, &child.id().to_string()])).unwrap_or_else(|error| println!("{error}"));
        if let Err(error) = child.wait() {
            println!("the server could not be waited for: {error}");
        }
    }
}

impl Drop for MariaDbServer {
    fn drop(&mut self) {
        self.crash();
    }
}
