//! What the kernel knows of the process, under the names that Prometheus' clients give it.

use std::fs;
use std::path::Path;

use super::{head, line};

/// The unit of times in /proc, which is the same on every Linux that we are built for.
const TICKS_PER_SECOND: f64 = 100.0;
/// The unit of resident memory there.
const PAGE_BYTES: u64 = 4096;

/// Writes down what can be read; what can't is left out.
pub fn write(text: &mut String, proc: &Path) {
    let Ok(stat) = fs::read_to_string(proc.join("self/stat")) else { return };
    // The name before them may hold anything, so the fields are counted from its end: the first is number 3.
    let Some((_, fields)) = stat.rsplit_once(") ") else { return };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let mut tell = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let name = format!("process_{name}");
            head(text, &name, kind, help);
            line(text, &name, "", value);
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floating")]
    let number = |value: Option<u64>| value.map(|value| value as f64);
    let seconds = |ticks: Option<u64>| number(ticks).map(|ticks| ticks / TICKS_PER_SECOND);
    let cpu = field(14).zip(field(15)).map(|(user, system)| user + system);
    tell("cpu_seconds_total", "counter", "Time that processors have spent on us.", seconds(cpu));
    let booted = fs::read_to_string(proc.join("stat")).ok();
    let booted = booted.and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok()));
    let start = booted.zip(seconds(field(22))).map(|(booted, later)| booted + later);
    tell("start_time_seconds", "gauge", "When we were started, in seconds since 1970.", start);
    tell("virtual_memory_bytes", "gauge", "Addresses in use.", number(field(23)));
    let resident = field(24).map(|pages| pages * PAGE_BYTES);
    tell("resident_memory_bytes", "gauge", "Memory in use.", number(resident));
    let open = fs::read_dir(proc.join("self/fd")).ok().map(|files| files.count() as u64);
    tell("open_fds", "gauge", "Open files.", number(open));
    let limits = fs::read_to_string(proc.join("self/limits")).unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let most = files.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    tell("max_fds", "gauge", "How many files may be open.", most);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_is_described() {
        let mut text = String::new();
        write(&mut text, Path::new("/proc"));
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}:\n{text}"));
            line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1e9 && value("process_cpu_seconds_total") >= 0.0);
    }

    #[test]
    fn without_proc_there_is_nothing_to_tell() {
        let mut text = String::new();
        write(&mut text, Path::new("/nowhere"));
        assert!(text.is_empty());
    }
}
