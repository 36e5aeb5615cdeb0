//! Transcripts: commands for a shell, and what they print.
//!
//! ```text
//! # a remark
//! $ kubectl get configmap a -o jsonpath={.data.key}
//! value
//! $ kubectl get configmap b
//! Error from server (NotFound): configmaps "b" not found
//! [1]
//! ```
//!
//! Lines behind a command are what it prints on both streams, and its exit code in brackets unless that is 0. `<*>`
//! stands for any text within a line, `<...>` alone for any lines. A command goes on over lines that begin with `>`. The
//! first remark may say `flags:` and with what else the server is started, or `controllers:`: then its controllers run too, which
//! otherwise would do things of their own among those that a transcript is about.

use super::server::Server;

/// The API server without those who act on what is in it.
pub(crate) const ALONE: &[&str] =
    &["--disable-controller-manager", "--disable-cloud-controller", "--disable-scheduler"];

/// See the module's page.
pub(crate) struct Transcript<'a> {
    /// Further arguments of the server.
    pub(crate) flags: Vec<&'a str>,
    steps: Vec<Step<'a>>,
}

#[derive(Default)]
struct Step<'a> {
    /// Remarks and empty lines in front of it.
    before: Vec<&'a str>,
    command: Vec<&'a str>,
    wanted: Vec<&'a str>,
}

/// What came of a transcript.
pub(crate) struct Played {
    /// The transcript as it should be to hold; wildcards stay where they match.
    pub(crate) text: String,
    /// The first step that printed something else.
    pub(crate) difference: Option<String>,
}

impl<'a> Transcript<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut steps: Vec<Step<'a>> = Vec::new();
        let mut before = Vec::new();
        for line in text.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { before: std::mem::take(&mut before), command: vec![command], ..Step::default() });
            } else if line.starts_with("# ")
                || line.is_empty() && steps.last().is_none_or(|step| step.wanted.is_empty() || !before.is_empty())
            {
                before.push(line);
            } else if let Some(step) = steps.last_mut() {
                match line.strip_prefix("> ") {
                    Some(more) if step.wanted.is_empty() => step.command.push(more),
                    _ => step.wanted.push(line),
                }
            }
        }
        // Empty lines between two steps belong to no output.
        for step in &mut steps {
            while step.wanted.last() == Some(&"") {
                step.wanted.pop();
            }
        }
        let first = text.lines().next().unwrap_or_default();
        let mut flags: Vec<&str> = if first.starts_with("# controllers:") { Vec::new() } else { ALONE.to_vec() };
        flags.extend(first.strip_prefix("# flags:").unwrap_or_default().split_whitespace());
        Self { flags, steps }
    }

    /// Runs all commands, one after the other.
    pub(crate) fn play(&self, server: &Server) -> Played {
        let mut played = Played { text: String::new(), difference: None };
        for (index, step) in self.steps.iter().enumerate() {
            let command = step.command.join("\n");
            let (code, printed) = server.run(&command);
            let mut lines: Vec<&str> = printed.lines().collect();
            while lines.last() == Some(&"") {
                lines.pop();
            }
            let code = format!("[{code}]");
            if code != "[0]" {
                lines.push(&code);
            }
            let same = matches(&step.wanted, &lines);
            for line in &step.before {
                played.text += &format!("{line}\n");
            }
            if index > 0 && step.before.is_empty() {
                played.text += "\n";
            }
            played.text += &format!("$ {}\n", step.command.join("\n> "));
            for line in if same { &step.wanted } else { &lines } {
                played.text += &format!("{line}\n");
            }
            if !same && played.difference.is_none() {
                let (wanted, lines) = (step.wanted.join("\n"), lines.join("\n"));
                played.difference = Some(format!("$ {command}\n--- wanted\n{wanted}\n--- printed\n{lines}\n---"));
            }
        }
        played
    }
}

/// Whether lines are what was wanted, with the wildcards of the module's page.
fn matches(wanted: &[&str], lines: &[&str]) -> bool {
    match wanted.split_first() {
        None => lines.is_empty(),
        Some((&"<...>", rest)) => (0..=lines.len()).any(|skipped| matches(rest, &lines[skipped..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, others)| line_matches(first, line) && matches(rest, others))
        }
    }
}

/// How many spaces stand between two words doesn't count: columns are as wide as what stands in them.
fn line_matches(wanted: &str, line: &str) -> bool {
    text_matches(&squeezed(wanted), &squeezed(line))
}

/// The line with single spaces between its words. What it begins with stays.
fn squeezed(line: &str) -> String {
    let words = line.trim_start_matches(' ');
    let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
    let indent = line.len() - line.trim_start_matches(' ').len();
    format!("{}{}", " ".repeat(indent), words.join(" "))
}

fn text_matches(wanted: &str, line: &str) -> bool {
    let Some((start, rest)) = wanted.split_once("<*>") else { return wanted == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    (0..=line.len()).filter(|at| line.is_char_boundary(*at)).any(|at| text_matches(rest, &line[at..]))
}
