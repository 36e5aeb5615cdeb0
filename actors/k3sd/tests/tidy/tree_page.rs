//! `supervisor-tree.md` against the tree that the binary reports about itself.
//!
//! The page holds the tree as a drawing and a table with a row per node. Drawing, paths, strategies and budgets must be
//! those of the running tree; why the order is so and what a restart costs is for people to write, and must be there.

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::arrows;
use crate::costs;
use crate::ports::free_port;

/// The least time a loaded machine may take to start an empty tree. Only a failure waits that long.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The part of the answer that does not change while the tree runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Actor {
    path: String,
    name: String,
    kind: String,
    restart: Option<String>,
    strategy: Option<String>,
    intensity: Option<Intensity>,
    children: Vec<Actor>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Intensity {
    restarts: u32,
    period_ms: u64,
}

impl Actor {
    /// What the page says of this node: of a supervisor its strategy and budget, of others what they are.
    fn description(&self) -> String {
        let budget = self.intensity.map(|Intensity { restarts, period_ms }| (restarts, period_ms));
        costs::description(self.strategy.as_deref(), budget, self.restart.as_deref(), &self.kind)
    }

    /// Children that belong to the shape: those of a dynamic supervisor come and go.
    fn fixed_children(&self) -> &[Self] {
        if self.strategy.as_deref() == Some("dynamic") { &[] } else { &self.children }
    }

    /// This node and all below it, in start order.
    fn all(&self) -> Vec<&Self> {
        let below = self.fixed_children().iter().flat_map(Self::all);
        std::iter::once(self).chain(below).collect()
    }

    /// Branch and name of each node, beside the node.
    fn branches(&self, branch: &str, below: &str, rows: &mut Vec<(String, String)>) {
        let name = if self.name.is_empty() { &self.path } else { &self.name };
        rows.push((format!("{branch}{name}"), self.description()));
        let children = self.fixed_children();
        for (at, child) in (1..).zip(children) {
            let (branch, deeper) = if at == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            child.branches(&format!("{below}{branch}"), &format!("{below}{deeper}"), rows);
        }
    }

