//! Prices. The same formulas serve estimates, from the greatest sizes there can be, and evaluations, from actual ones.

/// How many units a character costs that is looked at.
const TRAVERSAL: f64 = 0.1;

/// How many units a character of a regular expression costs, times those of the text.
const EXPRESSION: f64 = 0.25;

/// Reading a variable or a field.
pub(crate) const READ: u64 = 1;

/// Making a list.
pub(crate) const MAKE_LIST: u64 = 10;

/// Making a map.
pub(crate) const MAKE_MAP: u64 = 30;

/// The price of a call by the sizes of its arguments and of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Price {
    /// One unit, whatever it is called with.
    One,
    /// One unit, and a little for great texts, whose characters are counted.
    Count,
    /// A look at the first argument.
    First,
    /// A look at the first argument that counts when it happens, and is estimated as nothing much: upstream does so,
    /// and definitions rely on it.
    Parse,
    /// A look at the second argument.
    Second,
    /// A look at the first argument, and as much for the result.
    FirstTwice,
    /// A look at both.
    Both,
    /// A look at the shorter one.
    Shorter,
    /// A look at the second for each look at the first.
    Product,
    /// A regular expression, the second argument, over the first.
    Expression,
    /// One unit for each item of the first argument.
    Items,
    /// One unit for each item of the second argument.
    ItemsOfSecond,
    /// One unit for each pair of items.
    Pairs,
    /// A look at the result.
    Result,
    /// Addresses: a handful, and a look at the second argument.
    Address,
}

/// What a look at so much costs.
pub(crate) fn traverse(size: u64) -> u64 {
    times(size, TRAVERSAL)
}

fn times(size: u64, factor: f64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "prices are estimates")]
    let cost = (size as f64 * factor).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, and nothing is negative"
    )]
    let cost = cost as u64;
    cost
}

impl Price {
    /// What a call may cost, by the greatest sizes there can be.
    pub(crate) fn estimate(self, sizes: &[u64], result: u64) -> u64 {
        if self == Self::Parse { 1 } else { self.of(sizes, result) }
    }

    pub(crate) fn of(self, sizes: &[u64], result: u64) -> u64 {
        let size = |index: usize| sizes.get(index).copied().unwrap_or(1);
        let (first, second) = (size(0), size(1));
        match self {
            Self::One => 1,
            Self::Count => 1,
            Self::First | Self::Parse => traverse(first),
            Self::Second => traverse(second),
            Self::FirstTwice => times(first, 2.0 * TRAVERSAL),
            Self::Both => traverse(first.saturating_add(second)),
            Self::Shorter => traverse(first.min(second)),
            Self::Product => traverse(first).saturating_mul(traverse(second)),
            Self::Expression => traverse(first.saturating_add(1)).saturating_mul(times(second, EXPRESSION)),
            Self::Items => first,
            Self::ItemsOfSecond => second,
            Self::Pairs => first.saturating_mul(second),
            Self::Result => times(result, 2.0 * TRAVERSAL),
            Self::Address => 4_u64.saturating_add(traverse(second)),
        }
    }
}
