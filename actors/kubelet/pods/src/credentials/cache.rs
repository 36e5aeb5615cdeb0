//! What programs said, for as long as it holds. Pure.

use std::collections::BTreeMap;

use k3sd_runtime::Moment;

use crate::images::Auths;

/// Answers that are kept of one program.
const ANSWERS_MAX: usize = 1000;

/// What an answer is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// One image.
    Image(String),
    /// All images of a registry.
    Registry(String),
    /// Everything that the program is asked about.
    Global,
}

/// For whom a program was asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Only for this pod, by uid.
    pub(super) pod: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

type Key = (Scope, Option<Account>);

/// Answers, and until when they hold.
#[derive(Clone, Default)]
pub(super) struct Cache(BTreeMap<Key, (Auths, Moment)>);

/// An image's registry.
pub(super) fn registry(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

impl Cache {
    /// What is known of an image: of itself first, then of its registry, then of all.
    pub(super) fn get(&self, image: &str, account: Option<&Account>, now: Moment) -> Option<Auths> {
        let scopes = [Scope::Image(image.to_owned()), Scope::Registry(registry(image).to_owned()), Scope::Global];
        let mut found = scopes.into_iter().filter_map(|scope| self.0.get(&(scope, account.cloned())));
        found.find(|(_, until)| now < *until).map(|(auths, _)| auths.clone())
    }

    /// Keeps an answer. What doesn't hold any more goes, and if that isn't enough, what ends first.
    pub(super) fn put(&mut self, key: Key, auths: Auths, now: Moment, until: Moment) {
        self.0.retain(|_, (_, until)| now < *until);
        while self.0.len() >= ANSWERS_MAX {
            let first = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone());
            let Some(first) = first else { break };
            self.0.remove(&first);
        }
        self.0.insert(key, (auths, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_hold_for_their_time_and_scope() {
        let at = |second: u64| Moment::from_nanos(second * 1_000_000_000);
        let says = |user: &str| Auths::from([(user.to_owned(), (user.to_owned(), String::new()))]);
        let mut cache = Cache::default();
        cache.put((Scope::Image("r.io/a".into()), None), says("image"), at(0), at(10));
        cache.put((Scope::Registry("r.io".into()), None), says("registry"), at(0), at(20));
        cache.put((Scope::Global, None), says("all"), at(0), at(30));
        for (image, second, expected) in [
            ("r.io/a", 9, Some("image")),
            ("r.io/a", 10, Some("registry")),
            ("r.io/b", 0, Some("registry")),
            ("r.io/b", 20, Some("all")),
            ("other.io/a", 0, Some("all")),
            ("r.io/a", 30, None),
        ] {
            let found = cache.get(image, None, at(second)).map(|auths| auths.into_keys().next().unwrap());
            assert_eq!(found.as_deref(), expected, "{image} at {second}");
        }
        let account = Account {
            namespace: "n".into(),
            name: "a".into(),
            uid: "u".into(),
            pod: None,
            annotations: BTreeMap::new(),
        };
        assert_eq!(cache.get("r.io/a", Some(&account), at(0)), None, "one account's answers are not another's");
        for number in 0..2000 {
            cache.put((Scope::Image(number.to_string()), None), says("x"), at(25), at(100 + number));
        }
        assert!(cache.0.len() <= ANSWERS_MAX && cache.get("1999", None, at(25)).is_some());
    }
}
