//! The metrics API: what pods and nodes use right now.
