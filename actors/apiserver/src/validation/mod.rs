//! What makes an object invalid beyond its schema, and what of it may not change.
