//! The certificates, tokens and kubeconfigs of `k3sd server`, where a K3s operator looks for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::Shell;
use super::daemon::until;

/// What OpenSSL says of a certificate.
#[track_caller]
fn certificate(path: &Path, what: &[&str]) -> String {
    let output = Command::new("openssl").args(["x509", "-noout", "-in"]).arg(path).args(what).output();
    let output = output.expect("Debian's openssl is installed");
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_server_makes_its_certificates_once_and_writes_the_kubeconfig() {
    let shell = Shell::new();
    let start = || {
        shell.start(&[
            "server",
            "--disable-agent",
            "--data-dir=data",
            "--token=hush",
            "--tls-san=k3s.example",
            "--advertise-address=192.0.2.77",
            "--service-cidr=10.43.0.0/16",
            "--write-kubeconfig=admin.yaml",
            "--write-kubeconfig-mode=640",
            "--write-kubeconfig-name=home",
        ])
    };
    let daemon = start();
    let tls = shell.at("data/server/tls");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&tls), mode(&tls.join("server-ca.key")), mode(&tls.join("server-ca.crt"))), (0o700, 0o600, 0o644));
    let serving = tls.join("serving-kube-apiserver.crt");
    let names = certificate(&serving, &["-ext", "subjectAltName"]);
    for name in
        ["DNS:k3s.example", "DNS:kubernetes.default.svc.cluster.local", "IP Address:192.0.2.77", "IP Address:10.43.0.1"]
    {
        assert!(names.contains(name), "{name}: {names}");
    }
    assert!(certificate(&tls.join("client-admin.crt"), &["-subject"]).contains("system:masters"));

    let token = fs::read_to_string(shell.at("data/server/token")).unwrap();
    assert!(token.starts_with("K10") && token.ends_with("::server:hush\n"), "{token}");
    assert_eq!(mode(&shell.at("data/server/token")), 0o600);
    let kubeconfig = fs::read_to_string(shell.at("admin.yaml")).unwrap();
    assert!(
        kubeconfig.contains("server: https://127.0.0.1:") && kubeconfig.contains("\n  name: home\n"),
        "{kubeconfig}"
    );
    assert_eq!(mode(&shell.at("admin.yaml")), 0o640);
    let component = fs::read_to_string(shell.at("data/server/cred/scheduler.kubeconfig")).unwrap();
    assert!(component.contains("server: https://127.0.0.1:"), "{component}");
    assert!(!shell.log().contains("hush"), "{}", shell.log());

    let before = fs::read(&serving).unwrap();
    for victim in ["server/pki/renewal", "server/pki/serving", "server/pki"] {
        daemon.actors(&shell, &["kill", victim]);
        until("the tree is whole again", || {
            let tree = daemon.actors(&shell, &["tree"]);
            ["serving", "listener-0"].iter().all(|name| tree.lines().any(|line| line.contains(name)))
                && !tree.contains("down")
        });
    }
    let pid = daemon.pid();
    assert!(daemon.end_with(Signal::TERM, pid).success(), "{}", shell.log());
    drop(start());
    assert_eq!(fs::read(&serving).unwrap(), before, "nothing is made anew that is still good");
}

#[test]
fn an_address_that_nobody_knows_is_asked_for() {
    let shell = Shell::new();
    // A network namespace of its own has no route anywhere. Only root may make one without another kind.
    let user: &[&str] = if rustix::process::getuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut lonely = Command::new("unshare");
    lonely.args(user).args(["--net", env!("CARGO_BIN_EXE_k3sd"), "server", "--disable-agent", "--data-dir=data"]);
    lonely.arg("--inspect-socket").arg(shell.at("inspect.sock")).current_dir(shell.at(""));
    let output = lonely.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("write one with --advertise-address"), "{told}");
    assert!(!shell.at("inspect.sock").exists(), "nothing is left behind");

    let line = shell.run(&["server", "--disable-agent", "--data-dir=data", "--advertise-address=127.0.0.1"]);
    assert!(line.code == 1 && line.err.contains("--advertise-address: 127.0.0.1 reaches nobody"), "{}", line.err);
}
