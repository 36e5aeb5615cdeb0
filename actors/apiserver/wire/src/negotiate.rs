//! What a client wants to read, from its `Accept` header.
//!
//! ```text
//! Accept: application/json;as=Table;v=v1;g=meta.k8s.io, application/json
//!         media type       parameters: what to make of the object   the next best
//! ```
//!
//! The clauses are tried by weight, then the more exact first; the first one that can be served decides. Nothing that
//! can be served is 406, except that an error is told in JSON then.

use k3sd_apiserver_store::Resource;
use k3sd_objects::status::field::{Error, Path};
use k3sd_objects::status::{Reason, Status};

/// In which letters an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// All of them, in the order of upstream's table: the first one is for clients without a wish.
const MEDIA: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

impl Media {
    /// The media type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// Whether events can be told in it one by one.
    fn streams(self) -> bool {
        self != Self::Yaml
    }
}

/// How much of its object a row of a table carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// What is made of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// They come as they are.
    Whole,
    /// Rows of a `Table`.
    Table(IncludeObject),
    /// Only their metadata: `PartialObjectMetadata`, or a list of it.
    Metadata,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// The letters.
    pub media: Media,
    /// What is told.
    pub shape: Shape,
    /// Whether JSON is indented for people.
    pub pretty: bool,
}

impl Format {
    /// Compact JSON of whole objects.
    pub const JSON: Self = Self { media: Media::Json, shape: Shape::Whole, pretty: false };

    /// The `Content-Type` of an object, list or error.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        self.media.as_str()
    }

    /// The `Content-Type` of a stream of events. Of JSON it is the plain one, as it always was.
    #[must_use]
    pub fn watch_content_type(self) -> &'static str {
        match self.media {
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Media::Json | Media::Yaml => self.media.as_str(),
        }
    }
}

/// What a request says about its answer's form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish<'a> {
    /// The `Accept` header; absent and empty are the same.
    pub accept: &'a str,
    /// The `User-Agent` header: browsers and `curl` get indented JSON.
    pub user_agent: &'a str,
    /// The parameter `pretty`, which overrules that.
    pub pretty: Option<&'a str>,
    /// The parameter `includeObject`, which tables look at.
    pub include_object: Option<&'a str>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// One object.
    Object,
    /// Several; with the kind of the list.
    List(&'a str),
    /// Events.
    Watch,
}

/// What a resource can be shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// In protobuf: custom resources have no messages, though their metadata has.
    pub protobuf: bool,
    /// As a table: reviews and other answers to questions are none.
    pub tables: bool,
}

impl Offer {
    /// Everything there is.
    pub const ALL: Self = Self { protobuf: true, tables: true };

    /// What a resource offers, or what stands below its objects under a name, which is empty for the objects.
    #[must_use]
    pub fn of(resource: &Resource, subresource: &str) -> Self {
        /// What speaks of the objects themselves, or has columns of its own.
        const SHOWN: &[&str] = &["", "approval", "ephemeralcontainers", "finalize", "resize", "scale", "status"];
        let kept = resource.stored.is_some() || &*resource.plural == "componentstatuses";
        Self { protobuf: resource.custom.is_none(), tables: kept && SHOWN.contains(&subresource) }
    }
}

/// A clause of an `Accept` header.
#[derive(Debug)]
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    params: Vec<(&'a str, &'a str)>,
    /// In thousandths.
    weight: u32,
}

/// Headers are bounded; this many clauses are more than any client writes.
const CLAUSES_MAX: usize = 64;

impl<'a> Clause<'a> {
    /// The clauses that ask for something, the most wanted first.
    fn all(accept: &'a str) -> Vec<Self> {
        let mut clauses: Vec<Self> = accept.split(',').take(CLAUSES_MAX).filter_map(Self::read).collect();
        // Stable: of equals the one that comes first is wanted more.
        clauses.sort_by_key(|clause| (u32::MAX - clause.weight, clause.main == "*", clause.sub == "*"));
        clauses
    }

    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?;
        let (main, sub) = match media.split_once('/') {
            Some((main, sub)) => (main.trim(), sub.trim()),
            // Some old clients mean `*/*`.
            None if media == "*" => ("*", "*"),
            None => return None,
        };
        let mut clause = Self { main, sub, params: Vec::new(), weight: 1000 };
        for part in parts {
            let (key, value) = part.split_once('=').map_or((part, ""), |(key, value)| (key.trim(), value.trim()));
            if key == "q" {
                clause.weight = weight(value);
            } else {
                clause.params.push((key, value));
            }
        }
        (clause.weight > 0).then_some(clause)
    }

    fn covers(&self, main: &str, sub: &str) -> bool {
        match (self.main, self.sub) {
            ("*", "*") => true,
            (own, "*") => own == main,
            (own, under) => own == main && under == sub,
        }
    }

    fn covers_media(&self, media: Media) -> bool {
        let (main, sub) = media.as_str().split_once('/').expect("media types have a slash");
        self.covers(main, sub)
    }

    fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// The kind that the answer is to become, if there is a wish: kind, group, version.
    fn target(&self) -> Option<(&'a str, &'a str, &'a str)> {
        let of = |name| self.param(name);
        let any = ["as", "g", "v"].iter().any(|name| of(name).is_some());
        any.then(|| (of("as").unwrap_or(""), of("g").unwrap_or(""), of("v").unwrap_or("")))
    }
}

