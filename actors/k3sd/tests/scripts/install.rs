//! `install.sh`, a variable at a time. Most install a program that says its version and nothing more; where a daemon has
//! to run, it is the real one.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::machine::{Init, Machine, text};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../install.sh");
/// What is installed where nobody starts it.
const PROGRAM: &str = "/opt/built/k3sd";
const PROGRAM_TEXT: &str = "#!/bin/sh\necho 'k3sd of a test'\n";
/// A server without a node, which listens where nobody else is.
const SERVER: &str = "server --disable-agent --bind-address=127.0.0.1 --advertise-address=192.0.2.2";
/// How long things of other processes may take.
const LIMIT: Duration = Duration::from_secs(20);

const SKIP_START: (&str, &str) = ("INSTALL_K3S_SKIP_START", "true");

fn output(machine: &Machine, variables: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = machine.enter("sh");
    command.arg(SCRIPT).args(arguments).env("INSTALL_K3SD_BINARY", PROGRAM).envs(variables.iter().copied());
    command.output().unwrap()
}

fn install(machine: &Machine, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    text(&output(machine, variables, arguments), true)
}

fn refused(machine: &Machine, variables: &[(&str, &str)], arguments: &[&str]) -> String {
    text(&output(machine, variables, arguments), false)
}

/// A machine on which what is installed is the small program.
fn machine(init: Init) -> Option<Machine> {
    let machine = Machine::new(init)?;
    machine.program(PROGRAM, PROGRAM_TEXT);
    machine.program("/usr/bin/containerd", PROGRAM_TEXT);
    machine.program("/usr/bin/runc", PROGRAM_TEXT);
    machine.program("/usr/bin/kubectl", PROGRAM_TEXT);
    Some(machine)
}

/// A machine with the real binary in its place, small enough to be looked at often.
fn real_machine(init: Init) -> Option<Machine> {
    let machine = machine(init)?;
    let to = machine.at("/run/k3sd.stripped");
    let stripped = Command::new("strip").arg("-o").arg(&to).arg(env!("CARGO_BIN_EXE_k3sd")).status();
    if !stripped.is_ok_and(|status| status.success()) {
        std::fs::copy(env!("CARGO_BIN_EXE_k3sd"), &to).unwrap();
    }
    machine.run("sh", &["-c", "mv /run/k3sd.stripped /usr/local/bin/k3sd"]);
    Some(machine)
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line:?} is missing in:\n{text}");
    }
}

#[test]
fn a_unit_for_systemd_with_its_environment() {
    let Some(machine) = machine(Init::Systemd) else { return };
    let said = install(
        &machine,
        &[
            SKIP_START,
            ("INSTALL_K3S_EXEC", "server --flannel-backend none --node-label 'a=b c'"),
            ("K3S_TOKEN", "hu$h \"it\""),
            ("K3S_KUBECONFIG_MODE", "644"),
            ("HTTPS_PROXY", "http://proxy:3128"),
            ("no_proxy", "10.0.0.0/8"),
            ("CONTAINERD_LOG_LEVEL", "debug"),
            ("OTHER", "not kept"),
        ],
        &["--disable=traefik"],
    );
    let unit = machine.read("/etc/systemd/system/k3s.service");
    has_lines(
        &unit,
        &[
            "Type=notify",
            "KillMode=process",
            "Delegate=yes",
            "Restart=always",
            "RestartSec=5s",
            "TimeoutStartSec=0",
            "LimitNOFILE=1048576",
            "LimitNPROC=infinity",
            "LimitCORE=infinity",
            "TasksMax=infinity",
            "EnvironmentFile=-/etc/default/%N",
            "EnvironmentFile=-/etc/sysconfig/%N",
            "EnvironmentFile=-/etc/systemd/system/k3s.service.env",
            "Wants=network-online.target",
            "After=network-online.target",
            "WantedBy=multi-user.target",
            r#"ExecStart=/usr/local/bin/k3sd "server" "--flannel-backend" "none" "--node-label" "a=b c" "--disable=traefik""#,
        ],
    );
    let environment = machine.read("/etc/systemd/system/k3s.service.env");
    has_lines(
        &environment,
        &[
            r#"K3S_TOKEN="hu\$h \"it\"""#,
            r#"K3S_KUBECONFIG_MODE="644""#,
            r#"HTTPS_PROXY="http://proxy:3128""#,
            r#"no_proxy="10.0.0.0/8""#,
            r#"CONTAINERD_LOG_LEVEL="debug""#,
        ],
    );
    assert!(!environment.contains("OTHER"), "{environment}");
    assert_eq!(machine.run("stat", &["-c", "%a", "/etc/systemd/system/k3s.service.env"]).trim(), "600");
    assert!(!said.contains("hu$h"), "{said}");
    has_lines(&machine.read("/run/calls"), &["systemctl daemon-reload", "systemctl enable --quiet k3s"]);
    assert!(!machine.read("/run/calls").contains("restart"), "it was not to be started");
    for name in ["k3s", "kubectl", "crictl", "ctr"] {
        let is_linked = machine.has(&format!("/usr/local/bin/{name}"));
        assert_eq!(is_linked, name != "kubectl", "{name}: only where no such command is");
    }
}

