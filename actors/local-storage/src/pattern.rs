//! `pathPattern` of a StorageClass: the part of Go's templates that such patterns are made of. Pure.

use std::collections::BTreeMap;

/// What a pattern may name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names<'a> {
    /// The volume.
    pub(crate) volume: &'a str,
    /// The claim's namespace.
    pub(crate) namespace: &'a str,
    /// The claim.
    pub(crate) claim: &'a str,
    /// The claim's uid.
    pub(crate) uid: &'a str,
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
    pub(crate) annotations: Option<&'a BTreeMap<String, String>>,
}

/// Fills a pattern in.
///
/// # Errors
/// It has something in it that isn't known here.
pub(crate) fn render(pattern: &str, names: &Names<'_>) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), pattern);
    while let Some((before, behind)) = rest.split_once("{{") {
        let (action, after) = behind.split_once("}}").ok_or("pathPattern: unclosed action")?;
        let (before, action) = match action.strip_prefix("- ") {
            Some(action) => (before.trim_end(), action),
            None => (before, action),
        };
        let (after, action) = match action.strip_suffix(" -") {
            Some(action) => (after.trim_start(), action),
            None => (after, action),
        };
        text.push_str(before);
        text.push_str(value(action.trim(), names)?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// What one action stands for. A label or an annotation that isn't there is empty.
fn value<'a>(action: &str, names: &Names<'a>) -> Result<&'a str, String> {
    let unknown = || format!("pathPattern: can't evaluate {action}");
    let of = |map: Option<&'a BTreeMap<String, String>>, key: &str| {
        map.and_then(|map| map.get(key)).map(String::as_str).unwrap_or_default()
    };
    let map = |name: &str| match name {
        ".PVC.Labels" | ".PVC.ObjectMeta.Labels" => Some(names.labels),
        ".PVC.Annotations" | ".PVC.ObjectMeta.Annotations" => Some(names.annotations),
        _ => None,
    };
    if let Some(arguments) = action.strip_prefix("index ") {
        let (name, key) = arguments.trim().split_once(char::is_whitespace).ok_or_else(unknown)?;
        let key = key.trim();
        let key = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).ok_or_else(unknown)?;
        return Ok(of(map(name).ok_or_else(unknown)?, key));
    }
    match action {
        ".PVName" => Ok(names.volume),
        ".PVC.Name" | ".PVC.ObjectMeta.Name" => Ok(names.claim),
        ".PVC.Namespace" | ".PVC.ObjectMeta.Namespace" => Ok(names.namespace),
        ".PVC.UID" | ".PVC.ObjectMeta.UID" => Ok(names.uid),
        _ => {
            let (name, key) = action.rsplit_once('.').ok_or_else(unknown)?;
            Ok(of(map(name).ok_or_else(unknown)?, key))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_parts_of_the_claim() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let annotations = BTreeMap::from([("example.com/at".to_owned(), "x".to_owned())]);
        let names = Names {
            volume: "pvc-1",
            namespace: "n",
            claim: "c",
            uid: "1",
            labels: Some(&labels),
            annotations: Some(&annotations),
        };
        for (pattern, wanted) in [
            ("{{ .PVC.Namespace }}/{{ .PVC.Name }}/", Some("n/c/")),
            ("{{.PVC.Namespace}}/{{.PVC.Name}}/{{.PVName}}", Some("n/c/pvc-1")),
            ("a {{- .PVC.UID -}} b", Some("a1b")),
            ("{{ .PVC.Labels.app }}-{{ .PVC.Labels.none }}", Some("web-")),
            ("{{ index .PVC.Annotations \"example.com/at\" }}", Some("x")),
            ("plain", Some("plain")),
            ("{{ .PVC.Spec.VolumeName }}", None),
            ("{{ if .PVC.Name }}", None),
            ("{{ .PVC.Name", None),
            ("{{ index .PVC.Labels app }}", None),
            ("{{}}", None),
        ] {
            assert_eq!(render(pattern, &names).ok().as_deref(), wanted, "{pattern}");
        }
    }
}
