//! Types of expressions, as the compiler knows them, with how great values can be.

use std::fmt;
use std::rc::Rc;

use k3sd_objects::schema::SchemaRef;

/// A type. The numbers are the greatest size there can be: bytes of text, items of a list, entries of a map.
#[derive(Clone, Debug)]
pub(crate) enum Type<'s> {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text(u64),
    Bytes(u64),
    Timestamp,
    Duration,
    List(Rc<Type<'s>>, u64),
    Map(Rc<Type<'s>>, Rc<Type<'s>>, u64),
    /// A structure with named fields.
    Object(SchemaRef<'s>),
    Optional(Rc<Type<'s>>),
    /// What `type(x)` gives.
    Meta,
    /// A value of one of the libraries.
    Opaque(Opaque),
}

/// Types that come with functions of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opaque {
    Quantity,
    Ip,
    Cidr,
    Url,
    Semver,
    Format,
}

impl Opaque {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quantity => "kubernetes.Quantity",
            Self::Ip => "net.IP",
            Self::Cidr => "net.CIDR",
            Self::Url => "kubernetes.URL",
            Self::Semver => "kubernetes.Semver",
            Self::Format => "kubernetes.NamedFormat",
        }
    }
}

/// What a function takes or gives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pattern {
    Dyn,
    /// The same type wherever it stands in one signature.
    A,
    B,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    List(&'static Pattern),
    Map(&'static Pattern, &'static Pattern),
    Optional(&'static Pattern),
    Type,
    Opaque(Opaque),
}

/// Greatest size of what nobody limits: nothing in a request is greater.
pub(crate) const UNKNOWN: u64 = (3 << 20) - 2;

impl<'s> Type<'s> {
    /// The greatest size of a value; one for what has none.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Text(max) | Self::Bytes(max) | Self::List(_, max) | Self::Map(.., max) => *max,
            Self::Dyn | Self::Optional(_) => UNKNOWN,
            _ => 1,
        }
    }

    /// The type of something with another greatest size.
    pub(crate) fn sized(self, max: u64) -> Self {
        match self {
            Self::Text(_) => Self::Text(max),
            Self::Bytes(_) => Self::Bytes(max),
            Self::List(item, _) => Self::List(item, max),
            Self::Map(key, value, _) => Self::Map(key, value, max),
            other => other,
        }
    }

    /// Whether a value of the one type may stand where the other is wanted.
    pub(crate) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::Text(_), Self::Text(_)) | (Self::Bytes(_), Self::Bytes(_)) => true,
            (Self::List(a, _), Self::List(b, _)) | (Self::Optional(a), Self::Optional(b)) => a.fits(b),
            (Self::Map(a, b, _), Self::Map(c, d, _)) => a.fits(c) && b.fits(d),
            (Self::Object(a), Self::Object(b)) => a == b,
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            // A value that isn't a scalar may be null.
            (Self::Null, Self::Object(_) | Self::Timestamp | Self::Duration) => true,
            (Self::Object(_) | Self::Timestamp | Self::Duration, Self::Null) => true,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// The type of something that is one or the other; `None` if they have nothing in common.
    pub(crate) fn join(&self, other: &Self) -> Option<Self> {
        if !self.fits(other) {
            return None;
        }
        Some(match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::Null, known) | (known, Self::Null) => known.clone(),
            (Self::List(a, x), Self::List(b, y)) => Self::List(Rc::new(a.join(b)?), *x.max(y)),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(Rc::new(a.join(b)?)),
            (Self::Map(a, b, x), Self::Map(c, d, y)) => Self::Map(Rc::new(a.join(c)?), Rc::new(b.join(d)?), *x.max(y)),
            (known, other) => known.clone().sized(known.size().max(other.size())),
        })
    }
}

/// As the usual compiler prints it.
impl fmt::Display for Type<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => out.write_str("dyn"),
            Self::Null => out.write_str("null"),
            Self::Bool => out.write_str("bool"),
            Self::Int => out.write_str("int"),
            Self::Uint => out.write_str("uint"),
            Self::Double => out.write_str("double"),
            Self::Text(_) => out.write_str("string"),
            Self::Bytes(_) => out.write_str("bytes"),
            Self::Timestamp => out.write_str("timestamp"),
            Self::Duration => out.write_str("duration"),
            Self::List(item, _) => write!(out, "list({item})"),
            Self::Map(key, value, _) => write!(out, "map({key}, {value})"),
            Self::Object(_) => out.write_str("object"),
            Self::Optional(inner) => write!(out, "optional_type({inner})"),
            Self::Meta => out.write_str("type"),
            Self::Opaque(opaque) => out.write_str(opaque.name()),
        }
    }
}

/// What the letters of a signature stand for in one call.
#[derive(Clone, Default)]
pub(crate) struct Bindings<'s>([Option<Type<'s>>; 2]);

impl<'s> Bindings<'s> {
    /// Whether an argument is what a signature wants.
    pub(crate) fn take(&mut self, pattern: Pattern, of: &Type<'s>) -> bool {
        match (pattern, of) {
            (Pattern::A, of) => self.bind(0, of),
            (Pattern::B, of) => self.bind(1, of),
            (Pattern::List(item), Type::List(of, _)) => self.take(*item, of),
            (Pattern::Optional(inner), Type::Optional(of)) => self.take(*inner, of),
            (Pattern::Map(key, value), Type::Map(a, b, _)) => self.take(*key, a) && self.take(*value, b),
            (Pattern::List(_) | Pattern::Map(..) | Pattern::Optional(_), Type::Dyn) => true,
            (pattern, of) => plain(pattern).is_some_and(|wanted| wanted.fits(of)),
        }
    }

    fn bind(&mut self, letter: usize, of: &Type<'s>) -> bool {
        let joined = match &self.0[letter] {
            None => Some(of.clone()),
            Some(known) => known.join(of),
        };
        let fits = joined.is_some();
        if fits {
            self.0[letter] = joined;
        }
        fits
    }

    /// The type that a signature gives, with unknown sizes.
    pub(crate) fn give(&self, pattern: Pattern) -> Type<'s> {
        let bound = |letter: usize| self.0[letter].clone().unwrap_or(Type::Dyn);
        match pattern {
            Pattern::A => bound(0),
            Pattern::B => bound(1),
            Pattern::List(item) => Type::List(Rc::new(self.give(*item)), UNKNOWN),
            Pattern::Map(key, value) => Type::Map(Rc::new(self.give(*key)), Rc::new(self.give(*value)), UNKNOWN),
            Pattern::Optional(inner) => Type::Optional(Rc::new(self.give(*inner))),
            other => plain(other).unwrap_or(Type::Dyn),
        }
    }
}

fn plain<'s>(pattern: Pattern) -> Option<Type<'s>> {
    Some(match pattern {
        Pattern::Dyn => Type::Dyn,
        Pattern::Bool => Type::Bool,
        Pattern::Int => Type::Int,
        Pattern::Uint => Type::Uint,
        Pattern::Double => Type::Double,
        Pattern::Text => Type::Text(UNKNOWN),
        Pattern::Bytes => Type::Bytes(UNKNOWN),
        Pattern::Timestamp => Type::Timestamp,
        Pattern::Duration => Type::Duration,
        Pattern::Type => Type::Meta,
        Pattern::Opaque(opaque) => Type::Opaque(opaque),
        Pattern::A | Pattern::B | Pattern::List(_) | Pattern::Map(..) | Pattern::Optional(_) => return None,
    })
}