/// A weight in thousandths; nonsense is no weight, which is the greatest.
fn weight(text: &str) -> u32 {
    let weight: f64 = text.parse().unwrap_or(1.0);
    if !(0.0..=1.0).contains(&weight) {
        return 1000;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
    let thousandths = (weight * 1000.0).round() as u32;
    thousandths
}

/// Decides how to write an answer.
///
/// Fails with 406 when nothing of what the client accepts can be served, and with 400 for a wrong `includeObject`.
pub fn negotiate(wish: &Wish<'_>, answer: Answer<'_>, offer: Offer) -> Result<Format, Status> {
    let pretty = wants_pretty(wish);
    if wish.accept.is_empty() {
        return Ok(Format { pretty, ..Format::JSON });
    }
    let served = |media: Media, shape: Option<Wanted>| match shape {
        None => offer.protobuf || media != Media::Protobuf,
        Some(Wanted::Table) => offer.tables && media != Media::Protobuf,
        Some(Wanted::Metadata { .. }) => true,
        Some(Wanted::Unknown) => false,
    };
    for clause in Clause::all(wish.accept) {
        let wanted = clause.target().map(wanted);
        let stream = clause.param("stream").filter(|stream| !stream.is_empty());
        for media in MEDIA.into_iter().filter(|media| clause.covers_media(*media)) {
            if stream.is_some_and(|stream| stream != "watch" || !media.streams()) || !served(media, wanted) {
                continue;
            }
            if answer == Answer::Watch && !media.streams() {
                return Err(not_acceptable(answer));
            }
            let shape = shape(wanted, answer, wish)?;
            return Ok(Format { media, shape, pretty: pretty || clause.param("pretty") == Some("1") });
        }
    }
    Err(not_acceptable(answer))
}

/// How to write an error to a client: as it likes best, and in JSON if that can't be.
#[must_use]
pub fn for_status(wish: &Wish<'_>) -> Format {
    let pretty = wants_pretty(wish);
    let found = Clause::all(wish.accept).into_iter().filter(|clause| clause.target().is_none()).find_map(|clause| {
        MEDIA.into_iter().find(|media| clause.covers_media(*media)).map(|media| Format { media, ..Format::JSON })
    });
    Format { pretty, ..found.unwrap_or(Format::JSON) }
}

/// Whether the answer is to be the aggregated discovery document.
#[must_use]
pub fn wants_aggregated_discovery(accept: &str) -> bool {
    const KIND: (&str, &str, &str) = ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");
    for clause in Clause::all(accept).iter().filter(|clause| clause.covers_media(Media::Json)) {
        match clause.target() {
            None => return false,
            Some(target) if target == KIND => return true,
            Some(_) => {}
        }
    }
    false
}

/// The first of some media types that a client accepts; the first of all for clients without a wish. None is 406.
#[must_use]
pub fn choose<'m>(accept: &str, served: &[&'m str]) -> Option<&'m str> {
    if accept.is_empty() {
        return served.first().copied();
    }
    Clause::all(accept).iter().find_map(|clause| {
        let covers = |media: &&&str| media.split_once('/').is_some_and(|(main, sub)| clause.covers(main, sub));
        served.iter().find(covers).copied()
    })
}

/// What a clause asks to be made of the objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Table,
    Metadata { list: bool },
    Unknown,
}

fn wanted((kind, group, version): (&str, &str, &str)) -> Wanted {
    match (kind, group, version) {
        ("Table", "meta.k8s.io", "v1") => Wanted::Table,
        ("PartialObjectMetadata", "meta.k8s.io", "v1") => Wanted::Metadata { list: false },
        ("PartialObjectMetadataList", "meta.k8s.io", "v1") => Wanted::Metadata { list: true },
        _ => Wanted::Unknown,
    }
}

