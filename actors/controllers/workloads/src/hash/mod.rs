//! The label by which the ReplicaSets of a Deployment differ, as Kubernetes 1.34 computes it.
//!
//! Upstream hashes a dump of its own Go value: every field, set or not, in the order of its types. `fields.txt` has that
//! order; what is here writes the dump of a template from its JSON, straight into the hash. So a Deployment that moves
//! here from K3s 1.34 keeps the names of its ReplicaSets, and people see the names that they know. Nothing depends on it:
//! an existing ReplicaSet is found by its template.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

/// The types by name.
static TYPES: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = include_str!("fields.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some((line.split(' ').next()?, line.split(' ').skip(1).filter_map(Field::parse).collect())))
        .collect()
});

/// What numbers are written with: no vowels, and nothing that looks like another.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template, made another by the number of collisions that there were.
pub(crate) fn pod_template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut hash = Fnv::default();
    if let Ok(template) = serde_json::to_value(template) {
        // Writing into the hash can't fail.
        _ = field(&mut hash, "PodTemplateSpec", Some(&template));
    }
    if let Some(collisions) = collisions {
        hash.bytes(&collisions.to_le_bytes());
        hash.bytes(&[0; 4]);
    }
    encoded(hash.0)
}

/// A number as part of a name.
pub(crate) fn encoded(number: u32) -> String {
    number.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// FNV-1a of 32 bits.
pub(crate) struct Fnv(pub(crate) u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

impl fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// A field of a type.
struct Field {
    /// Its name in Go.
    name: String,
    /// Its name in JSON; empty if its own fields stand there.
    json: &'static str,
    kind: &'static str,
}

impl Field {
    fn parse(text: &'static str) -> Option<Self> {
        let (name, kind) = text.split_once(':')?;
        if let Some((name, json)) = name.split_once('=') {
            return Some(Self { name: name.to_owned(), json: if json == "." { "" } else { json }, kind });
        }
        let mut letters = name.chars();
        let first = letters.next()?.to_ascii_uppercase();
        Some(Self { name: format!("{first}{}", letters.as_str()), json: name, kind })
    }
}

/// Writes a value with its type before it.
fn field(out: &mut impl fmt::Write, kind: &str, value: Option<&Value>) -> fmt::Result {
    out.write_char('(')?;
    type_name(out, kind)?;
    out.write_char(')')?;
    match (kind.strip_prefix('*'), value) {
        (Some(_), None | Some(Value::Null)) => out.write_str("<nil>"),
        (Some(kind), value) => plain(out, kind, value),
        (None, value) => plain(out, kind, value),
    }
}

/// Writes the type as Go names it.
fn type_name(out: &mut impl fmt::Write, kind: &str) -> fmt::Result {
    if let Some(item) = kind.strip_prefix("[]") {
        out.write_str("[]")?;
        return type_name(out, item);
    }
    if let Some(target) = kind.strip_prefix('*') {
        out.write_char('*')?;
        return type_name(out, target);
    }
    match kind {
        "string" | "bool" | "int32" | "int64" => out.write_str(kind),
        "map" => out.write_str("map[string]string"),
        "Quantity" => out.write_str("resource.Quantity"),
        "IntOrString" => out.write_str("intstr.IntOrString"),
        "types.'UID" => out.write_str("types.UID"),
        _ => write!(out, "v1.{}", kind.trim_start_matches('\'')),
    }
}

/// Writes a value without its type.
fn plain(out: &mut impl fmt::Write, kind: &str, value: Option<&Value>) -> fmt::Result {
    if let Some(item) = kind.strip_prefix("[]") {
        let items = value.and_then(Value::as_array).filter(|items| !items.is_empty());
        let Some(items) = items else { return out.write_str("<nil>") };
        out.write_char('[')?;
        for (at, value) in items.iter().enumerate() {
            out.write_str(if at > 0 { " " } else { "" })?;
            plain(out, item, Some(value))?;
        }
        return out.write_char(']');
    }
    let text = || value.and_then(Value::as_str).unwrap_or_default();
    let number = || value.and_then(Value::as_i64).unwrap_or_default();
    match kind {
        "string" => out.write_str(text()),
        named if named.contains('\'') => out.write_str(text()),
        "bool" => write!(out, "{}", value.and_then(Value::as_bool).unwrap_or_default()),
        "int32" | "int64" => write!(out, "{}", number()),
        "map" => map(out, value, |out, text| out.write_str(text)),
        "ResourceList" => map(out, value, quantity),
        "Quantity" => quantity(out, text()),
        // Never set in a template.
        "Time" => out.write_str("{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}"),
        "IntOrString" => {
            let is_text = i32::from(value.is_some_and(Value::is_string));
            write!(out, "{{Type:(intstr.Type){is_text} IntVal:(int32){} StrVal:(string){}}}", number(), text())
        }
        kind => fields(out, kind, value),
    }
}

fn fields(out: &mut impl fmt::Write, kind: &str, value: Option<&Value>) -> fmt::Result {
    out.write_char('{')?;
    for (at, member) in TYPES.get(kind).into_iter().flatten().enumerate() {
        write!(out, "{}{}:", if at > 0 { " " } else { "" }, member.name)?;
        let value = if member.json.is_empty() { value } else { value.and_then(|value| value.get(member.json)) };
        field(out, member.kind, value)?;
    }
    out.write_char('}')
}

fn map<W: fmt::Write>(out: &mut W, value: Option<&Value>, write: impl Fn(&mut W, &str) -> fmt::Result) -> fmt::Result {
    let entries = value.and_then(Value::as_object).filter(|entries| !entries.is_empty());
    let Some(entries) = entries else { return out.write_str("<nil>") };
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_unstable_by_key(|(name, _)| *name);
    out.write_str("map[")?;
    for (at, (name, value)) in entries.into_iter().enumerate() {
        write!(out, "{}{name}:", if at > 0 { " " } else { "" })?;
        write(out, value.as_str().unwrap_or_default())?;
    }
    out.write_char(']')
}

/// Writes what Go keeps of a quantity: a number, its decimal exponent, the text, and the kind of suffix.
fn quantity(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    let (value, scale, format) = parsed(text);
    write!(
        out,
        "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}} \
         d:(resource.infDecAmount){{Dec:(*inf.Dec)<nil>}} s:(string){text} Format:(resource.Format){format}}}"
    )
}

fn parsed(text: &str) -> (i64, i32, &'static str) {
    if text.is_empty() || text == "0" {
        return (0, 0, "");
    }
    let digits = text.find(|letter: char| !matches!(letter, '0'..='9' | '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let places = number.split_once('.').map_or(0, |(_, places)| places.len());
    let value: i64 = number.replace('.', "").parse().unwrap_or(0);
    let binary = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix);
    if let Some(power) = binary {
        return (value.saturating_mul(1_i64 << (10 * (power + 1))), 0, "BinarySI");
    }
    let (exponent, format) = match suffix {
        "n" => (-9, "DecimalSI"),
        "u" => (-6, "DecimalSI"),
        "m" => (-3, "DecimalSI"),
        "k" => (3, "DecimalSI"),
        "M" => (6, "DecimalSI"),
        "G" => (9, "DecimalSI"),
        "T" => (12, "DecimalSI"),
        "P" => (15, "DecimalSI"),
        "E" => (18, "DecimalSI"),
        "" => (0, "DecimalSI"),
        exponent => (exponent.get(1..).and_then(|number| number.parse().ok()).unwrap_or(0), "DecimalExponent"),
    };
    (value, exponent - i32::try_from(places).unwrap_or(0), format)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(container: Value) -> PodTemplateSpec {
        let mut container = container;
        container["name"] = "nginx".into();
        container["terminationMessagePath"] = "/dev/termination-log".into();
        container["terminationMessagePolicy"] = "File".into();
        let template = json!({"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [container],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "securityContext": {}, "schedulerName": "default-scheduler"}});
        serde_json::from_value(template).expect("a template")
    }

    #[test]
    fn names_are_those_that_kubernetes_gives() {
        // What `kubectl create deployment nginx --image=nginx` makes of a 1.34 cluster, and the Deployment of the
        // documentation's first example.
        let first = template(json!({"image": "nginx", "imagePullPolicy": "Always"}));
        assert_eq!(pod_template_hash(&first, None), "66686b6766");
        let port = json!([{"containerPort": 80, "protocol": "TCP"}]);
        let second = template(json!({"image": "nginx:1.14.2", "imagePullPolicy": "IfNotPresent", "ports": port}));
        assert_eq!(pod_template_hash(&second, None), "bf744486c");
        assert_ne!(pod_template_hash(&second, Some(1)), pod_template_hash(&second, None));
        assert_ne!(pod_template_hash(&second, Some(1)), pod_template_hash(&second, Some(2)));
    }

    #[test]
    fn dumps_are_as_go_writes_them() {
        let dump = |kind: &str, value: Value| {
            let mut out = String::new();
            field(&mut out, kind, Some(&value)).expect("a string");
            out
        };
        let no_dec = "d:(resource.infDecAmount){Dec:(*inf.Dec)<nil>}";
        assert_eq!(
            dump("ResourceList", json!({"memory": "128Mi", "cpu": "500m"})),
            format!(
                "(v1.ResourceList)map[cpu:{{i:(resource.int64Amount){{value:(int64)500 scale:(resource.Scale)-3}} \
                 {no_dec} s:(string)500m Format:(resource.Format)DecimalSI}} \
                 memory:{{i:(resource.int64Amount){{value:(int64)134217728 scale:(resource.Scale)0}} \
                 {no_dec} s:(string)128Mi Format:(resource.Format)BinarySI}}]"
            )
        );
        assert_eq!(
            dump("TCPSocketAction", json!({"port": "http"})),
            "(v1.TCPSocketAction){Port:(intstr.IntOrString){Type:(intstr.Type)1 IntVal:(int32)0 StrVal:(string)http} \
             Host:(string)}"
        );
        let reference = json!({"name": "n", "optional": true, "items": []});
        assert_eq!(
            dump("ConfigMapProjection", reference),
            "(v1.ConfigMapProjection){LocalObjectReference:(v1.LocalObjectReference){Name:(string)n} \
             Items:([]v1.KeyToPath)<nil> Optional:(*bool)true}"
        );
    }

    #[test]
    fn every_type_that_is_named_is_there() {
        for field in TYPES.values().flatten() {
            let kind = field.kind.trim_start_matches(['*', '[', ']']);
            let is_plain =
                ["string", "bool", "int32", "int64", "map", "Time", "Quantity", "IntOrString"].contains(&kind);
            let is_list = kind == "ResourceList" || kind == "ManagedFieldsEntry" || kind == "OwnerReference";
            let is_known = TYPES.contains_key(kind) || kind == "EphemeralContainer";
            assert!(is_plain || is_list || kind.contains('\'') || is_known, "{kind}");
        }
    }
}
