//! Reads the tables under `data/`. They are ours, so a line that does not fit stops the build.

use std::collections::BTreeMap;

use crate::node::package;

/// One row of `resources.txt`; the fields are those of `schema::Resource`.
#[derive(Debug)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub singular: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub storage_version: Option<String>,
    pub generation: bool,
    pub selectors: Vec<String>,
    pub served: bool,
    pub subresources: Vec<Subresource>,
}

/// One indented row of `resources.txt`.
#[derive(Debug)]
pub(crate) struct Subresource {
    pub name: String,
    pub verbs: Vec<String>,
    /// Group, version and kind when they are not those of the resource.
    pub kind: Option<(String, String, String)>,
}

const ALL_VERBS: &str = "create,delete,deletecollection,get,list,patch,update,watch";

impl Resource {
    /// The short name of its type.
    pub(crate) fn type_name(&self) -> String {
        format!("{}.{}.{}", package(&self.group), self.version, self.kind)
    }

    pub(crate) fn parse_all(text: &str) -> Vec<Self> {
        let mut resources: Vec<Self> = Vec::new();
        for line in lines(text) {
            if line.starts_with(' ') {
                let last = resources.last_mut().expect("a subresource follows its resource");
                last.subresources.push(Subresource::parse(line));
            } else {
                resources.push(Self::parse(line));
            }
        }
        resources
    }

    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [api_version, plural, singular, kind, scope, options @ ..] = words.as_slice() else {
            panic!("resources.txt: {line}");
        };
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let option = |name: &str| options.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: (*plural).to_owned(),
            singular: (*singular).to_owned(),
            kind: (*kind).to_owned(),
            namespaced: *scope == "namespaced",
            verbs: split(option("verbs").unwrap_or(ALL_VERBS)),
            short_names: split(option("short").unwrap_or_default()),
            categories: split(option("categories").unwrap_or_default()),
            storage_version: match option("store") {
                Some("none") => None,
                other => Some(other.unwrap_or(version).to_owned()),
            },
            generation: options.contains(&"generation"),
            selectors: split(option("selectors").unwrap_or_default()),
            served: !options.contains(&"off"),
            subresources: Vec::new(),
        }
    }
}

impl Subresource {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let (Some(name), Some(verbs)) = (words.next(), words.next()) else { panic!("resources.txt: {line}") };
        let kind = words.next().and_then(|word| word.strip_prefix("kind=")).map(|kind| {
            let (api_version, kind) = kind.rsplit_once('/').expect("a kind comes with its version");
            let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
            (group.to_owned(), version.to_owned(), kind.to_owned())
        });
        Self { name: name.to_owned(), verbs: split(verbs), kind }
    }
}

/// How a list, map or structure merges; see `lists.txt`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Merging {
    pub list: String,
    pub map: String,
    pub keys: Vec<String>,
    pub strategy: Vec<String>,
    pub merge_key: String,
    /// Key field and the string that stands for it when it is absent.
    pub key_default: Option<(String, String)>,
}

/// `lists.txt` by `type.field`, or by type for maps that merge alike wherever they are.
pub(crate) fn merging(text: &str) -> BTreeMap<String, Merging> {
    let mut rows: BTreeMap<String, Merging> = BTreeMap::new();
    for line in lines(text) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, place, value, options @ ..] = words.as_slice() else { panic!("lists.txt: {line}") };
        let row = rows.entry((*place).to_owned()).or_default();
        match *what {
            "list" => row.list = (*value).to_owned(),
            "map" => row.map = (*value).to_owned(),
            "patch" => row.strategy = split(value),
            other => panic!("lists.txt: {other}"),
        }
        for option in options {
            let (name, value) = option.split_once('=').expect("an option has a value");
            match name {
                "keys" => row.keys = split(value),
                "strategy" => row.strategy = split(value),
                "merge" => row.merge_key = value.to_owned(),
                _ => {
                    let field = name.strip_prefix("default:").expect("the only other option");
                    row.key_default = Some((field.to_owned(), value.to_owned()));
                }
            }
        }
    }
    rows
}

/// A field of a protobuf message; see `protobuf.txt`.
#[derive(Debug, Clone)]
pub(crate) struct MessageField {
    pub name: String,
    pub tag: u16,
    /// Scalar type or short name of a message.
    pub of: String,
    pub repeated: bool,
    pub map: bool,
}

/// `protobuf.txt` by type.
pub(crate) fn messages(text: &str) -> BTreeMap<String, Vec<MessageField>> {
    lines(text)
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a line that is not empty");
            (name.to_owned(), words.map(message_field).collect())
        })
        .collect()
}

fn message_field(word: &str) -> MessageField {
    let (name, rest) = word.split_once('=').expect("name=number:type");
    let (tag, of) = rest.split_once(':').expect("name=number:type");
    let map = of.strip_prefix("map<").and_then(|of| of.strip_suffix('>'));
    let repeated = of.strip_suffix('*');
    MessageField {
        name: name.to_owned(),
        tag: tag.parse().expect("a field number"),
        of: map.or(repeated).unwrap_or(of).to_owned(),
        repeated: repeated.is_some(),
        map: map.is_some(),
    }
}

/// `presence.txt`: what is said of fields, by `type.field`.
pub(crate) fn presence(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let (Some(what), Some(owner)) = (words.next(), words.next()) else { panic!("presence.txt: {line}") };
        for field in words {
            rows.entry(format!("{owner}.{field}")).or_default().push(what.to_owned());
        }
    }
    rows
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

fn split(list: &str) -> Vec<String> {
    list.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}
