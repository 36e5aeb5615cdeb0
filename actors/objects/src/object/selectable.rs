//! Where the values of field selectors are found in an object.

use crate::schema::Resource;

/// The field selectors of a resource, beside name and namespace, which every object has.
#[derive(Debug, Clone, Default)]
pub struct Selectable {
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    label: String,
    path: Vec<String>,
    /// What an absent value is compared as.
    absent: String,
}

/// Labels that are not the path of their value: resource, label, path.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("events", "source", "source.component"),
    ("events", "regarding.kind", "involvedObject.kind"),
    ("events", "regarding.namespace", "involvedObject.namespace"),
    ("events", "regarding.name", "involvedObject.name"),
    ("events", "regarding.uid", "involvedObject.uid"),
    ("events", "regarding.apiVersion", "involvedObject.apiVersion"),
    ("events", "regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("events", "regarding.fieldPath", "involvedObject.fieldPath"),
    ("events", "reportingController", "reportingComponent"),
    ("jobs", "status.successful", "status.succeeded"),
    ("pods", "status.podIPs", "status.podIP"),
];

/// What absent numbers and booleans are compared as; absent text is empty.
const ABSENT: &[(&str, &str)] = &[
    ("spec.unschedulable", "false"),
    ("spec.hostNetwork", "false"),
    ("status.replicas", "0"),
    ("status.successful", "0"),
];

impl Selectable {
    /// The selectors of a built-in resource. Its objects are read in their stored form, so an event of either group has
    /// the fields of core's.
    pub fn of(resource: &Resource) -> Self {
        let fields = resource.selectors.iter().map(|label| {
            let elsewhere = ELSEWHERE.iter().find(|(plural, other, _)| *plural == resource.plural && other == label);
            let path = elsewhere.map_or(*label, |(.., path)| path);
            let absent = ABSENT.iter().find(|(other, _)| other == label).map_or("", |(_, absent)| absent);
            Field::new(label, path, absent)
        });
        Self { fields: fields.collect() }
    }

    /// The selectors of a custom resource: their paths, without the dot at the front.
    pub fn custom<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        Self { fields: paths.into_iter().map(|path| Field::new(path, path, "")).collect() }
    }

    /// The labels, in order.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &str> {
        self.fields.iter().map(|field| field.label.as_str())
    }

    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn path(&self, index: usize) -> &[String] {
        &self.fields[index].path
    }

    pub(super) fn position(&self, label: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.label == label)
    }

    pub(super) fn absent(&self, index: usize) -> &str {
        &self.fields[index].absent
    }
}

impl Field {
    fn new(label: &str, path: &str, absent: &str) -> Self {
        Self { label: label.to_owned(), path: path.split('.').map(str::to_owned).collect(), absent: absent.to_owned() }
    }
}
