//! Users' templates of the engine's configuration: the part of Go's template language that such files are made of.
//!
//! There are `{{ .Field.Field }}`, `$` and variables, `if`, `else if`, `else`, `with`, `range`, `template "base"`,
//! comments, trimming by `{{-` and `-}}`, pipelines, and the functions in [`call`](functions::call). Whatever else Go has
//! (`define`, `block`, `break`, methods) is refused by its name, with line and column.

mod functions;
mod lex;
mod parse;
mod run;

use serde_json::Value;
use thiserror::Error;

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct TemplateError {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Executes a template; `base` is what `{{ template "base" . }}` stands for.
pub(crate) fn execute(text: &str, base: &str, data: &Value) -> Result<String, TemplateError> {
    let at = |fault: Fault| {
        let before = text.get(..fault.at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        TemplateError { line, column, reason: fault.reason }
    };
    let parts = lex::split(text).map_err(at)?;
    let nodes = parse::parse(&parts).map_err(at)?;
    run::run(&nodes, base, data).map_err(at)
}

/// What is wrong, at a byte of the template.
#[derive(Debug)]
struct Fault {
    at: usize,
    reason: String,
}

impl Fault {
    fn new(at: usize, reason: impl Into<String>) -> Self {
        Self { at, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data() -> Value {
        json!({
            "NodeConfig": { "Containerd": { "Root": "/r", "Empty": "" }, "List": ["a", "b"], "Map": {"y": 2, "x": 1} },
            "Yes": true, "No": false, "Name": "a\"b",
        })
    }

    #[test]
    fn what_users_write_is_executed() {
        let cases = [
            ("{{ template \"base\" . }}\n[x]\n", "BASE\n[x]\n"),
            ("a {{- /* remark */ -}} b", "ab"),
            ("r = \"{{ .NodeConfig.Containerd.Root }}\"", "r = \"/r\""),
            ("{{ if .Yes }}1{{ else }}2{{ end }}", "1"),
            ("{{ if .No }}1{{ else if not .No }}2{{ else }}3{{ end }}", "2"),
            ("{{ if and .Yes (eq .NodeConfig.Containerd.Root \"/r\" \"/q\") }}1{{ end }}", "1"),
            ("{{ range .NodeConfig.List }}<{{ . }}>{{ end }}", "<a><b>"),
            ("{{ range $i, $e := .NodeConfig.List }}{{ $i }}{{ $e }}{{ $.Yes }} {{ end }}", "0atrue 1btrue "),
            ("{{ range $k, $v := .NodeConfig.Map }}{{ $k }}={{ $v }};{{ end }}", "x=1;y=2;"),
            ("{{ range .NodeConfig.Containerd.Empty }}x{{ else }}none{{ end }}", "none"),
            ("{{ with .NodeConfig.Containerd }}{{ .Root }}{{ end }}{{ with .No }}x{{ else }}y{{ end }}", "/ry"),
            ("{{ $x := printf \"%s-%d-%q\" .NodeConfig.Containerd.Root 7 .Name }}{{ $x }}", "/r-7-\"a\\\"b\""),
            ("{{ $x := 1 }}{{ if .Yes }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
            ("{{ .Name | printf \"%q\" }}{{ len .NodeConfig.List }}{{ index .NodeConfig.List 1 }}", "\"a\\\"b\"2b"),
            ("{{ deschemify \"https://a.example/v2\" }}{{ toJson .NodeConfig.List }}", "a.example/v2[\"a\",\"b\"]"),
            ("{{ filepathjoin .NodeConfig.Containerd.Root \"..\" \"b\" }}{{ or \"\" \"c\" }}", "/bc"),
            ("{{ `raw \"text\"` }}{{ \"a\\tb\" }}", "raw \"text\"a\tb"),
            ("a\n{{- if .Yes }}\nb\n{{- end }}\nc", "a\nb\nc"),
            ("{{ if lt 1 2 }}{{ if ge 2 2 }}{{ if ne \"a\" \"b\" }}z{{ end }}{{ end }}{{ end }}", "z"),
        ];
        for (text, wanted) in cases {
            assert_eq!(execute(text, "BASE", &data()).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let cases = [
            ("a\n b {{ .No", 2, 4, "the action is not closed"),
            ("{{ .Yes.Deeper }}", 1, 4, "Deeper"),
            ("\n{{ .Nothing }}", 2, 4, "there is no field \"Nothing\""),
            ("{{ if .Yes }}", 1, 4, "no {{ end }}"),
            ("{{ end }}", 1, 4, "{{ end }} without"),
            ("{{ shout .Name }}", 1, 4, "there is no function \"shout\""),
            ("{{ define \"x\" }}{{ end }}", 1, 4, "define"),
            ("{{ template \"other\" . }}", 1, 13, "other"),
            ("{{ $x }}", 1, 4, "$x"),
            ("{{ \"open }}", 1, 4, "not closed"),
            ("{{ index .NodeConfig.List 9 }}", 1, 4, "index"),
            ("{{ ( .Yes }}", 1, 4, "(\" is not closed"),
            ("{{ }}", 1, 3, "empty"),
        ];
        for (text, line, column, reason) in cases {
            let error = execute(text, "", &data()).expect_err(text);
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
        }
    }
}
