//! Conversion between versions: its strategy, and the webhook that it names.

use k3sd_objects::names::{dns_1035_label, dns_label, dns_subdomain, in_range};
use k3sd_objects::status::field::{Error, Path};
use serde_json::Value;

/// Reviews that the API server can send.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];

/// What is wrong with `spec.conversion`. `known_review` is whether a review that the API server can send must be listed;
/// a definition that never had one may stay so.
pub(super) fn validate(conversion: &Value, known_review: bool, path: &Path) -> Vec<Error> {
    if !conversion.is_object() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let strategy = conversion["strategy"].as_str().unwrap_or_default();
    match strategy {
        "None" | "Webhook" => {}
        "" => errors.push(Error::required(&path.child("strategy"), "")),
        other => errors.push(Error::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
    let client = &conversion["webhook"]["clientConfig"];
    let reviews = &conversion["webhook"]["conversionReviewVersions"];
    let (client_path, reviews_path) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_object() {
            errors.push(Error::forbidden(&client_path, detail));
        }
        if reviews.as_array().is_some_and(|reviews| !reviews.is_empty()) {
            errors.push(Error::forbidden(&reviews_path, detail));
        }
        return errors;
    }
    if client.is_object() {
        errors.extend(validate_client(client, &client_path));
    } else {
        errors.push(Error::required(&client_path, "required when strategy is set to Webhook"));
    }
    errors.extend(validate_reviews(reviews, known_review, &reviews_path));
    errors
}

fn validate_client(client: &Value, path: &Path) -> Vec<Error> {
    match (client["url"].as_str(), client.get("service").filter(|service| service.is_object())) {
        (Some(url), None) => validate_url(url, &path.child("url")),
        (None, Some(service)) => validate_service(service, &path.child("service")),
        _ => vec![Error::required(path, "exactly one of url or service is required")],
    }
}

fn validate_url(url: &str, path: &Path) -> Vec<Error> {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut errors = Vec::new();
    let mut wrong = |shown: &str, what: String| errors.push(Error::invalid(path, shown, what + FORM));
    let Some((scheme, rest)) = url.split_once("://") else {
        wrong("", "'https' is the only allowed URL scheme".to_owned());
        wrong("", "host must be specified".to_owned());
        return errors;
    };
    if scheme != "https" {
        wrong(scheme, "'https' is the only allowed URL scheme".to_owned());
    }
    let (before, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let authority = before.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        wrong(host, "host must be specified".to_owned());
    }
    for (shown, what) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters not permitted in the URL"),
    ] {
        if !shown.is_empty() {
            errors.push(Error::invalid(path, shown, what));
        }
    }
    errors
}

fn validate_service(service: &Value, path: &Path) -> Vec<Error> {
    let text = |name: &str| service[name].as_str().unwrap_or_default();
    let mut errors = Vec::new();
    if text("name").is_empty() {
        errors.push(Error::required(&path.child("name"), "service name is required"));
    }
    if text("namespace").is_empty() {
        errors.push(Error::required(&path.child("namespace"), "service namespace is required"));
    } else if let Some(fault) = dns_label(text("namespace")).first() {
        errors.push(Error::invalid(&path.child("namespace"), text("namespace"), fault.clone()));
    }
    if let Some(port) = service["port"].as_i64().filter(|port| !in_range(*port, 1, 65_535).is_empty()) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&path.child("port"), port, detail));
    }
    let Some(url_path) = service["path"].as_str() else { return errors };
    let at = path.child("path");
    if url_path == "/" || url_path.is_empty() {
        return errors;
    }
    let Some(rest) = url_path.strip_prefix('/') else {
        errors.push(Error::invalid(&at, url_path, "must start with a '/'"));
        return errors;
    };
    for (index, step) in rest.trim_end_matches('/').split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, url_path, format!("segment[{index}] may not be empty")));
        } else {
            let faults = dns_subdomain(step);
            errors.extend(faults.iter().map(|fault| {
                let detail = format!("segment[{index}]: {fault}");
                Error::invalid(&at, url_path, detail)
            }));
        }
    }
    errors
}

fn validate_reviews(reviews: &Value, known: bool, path: &Path) -> Vec<Error> {
    let names: Vec<&str> = reviews.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if names.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            errors.push(Error::invalid(&path.index(index), *name, "duplicate version"));
            continue;
        }
        errors.extend(dns_1035_label(name).into_iter().map(|fault| Error::invalid(&path.index(index), *name, fault)));
    }
    if known && !has_known_review(reviews) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(Error::invalid(path, reviews.clone(), detail));
    }
    errors
}

/// Whether a review that the API server can send is listed.
pub(super) fn has_known_review(reviews: &Value) -> bool {
    let mut names = reviews.as_array().into_iter().flatten().filter_map(Value::as_str);
    names.any(|name| REVIEW_VERSIONS.contains(&name))
}
