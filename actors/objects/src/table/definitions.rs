//! The rows of `data/columns.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::table::cells::{self, Code};

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its heading.
    pub name: &'static str,
    /// The type of its cells, in OpenAPI's words.
    pub kind: &'static str,
    /// `name` for the column that names the object, else empty.
    pub format: &'static str,
    /// Zero, or one when only those who ask for more see it.
    pub priority: i32,
    how: How,
}

/// How a cell is made.
#[derive(Debug, Clone)]
enum How {
    Text(Path, &'static str),
    Int(Path),
    Bool(Path),
    Age(Path),
    Count(Vec<Path>),
    Join(Path, &'static str),
    Names(Path, &'static str),
    Selector(Path),
    Labels(Path),
    Ratio(Path, Path),
    Code(Code),
}

/// A path as a JSON pointer.
type Path = String;

/// Columns by type, with an entry for all others under the empty name.
static COLUMNS: LazyLock<HashMap<&'static str, Vec<Column>>> = LazyLock::new(|| {
    let mut all: HashMap<&str, Vec<Column>> = HashMap::new();
    let created = "Created At | date | text .metadata.creationTimestamp";
    all.insert("", vec![name_column(), read(created).expect("a row like those of the table")]);
    let mut current: Vec<&str> = Vec::new();
    let lines = include_str!("../../data/columns.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            let column = read(line.trim()).expect("a test reads all rows");
            for of in &current {
                all.entry(of).or_default().push(column.clone());
            }
            continue;
        }
        let unnamed = line.ends_with(" unnamed");
        current = line.trim_end_matches(" unnamed").split(' ').collect();
        for of in &current {
            all.insert(of, if unnamed { Vec::new() } else { vec![name_column()] });
        }
    }
    all
});

/// The types that have rows; for tests.
#[cfg(test)]
pub(super) fn types() -> impl Iterator<Item = &'static str> {
    COLUMNS.keys().copied().filter(|name| !name.is_empty())
}

pub(super) fn of(type_name: Option<&str>) -> &'static [Column] {
    let found = type_name.and_then(|name| COLUMNS.get(name));
    found.unwrap_or(&COLUMNS[""])
}

fn name_column() -> Column {
    let how = How::Text("/metadata/name".to_owned(), "");
    Column { name: "Name", kind: "string", format: "name", priority: 0, how }
}

fn read(line: &'static str) -> Option<Column> {
    let mut parts = line.split(" | ");
    let (name, kind, how) = (parts.next()?, parts.next()?, parts.next()?);
    let priority = i32::from(parts.next() == Some("wide"));
    let format = if name == "Name" { "name" } else { "" };
    let (verb, rest) = how.split_once(' ')?;
    let (paths, instead) = rest.split_once(" else ").unwrap_or((rest, ""));
    let mut pointers = paths.split(' ').map(|path| path.replace('.', "/"));
    let how = match verb {
        "text" => How::Text(pointers.next()?, instead),
        "int" => How::Int(pointers.next()?),
        "bool" => How::Bool(pointers.next()?),
        "age" => How::Age(pointers.next()?),
        "count" => How::Count(pointers.collect()),
        "join" => How::Join(pointers.next()?, instead),
        "names" => How::Names(pointers.next()?, "name"),
        "images" => How::Names(pointers.next()?, "image"),
        "selector" => How::Selector(pointers.next()?),
        "labels" => How::Labels(pointers.next()?),
        "ratio" => How::Ratio(pointers.next()?, pointers.next()?),
        "code" => How::Code(cells::code(paths)?),
        _ => return None,
    };
    Some(Column { name, kind, format, priority, how })
}

impl Column {
    /// The cell of an object.
    pub(super) fn cell(&self, object: &Value, now: i64) -> Value {
        let at = |path: &Path| object.pointer(path).unwrap_or(&Value::Null);
        let int = |path: &Path| at(path).as_i64().unwrap_or_default();
        match &self.how {
            How::Text(path, instead) => Value::from(cells::text(at(path)).unwrap_or_else(|| (*instead).to_owned())),
            How::Int(path) => Value::from(int(path)),
            How::Bool(path) => Value::from(at(path).as_bool().unwrap_or_default()),
            How::Age(path) => Value::from(super::age(at(path), now)),
            How::Count(paths) => Value::from(paths.iter().map(|path| cells::count(at(path))).sum::<usize>()),
            How::Join(path, instead) => Value::from(cells::join(cells::texts(at(path)), ",", instead)),
            How::Names(path, field) => {
                let names = cells::items(at(path)).map(|item| cells::text(&item[*field]).unwrap_or_default());
                Value::from(names.collect::<Vec<_>>().join(","))
            }
            How::Selector(path) => Value::from(cells::selector(at(path))),
            How::Labels(path) => Value::from(cells::labels(at(path))),
            How::Ratio(part, whole) => Value::from(format!("{}/{}", int(part), int(whole))),
            How::Code(code) => code(object, now),
        }
    }
}
