//! Figures: the middle and the spread of what was measured, and the table they end up in. A module of each bench that has
//! bars. What it prints is for people; for each bar it also adds a line to the file `tmp/bars.tsv` of cargo's target
//! directory, from which `bench.sh` makes its one table. Names of bars are those of `benches/bars.txt`.

use std::io::Write as _;
use std::time::Duration;

/// Lines of bars are added to it.
const BARS_FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/bars.tsv");

/// What is told of a row of numbers: the middle one, the least and the greatest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of at least one number.
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (numbers.first(), numbers.last()) else { return Self::default() };
        Self { median: numbers[numbers.len() / 2], least: *least, most: *most }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} ({:.2} to {:.2})", self.median, self.least, self.most)
    }
}

/// Times of single operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub(crate) fn extend(&mut self, times: Self) {
        self.0.extend(times.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that so many thousandths do not exceed, in milliseconds.
    pub(crate) fn at(&mut self, thousandths: usize) -> f64 {
        self.0.sort_unstable();
        let Some(last) = self.0.len().checked_sub(1) else { return f64::NAN };
        self.0[last * thousandths / 1000].as_secs_f64() * 1e3
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// The bar that it measures; nothing where it measures none, or a part of one.
    pub(crate) name: Option<&'static str>,
    pub(crate) what: String,
    pub(crate) bar: String,
    pub(crate) ours: String,
    pub(crate) other: String,
    pub(crate) ratio: String,
    /// Nothing where no bar is set.
    pub(crate) holds: Option<bool>,
}

impl Row {
    /// A line with a ratio of which it is demanded that it be at least `bar`.
    pub(crate) fn ratio(what: impl Into<String>, bar: Option<f64>, ours: String, other: String, ratio: Spread) -> Self {
        Self {
            name: None,
            what: what.into(),
            bar: bar.map_or("-".to_owned(), |bar| format!("at least {bar} x")),
            ours,
            other,
            ratio: format!("{ratio} x"),
            holds: bar.map(|bar| ratio.median >= bar),
        }
    }

    /// A line with a number of which it is demanded that it be at most `bar`.
    pub(crate) fn at_most(what: impl Into<String>, bar: f64, unit: &str, ours: f64) -> Self {
        Self::alone(what, format!("at most {bar} {unit}"), format!("{ours:.2} {unit}"), ours <= bar)
    }

    /// A line with a number of which it is demanded that it be at least `bar`.
    pub(crate) fn at_least(what: impl Into<String>, bar: f64, unit: &str, ours: f64) -> Self {
        Self::alone(what, format!("at least {bar} {unit}"), format!("{ours:.0} {unit}"), ours >= bar)
    }

    /// A line with nothing beside it to compare with.
    pub(crate) fn alone(what: impl Into<String>, bar: impl Into<String>, ours: String, holds: bool) -> Self {
        let none = || "-".to_owned();
        let (what, bar) = (what.into(), bar.into());
        Self { name: None, what, bar, ours, other: none(), ratio: none(), holds: Some(holds) }
    }

    /// The same line as the one that measures this bar.
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// The first lines of a table that compares us with `other`.
    pub(crate) fn print_head(other: &str) {
        println!("| what | bar | ours | {other} | ratio | |\n|---|---|---|---|---|---|");
    }

    /// Prints it, and adds its bar to the file of bars.
    pub(crate) fn print(&self) {
        let Self { name, what, bar, ours, other, ratio, holds } = self;
        let verdict = match holds {
            Some(true) => "pass",
            Some(false) => "falls short",
            None => "",
        };
        println!("| {what} | {bar} | {ours} | {other} | {ratio} | {verdict} |");
        if let Some(name) = name {
            let line = format!("{name}\t{bar}\t{ours}\t{other}\t{ratio}\t{verdict}\n");
            let file = std::fs::OpenOptions::new().append(true).create(true).open(BARS_FILE);
            file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file of bars can be written");
        }
    }
}
