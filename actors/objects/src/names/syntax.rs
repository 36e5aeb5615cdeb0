//! The regular expressions of names, by hand: they are simple, and every request passes through some of them.

/// One label of DNS, of any length.
pub(super) fn is_label(value: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = value.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Labels with dots between them.
pub(super) fn is_subdomain(value: &str) -> bool {
    value.split('.').all(is_label)
}

/// The name part of a qualified name, or a label's value that isn't empty.
pub(super) fn is_qualified_part(value: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