fn shape(wanted: Option<Wanted>, answer: Answer<'_>, wish: &Wish<'_>) -> Result<Shape, Status> {
    match (wanted, answer) {
        (None | Some(Wanted::Unknown), _) => Ok(Shape::Whole),
        (Some(Wanted::Table), _) => Ok(Shape::Table(include_object(wish.include_object.unwrap_or_default())?)),
        (Some(Wanted::Metadata { list: false }), Answer::List(kind)) => Err(wrong_shape(&format!(
            "you requested PartialObjectMetadata, but the requested object is a list (*{kind})"
        ))),
        (Some(Wanted::Metadata { list: true }), Answer::Object) => {
            Err(wrong_shape("you requested PartialObjectMetadataList, but the requested object is not a list"))
        }
        (Some(Wanted::Metadata { .. }), _) => Ok(Shape::Metadata),
    }
}

fn include_object(text: &str) -> Result<IncludeObject, Status> {
    match text {
        "None" => Ok(IncludeObject::None),
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "Object" => Ok(IncludeObject::Object),
        other => {
            let detail = "must be 'Metadata', 'Object', 'None', or empty";
            let error = Error::invalid(&Path::new("includeObject"), other, detail);
            Err(Status::bad_request(format!("Unable to convert to Table as requested: {error}")))
        }
    }
}

fn wrong_shape(message: &str) -> Status {
    Status::failure(406, Reason::NotAcceptable, message)
}

fn not_acceptable(answer: Answer<'_>) -> Status {
    if answer == Answer::Watch {
        return Status::not_acceptable(&[
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
        ]);
    }
    Status::not_acceptable(&MEDIA.map(Media::as_str))
}

