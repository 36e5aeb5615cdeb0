//! What a schema demands beyond the kind of a value. Custom resources bring these rules; built-in kinds have code.

use serde_json::Value;

/// Rules about one value.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What stands for an absent value.
    pub default: Option<Value>,
    /// The only values allowed, unless empty.
    pub enumeration: Vec<Value>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// Least number.
    pub minimum: Option<f64>,
    /// Greatest number.
    pub maximum: Option<f64>,
    /// Whether the least number itself is too small.
    pub exclusive_minimum: bool,
    /// Whether the greatest number itself is too great.
    pub exclusive_maximum: bool,
    /// The number is a whole multiple of this.
    pub multiple_of: Option<f64>,
    /// Least number of characters.
    pub min_length: Option<u64>,
    /// Greatest number of characters.
    pub max_length: Option<u64>,
    /// What the text must match somewhere.
    pub pattern: Option<Pattern>,
    /// Name of a syntax; unknown names ask for nothing.
    pub format: Option<String>,
    /// Least number of items.
    pub min_items: Option<u64>,
    /// Greatest number of items.
    pub max_items: Option<u64>,
    /// Whether all items differ.
    pub unique_items: bool,
    /// Least number of fields.
    pub min_properties: Option<u64>,
    /// Greatest number of fields.
    pub max_properties: Option<u64>,
    /// Nodes that must all fit.
    pub(crate) all_of: Vec<u32>,
    /// Nodes of which one must fit.
    pub(crate) any_of: Vec<u32>,
    /// Nodes of which exactly one must fit.
    pub(crate) one_of: Vec<u32>,
    /// Node that must not fit.
    pub(crate) not: Option<u32>,
    /// Rules in CEL; who compiles them finds them here.
    pub validations: Vec<ValidationRule>,
}

/// A regular expression with the text it was made from.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As the schema writes it.
    pub text: String,
    /// Compiled once, when the schema is read.
    pub(crate) regex: regex::Regex,
}

impl Pattern {
    /// Whether the expression matches somewhere in the text.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// One entry of `x-kubernetes-validations`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ValidationRule {
    /// The expression.
    pub rule: String,
    /// What to say when it is false.
    pub message: Option<String>,
    /// An expression that gives what to say.
    pub message_expression: Option<String>,
    /// The reason of the error; `FieldValueInvalid` when absent.
    pub reason: Option<String>,
    /// The field to blame, below the place of the rule.
    pub field_path: Option<String>,
    /// Whether `oldSelf` is optional.
    pub optional_old_self: Option<bool>,
}

impl Rules {
    /// A default and nothing else.
    pub(crate) fn with_default(default: Value) -> Self {
        Self { default: Some(default), ..Self::default() }
    }

    /// Whether there is any rule.
    pub(crate) fn says_something(&self) -> bool {
        let limits = [
            self.min_length,
            self.max_length,
            self.min_items,
            self.max_items,
            self.min_properties,
            self.max_properties,
        ];
        let numbers = [self.minimum, self.maximum, self.multiple_of];
        let nested = [&self.all_of, &self.any_of, &self.one_of];
        self.default.is_some()
            || self.pattern.is_some()
            || self.format.is_some()
            || self.not.is_some()
            || self.unique_items
            || !self.enumeration.is_empty()
            || !self.required.is_empty()
            || !self.validations.is_empty()
            || limits.iter().any(Option::is_some)
            || numbers.iter().any(Option::is_some)
            || nested.iter().any(|nodes| !nodes.is_empty())
    }
}
