//! What people say to containers, and hear from them.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout};

use crate::kubectl::{Said, ran};
use crate::machine::{IMAGE, Machine, PATIENCE};

/// Exit codes, both streams, and input.
pub(crate) async fn commands(machine: &Machine) {
    let said = machine.said(&["exec", "first", "--", "sh", "-c", "echo a; echo b >&2; exit 7"]).await;
    assert_eq!((said.code, said.out.as_str()), (7, "a\n"), "{said:?}");
    assert!(said.err.starts_with("b\n") && said.err.contains("command terminated with exit code 7"), "{said:?}");
    let said = machine.said(&["exec", "first", "--", "true"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = machine.given(&["exec", "-i", "first", "--", "wc", "-c"], &"x".repeat(300_000)).await;
    assert_eq!((said.code, said.out.trim()), (0, "300000"), "{said:?}");
}

/// A pod of its own with a terminal, which is gone when its program ends.
pub(crate) async fn terminal(machine: &Machine) {
    let script = "tty; stty size; read word; echo got $word; exit 3";
    let image = format!("--image={IMAGE}");
    let kubectl =
        machine.kubectl(&["run", "typed", "-it", "--rm", "--restart=Never", &image, "--", "sh", "-c", script]);
    let kubectl = kubectl.as_std();
    let words = std::iter::once(kubectl.get_program()).chain(kubectl.get_args());
    let line = words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
    let mut command = tokio::process::Command::new("script");
    command.args(["-qec", &format!("stty rows 33 cols 77; {line}"), "/dev/null"]);
    command.env_clear().envs(kubectl.get_envs().filter_map(|(name, value)| Some((name, value?)))).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script was found before");
    let mut stdin = child.stdin.take().expect("it is piped");
    // Kept open: its end would be the end of the terminal.
    stdin.write_all(b"words\n").await.expect("it reads");
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let said: Said = output.expect("it ends").expect("it is our child").into();
    drop(stdin);
    assert!(said.out.contains("got words"), "{said:?}");
    assert_eq!(said.code, 3, "{said:?}");
    machine.gone(&["pod", "typed"]).await;
}

/// As a whole, the last lines, and what comes while somebody reads.
pub(crate) async fn logs(machine: &Machine) {
    machine.ready("talker").await;
    assert_eq!(machine.told(&["logs", "talker"]).await, "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(machine.told(&["logs", "talker", "--tail=2"]).await, "line 4\nline 5\n");
    let mut command = machine.kubectl(&["logs", "-f", "talker", "--tail=1"]);
    let mut child = command.spawn().expect("kubectl was found before");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = async || tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text");
    assert_eq!(next().await.as_deref(), Some("line 5"));
    machine.within("talker", "touch /go").await;
    assert_eq!(next().await.as_deref(), Some("more"));
    machine.told(&["delete", "pod", "talker"]).await;
    assert_eq!(next().await, None, "it ends with the container");
    let said = machine.said(&["logs", "talker"]).await;
    assert!(said.code == 1 && said.err.contains("pods \"talker\" not found"), "{said:?}");
}

/// A port of the client's that leads into a pod.
pub(crate) async fn ports(machine: &Machine) {
    let mut child: Child =
        machine.kubectl(&["port-forward", "first", ":80"]).spawn().expect("kubectl was found before");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let port = forwarded(&mut lines).await;
    for _ in 0..3 {
        let url = format!("http://127.0.0.1:{port}/passwd");
        let page = ran(machine.command(&["curl", "-s", "--max-time", "20", &url])).await;
        assert!(page.out.starts_with("root:"), "{page:?}");
    }
    child.kill().await.expect("it runs");
}

async fn forwarded(lines: &mut tokio::io::Lines<BufReader<ChildStdout>>) -> String {
    let line =
        tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("text").expect("a line");
    let place = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
    place.unwrap_or_else(|| panic!("{line}")).to_owned()
}

/// Files in, and out again.
pub(crate) async fn files(machine: &Machine) {
    let (there, back) = (machine.disk("there"), machine.disk("back"));
    let content = "some content\n".repeat(10_000);
    tokio::fs::write(&there, &content).await.expect("a file");
    machine.told(&["cp", &there.display().to_string(), "first:/tmp/file"]).await;
    machine.told(&["cp", "first:/tmp/file", &back.display().to_string()]).await;
    assert!(tokio::fs::read_to_string(&back).await.is_ok_and(|found| found == content));
}

/// A container that joins a pod that runs, and sees the processes of another.
pub(crate) async fn debug(machine: &Machine) {
    let image = format!("--image={IMAGE}");
    machine.told(&["debug", "first", &image, "-c", "doctor", "--target=first", "--", "sleep", "1000"]).await;
    let runs = |pod: &Value| pod["status"]["ephemeralContainerStatuses"][0]["state"]["running"].is_object();
    let pod = machine.until("its doctor has come", &["pod", "first"], runs).await;
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], json!(0));
    let seen = machine.told(&["exec", "first", "-c", "doctor", "--", "ps"]).await;
    assert!(seen.contains("httpd -p 80"), "{seen}");
}
