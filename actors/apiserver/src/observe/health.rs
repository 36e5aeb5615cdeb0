//! `/healthz`, `/livez` and `/readyz`: named checks, each of which can be asked for and left out.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use k3sd_apiserver_access::Query;
use k3sd_objects::status::go::quote;

/// How one check turns out: an error in words, for logs; clients are told that there was one.
type Ask = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// One named check.
#[derive(Clone)]
pub struct Check {
    name: String,
    /// Only whether the server takes requests depends on it, not whether it lives.
    ready_only: bool,
    ask: Ask,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Check {
    /// A check of all three. `ask` answers from memory; its error is never shown to clients.
    pub fn new(name: &str, ask: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), ready_only: false, ask: Arc::new(ask) }
    }

    /// The same, for `/readyz` alone.
    #[must_use]
    pub fn ready_only(self) -> Self {
        Self { ready_only: true, ..self }
    }
}

/// Which of the three is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`, which is older than the others.
    Health,
    /// `/livez`: whether a restart would help.
    Live,
    /// `/readyz`: whether requests are taken.
    Ready,
}

impl Probe {
    /// Its name in paths.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Health => "healthz",
            Self::Live => "livez",
            Self::Ready => "readyz",
        }
    }

    /// Reads a path such as `/readyz` or `/livez/ping`: which probe, and which check if it is about one.
    #[must_use]
    pub fn of_path(path: &str) -> Option<(Self, &str)> {
        let path = path.strip_prefix('/')?;
        let (word, check) = path.split_once('/').unwrap_or((path, ""));
        let probe = [Self::Health, Self::Live, Self::Ready].into_iter().find(|probe| probe.word() == word)?;
        Some((probe, check))
    }
}

/// All checks of a server, in the order in which they are shown.
#[derive(Clone, Debug, Default)]
pub struct Health(Vec<Check>);

/// What a probe answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl Health {
    /// These checks.
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self(checks)
    }

    fn of(&self, probe: Probe) -> impl Iterator<Item = &Check> {
        self.0.iter().filter(move |check| probe == Probe::Ready || !check.ready_only)
    }

    /// Whether every check of a probe passes.
    #[must_use]
    pub fn passes(&self, probe: Probe) -> bool {
        self.of(probe).all(|check| (check.ask)().is_ok())
    }

    /// The checks of a probe that fail, with the reason that clients are not told.
    #[must_use]
    pub fn failing(&self, probe: Probe) -> Vec<(String, String)> {
        self.of(probe).filter_map(|check| (check.ask)().err().map(|why| (check.name.clone(), why))).collect()
    }

    /// The checks of a probe, and whether each passes.
    pub(crate) fn each(&self, probe: Probe) -> impl Iterator<Item = (&str, bool)> {
        self.of(probe).map(|check| (check.name.as_str(), (check.ask)().is_ok()))
    }

    /// Answers a probe, whole or one check of it. `None` for a check that there isn't.
    pub(crate) fn answer(&self, probe: Probe, check: &str, query: &Query) -> Option<Verdict> {
        if !check.is_empty() {
            let found = self.of(probe).find(|known| known.name == check)?;
            return Some(match (found.ask)() {
                Ok(()) => Verdict { code: 200, text: "ok".to_owned() },
                Err(why) => Verdict { code: 500, text: format!("internal server error: {why}\n") },
            });
        }
        let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
        let (mut lines, mut failed) = (String::new(), Vec::new());
        for check in self.of(probe) {
            let name = &check.name;
            let result = if excluded.remove(name.as_str()) {
                writeln!(lines, "[+]{name} excluded: ok")
            } else {
                match (check.ask)() {
                    Ok(()) => writeln!(lines, "[+]{name} ok"),
                    Err(why) => {
                        failed.push(format!("{name}: {why}"));
                        writeln!(lines, "[-]{name} failed: reason withheld")
                    }
                }
            };
            result.expect("a string takes everything");
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| quote(name)).collect();
            let names = names.join(", ");
            writeln!(lines, "warn: some health checks cannot be excluded: no matches for {names}").expect("as above");
        }
        let word = probe.word();
        if !failed.is_empty() {
            tracing::debug!(probe = word, failed = failed.join("; "), "a probe failed");
            return Some(Verdict { code: 500, text: format!("{lines}{word} check failed\n") });
        }
        let verbose = query.first("verbose").is_some();
        let text = if verbose { format!("{lines}{word} check passed\n") } else { "ok".to_owned() };
        Some(Verdict { code: 200, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(vec![
            Check::new("ping", || Ok(())),
            Check::new("etcd", || Err("it is closed".to_owned())),
            Check::new("shutdown", || Ok(())).ready_only(),
        ])
    }

    fn ask(path: &str, query: &str) -> Option<(u16, String)> {
        let (probe, check) = Probe::of_path(path)?;
        health().answer(probe, check, &Query::parse(query)).map(|verdict| (verdict.code, verdict.text))
    }

    #[test]
    fn checks_are_named_left_out_and_asked_for() {
        for (path, query, code, text) in [
            ("/livez", "", 500, "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n"),
            ("/livez", "exclude=etcd", 200, "ok"),
            ("/livez", "exclude=etcd&verbose", 200, "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n"),
            (
                "/readyz",
                "verbose=1&exclude=etcd",
                200,
                "[+]ping ok\n[+]etcd excluded: ok\n[+]shutdown ok\nreadyz check passed\n",
            ),
            (
                "/healthz",
                "exclude=x&exclude=etcd&verbose",
                200,
                "[+]ping ok\n[+]etcd excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nhealthz check passed\n",
            ),
            ("/readyz/ping", "", 200, "ok"),
            ("/readyz/etcd", "", 500, "internal server error: it is closed\n"),
        ] {
            assert_eq!(ask(path, query), Some((code, text.to_owned())), "{path}?{query}");
        }
        assert_eq!(ask("/livez/shutdown", ""), None);
        assert_eq!(ask("/livezz", ""), None);
        assert!(!health().passes(Probe::Live));
    }
}
