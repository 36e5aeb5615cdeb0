//! What a request says beside its object: the options of each verb, in the query or, for deletions, in a body.

use std::time::Duration;

use k3sd_apiserver_access::Query;
use k3sd_apiserver_store::VersionOptions;
use k3sd_objects::names;
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::{Qualified, Status, go};
use serde_json::{Map, Value, json};

/// The group of the options' kinds.
const META: &str = "meta.k8s.io";

/// What happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// Options of create, update and patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    /// Empty if the request names none.
    pub(crate) field_manager: String,
    pub(crate) field_validation: FieldValidation,
    pub(crate) force: Option<bool>,
    kind: &'static str,
}

impl WriteOptions {
    /// Reads the query. `kind` is what errors call the options, such as `CreateOptions`.
    pub(crate) fn parse(query: &Query, kind: &'static str, is_apply: bool) -> Result<Self, Status> {
        let text = |name| query.first(name).unwrap_or_default();
        let (dry_run, manager, validation) = (text("dryRun"), text("fieldManager"), text("fieldValidation"));
        let force = query.first("force").map(|_| query.is_on("force"));
        let mut errors = if kind == "PatchOptions" {
            k3sd_objects::apply::check_patch_options(is_apply, manager, force)
        } else {
            names::check_field_manager(manager, &Path::new("fieldManager"))
        };
        errors.extend(check_dry_run(dry_run));
        let field_validation = match validation {
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            other => {
                let place = Path::new("fieldValidation");
                errors.push(Error::not_supported(&place, other, &["Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        refuse(kind, &errors)?;
        let field_manager = manager.to_owned();
        Ok(Self { dry_run: !dry_run.is_empty(), field_manager, field_validation, force, kind })
    }

    /// As the object that admission is shown.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = options_object(self.kind, self.dry_run);
        if !self.field_manager.is_empty() {
            value.insert("fieldManager".to_owned(), json!(self.field_manager));
        }
        let validation = match self.field_validation {
            FieldValidation::Ignore => "Ignore",
            FieldValidation::Warn => "Warn",
            FieldValidation::Strict => "Strict",
        };
        value.insert("fieldValidation".to_owned(), json!(validation));
        if let Some(force) = self.force {
            value.insert("force".to_owned(), json!(force));
        }
        Value::Object(value)
    }
}

fn options_object(kind: &str, dry_run: bool) -> Map<String, Value> {
    let mut value = Map::new();
    value.insert("apiVersion".to_owned(), json!(format!("{META}/v1")));
    value.insert("kind".to_owned(), json!(kind));
    if dry_run {
        value.insert("dryRun".to_owned(), json!(["All"]));
    }
    value
}

fn check_dry_run(value: &str) -> Option<Error> {
    let wrong = !matches!(value, "" | "All");
    wrong.then(|| Error::not_supported(&Path::new("dryRun"), json!([value]), &["All"]))
}

fn refuse(kind: &str, errors: &[Error]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(Qualified::new(META, kind), "", errors)) }
}

/// What becomes of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

const PROPAGATIONS: &[(&str, Propagation)] = &[
    ("Foreground", Propagation::Foreground),
    ("Background", Propagation::Background),
    ("Orphan", Propagation::Orphan),
];

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    pub(crate) dry_run: bool,
    /// Negative ones have become 1.
    pub(crate) grace_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    /// The old form of `propagation`.
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
}

impl DeleteOptions {
    /// Reads the query of a deletion without a body.
    pub(crate) fn from_query(query: &Query) -> Result<Self, Status> {
        let mut fields = Map::new();
        if let Some(grace) = number(query, "gracePeriodSeconds")? {
            fields.insert("gracePeriodSeconds".to_owned(), json!(grace));
        }
        for name in ["propagationPolicy", "dryRun"] {
            if let Some(value) = query.first(name).filter(|value| !value.is_empty()) {
                let value = if name == "dryRun" { json!([value]) } else { json!(value) };
                fields.insert(name.to_owned(), value);
            }
        }
        if query.first("orphanDependents").is_some() {
            fields.insert("orphanDependents".to_owned(), json!(query.is_on("orphanDependents")));
        }
        Self::from_value(&Value::Object(fields))
    }

