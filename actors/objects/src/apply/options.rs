//! What a request may say beside its patch.

use crate::names;
use crate::status::field::{Error, Path};

/// What is wrong with `fieldManager` and `force` of a patch request: an apply needs a manager, and nothing else has
/// anything to force. Served as 422 of kind `PatchOptions` in `meta.k8s.io`.
#[must_use]
pub fn check_patch_options(is_apply: bool, manager: &str, force: Option<bool>) -> Vec<Error> {
    let place = Path::new("fieldManager");
    let mut errors = Vec::new();
    if is_apply && manager.is_empty() {
        errors.push(Error::required(&place, "is required for apply patch"));
    }
    if !is_apply && force.is_some() {
        errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
    }
    errors.extend(names::check_field_manager(manager, &place));
    errors
}

/// The manager of a request that names none: the beginning of its user agent, as far as it is printable and fits.
#[must_use]
pub fn manager_or_user_agent(manager: &str, user_agent: &str) -> String {
    if !manager.is_empty() {
        return manager.to_owned();
    }
    let program = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for c in program.chars().filter(|c| crate::status::go::is_printable(*c)) {
        if name.len() + c.len_utf8() > names::FIELD_MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_apply_names_its_manager_and_nothing_else_forces() {
        for (is_apply, manager, force, text) in [
            (true, "one", None, ""),
            (true, "one", Some(true), ""),
            (true, "", None, "fieldManager: Required value: is required for apply patch"),
            (false, "", None, ""),
            (false, "one", Some(false), "force: Forbidden: may not be specified for non-apply patch"),
        ] {
            let errors = check_patch_options(is_apply, manager, force);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(";"), text);
        }
        assert_eq!(check_patch_options(true, &"m".repeat(129), None).len(), 1);
    }

    #[test]
    fn who_names_no_manager_is_known_by_its_program() {
        for (manager, agent, name) in [
            ("one", "kubectl/v1.34.0 (linux/amd64)", "one"),
            ("", "kubectl/v1.34.0 (linux/amd64)", "kubectl"),
            ("", "curl", "curl"),
            ("", "", ""),
            ("", "a\nb/1", "ab"),
        ] {
            assert_eq!(manager_or_user_agent(manager, agent), name);
        }
    }

    proptest! {
        #[test]
        fn no_user_agent_makes_a_manager_that_would_be_refused(agent: String) {
            let name = manager_or_user_agent("", &agent);
            prop_assert_eq!(names::check_field_manager(&name, &Path::new("fieldManager")), vec![]);
        }
    }
}
