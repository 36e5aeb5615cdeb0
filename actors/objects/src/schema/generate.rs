//! Makes up values that fit a schema, for tests that hold for every kind.

use serde_json::{Map, Value, json};

use crate::decode::normalize;
use crate::schema::{Kind, SchemaRef};

/// A stream of numbers from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The mixing of splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// An object of a kind in upstream's form, with about a third of its fields.
pub(crate) fn object(schema: SchemaRef<'static>, api_version: &str, kind: &str, dice: &mut Dice) -> Value {
    let mut value = value(schema, dice, 0);
    value["apiVersion"] = json!(api_version);
    value["kind"] = json!(kind);
    normalize(&mut value, schema);
    value
}

/// A value in the canonical form of its kind.
pub(crate) fn value(schema: SchemaRef<'static>, dice: &mut Dice, depth: u64) -> Value {
    let texts = ["", "a", "b-c", "0", "h\u{e4}\n\"x\"", "true"];
    match schema.kind() {
        Kind::Object => {
            let mut map = Map::new();
            // Whole objects within others, such as the items of a list, leave out what they are.
            let whole = schema.property("metadata").is_some() || schema.type_name() == Some("meta.v1.DeleteOptions");
            let inner = schema.properties().filter(|p| !(whole && matches!(p.name, "apiVersion" | "kind")));
            for property in inner {
                if dice.below(3 + depth * depth) == 0 {
                    map.insert(property.name.to_owned(), value(property.schema, dice, depth + 1));
                }
            }
            Value::Object(map)
        }
        Kind::Map => {
            // As with lists: one that is required and empty comes back from protobuf as null, upstream too.
            let count = dice.below(3) + 1;
            let values = schema.values().unwrap();
            (0..count).map(|n| (format!("k{n}"), value(values, dice, depth + 1))).collect::<Map<_, _>>().into()
        }
        Kind::Array => {
            let count = dice.below(3) + 1;
            let item = schema.item().unwrap();
            (0..count).map(|_| value(item, dice, depth + 1)).collect::<Vec<_>>().into()
        }
        Kind::String => dice.pick(&texts).into(),
        Kind::Int32 => dice.pick(&[0, 1, -1, i32::MAX, i32::MIN, 300]).into(),
        Kind::Int64 => dice.pick(&[0, 1, -1, i64::MAX, i64::MIN, 70_000]).into(),
        Kind::Number => dice.pick(&[0.5, -1.25, 1e30]).into(),
        Kind::Bool => (dice.below(2) == 0).into(),
        Kind::Bytes => dice.pick(&["", "AA==", "Zm9vYmFy"]).into(),
        Kind::Time => dice.pick(&["2024-01-02T03:04:05Z", "1999-12-31T23:59:59Z"]).into(),
        Kind::MicroTime => dice.pick(&["2024-01-02T03:04:05.000001Z", "1999-12-31T23:59:59.999999Z"]).into(),
        Kind::Quantity => dice.pick(&["0", "500m", "2Gi", "1e3", "-7"]).into(),
        Kind::IntOrString => dice.pick(&[json!(0), json!(80), json!(-1), json!("25%")].each_ref()).clone(),
        Kind::RawExtension | Kind::Fields => {
            dice.pick(&[json!({"f:a": {}}), json!({"x": [1, "b", null]})].each_ref()).clone()
        }
        Kind::Json => dice.pick(&[json!({}), json!([1]), json!("a"), json!(5), json!(true)].each_ref()).clone(),
        Kind::Any => json!({}),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            let nested = value(schema.nested_schema().unwrap(), dice, depth + 1);
            match (schema.kind(), dice.below(2)) {
                (_, 0) => nested,
                (Kind::SchemaOrArray, _) => json!([nested]),
                (Kind::SchemaOrBool, _) => (dice.below(2) == 0).into(),
                _ => json!(["a", "b"]),
            }
        }
    }
}
