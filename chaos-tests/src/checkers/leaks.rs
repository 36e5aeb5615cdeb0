//! What a process holds, before and after.

use std::fs;

/// A reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Tasks of the runtime.
    pub tasks: usize,
    /// File descriptors.
    pub descriptors: usize,
}

impl Held {
    /// Reads what this process has now. Call it within a tokio runtime.
    #[must_use]
    pub fn now() -> Self {
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { tasks, descriptors }
    }
}

/// What there is more of than before. Clients that nobody needed before have a task each, of which there may be so many.
#[must_use]
pub fn check(before: Held, after: Held, clients_max: usize) -> Vec<String> {
    let mut findings = Vec::new();
    if after.tasks > before.tasks + clients_max {
        findings.push(format!("there are {} tasks, and were {}", after.tasks, before.tasks));
    }
    if after.descriptors > before.descriptors {
        findings.push(format!("{} descriptors are open, and {} were", after.descriptors, before.descriptors));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_more_of_is_found() {
        let before = Held { tasks: 10, descriptors: 5 };
        assert_eq!(check(before, Held { tasks: 12, descriptors: 4 }, 2), Vec::<String>::new());
        assert_eq!(check(before, Held { tasks: 13, descriptors: 5 }, 2), ["there are 13 tasks, and were 10"]);
        assert_eq!(check(before, Held { tasks: 9, descriptors: 6 }, 2), ["6 descriptors are open, and 5 were"]);
    }

    #[tokio::test]
    async fn a_task_and_a_file_are_seen() {
        let before = Held::now();
        let _file = fs::File::open("/proc/self/stat").unwrap();
        let task = tokio::spawn(std::future::pending::<()>());
        let after = Held::now();
        assert_eq!(after.tasks, before.tasks + 1);
        assert!(after.descriptors > 0);
        task.abort();
    }
}