    /// Reads an object of the kind, whose types were checked.
    pub(crate) fn from_value(value: &Value) -> Result<Self, Status> {
        let mut errors = Vec::new();
        let place = Path::new("propagationPolicy");
        let policy = value.get("propagationPolicy").and_then(Value::as_str);
        let orphan_dependents = value.get("orphanDependents").and_then(Value::as_bool);
        if let (Some(policy), Some(_)) = (policy, orphan_dependents) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&place, policy, detail));
        }
        let propagation = policy.map(|policy| PROPAGATIONS.iter().find(|(name, _)| *name == policy));
        if let (Some(None), Some(policy)) = (propagation, policy) {
            errors.push(Error::not_supported(&place, policy, &["Foreground", "Background", "Orphan", "nil"]));
        }
        let dry_run: Vec<&str> =
            value.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        errors.extend(dry_run.iter().find_map(|value| check_dry_run(value)));
        refuse("DeleteOptions", &errors)?;
        let precondition = |name: &str| {
            let found = value.get("preconditions").and_then(|preconditions| preconditions.get(name));
            found.and_then(Value::as_str).map(str::to_owned)
        };
        let grace = value.get("gracePeriodSeconds").and_then(Value::as_i64);
        Ok(Self {
            dry_run: !dry_run.is_empty(),
            grace_seconds: grace.map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation: propagation.flatten().map(|(_, propagation)| *propagation),
            orphan_dependents,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        })
    }

    /// As the object that admission is shown.
    pub(crate) fn to_value(&self) -> Value {
        let mut value = options_object("DeleteOptions", self.dry_run);
        if let Some(seconds) = self.grace_seconds {
            value.insert("gracePeriodSeconds".to_owned(), json!(seconds));
        }
        if let Some((name, _)) = PROPAGATIONS.iter().find(|(_, found)| Some(*found) == self.propagation) {
            value.insert("propagationPolicy".to_owned(), json!(name));
        }
        if let Some(orphan) = self.orphan_dependents {
            value.insert("orphanDependents".to_owned(), json!(orphan));
        }
        let mut preconditions = Map::new();
        for (name, wanted) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(wanted) = wanted {
                preconditions.insert(name.to_owned(), json!(wanted));
            }
        }
        if !preconditions.is_empty() {
            value.insert("preconditions".to_owned(), Value::Object(preconditions));
        }
        Value::Object(value)
    }
}

/// A number in the query; absent and empty are none.
pub(crate) fn number(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.first(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(number) => Ok(Some(number)),
        Err(error) => {
            let range = matches!(
                std::num::ParseIntError::kind(&error),
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow
            );
            let why = if range { "value out of range" } else { "invalid syntax" };
            Err(Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go::quote(text))))
        }
    }
}

/// Options of lists and watches, selectors aside.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListOptions<'a> {
    pub(crate) versions: VersionOptions<'a>,
    /// Zero and less are none.
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<&'a str>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) bookmarks: bool,
}

impl<'a> ListOptions<'a> {
    /// Reads the query.
    pub(crate) fn parse(query: &'a Query) -> Result<Self, Status> {
        let text = |name| query.first(name).unwrap_or_default();
        let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        let timeout = number(query, "timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        let continue_token = query.first("continue").filter(|token| !token.is_empty());
        let versions = VersionOptions {
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            limited: limit.is_some(),
            continued: continue_token.is_some(),
            send_initial_events: query.first("sendInitialEvents").map(|_| query.is_on("sendInitialEvents")),
        };
        Ok(Self {
            versions,
            limit,
            continue_token,
            timeout: timeout.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            bookmarks: query.is_on("allowWatchBookmarks"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, error) in [
            ("x", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("99999999999999999999", "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"),
        ] {
            let query = Query::parse(&format!("limit={text}"));
            let status = ListOptions::parse(&query).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (400, error));
        }
        let query = Query::parse("limit=-1&timeoutSeconds=5&sendInitialEvents=&continue=");
        let options = ListOptions::parse(&query).unwrap();
        assert_eq!((options.limit, options.timeout), (None, Some(Duration::from_secs(5))));
        assert_eq!((options.versions.send_initial_events, options.continue_token), (Some(true), None));
    }

    #[test]
    fn options_of_writes_are_checked() {
        for (query, kind, error) in [
            ("dryRun=All&fieldManager=me&fieldValidation=Strict", "CreateOptions", ""),
            (
                "fieldValidation=x",
                "CreateOptions",
                "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \
                 \"Ignore\", \"Strict\", \"Warn\"",
            ),
            (
                "force=true",
                "PatchOptions",
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ),
        ] {
            let error_of = WriteOptions::parse(&Query::parse(query), kind, false).err();
            assert_eq!(error_of.map_or_else(String::new, |status| status.message), error, "{query}");
        }
        let wrong = WriteOptions::parse(&Query::parse("dryRun=Some"), "UpdateOptions", false).unwrap_err();
        assert_eq!(wrong.code, 422);
        assert!(wrong.message.contains("dryRun: Unsupported value"), "{}", wrong.message);
    }

    #[test]
    fn deletions_say_one_thing_about_dependents() {
        let both = json!({ "propagationPolicy": "Orphan", "orphanDependents": true });
        assert_eq!(
            DeleteOptions::from_value(&both).unwrap_err().message,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents \
             and deletionPropagation cannot be both set"
        );
        let options = DeleteOptions::from_query(&Query::parse("gracePeriodSeconds=-5&propagationPolicy=Foreground"));
        let options = options.unwrap();
        assert_eq!((options.grace_seconds, options.propagation), (Some(1), Some(Propagation::Foreground)));
        let unknown = DeleteOptions::from_query(&Query::parse("propagationPolicy=Some")).unwrap_err();
        assert!(unknown.message.ends_with("\"Foreground\", \"Background\", \"Orphan\", \"nil\""), "{unknown}");
    }
}