    /// The drawing.
    fn drawing(&self) -> String {
        let mut rows = Vec::new();
        self.branches("", "", &mut rows);
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
        let line = |(name, description): &(String, String)| format!("{name:width$}  {description}");
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Where page and tree differ.
pub(crate) fn check(page: &str, root: &Actor) -> Vec<String> {
    // Of the measurements only whose they are can be right or wrong.
    let places = root.all().iter().map(|actor| (actor.path.clone(), actor.description())).collect();
    let mut findings = costs::findings(page, &places, |path| path != "agent" && !path.starts_with("agent/"));
    let (page, _) = costs::split(page);
    let drawing = root.drawing();
    if drawn(&page) != drawing {
        findings.push(format!("the drawing should be:\n```text\n{drawing}\n```"));
    }
    let rows = table(&page);
    let mut seen = BTreeSet::new();
    for row in &rows {
        let path = row[0].trim_matches('`');
        let Some(actor) = root.all().into_iter().find(|actor| actor.path == path) else {
            findings.push(format!("row {path}: there is no such actor"));
            continue;
        };
        if !seen.insert(path) {
            findings.push(format!("row {path}: is there twice"));
        }
        if row.len() != 5 || row.iter().any(String::is_empty) {
            findings.push(format!("row {path}: has five cells, none of them empty"));
            continue;
        }
        if !arrows::is_known(row[1].trim_matches('`')) {
            findings.push(format!("row {path}: {} is none of our crates", row[1]));
        }
        if row[2] != actor.description() {
            findings.push(format!("row {path}: says {:?}, the tree says {:?}", row[2], actor.description()));
        }
    }
    for actor in root.all().iter().filter(|actor| !seen.contains(actor.path.as_str())) {
        findings.push(format!("row {} is missing: {}", actor.path, actor.description()));
    }
    findings
}

/// The first fenced block of plain text.
fn drawn(page: &str) -> String {
    let lines = page.lines().skip_while(|line| *line != "```text").skip(1);
    lines.take_while(|line| *line != "```").collect::<Vec<_>>().join("\n")
}

/// The cells of each row of the table whose first column holds paths.
fn table(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// A daemon that ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Gone already is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The tree of a server that was just started, asked as an operator would.
pub(crate) fn running_tree() -> Actor {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (config, socket) = (home.path().join("config.yaml"), home.path().join("inspect.sock"));
    std::fs::write(&config, "").expect("an empty configuration, so that the machine's own has no say");
    let notify = home.path().join("notify.sock");
    let ready = UnixDatagram::bind(&notify).expect("a socket to be told on");
    ready.set_read_timeout(Some(START_LIMIT)).expect("a time limit above zero");

    let k3sd = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_k3sd"));
        command.env_clear().env("K3S_CONFIG_FILE", &config);
        command
    };
    let mut server = k3sd();
    server.args(["server", "--disable-agent", "--inspect-socket"]).arg(&socket).arg("--data-dir").arg(home.path());
    server.arg(format!("--https-listen-port={}", free_port())).arg(format!("--apiserver-port={}", free_port()));
    let daemon =
        Daemon(server.env("NOTIFY_SOCKET", &notify).stderr(Stdio::inherit()).spawn().expect("the binary runs"));
    let mut state = [0; 256];
    let length = ready.recv(&mut state).expect("the server says that it is ready");
    assert!(state[..length].starts_with(b"READY=1"), "{}", String::from_utf8_lossy(&state[..length]));

    let output = k3sd().args(["actors", "tree", "-o", "json", "--inspect-socket"]).arg(&socket).output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    drop(daemon);
    serde_json::from_slice(&output.stdout).expect("the answer is a tree")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Actor {
        serde_json::from_value(serde_json::json!({
            "path": "/", "name": "", "kind": "supervisor", "strategy": "one_for_one",
            "intensity": {"restarts": 5, "period_ms": 30_000},
            "children": [
                {"path": "inspector", "name": "inspector", "kind": "supervisor", "strategy": "rest_for_one",
                 "intensity": {"restarts": 3, "period_ms": 500}, "children": [
                    {"path": "inspector/guests", "name": "guests", "kind": "supervisor", "strategy": "dynamic",
                     "intensity": {"restarts": 1, "period_ms": 1000},
                     "children": [{"path": "inspector/guests/1", "name": "1", "kind": "task"}]},
                    {"path": "inspector/listener", "name": "listener", "kind": "task", "restart": "permanent"}]},
                {"path": "server", "name": "server", "kind": "worker", "restart": "transient"}]
        }))
        .unwrap()
    }

    const PAGE: &str = "# The tree

```text
/                one_for_one, 5 in 30 s
├─ inspector     rest_for_one, 3 in 500 ms
│  ├─ guests     dynamic, 1 in 1 s
│  └─ listener   permanent, task
└─ server        transient, worker
```

| Node | Owner | Strategy | Order | Cost |
|---|---|---|---|---|
| `/` | `k3sd` | one_for_one, 5 in 30 s | first | all |
| `inspector` | `k3sd-runtime` | rest_for_one, 3 in 500 ms | a | b |
| `inspector/guests` | `k3sd-runtime` | dynamic, 1 in 1 s | a | b |
| `inspector/listener` | `k3sd-runtime` | permanent, task | a | b |
| `server` | `k3sd` | transient, worker | a | b |

BEGIN
| Actor | Strategy | Back | A | B | C | Words |
|---|---|---|---|---|---|---|
| `/` | one_for_one, 5 in 30 s | 1 s | 0 | 0 | 0 | all |
| `agent/x` | permanent, task | 1 s | 0 | 0 | 0 | b |
| `inspector` | rest_for_one, 3 in 500 ms | 1 s | 0 | 0 | 0 | b |
| `inspector/guests` | dynamic, 1 in 1 s | 1 s | 0 | 0 | 0 | b |
| `inspector/guests/*` | temporary, task | 1 s | 0 | 0 | 0 | b |
| `inspector/listener` | permanent, task | 1 s | 0 | 0 | 0 | b |
| `server` | transient, worker | 1 s | 0 | 0 | 0 | b |
END
";

    fn page() -> String {
        let page = PAGE.replace("BEGIN", costs::BEGIN).replace("END", costs::END);
        page.replace(&drawn(PAGE), &tree().drawing())
    }

    #[test]
    fn an_equal_page_passes() {
        let drawing = tree().drawing();
        assert_eq!(check(&page(), &tree()), Vec::<String>::new());
        assert_eq!(drawing.lines().count(), 5, "the guests of a dynamic supervisor are not drawn: {drawing}");
        assert_eq!(drawing.lines().nth(3), Some("│  └─ listener  permanent, task"));
    }

    #[test]
    fn each_difference_is_found() {
        let page = page();
        for (from, to, finding) in [
            ("├─ inspector", "├─ inspektor", "the drawing should be"),
            ("| `server` | `k3sd` | transient, worker | a | b |\n", "", "row server is missing"),
            ("| `server` |", "| `sever` |", "no such actor"),
            (
                "| `server` | `k3sd` | transient",
                "| `server` | `k3sd` | permanent",
                "the tree says \"transient, worker\"",
            ),
            ("| one_for_one, 5 in 30 s |", "| one_for_one, 9 in 30 s |", "row /: says"),
            ("| first |", "| |", "none of them empty"),
            ("| `k3sd` | one", "| `k8sd` | one", "none of our crates"),
            ("| `server` | `k3sd`", "| `/` | `k3sd`", "is there twice"),
            (
                "| `server` | transient, worker | 1 s | 0 | 0 | 0 | b |\n",
                "",
                "costs of server (transient, worker) are missing",
            ),
            ("| `server` | transient", "| `server` | permanent", "costs of server: says"),
            (
                "| `server` | transient, worker | 1 s | 0",
                "| `server` | transient, worker | 1 s |",
                "costs of server: has 7",
            ),
            ("| `inspector/guests/*`", "| `inspector/hosts/*`", "costs of inspector/hosts/*: there is no such actor"),
        ] {
            assert!(page.contains(from), "{from}");
            let findings = check(&page.replace(from, to), &tree()).join("\n");
            assert!(findings.contains(finding), "{from} -> {to}: {findings:?}");
        }
    }
}
