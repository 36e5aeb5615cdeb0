//! Which defaults stand at which place of the built-in schemas, worked out once, so that the walk through an object asks
//! an array and passes by what has none.

use std::sync::LazyLock;

use crate::default::kinds::Hook;
use crate::default::table::{ROWS, Row};
use crate::schema::{Kind, SchemaRef, builtin};

/// What is known of one place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Step {
    /// Rows of the table for the structure.
    pub(super) rows: &'static [Row],
    /// Code for the structure.
    pub(super) hook: Option<Hook>,
    /// Whether amounts of resources in its maps are rounded.
    pub(super) of_core: bool,
    /// Whether anything is to be done here or below.
    pub(super) busy: bool,
}

static STEPS: LazyLock<Vec<Step>> = LazyLock::new(|| {
    let arena = builtin();
    let places = (0..arena.node_count()).map(|index| arena.at(index));
    let mut steps: Vec<Step> = places.clone().map(own).collect();
    // What is above something to do has something to do, over and over until nothing changes: the depth of the schemas
    // bounds the rounds.
    let mut changed = true;
    while changed {
        changed = false;
        for (index, place) in places.clone().enumerate() {
            if !steps[index].busy && below(place).any(|place| steps[place.index()].busy) {
                steps[index].busy = true;
                changed = true;
            }
        }
    }
    steps
});

/// The step for a place of the built-in schemas.
pub(super) fn step(place: SchemaRef<'_>) -> Step {
    STEPS[place.index()]
}

fn own(place: SchemaRef<'static>) -> Step {
    let name = place.type_name().unwrap_or_default();
    let rows = ROWS.get(name).map_or(&[][..], Vec::as_slice);
    let hook = Hook::of(name);
    let amounts = place.kind() == Kind::Map && place.values().is_some_and(|values| values.kind() == Kind::Quantity);
    Step { rows, hook, of_core: name.starts_with("core.v1."), busy: amounts || !rows.is_empty() || hook.is_some() }
}

fn below(place: SchemaRef<'static>) -> impl Iterator<Item = SchemaRef<'static>> {
    let single = place.item().or_else(|| place.values());
    place.properties().map(|property| property.schema).chain(single)
}