/// Whether JSON is indented: if the parameter says so, else for people's own clients.
fn wants_pretty(wish: &Wish<'_>) -> bool {
    match wish.pretty {
        Some(text) if !text.is_empty() => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        _ => ["curl", "Wget", "Mozilla/5.0"].iter().any(|own| wish.user_agent.starts_with(own)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Shape = Shape::Table(IncludeObject::Metadata);

    fn ask(accept: &str, answer: Answer<'_>, protobuf: bool) -> Result<(Media, Shape), String> {
        let wish = Wish { accept, ..Wish::default() };
        negotiate(&wish, answer, Offer { protobuf, ..Offer::ALL }).map(|f| (f.media, f.shape)).map_err(|status| {
            assert_eq!(status.http_code(), 406);
            status.message
        })
    }

    #[test]
    fn the_best_that_can_be_served_is_chosen() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            ("", (Media::Json, Shape::Whole)),
            ("*/*", (Media::Json, Shape::Whole)),
            ("application/*", (Media::Json, Shape::Whole)),
            ("text/html, application/xml;q=0.9, */*;q=0.8", (Media::Json, Shape::Whole)),
            ("application/yaml", (Media::Yaml, Shape::Whole)),
            ("application/vnd.kubernetes.protobuf, */*", (Media::Protobuf, Shape::Whole)),
            ("application/vnd.kubernetes.protobuf,application/json", (Media::Protobuf, Shape::Whole)),
            ("application/json;q=0.1, application/yaml;q=0.5", (Media::Yaml, Shape::Whole)),
            ("*/*;q=0.9, application/yaml;q=0.9", (Media::Yaml, Shape::Whole)),
            (kubectl, (Media::Json, TABLE)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/yaml", (Media::Yaml, Shape::Whole)),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
                (Media::Json, Shape::Whole),
            ),
            ("application/json;stream=watch", (Media::Json, Shape::Whole)),
            ("application/json;q=0, application/yaml", (Media::Yaml, Shape::Whole)),
        ] {
            assert_eq!(ask(accept, Answer::Object, true), Ok(expected), "{accept}");
        }
        let partial =
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(ask(partial, Answer::List("core.PodList"), false), Ok((Media::Protobuf, Shape::Metadata)));
    }

    #[test]
    fn what_nobody_serves_is_refused_in_upstreams_words() {
        let all = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        assert_eq!(ask("text/plain", Answer::Object, true).unwrap_err(), all);
        assert_eq!(ask("application/json;as=Table;v=v1beta1;g=meta.k8s.io", Answer::Object, true).unwrap_err(), all);
        assert_eq!(ask("application/json;as=Unknown;v=v1;g=meta.k8s.io", Answer::Object, true).unwrap_err(), all);
        // Custom resources have no messages; what clients fall back to is served.
        assert_eq!(ask("application/vnd.kubernetes.protobuf", Answer::Object, false).unwrap_err(), all);
        assert_eq!(
            ask("application/vnd.kubernetes.protobuf, application/json", Answer::Object, false),
            Ok((Media::Json, Shape::Whole))
        );
        assert_eq!(
            ask("application/yaml", Answer::Watch, true).unwrap_err(),
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        assert_eq!(
            ask("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", Answer::List("core.PodList"), true)
                .unwrap_err(),
            "you requested PartialObjectMetadata, but the requested object is a list (*core.PodList)"
        );
    }

    #[test]
    fn reviews_are_no_tables() {
        let catalog = k3sd_apiserver_store::Catalog::builtin(|resource| resource.served);
        let offer = |group, plural, below| Offer::of(catalog.preferred(group, plural).expect(plural), below);
        assert_eq!(offer("", "pods", ""), Offer::ALL);
        assert_eq!(offer("apps", "deployments", "scale"), Offer::ALL);
        let none = Offer { tables: false, ..Offer::ALL };
        assert_eq!(offer("authorization.k8s.io", "selfsubjectaccessreviews", ""), none);
        assert_eq!(offer("", "pods", "eviction"), none);
        let wish = Wish { accept: "application/json;as=Table;v=v1;g=meta.k8s.io", ..Wish::default() };
        assert_eq!(negotiate(&wish, Answer::Object, none).unwrap_err().http_code(), 406);
    }

    #[test]
    fn watches_stream() {
        for accept in
            ["application/json", "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]
        {
            let found = ask(accept, Answer::Watch, true).unwrap();
            assert_eq!(found.0 == Media::Protobuf, accept.contains("protobuf"), "{accept}");
        }
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(ask(partial, Answer::Watch, false), Ok((Media::Protobuf, Shape::Metadata)));
    }

    #[test]
    fn tables_may_carry_their_objects() {
        let table = |include| {
            let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
            let wish = Wish { accept, include_object: Some(include), ..Wish::default() };
            negotiate(&wish, Answer::Object, Offer::ALL).map(|format| format.shape)
        };
        assert_eq!(table("Object"), Ok(Shape::Table(IncludeObject::Object)));
        assert_eq!(table("None"), Ok(Shape::Table(IncludeObject::None)));
        assert_eq!(table(""), Ok(TABLE));
        let status = table("All").unwrap_err();
        assert_eq!(
            (status.http_code(), status.message.as_str()),
            (
                400,
                "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', 'Object', 'None', or empty"
            )
        );
    }

    #[test]
    fn people_get_indented_json() {
        let pretty = |user_agent, pretty| {
            negotiate(&Wish { user_agent, pretty, ..Wish::default() }, Answer::Object, Offer::ALL).unwrap().pretty
        };
        assert!(pretty("curl/8.1", None) && pretty("kubectl/v1.32", Some("true")) && pretty("", Some("1")));
        assert!(!pretty("curl/8.1", Some("false")) && !pretty("kubectl/v1.32", None) && !pretty("curl", Some("x")));
    }

    #[test]
    fn errors_are_told_whatever_is_accepted() {
        let media = |accept| for_status(&Wish { accept, ..Wish::default() }).media;
        assert_eq!(media("text/html"), Media::Json);
        assert_eq!(media("application/vnd.kubernetes.protobuf"), Media::Protobuf);
        assert_eq!(media("application/json;as=Table;v=v1;g=meta.k8s.io"), Media::Json);
        assert_eq!(media("application/yaml;as=Table;v=v1;g=meta.k8s.io,application/yaml"), Media::Yaml);
    }

    #[test]
    fn aggregated_discovery_is_told_from_the_plain_one() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(wants_aggregated_discovery(kubectl));
        let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert!(!wants_aggregated_discovery(older));
        assert!(!wants_aggregated_discovery("application/json") && !wants_aggregated_discovery(""));
    }

    #[test]
    fn other_media_types_are_chosen_alike() {
        let served = ["application/json", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"];
        assert_eq!(choose("", &served), Some(served[0]));
        assert_eq!(choose("*/*", &served), Some(served[0]));
        assert_eq!(choose("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", &served), Some(served[1]));
        assert_eq!(choose("text/html", &served), None);
    }

    #[test]
    fn no_header_is_too_strange() {
        for accept in [
            ",,,",
            ";",
            "/",
            "a/b/c;;;=;q",
            "application/json;q=nan",
            "*;q=-1",
            "\u{e4}/\u{f6};as=",
            &"a/b,".repeat(10_000),
        ] {
            for answer in [Answer::Object, Answer::List("x"), Answer::Watch] {
                _ = ask(accept, answer, true);
            }
        }
    }
}
