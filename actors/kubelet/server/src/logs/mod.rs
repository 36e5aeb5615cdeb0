//! Logs of containers, as the runtime writes them in the layout of the CRI.
//!
//! ```text
//! file ─▶ reader ─▶ lines ─▶ selection ─▶ pieces of the answer
//! ```
//!
//! [`find`] says whose log it is; the rest reads it.

mod file;
mod find;
mod line;
mod options;
mod reader;
mod select;
mod tail;

pub(crate) use self::find::{Refused, find};
pub(crate) use self::options::LogOptions;
pub(crate) use self::reader::{LogReader, Writer};
