//! What a namespace may use: ResourceQuotas and LimitRanges.

use std::collections::BTreeSet;

use k3sd_objects::names;
use k3sd_objects::quantity::{Format, Quantity};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

use super::Context;
use super::read::{At, Errors, IMMUTABLE};
use super::resources;

/// What of its namespace a quota can be narrowed to.
const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// What of it is asked for with `Exists` only.
const PLAIN_SCOPES: &[&str] =
    &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

/// Scopes of which no object is in both.
const OPPOSITES: &[(&str, &str)] = &[("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

/// What pods take, apart from their number.
const POD_AMOUNTS: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// The largest amount that is still counted in thousandths.
const MILLI_MAX: i64 = i64::MAX / 1000;

/// A ResourceQuota.
pub(super) fn check_quota(object: &At<'_>, context: &Context, out: &mut Errors) {
    check_quota_spec(&object.field("spec"), out);
    check_quota_status(object, object, context, out);
}

/// Amounts of a quota.
fn check_amounts(at: &At<'_>, list: &str, out: &mut Errors) {
    for (name, amount) in at.entries(list) {
        resources::check_quota_name(name, &amount, out);
        resources::check_amount(name, &amount, out);
    }
}

fn check_quota_spec(spec: &At<'_>, out: &mut Errors) {
    check_amounts(spec, "hard", out);
    for scope in spec.texts("scopes") {
        if !SCOPES.contains(&scope) {
            out.push(spec.invalid("scopes", "unsupported scope"));
        }
        for _ in outside(spec, scope) {
            out.push(spec.invalid("scopes", "unsupported scope applied to resource"));
        }
    }
    let scopes: BTreeSet<&str> = spec.texts("scopes").collect();
    check_opposites(spec, &scopes, out);
    if spec.has("scopeSelector") {
        check_scope_selector(spec, out);
    }
}

/// The resources of a quota that a scope has nothing to do with.
fn outside<'a>(spec: &At<'a>, scope: &'a str) -> impl Iterator<Item = &'a str> {
    let fits = move |name: &str| match scope {
        "BestEffort" => name == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            name == "pods" || POD_AMOUNTS.contains(&name)
        }
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => true,
    };
    spec.entries("hard")
        .map(|(name, _)| name)
        .filter(move |name| resources::is_standard_for_quotas(name) && !fits(name))
}

fn check_opposites(spec: &At<'_>, scopes: &BTreeSet<&str>, out: &mut Errors) {
    for (one, other) in OPPOSITES {
        if scopes.contains(one) && scopes.contains(other) {
            out.push(spec.invalid("scopes", "conflicting scopes"));
        }
    }
}

/// Scopes with operators. Upstream doesn't say which one of the list is wrong.
fn check_scope_selector(spec: &At<'_>, out: &mut Errors) {
    let selector = spec.field("scopeSelector");
    let path = selector.place("matchExpressions");
    let mut scopes = BTreeSet::new();
    for expression in selector.items("matchExpressions") {
        let expression = At { value: expression.value, path: path.clone() };
        let (scope, operator) = (expression.text("scopeName"), expression.text("operator"));
        if !SCOPES.contains(&scope) {
            out.push(expression.invalid("scopeName", "unsupported scope"));
        }
        for _ in outside(spec, scope) {
            let detail = "unsupported scope applied to resource";
            out.push(Error::invalid(&path, selector.value.clone(), detail));
        }
        if PLAIN_SCOPES.contains(&scope) && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            out.push(expression.invalid("operator", detail));
        }
        check_operator(&expression, operator, out);
        scopes.insert(scope);
    }
    check_opposites(spec, &scopes, out);
}

fn check_operator(expression: &At<'_>, operator: &str, out: &mut Errors) {
    match operator {
        "In" | "NotIn" => {
            if expression.count("values") == 0 {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                out.push(expression.required("values", detail));
            }
        }
        "Exists" | "DoesNotExist" => {
            if expression.count("values") > 0 {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                out.push(expression.invalid("values", detail));
            }
        }
        _ => out.push(expression.invalid("operator", "not a valid selector operator")),
    }
}

/// A ResourceQuota that takes the place of another: what it is about stays.
pub(super) fn update_quota(new: &At<'_>, old: &At<'_>, _: &Context, out: &mut Errors) {
    let (spec, before) = (new.field("spec"), old.field("spec"));
    check_quota_spec(&spec, out);
    let scopes = |spec: &At<'_>| spec.texts("scopes").map(str::to_owned).collect::<BTreeSet<_>>();
    if scopes(&spec) != scopes(&before) {
        out.push(spec.invalid("scopes", IMMUTABLE));
    }
}

/// The status of a ResourceQuota: what is used.
pub(super) fn check_quota_status(new: &At<'_>, _: &At<'_>, _: &Context, out: &mut Errors) {
    for list in ["hard", "used"] {
        check_amounts(&new.field("status"), list, out);
    }
}

/// A LimitRange.
pub(super) fn check_range(object: &At<'_>, _: &Context, out: &mut Errors) {
    let mut seen = BTreeSet::new();
    for limit in object.field("spec").items("limits") {
        check_type(&limit, out);
        if !seen.insert(limit.text("type")) {
            out.push(limit.duplicate("type"));
        }
        let mut keys = BTreeSet::new();
        for list in ["max", "min"] {
            check_names(&limit, list, &mut keys, out);
        }
        for list in ["default", "defaultRequest"] {
            if limit.text("type") != "Pod" {
                check_names(&limit, list, &mut keys, out);
            } else if limit.count(list) > 0 {
                out.push(limit.forbidden(list, "may not be specified when `type` is 'Pod'"));
            }
        }
        let storage = ["min", "max"].iter().any(|list| limit.field(list).has("storage"));
        if limit.text("type") == "PersistentVolumeClaim" && !storage {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            out.push(limit.required("limits", detail));
        }
        check_names(&limit, "maxLimitRequestRatio", &mut keys, out);
        for key in keys {
            check_order(&limit, key, out);
            check_ratio(&limit, key, out);
        }
    }
}

