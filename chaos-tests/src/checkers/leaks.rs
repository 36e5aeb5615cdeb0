//! What a process holds, before and after.

use std::fs;

/// A reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Tasks of the runtime.
    pub tasks: usize,
    /// File descriptors.
    pub descriptors: usize,
    /// Bytes of memory; 0 where nobody counts them.
    pub memory: usize,
}

impl Held {
    /// Reads what this process has now; `memory` is what its allocator says. Call it within a tokio runtime.
    #[must_use]
    pub fn now(memory: usize) -> Self {
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { tasks, descriptors, memory }
    }
}

/// What there is more of than before. Clients that nobody needed before have a task each, of which there may be so many.
/// Memory may grow by so much: by what was made meanwhile and is still there.
#[must_use]
pub fn check(before: Held, after: Held, clients_max: usize, memory_max: usize) -> Vec<String> {
    let mut findings = Vec::new();
    if after.tasks > before.tasks + clients_max {
        findings.push(format!("there are {} tasks, and were {}", after.tasks, before.tasks));
    }
    if after.descriptors > before.descriptors {
        findings.push(format!("{} descriptors are open, and {} were", after.descriptors, before.descriptors));
    }
    if after.memory > before.memory + memory_max {
        findings.push(format!("{} bytes of memory are in use, and {} were", after.memory, before.memory));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_more_of_is_found() {
        let before = Held { tasks: 10, descriptors: 5, memory: 1000 };
        let check = |tasks, descriptors, memory| check(before, Held { tasks, descriptors, memory }, 2, 100);
        assert_eq!(check(12, 4, 1100), Vec::<String>::new());
        assert_eq!(check(13, 5, 1000), ["there are 13 tasks, and were 10"]);
        assert_eq!(check(9, 6, 1000), ["6 descriptors are open, and 5 were"]);
        assert_eq!(check(9, 5, 1101), ["1101 bytes of memory are in use, and 1000 were"]);
    }

    #[tokio::test]
    async fn a_task_and_a_file_are_seen() {
        let before = Held::now(0);
        let _file = fs::File::open("/proc/self/stat").unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        let after = Held::now(0);
        assert_eq!(after.tasks, before.tasks + 1);
        assert!(after.descriptors > 0);
        task.abort();
    }
}
