//! `--print-config`: what each flag is set to and by whom.
//!
//! The text is YAML with the origin behind each value, so that it can be compared and, secrets aside, used again as a
//! config file.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::cli::flag::{DefaultValue, Kind};
use crate::config::available::is_unavailable;
use crate::config::build::PrintFormat;
use crate::config::origin::Origin;
use crate::config::redact::shown;
use crate::config::scalar;
use crate::config::settings::{Given, Setting, Settings};

/// Column of the comments.
const COMMENT_COLUMN: usize = 48;

/// Writes the settings down. `files` are the config files that were read, in order.
pub(crate) fn print(settings: &Settings, files: &[String], format: PrintFormat) -> String {
    match format {
        PrintFormat::Text => text(settings, files),
        PrintFormat::Json => {
            let document = json(settings, files);
            format!("{document:#}\n")
        }
    }
}

/// The settings worth a line: hidden flags only if somebody uses them.
fn visible(settings: &Settings) -> impl Iterator<Item = &Setting> {
    settings.all.iter().filter(|setting| !setting.flag.hidden || setting.is_set())
}

fn text(settings: &Settings, files: &[String]) -> String {
    let mut out = String::new();
    let files = if files.is_empty() { "none".to_owned() } else { files.join(", ") };
    line(&mut out, format!("# config files: {files}"));
    for warning in &settings.warnings {
        line(&mut out, format!("# warning: {warning}"));
    }
    let mut heading = None;
    for setting in visible(settings) {
        if heading != Some(setting.flag.heading) {
            heading = Some(setting.flag.heading);
            line(&mut out, format!("\n# {}", setting.flag.heading.title()));
        }
        setting_text(&mut out, settings, setting);
    }
    out
}

fn setting_text(out: &mut String, settings: &Settings, setting: &Setting) {
    let flag = setting.flag;
    let unavailable = if is_unavailable(settings, setting) { ", not available yet" } else { "" };
    let value = |given: &Given| scalar_text(flag.kind, &shown(flag, &given.text));
    let comment = |given: &Given| format!("{}{unavailable}", given.origin);
    match (flag.kind, setting.given.as_slice(), flag.default) {
        (_, [], DefaultValue::Text(text)) => {
            commented(out, format!("{}: {}", flag.name, scalar_text(flag.kind, text)), "default");
        }
        (_, [], DefaultValue::Derived(words)) => line(out, format!("# {}: {words}", flag.name)),
        (_, [], DefaultValue::Unset) => line(out, format!("# {}: not set", flag.name)),
        (Kind::List, items, _) => {
            line(out, format!("{}:", flag.name));
            for item in items {
                commented(out, format!("- {}", value(item)), &comment(item));
            }
        }
        (_, [.., given], _) => commented(out, format!("{}: {}", flag.name, value(given)), &comment(given)),
    }
}

fn line(out: &mut String, text: impl AsRef<str>) {
    out.push_str(text.as_ref());
    out.push('\n');
}

fn commented(out: &mut String, text: impl AsRef<str>, comment: &str) {
    writeln!(out, "{:COMMENT_COLUMN$} # {comment}", text.as_ref()).expect("writing to a string never fails");
}

/// A value as YAML that reads back as the same text.
fn scalar_text(kind: Kind, text: &str) -> String {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(plain)
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match kind {
        Kind::Bool | Kind::Int => text.to_owned(),
        _ if is_plain => text.to_owned(),
        _ => Value::from(text).to_string(),
    }
}

fn json(settings: &Settings, files: &[String]) -> Value {
    let settings_json: Vec<Value> = visible(settings).map(|setting| setting_json(settings, setting)).collect();
    json!({
        "command": settings.role.name(),
        "configFiles": files,
        "warnings": settings.warnings,
        "settings": settings_json,
    })
}

fn setting_json(settings: &Settings, setting: &Setting) -> Value {
    let flag = setting.flag;
    let given: Vec<Value> = setting
        .given
        .iter()
        .map(|given| {
            let value = scalar_json(flag.kind, &shown(flag, &given.text));
            json!({"value": value, "origin": origin_json(&given.origin)})
        })
        .collect();
    let values: Vec<Value> = given.iter().map(|given| given["value"].clone()).collect();
    let value = match (flag.kind, setting.given.is_empty(), flag.default) {
        (_, true, DefaultValue::Text(text)) => scalar_json(flag.kind, text),
        (Kind::List, _, _) => Value::from(values),
        (_, true, _) => Value::Null,
        (_, false, _) => values.last().cloned().unwrap_or_default(),
    };
    let mut row = json!({
        "flag": flag.name,
        "value": value,
        "given": given,
        "available": !is_unavailable(settings, setting),
    });
    if let DefaultValue::Derived(words) = flag.default {
        row["derived"] = words.into();
    }
    row
}

fn scalar_json(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Bool => scalar::parse_bool(text).map_or_else(|_| text.into(), Value::from),
        Kind::Int => scalar::parse_int(text).map_or_else(|_| text.into(), Value::from),
        _ => text.into(),
    }
}

fn origin_json(origin: &Origin) -> Value {
    match origin {
        Origin::Default => json!({"kind": "default"}),
        Origin::Variable(name) => json!({"kind": "env", "name": name}),
        Origin::File { path, line, key } => {
            json!({"kind": "file", "path": path.display().to_string(), "line": line, "key": &**key})
        }
        Origin::CommandLine => json!({"kind": "flag"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_as_the_same_text() {
        let rows = [
            (Kind::Text, "cluster.local", "cluster.local"),
            (Kind::Text, "/var/lib/x", "/var/lib/x"),
            (Kind::Text, "0 */12 * * *", "\"0 */12 * * *\""),
            (Kind::Text, "yes", "\"yes\""),
            (Kind::Text, "a: b", "\"a: b\""),
            (Kind::Text, "-", "\"-\""),
            (Kind::Text, "", "\"\""),
            (Kind::Mode, "0600", "\"0600\""),
            (Kind::Int, "6443", "6443"),
            (Kind::Bool, "true", "true"),
            (Kind::List, "10.42.0.0/16", "\"10.42.0.0/16\""),
        ];
        for (kind, text, expected) in rows {
            assert_eq!(scalar_text(kind, text), expected);
        }
    }
}