#[test]
fn where_things_go_and_what_they_are_called() {
    let Some(machine) = machine(Init::Systemd) else { return };
    let places = [
        SKIP_START,
        ("INSTALL_K3S_BIN_DIR", "/opt/k3s/bin"),
        ("INSTALL_K3S_SYSTEMD_DIR", "/opt/units"),
        ("INSTALL_K3S_NAME", "blue"),
        ("INSTALL_K3S_TYPE", "exec"),
        ("INSTALL_K3S_SYMLINK", "force"),
    ];
    let said = install(&machine, &places, &[]);
    assert!(said.contains("/opt/k3s/bin is not in PATH"), "{said}");
    let unit = machine.read("/opt/units/k3s-blue.service");
    has_lines(&unit, &["Type=exec", r#"ExecStart=/opt/k3s/bin/k3sd "server""#]);
    assert!(machine.has("/opt/k3s/bin/k3s-blue-uninstall.sh") && machine.has("/opt/k3s/bin/k3s-killall.sh"));
    assert_eq!(machine.run("readlink", &["/opt/k3s/bin/kubectl"]).trim(), "k3sd", "asked for by force");
    let said = refused(&machine, &[SKIP_START, ("INSTALL_K3S_NAME", "a/b")], &[]);
    assert!(said.contains("cannot be the name of a service"), "{said}");
}

#[test]
fn links_only_where_they_are_wanted() {
    let Some(machine) = machine(Init::Systemd) else { return };
    install(&machine, &[SKIP_START, ("INSTALL_K3S_SYMLINK", "skip")], &[]);
    assert!(machine.has("/usr/local/bin/k3s"));
    for name in ["kubectl", "crictl", "ctr"] {
        assert!(!machine.has(&format!("/usr/local/bin/{name}")), "{name}");
    }
}

#[test]
fn an_agent_where_there_is_a_server_to_join() {
    let Some(machine) = machine(Init::Systemd) else { return };
    let url = ("K3S_URL", "https://server:6443");
    install(&machine, &[SKIP_START, url, ("K3S_TOKEN", "t")], &[]);
    has_lines(&machine.read("/etc/systemd/system/k3s-agent.service"), &[r#"ExecStart=/usr/local/bin/k3sd "agent""#]);
    has_lines(&machine.read("/etc/systemd/system/k3s-agent.service.env"), &[r#"K3S_URL="https://server:6443""#]);
    assert!(machine.has("/usr/local/bin/k3s-agent-uninstall.sh"));
    assert!(refused(&machine, &[SKIP_START, url], &[]).contains("K3S_URL needs K3S_TOKEN or K3S_TOKEN_FILE"));
    install(&machine, &[SKIP_START, url, ("K3S_TOKEN_FILE", "/etc/token")], &[]);
    let plain = ("K3S_URL", "http://server:6443");
    assert!(refused(&machine, &[SKIP_START, plain, ("K3S_TOKEN", "t")], &[]).contains("must begin with https://"));
}

#[test]
fn neither_enabled_nor_started_unless_wanted() {
    let Some(machine) = machine(Init::Systemd) else { return };
    let said = install(&machine, &[("INSTALL_K3S_SKIP_ENABLE", "true")], &[]);
    assert!(said.contains("neither enabled nor started"), "{said}");
    assert!(!machine.has("/run/calls"), "systemd was not asked for anything");
    assert!(machine.has("/etc/systemd/system/k3s.service"));
}

#[test]
fn what_would_be_downloaded_is_refused() {
    let Some(machine) = machine(Init::Systemd) else { return };
    for name in ["VERSION", "COMMIT", "PR", "ARTIFACT_URL"] {
        let name = format!("INSTALL_K3S_{name}");
        let said = refused(&machine, &[SKIP_START, (&name, "x")], &[]);
        assert!(said.contains(&format!("{name} asks for a download")), "{said}");
    }
    assert!(!machine.has("/usr/local/bin/k3sd"), "nothing was installed");
    for name in ["CHANNEL", "CHANNEL_URL"] {
        let name = format!("INSTALL_K3S_{name}");
        let said = install(&machine, &[SKIP_START, (&name, "stable")], &[]);
        assert!(said.contains(&format!("warning: {name} has no effect")), "{said}");
    }
    // As with K3s, they mean nothing where nothing is downloaded.
    install(&machine, &[SKIP_START, ("INSTALL_K3S_SKIP_DOWNLOAD", "true"), ("INSTALL_K3S_VERSION", "v1")], &[]);
}

#[test]
fn selinux_is_spoken_of_once() {
    let Some(machine) = machine(Init::Systemd) else { return };
    machine.program("/usr/bin/getenforce", "#!/bin/sh\necho Enforcing\n");
    assert!(install(&machine, &[SKIP_START], &[]).contains("there is no policy for k3sd"));
    for name in ["INSTALL_K3S_SKIP_SELINUX_RPM", "INSTALL_K3S_SELINUX_WARN"] {
        assert!(!install(&machine, &[SKIP_START, (name, "true")], &[]).contains("SELinux"), "{name}");
    }
}

#[test]
fn a_binary_that_is_there_is_used() {
    let Some(machine) = machine(Init::Systemd) else { return };
    let skip = ("INSTALL_K3S_SKIP_DOWNLOAD", "binary");
    assert!(refused(&machine, &[SKIP_START, skip], &[]).contains("there is no /usr/local/bin/k3sd"));
    machine.program("/usr/local/bin/k3sd", "#!/bin/sh\necho another\n");
    let said = install(&machine, &[SKIP_START, skip], &[]);
    assert!(said.contains("using /usr/local/bin/k3sd as it is"), "{said}");
    assert!(machine.read("/usr/local/bin/k3sd").contains("another"));
    // One that is named takes its place, whole.
    assert!(install(&machine, &[SKIP_START], &[]).contains("installed /usr/local/bin/k3sd (k3sd of a test)"));
    assert!(install(&machine, &[SKIP_START], &[]).contains("/usr/local/bin/k3sd is up to date"));
    let absent = ("INSTALL_K3SD_BINARY", "/nonexistent/k3sd");
    assert!(refused(&machine, &[SKIP_START, absent], &[]).contains("nor a program /nonexistent/k3sd"));
}

#[test]
fn a_binary_beside_the_script_is_installed() {
    let Some(machine) = machine(Init::Systemd) else { return };
    machine.run("sh", &["-c", &format!("cp {SCRIPT} /opt/built/install.sh")]);
    let mut command = machine.enter("sh");
    let output = command.arg("/opt/built/install.sh").env("INSTALL_K3S_SKIP_START", "true").output().unwrap();
    assert!(text(&output, true).contains("installed /usr/local/bin/k3sd (k3sd of a test)"));
}

#[test]
fn a_clone_is_built_by_whoever_has_a_toolchain() {
    let Some(machine) = machine(Init::Systemd) else { return };
    machine.program("/usr/bin/dpkg-query", "#!/bin/sh\necho installed\n");
    let cargo = "#!/bin/sh\n[ \"$1\" != --version ] || { echo 'cargo 9.9.9 (test)'; exit; }\nid -un >/opt/builder\n\
                 mkdir -p \"$CARGO_TARGET_DIR/release\"; cp /opt/built/k3sd \"$CARGO_TARGET_DIR/release/k3sd\"\n";
    machine.program("/var/builder/.cargo/bin/cargo", cargo);
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    machine.run("sh", &["-c", &format!("mkdir -p /opt/clone; cp {SCRIPT} {manifest} /opt/clone")]);
    let user =
        "echo 'builder:x:4711:4711::/var/builder:/bin/sh' >>/etc/passwd; chown -R 4711 /var/builder; chmod 777 /opt";
    machine.run("sh", &["-c", user]);
    let mut command = machine.enter("sh");
    command.arg("/opt/clone/install.sh").env("INSTALL_K3S_SKIP_START", "true").env("SUDO_USER", "builder");
    let said = text(&command.output().unwrap(), true);
    assert!(said.contains("building as builder with cargo 9.9.9 into /var/builder/.cache/k3sd/target"), "{said}");
    assert_eq!(machine.read("/opt/builder").trim(), "builder", "not as root");
    assert!(machine.has("/usr/local/bin/k3sd"));
}

#[test]
fn nothing_is_written_where_only_reading_is_allowed() {
    let Some(machine) = machine(Init::Systemd) else { return };
    machine.program("/usr/local/bin/k3sd", PROGRAM_TEXT);
    install(&machine, &[SKIP_START, ("INSTALL_K3S_BIN_DIR_READ_ONLY", "true")], &[]);
    assert_eq!(machine.run("ls", &["/usr/local/bin"]).trim(), "k3sd");
    assert!(machine.has("/etc/systemd/system/k3s.service"));
    machine.run("sh", &["-c", "mount -t tmpfs -o ro none /usr/local/bin"]);
    let said = install(&machine, &[SKIP_START], &[]);
    assert!(said.contains("/usr/local/bin is read-only: using /opt/bin"), "{said}");
    assert!(machine.has("/opt/bin/k3sd") && machine.has("/opt/bin/k3s-uninstall.sh"));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let Some(machine) = machine(Init::Systemd) else { return };
    machine.run("sh", &["-c", "mkdir -p /etc/systemd/system; echo '[Service]' >/etc/systemd/system/k3s.service"]);
    assert!(refused(&machine, &[SKIP_START], &[]).contains("exists and is not ours"));
    assert!(!machine.has("/usr/local/bin/k3sd"), "nothing was installed");
    let quote = ("INSTALL_K3S_EXEC", "server 'a");
    assert!(refused(&machine, &[SKIP_START, quote], &[]).contains("unmatched quote"));
}

#[test]
fn openrc_gets_a_service_and_its_logs_are_rotated() {
    let Some(machine) = machine(Init::OpenRc) else { return };
    install(&machine, &[SKIP_START, ("K3S_TOKEN", "hush")], &["server", "--node-label=a=it's"]);
    let service = machine.read("/etc/init.d/k3s");
    has_lines(
        &service,
        &[
            "#!/sbin/openrc-run",
            "supervisor=supervise-daemon",
            "command='/usr/local/bin/k3sd'",
            "respawn_delay=5",
            "respawn_max=0",
            "[ ! -f /etc/environment ] || . /etc/environment",
            "  want cgroups",
        ],
    );
    machine.run("sh", &["-n", "/etc/init.d/k3s"]);
    has_lines(&machine.read("/etc/rancher/k3s/k3s.env"), &[r#"K3S_TOKEN="hush""#]);
    assert_eq!(machine.run("stat", &["-c", "%a", "/etc/rancher/k3s/k3s.env"]).trim(), "600");
    has_lines(&machine.read("/etc/logrotate.d/k3s"), &["/var/log/k3sd.log {", "  copytruncate"]);
    has_lines(&machine.read("/run/calls"), &["rc-update --quiet add k3s default"]);
    machine.run("sh", &["/usr/local/bin/k3s-uninstall.sh"]);
    has_lines(&machine.read("/run/calls"), &["rc-update delete k3s default", "/etc/init.d/k3s stop"]);
    for gone in ["/etc/init.d/k3s", "/etc/logrotate.d/k3s", "/etc/rancher", "/usr/local/bin/k3sd"] {
        assert!(!machine.has(gone), "{gone}");
    }
}

#[test]
fn a_real_openrc_starts_keeps_and_stops_it() {
    let Some(machine) = real_machine(Init::RealOpenRc) else { return };
    let variables =
        [("INSTALL_K3S_SKIP_DOWNLOAD", "binary"), ("INSTALL_K3S_EXEC", SERVER), ("K3S_TOKEN", "it's \"q\" $HOME")];
    let said = install(&machine, &variables, &[]);
    assert!(said.contains("k3s is ready"), "{said}");
    assert!(machine.has("/etc/runlevels/default/k3s"), "it starts with the machine");
    assert!(!machine.read("/var/log/k3sd.log").is_empty());
    let status = || machine.enter("rc-service").args(["k3s", "status"]).output().unwrap().status.success();
    let answers = || machine.enter("k3sd").args(["actors", "tree"]).output().unwrap().status.success();
    let pid = || {
        let supervisor = machine.read("/run/k3s.pid");
        machine.run("cat", &[&format!("/proc/{0}/task/{0}/children", supervisor.trim())]).trim().to_owned()
    };
    assert!(status());
    let first = pid();
    let environment = machine.read(&format!("/proc/{first}/environ"));
    assert!(environment.split('\0').any(|variable| variable == "K3S_TOKEN=it's \"q\" $HOME"), "{environment}");
    assert!(install(&machine, &variables, &[]).contains("not restarted"));
    assert_eq!(pid(), first);

    // Killed, it comes back by itself; with other settings, another run restarts it.
    machine.run("kill", &["-9", &first]);
    until("another process", || !pid().is_empty() && pid() != first);
    until("a new start", answers);
    let second = pid();
    let said = install(&machine, &variables, &["--node-label=a=b"]);
    assert!(said.contains("k3s is ready") && pid() != second, "{said}");

    let stopped = pid();
    machine.run("rc-service", &["k3s", "stop"]);
    until("its end", || machine.at(&format!("/proc/{stopped}/exe")).read_link().is_err());
    assert!(!status());
    machine.run("rc-service", &["k3s", "start"]);
    until("a start by hand", answers);
    machine.run("k3s-killall.sh", &[]);
    assert!(!status() && !answers());
    machine.run("rc-service", &["k3s", "start"]);
    until("a start after killall", answers);
    machine.run("k3s-uninstall.sh", &[]);
    assert!(!answers());
    for gone in
        ["/etc/init.d/k3s", "/etc/runlevels/default/k3s", "/etc/logrotate.d/k3s", "/var/log/k3sd.log", "/etc/rancher"]
    {
        assert!(!machine.has(gone), "{gone}");
    }
}

#[test]
fn a_second_run_changes_nothing_and_restarts_nothing() {
    let Some(machine) = real_machine(Init::Systemd) else { return };
    let variables = [("INSTALL_K3S_SKIP_DOWNLOAD", "binary"), ("INSTALL_K3S_EXEC", SERVER)];
    let said = install(&machine, &variables, &[]);
    assert!(said.contains("k3s is ready"), "{said}");
    let restarts = || machine.read("/run/calls").matches("systemctl restart k3s").count();
    let files = || machine.run("sh", &["-c", "cat /etc/systemd/system/k3s.service* /usr/local/bin/*.sh | sha256sum"]);
    let (first, pid) = (files(), machine.read("/run/k3s.main"));
    assert_eq!(restarts(), 1);

    let said = install(&machine, &variables, &[]);
    assert!(said.contains("k3s runs and nothing has changed: not restarted"), "{said}");
    assert!(!said.contains("wrote"), "{said}");
    assert_eq!((restarts(), files(), machine.read("/run/k3s.main")), (1, first, pid));

    let changed = [variables[0], variables[1], ("K3S_KUBECONFIG_MODE", "640")];
    assert!(install(&machine, &changed, &[]).contains("k3s is ready"));
    assert_eq!(restarts(), 2, "the environment is other");
    // Only the real systemctl waits until the daemon has said that all of it is ready.
    until("others may read it", || machine.run("stat", &["-c", "%a", "/etc/rancher/k3s/k3s.yaml"]).trim() == "640");
    let forced = [changed[0], changed[1], changed[2], ("INSTALL_K3S_FORCE_RESTART", "true")];
    install(&machine, &forced, &[]);
    assert_eq!(restarts(), 3, "it was asked for");
}

#[test]
fn without_an_init_system_it_runs_in_the_background() {
    let Some(machine) = real_machine(Init::None) else { return };
    let variables = [("INSTALL_K3S_SKIP_DOWNLOAD", "binary"), ("INSTALL_K3S_EXEC", SERVER), ("K3S_TOKEN", "hush")];
    let said = install(&machine, &variables, &[]);
    assert!(said.contains("neither systemd nor OpenRC runs here") && said.contains("k3s is ready"), "{said}");
    let pid = || machine.read("/run/k3s/k3sd.pid").trim().to_owned();
    let first = pid();
    let exe = |pid: &str| machine.run("readlink", &[&format!("/proc/{pid}/exe")]).trim().to_owned();
    assert_eq!(exe(&first), "/usr/local/bin/k3sd");
    assert!(!machine.read("/var/log/k3sd.log").is_empty());
    assert!(install(&machine, &variables, &[]).contains("not restarted"));
    assert!(machine.run("k3s-start.sh", &[]).contains("already running"));
    assert_eq!(pid(), first);

    // Killed, it comes back by itself.
    machine.run("kill", &["-9", &first]);
    until("another process", || machine.has("/run/k3s/k3sd.pid") && !pid().is_empty() && pid() != first);
    let answers = || machine.enter("k3sd").args(["actors", "tree"]).output().unwrap().status.success();
    until("a new start", answers);
    // Asked to end, it stays ended until somebody starts it.
    let second = pid();
    machine.run("kill", &[&second]);
    let ends = |pid: &str| machine.at(&format!("/proc/{pid}/exe")).read_link().is_err();
    until("its end", || ends(&second));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!answers() && pid() == second, "nobody has started it");
    machine.run("k3s-start.sh", &[]);
    until("a start by hand", answers);
    assert_ne!(pid(), second);

    // A second service shares the binary, and keeps it.
    let second = [variables[0], ("INSTALL_K3S_NAME", "blue"), SKIP_START];
    install(&machine, &second, &[]);
    machine.run("k3s-killall.sh", &[]);
    assert!(!machine.has("/run/k3s/k3sd.pid"), "everything is stopped");
    assert!(
        machine.has("/usr/local/bin/k3sd") && machine.has("/var/lib/rancher/k3s/server"),
        "what is installed stays"
    );
    let said = machine.run("k3s-blue-uninstall.sh", &[]);
    assert!(said.contains("stays for k3s"), "{said}");
    machine.run("k3s-uninstall.sh", &[]);
    for gone in ["/usr/local/bin/k3sd", "/usr/local/bin/k3s", "/usr/local/bin/ctr", "/usr/local/bin/k3s-killall.sh"] {
        assert!(!machine.has(gone), "{gone}");
    }
    for gone in ["/etc/rancher", "/var/lib/rancher", "/run/k3s", "/var/log/k3sd.log", "/usr/local/bin/k3s-uninstall.sh"]
    {
        assert!(!machine.has(gone), "{gone}");
    }
}
