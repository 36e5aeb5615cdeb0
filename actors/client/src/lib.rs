//! The one way to reach the API, and the narrow types in which subsystems meet.
//!
//! * [`storage`] is what the API server asks of whoever keeps its bytes.

pub mod storage;
