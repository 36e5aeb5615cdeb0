//! What `resourceVersion`, `resourceVersionMatch` and their companions mean, combination by combination.

use k3sd_client::storage::Revision;
use k3sd_objects::status::field::{Error as FieldError, Path};
use k3sd_objects::status::{Qualified, Status};

use crate::query::{ReadAt, WatchFrom};

const EXACT: &str = "Exact";
const NOT_OLDER_THAN: &str = "NotOlderThan";

/// The options of a list or a watch that say how fresh its answer is, as the client wrote them.
#[derive(Clone, Copy, Debug, Default)]
pub struct VersionOptions<'a> {
    /// `resourceVersion`; empty if unset.
    pub resource_version: &'a str,
    /// `resourceVersionMatch`; empty if unset.
    pub version_match: &'a str,
    /// Whether the number of objects is limited.
    pub limited: bool,
    /// Whether it goes on from another page.
    pub continued: bool,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
}

/// Reads a `resourceVersion`; empty and `0` are zero.
///
/// # Errors
/// 400 for what is no number.
pub fn parse_revision(text: &str) -> Result<Revision, Status> {
    if text.is_empty() {
        return Ok(Revision::ZERO);
    }
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(Revision::new(number)),
        _ => {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let detail = format!("strconv.ParseUint: parsing {text:?}: {why}");
            let error = FieldError::invalid(&Path::new("resourceVersion"), text, detail);
            Err(Status::bad_request(error.to_string()))
        }
    }
}

impl ReadAt {
    /// How fresh a single object has to be.
    ///
    /// # Errors
    /// 400 for what is no number.
    pub fn for_get(resource_version: &str) -> Result<Self, Status> {
        Ok(match resource_version {
            "" => Self::Latest,
            "0" => Self::Any,
            other => Self::NotOlderThan(parse_revision(other)?),
        })
    }

    /// How fresh a list has to be.
    ///
    /// # Errors
    /// 422 for options that don't go together, 400 for a revision that is no number or that comes with a token.
    pub fn for_list(options: VersionOptions<'_>) -> Result<Self, Status> {
        refuse(list_errors(options))?;
        let revision = parse_revision(options.resource_version)?;
        if options.continued {
            if revision > Revision::ZERO {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            return Ok(Self::Latest); // The token says when.
        }
        Ok(match (options.resource_version, options.version_match) {
            ("", _) => Self::Latest,
            _ if revision == Revision::ZERO => Self::Any,
            (_, EXACT) => Self::Exactly(revision),
            (_, "") if options.limited => Self::Exactly(revision),
            _ => Self::NotOlderThan(revision),
        })
    }
}

impl WatchFrom {
    /// Where a watch begins.
    ///
    /// # Errors
    /// 422 for options that don't go together, 400 for a revision that is no number.
    pub fn for_watch(options: VersionOptions<'_>) -> Result<Self, Status> {
        refuse(watch_errors(options))?;
        let revision = parse_revision(options.resource_version)?;
        Ok(match options.resource_version {
            "" => Self::Now,
            _ if revision == Revision::ZERO => Self::Any,
            _ => Self::After(revision),
        })
    }
}

fn refuse(errors: Vec<FieldError>) -> Result<(), Status> {
    let kind = Qualified::new("meta.k8s.io", "ListOptions");
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(kind, "", &errors)) }
}