fn check_type(limit: &At<'_>, out: &mut Errors) {
    let before = out.len();
    limit.syntax("type", names::qualified_name, out);
    let kind = limit.text("type");
    if out.len() == before && !kind.contains('/') && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind) {
        out.push(limit.invalid("type", "must be a standard limit type or fully qualified"));
    }
}

fn check_names<'a>(limit: &At<'a>, list: &str, keys: &mut BTreeSet<&'a str>, out: &mut Errors) {
    for (name, amount) in limit.entries(list) {
        if ["Pod", "Container"].contains(&limit.text("type")) {
            resources::check_container_name(name, &amount, out);
        } else {
            resources::check_name(name, &amount, out);
        }
        keys.insert(name);
    }
}

/// An amount of a limit, where its type has a say in it.
fn amount(limit: &At<'_>, list: &str, key: &str) -> Option<Quantity> {
    let unheard = limit.text("type") == "Pod" && list.starts_with("default");
    (!unheard).then(|| limit.field(list).quantity(key)).flatten()
}

/// One amount has to be at most another: lists and words of both, and which one an error names and which it shows.
struct Order {
    lower: (&'static str, &'static str),
    upper: (&'static str, &'static str),
    named: &'static str,
    shown: &'static str,
}

/// A row for [`Order`].
const fn order(
    lower: (&'static str, &'static str),
    upper: (&'static str, &'static str),
    named: &'static str,
    shown: &'static str,
) -> Order {
    Order { lower, upper, named, shown }
}

/// How the amounts of a limit are ordered. That some errors show another amount than the one they name is upstream's.
const ORDERS: &[Order] = &[
    order(("min", "min value"), ("max", "max value"), "min", "min"),
    order(("min", "min value"), ("defaultRequest", "default request value"), "defaultRequest", "defaultRequest"),
    order(("defaultRequest", "default request value"), ("max", "max value"), "defaultRequest", "defaultRequest"),
    order(
        ("defaultRequest", "default request value"),
        ("default", "default limit value"),
        "defaultRequest",
        "defaultRequest",
    ),
    order(("min", "min value"), ("default", "default value"), "default", "min"),
    order(("default", "default value"), ("max", "max value"), "default", "max"),
];

fn place(limit: &At<'_>, list: &str, key: &str) -> Path {
    limit.place(list).key(key)
}

fn check_order(limit: &At<'_>, key: &str, out: &mut Errors) {
    for row in ORDERS {
        let (Some(lower), Some(upper)) = (amount(limit, row.lower.0, key), amount(limit, row.upper.0, key)) else {
            continue;
        };
        if lower > upper {
            let shown = if row.shown == row.lower.0 { lower } else { upper };
            let detail = format!("{} {lower} is greater than {} {upper}", row.lower.1, row.upper.1);
            out.push(Error::invalid(&place(limit, row.named, key), shown.to_string(), detail));
        }
    }
}

fn check_ratio(limit: &At<'_>, key: &str, out: &mut Errors) {
    let path = place(limit, "maxLimitRequestRatio", key);
    if let Some(ratio) = amount(limit, "maxLimitRequestRatio", key) {
        if ratio < Quantity::from_i64(1, Format::DecimalSi) {
            out.push(Error::invalid(&path, ratio.to_string(), format!("ratio {ratio} is less than 1")));
        }
        if let (Some(least), Some(most)) = (amount(limit, "min", key), amount(limit, "max", key)) {
            let (value, bound) = ratio_and_bound(ratio, least, most);
            if value > bound {
                let detail = format!("ratio {ratio} is greater than max/min = {bound:.6}");
                out.push(Error::invalid(&path, ratio.to_string(), detail));
            }
        }
    }
    let (set, asked) = (amount(limit, "default", key), amount(limit, "defaultRequest", key));
    if let (Some(set), Some(asked)) = (set, asked)
        && set != asked
        && !resources::may_overcommit(key)
    {
        let detail = format!("default value {set} must equal to defaultRequest value {asked} in {key}");
        out.push(Error::invalid(&place(limit, "defaultRequest", key), Value::from(asked.to_string()), detail));
    }
}

/// A ratio, and the one of largest to smallest amount; in thousandths where all are small enough for that.
#[expect(clippy::cast_precision_loss, reason = "amounts beyond 2^53 need not be told apart here")]
fn ratio_and_bound(ratio: Quantity, least: Quantity, most: Quantity) -> (f64, f64) {
    if [ratio, least, most].iter().all(|amount| amount.value() < MILLI_MAX) {
        (ratio.milli_value() as f64 / 1000.0, most.milli_value() as f64 / least.milli_value() as f64)
    } else {
        (ratio.value() as f64, most.value() as f64 / least.value() as f64)
    }
}

/// A LimitRange that takes the place of another.
pub(super) fn update_range(new: &At<'_>, _: &At<'_>, context: &Context, out: &mut Errors) {
    check_range(new, context, out);
}
