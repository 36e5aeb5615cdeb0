//! What supervision promises, case by case, on the real runtime with a paused clock.

mod matrix;
mod support;