fn list_errors(options: VersionOptions<'_>) -> Vec<FieldError> {
    let path = Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    let mut forbid = |path: &Path, detail: &str| errors.push(FieldError::forbidden(path, detail));
    if !options.version_match.is_empty() {
        if options.resource_version.is_empty() {
            forbid(&path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if options.continued {
            forbid(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        if options.version_match == EXACT && options.resource_version == "0" {
            forbid(&path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        forbid(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
    if !["", EXACT, NOT_OLDER_THAN].contains(&options.version_match) {
        errors.push(FieldError::not_supported(&path, options.version_match, &[EXACT, NOT_OLDER_THAN, ""]));
    }
    errors
}

fn watch_errors(options: VersionOptions<'_>) -> Vec<FieldError> {
    let path = Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    let matched = options.version_match;
    if options.send_initial_events.is_some() && matched != NOT_OLDER_THAN {
        let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(&path, detail));
    }
    if !matched.is_empty() {
        if options.send_initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(&path, detail));
        }
        if matched != NOT_OLDER_THAN {
            errors.push(FieldError::not_supported(&path, matched, &[NOT_OLDER_THAN]));
        }
        if options.continued {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options<'a>(resource_version: &'a str, version_match: &'a str) -> VersionOptions<'a> {
        VersionOptions { resource_version, version_match, ..VersionOptions::default() }
    }

    #[test]
    fn every_combination_of_a_list_means_what_upstream_says() {
        let at = |revision| Ok::<_, i32>(ReadAt::Exactly(Revision::new(revision)));
        let since = |revision| Ok::<_, i32>(ReadAt::NotOlderThan(Revision::new(revision)));
        for (version, matched, unlimited, limited, continued) in [
            ("", "", Ok(ReadAt::Latest), Ok(ReadAt::Latest), Ok(ReadAt::Latest)),
            ("0", "", Ok(ReadAt::Any), Ok(ReadAt::Any), Ok(ReadAt::Latest)),
            ("5", "", since(5), at(5), Err(400)),
            ("", "Exact", Err(422), Err(422), Err(422)),
            ("0", "Exact", Err(422), Err(422), Err(422)),
            ("5", "Exact", at(5), at(5), Err(422)),
            ("", "NotOlderThan", Err(422), Err(422), Err(422)),
            ("0", "NotOlderThan", Ok(ReadAt::Any), Ok(ReadAt::Any), Err(422)),
            ("5", "NotOlderThan", since(5), since(5), Err(422)),
            ("5", "Sometimes", Err(422), Err(422), Err(422)),
            ("x", "", Err(400), Err(400), Err(400)),
            ("-1", "", Err(400), Err(400), Err(400)),
            ("+1", "", Err(400), Err(400), Err(400)),
            ("99999999999999999999", "", Err(400), Err(400), Err(400)),
        ] {
            let found = |limited, continued| {
                let options = VersionOptions { limited, continued, ..options(version, matched) };
                ReadAt::for_list(options).map_err(|status| status.code)
            };
            assert_eq!(found(false, false), unlimited, "{version:?} {matched:?}");
            assert_eq!(found(true, false), limited, "{version:?} {matched:?} limited");
            assert_eq!(found(true, true), continued, "{version:?} {matched:?} continued");
        }
    }

    #[test]
    fn every_combination_of_a_watch_means_what_upstream_says() {
        for (version, matched, initial, wanted) in [
            ("", "", None, Ok(WatchFrom::Now)),
            ("0", "", None, Ok(WatchFrom::Any)),
            ("5", "", None, Ok(WatchFrom::After(Revision::new(5)))),
            ("", "NotOlderThan", Some(true), Ok(WatchFrom::Now)),
            ("0", "NotOlderThan", Some(true), Ok(WatchFrom::Any)),
            ("5", "NotOlderThan", Some(false), Ok(WatchFrom::After(Revision::new(5)))),
            ("5", "", Some(true), Err(422)),
            ("5", "Exact", Some(true), Err(422)),
            ("5", "NotOlderThan", None, Err(422)),
            ("x", "", None, Err(400)),
        ] {
            let options = VersionOptions { send_initial_events: initial, ..options(version, matched) };
            let found = WatchFrom::for_watch(options).map_err(|status| status.code);
            assert_eq!(found, wanted, "{version:?} {matched:?} {initial:?}");
        }
    }

    #[test]
    fn a_single_object_is_as_fresh_as_asked() {
        assert_eq!(ReadAt::for_get("").ok(), Some(ReadAt::Latest));
        assert_eq!(ReadAt::for_get("0").ok(), Some(ReadAt::Any));
        assert_eq!(ReadAt::for_get("7").ok(), Some(ReadAt::NotOlderThan(Revision::new(7))));
        let status = ReadAt::for_get("abc").unwrap_err();
        assert_eq!(
            status.message,
            r#"resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax"#
        );
    }

    #[test]
    fn the_texts_are_upstreams() {
        let status = ReadAt::for_list(options("", "Exact")).unwrap_err();
        assert_eq!(
            status.message,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is \
             forbidden unless resourceVersion is provided"
        );
        let initial = VersionOptions { send_initial_events: Some(true), ..VersionOptions::default() };
        let status = ReadAt::for_list(initial).unwrap_err();
        assert!(status.message.ends_with("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"));
    }
}
