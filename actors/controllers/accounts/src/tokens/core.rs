//! What Secrets with tokens hold, and how long: pure.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};

/// The account that a Secret is for.
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// The entries of a Secret.
const TOKEN: &str = "token";
const AUTHORITY: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
/// The day on which a token was last used, which the API server writes.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since which a token isn't believed any more.
pub(super) const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Who made the tokens of Secrets.
const ISSUER: &str = "kubernetes/serviceaccount";

/// Name and uid of the account that a Secret is for; the uid is empty if it isn't said. `None` if there is no name.
pub(super) fn named(secret: &Secret) -> Option<(&str, &str)> {
    let annotations = secret.metadata.annotations.as_ref()?;
    let name = annotations.get(NAME).filter(|name| !name.is_empty())?;
    Some((name, annotations.get(UID).map(String::as_str).unwrap_or_default()))
}

/// What the token of an account says that is kept in a Secret of this name.
pub(super) fn claims(account: &ServiceAccount, secret: &str) -> Value {
    let meta = &account.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    json!({
        "iss": ISSUER,
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": meta.uid.as_deref().unwrap_or_default(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

/// The Secret with all that it should hold; `None` if it holds that.
///
/// # Errors
/// The token couldn't be signed, and why.
pub(super) fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    authority: &str,
    sign: impl FnOnce() -> Result<String, String>,
) -> Result<Option<Secret>, String> {
    let held = |entry: &str| secret.data.as_ref().and_then(|data| data.get(entry)).map(|value| value.0.as_slice());
    let is_empty = |entry: &str| held(entry).is_none_or(<[u8]>::is_empty);
    let lacks_authority = !authority.is_empty() && held(AUTHORITY) != Some(authority.as_bytes());
    if !lacks_authority && !is_empty(NAMESPACE) && !is_empty(TOKEN) {
        return Ok(None);
    }
    let mut filled = secret.clone();
    let data = filled.data.get_or_insert_default();
    let mut put = |entry: &str, text: &str| _ = data.insert(entry.to_owned(), ByteString(text.as_bytes().to_vec()));
    if lacks_authority {
        put(AUTHORITY, authority);
    }
    if is_empty(NAMESPACE) {
        put(NAMESPACE, secret.metadata.namespace.as_deref().unwrap_or_default());
    }
    if is_empty(TOKEN) {
        put(TOKEN, &sign()?);
    }
    let annotations = filled.metadata.annotations.get_or_insert_default();
    annotations.insert(NAME.to_owned(), account.metadata.name.clone().unwrap_or_default());
    annotations.insert(UID.to_owned(), account.metadata.uid.clone().unwrap_or_default());
    Ok(Some(filled))
}

/// The account without references to a Secret; `None` if there are none.
pub(super) fn without_reference(account: &ServiceAccount, secret: &str) -> Option<ServiceAccount> {
    refers(account, secret).then(|| {
        let mut without = account.clone();
        if let Some(secrets) = without.secrets.as_mut() {
            secrets.retain(|reference| reference.name.as_deref() != Some(secret));
        }
        without
    })
}

/// Whether a Secret was made by itself, which its account tells by referring to it.
pub(super) fn refers(account: &ServiceAccount, secret: &str) -> bool {
    account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(secret))
}

/// What becomes of a token that may be unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays, whatever happens to the clock.
    Stays,
    /// Not before then.
    Until(Timestamp),
    /// It is marked as invalid, since this day.
    Marked(Date),
    /// It is deleted.
    Deleted,
}

/// What the time says about a Secret. Uses are noted since the day `tracked`; `period` is how long one may lie unused, and
/// then be marked. Whether somebody still needs it is another question, to be asked unless it stays.
pub(super) fn fate(secret: &Secret, tracked: Date, period: SignedDuration, now: Timestamp) -> Fate {
    let meta = &secret.metadata;
    if meta.deletion_timestamp.is_some() {
        return Fate::Stays;
    }
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    let created = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |created| created.0);
    let mut due = vec![after(created, period), next_day(tracked).map_or(Timestamp::MAX, |day| after(day, period))];
    match label(LAST_USED).map(day) {
        // Nobody can tell.
        Some(None) => return Fate::Stays,
        Some(Some(used)) => due.push(next_day(used).map_or(Timestamp::MAX, |day| after(day, period))),
        None => {}
    }
    let marked = label(INVALID_SINCE).and_then(day);
    due.extend(marked.map(|marked| next_day(marked).map_or(Timestamp::MAX, |day| after(day, period))));
    match due.into_iter().max().filter(|due| *due > now) {
        Some(due) => Fate::Until(due),
        None if marked.is_some() => Fate::Deleted,
        None => Fate::Marked(now.to_zoned(TimeZone::UTC).date()),
    }
}

/// A day as labels have it.
pub(super) fn day(text: &str) -> Option<Date> {
    // Exactly ten characters, as Go wants it.
    Date::strptime("%Y-%m-%d", text).ok().filter(|date| date.to_string() == text)
}

