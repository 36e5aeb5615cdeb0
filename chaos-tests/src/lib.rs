//! Fault plans and invariant checkers for whole-process scenarios.