/// Where the day behind a day begins.
fn next_day(day: Date) -> Option<Timestamp> {
    let next = day.checked_add(1.day()).ok()?;
    next.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

/// The first moment at which a span is over.
fn after(moment: Timestamp, span: SignedDuration) -> Timestamp {
    moment.checked_add(span).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> ServiceAccount {
        let account = json!({"metadata": {"namespace": "n", "name": "a", "uid": "1"}, "secrets": [{"name": "s"}]});
        serde_json::from_value(account).expect("an account")
    }

    fn secret(data: &[(&str, &str)]) -> Secret {
        let mut secret: Secret = serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "s",
            "annotations": {"kubernetes.io/service-account.name": "a"}}}))
        .expect("a Secret");
        let data = data.iter().map(|(name, text)| ((*name).to_owned(), ByteString(text.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    fn texts(secret: &Secret) -> Vec<String> {
        let data = secret.data.iter().flatten();
        data.map(|(name, text)| format!("{name}={}", String::from_utf8_lossy(&text.0))).collect()
    }

    #[test]
    fn what_a_secret_lacks_is_put_into_it() {
        let signed = || Ok("T".to_owned());
        let whole = ["ca.crt=PEM", "namespace=n", "token=T"];
        for (held, expected) in [
            (&[] as &[(&str, &str)], &whole as &[&str]),
            (&[("token", "mine"), ("x", "y")], &["ca.crt=PEM", "namespace=n", "token=mine", "x=y"]),
            (
                &[("ca.crt", "old"), ("namespace", "other"), ("token", "T")],
                &["ca.crt=PEM", "namespace=other", "token=T"],
            ),
            (&[("ca.crt", "PEM"), ("namespace", "n"), ("token", "")], &whole),
        ] {
            let filled = filled(&secret(held), &account(), "PEM", signed).expect("signed").expect("it changes");
            assert_eq!(texts(&filled), expected, "{held:?}");
            assert_eq!(named(&filled), Some(("a", "1")));
            assert_eq!(super::filled(&filled, &account(), "PEM", signed), Ok(None), "once is enough");
        }
        let filled = filled(&secret(&[]), &account(), "", signed).expect("signed").expect("it changes");
        assert_eq!(texts(&filled), ["namespace=n", "token=T"], "no authority is known");
        let refused = super::filled(&secret(&[]), &account(), "PEM", || Err("no key".to_owned()));
        assert_eq!(refused, Err("no key".to_owned()));
    }

    #[test]
    fn a_token_says_whose_it_is_and_where_it_is_kept() {
        let claims = claims(&account(), "s");
        let of = |name: &str| claims[format!("kubernetes.io/serviceaccount/{name}")].as_str().unwrap_or_default();
        assert_eq!((claims["iss"].as_str(), claims["sub"].as_str()), (Some(ISSUER), Some("system:serviceaccount:n:a")));
        assert_eq!(
            ["namespace", "secret.name", "service-account.name", "service-account.uid"].map(of),
            ["n", "s", "a", "1"]
        );
        assert_eq!(claims.as_object().map(serde_json::Map::len), Some(6));
    }

    #[test]
    fn references_to_what_is_gone_are_dropped() {
        assert_eq!(without_reference(&account(), "other"), None);
        assert_eq!(without_reference(&account(), "s").and_then(|account| account.secrets), Some(Vec::new()));
    }

    #[test]
    fn unused_tokens_are_marked_after_a_year_and_go_after_another() {
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let until = |text: &str| Fate::Until(at(text));
        let day = |text: &str| super::day(text).expect("a day");
        let year = SignedDuration::from_hours(8760);
        let now = at("2030-06-01T12:00:00Z");
        for (created, tracked, used, marked, expected) in [
            ("2020-01-01T00:00:00Z", "2025-01-01", None, None, Fate::Marked(day("2030-06-01"))),
            ("2020-01-01T00:00:00Z", "2029-06-01", None, None, until("2030-06-02T00:00:00Z")),
            ("2029-06-01T12:00:01Z", "2025-01-01", None, None, until("2030-06-01T12:00:01Z")),
            ("2029-06-01T12:00:00Z", "2025-01-01", None, None, Fate::Marked(day("2030-06-01"))),
            ("2020-01-01T00:00:00Z", "2025-01-01", Some("2029-05-31"), None, Fate::Marked(day("2030-06-01"))),
            ("2020-01-01T00:00:00Z", "2025-01-01", Some("2029-06-01"), None, until("2030-06-02T00:00:00Z")),
            ("2020-01-01T00:00:00Z", "2025-01-01", Some("yesterday"), None, Fate::Stays),
            ("2020-01-01T00:00:00Z", "2025-01-01", Some("2029-6-1"), None, Fate::Stays),
            ("2020-01-01T00:00:00Z", "2025-01-01", None, Some("2029-05-31"), Fate::Deleted),
            ("2020-01-01T00:00:00Z", "2025-01-01", None, Some("2029-06-01"), until("2030-06-02T00:00:00Z")),
            ("2020-01-01T00:00:00Z", "2025-01-01", None, Some("soon"), Fate::Marked(day("2030-06-01"))),
            (
                "2020-01-01T00:00:00Z",
                "2025-01-01",
                Some("2030-01-01"),
                Some("2028-01-01"),
                until("2031-01-02T00:00:00Z"),
            ),
        ] {
            let mut secret = secret(&[]);
            secret.metadata.creation_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(created)));
            let labels = [(LAST_USED, used), (INVALID_SINCE, marked)];
            let labels = labels.iter().filter_map(|(name, text)| Some(((*name).to_owned(), (*text)?.to_owned())));
            secret.metadata.labels = Some(labels.collect());
            assert_eq!(fate(&secret, day(tracked), year, now), expected, "{created} {tracked} {used:?} {marked:?}");
        }
    }
}
