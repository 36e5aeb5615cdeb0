//! How often each call was made, how it went and how long it took, under the names that dashboards know from the kubelet.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use k3sd_runtime::exposition::{Histogram, head, line};

/// Upper bounds of the buckets, in milliseconds.
const BUCKETS_MS: [u64; 14] = [5, 12, 31, 78, 195, 488, 1220, 3051, 7629, 19_073, 47_683, 119_209, 298_023, 745_058];

/// The calls of the interface, with the kubelet's names for them.
const CALLS: [(&str, &str); 31] = [
    ("Version", "version"),
    ("Status", "status"),
    ("RuntimeConfig", "runtime_config"),
    ("UpdateRuntimeConfig", "update_runtime_config"),
    ("RunPodSandbox", "run_podsandbox"),
    ("StopPodSandbox", "stop_podsandbox"),
    ("RemovePodSandbox", "remove_podsandbox"),
    ("PodSandboxStatus", "podsandbox_status"),
    ("ListPodSandbox", "list_podsandbox"),
    ("CreateContainer", "create_container"),
    ("StartContainer", "start_container"),
    ("StopContainer", "stop_container"),
    ("RemoveContainer", "remove_container"),
    ("ListContainers", "list_containers"),
    ("ContainerStatus", "container_status"),
    ("UpdateContainerResources", "update_container"),
    ("ReopenContainerLog", "reopen_container_log"),
    ("CheckpointContainer", "checkpoint_container"),
    ("ExecSync", "exec_sync"),
    ("Exec", "exec"),
    ("Attach", "attach"),
    ("PortForward", "port_forward"),
    ("ContainerStats", "container_stats"),
    ("ListContainerStats", "list_container_stats"),
    ("PodSandboxStats", "podsandbox_stats"),
    ("ListPodSandboxStats", "list_podsandbox_stats"),
    ("ListImages", "list_images"),
    ("ImageStatus", "image_status"),
    ("PullImage", "pull_image"),
    ("RemoveImage", "remove_image"),
    ("ImageFsInfo", "image_fs_info"),
];

/// The numbers of one call.
#[derive(Debug)]
struct Number {
    took: Histogram<{ BUCKETS_MS.len() }>,
    failed: AtomicU64,
}

/// The numbers of all calls, in the order of [`CALLS`].
#[derive(Debug)]
pub(crate) struct Numbers([Number; CALLS.len()]);

impl Default for Numbers {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Number { took: Histogram::new(&BUCKETS_MS), failed: AtomicU64::new(0) }))
    }
}

impl Numbers {
    /// A call is over. One without a name of the kubelet's isn't counted.
    pub(crate) fn count(&self, call: &str, took: Duration, failed: bool) {
        let Some(place) = CALLS.iter().position(|(name, _)| *name == call) else { return };
        self.0[place].took.observe(took);
        self.0[place].failed.fetch_add(u64::from(failed), Relaxed);
    }

    /// Writes those that were made at all.
    pub(crate) fn write(&self, text: &mut String) {
        let made = || self.0.iter().zip(&CALLS).filter(|(number, _)| number.took.count() > 0);
        let labels = |name: &str| format!("operation_type=\"{name}\"");
        let name = "kubelet_runtime_operations_total";
        head(text, name, "counter", "Calls to the container runtime.");
        made().for_each(|(number, (_, call))| line(text, name, &labels(call), number.took.count()));
        let name = "kubelet_runtime_operations_errors_total";
        head(text, name, "counter", "Of them those that failed.");
        let failed = made().map(|(number, (_, call))| (number.failed.load(Relaxed), call));
        failed.filter(|(count, _)| *count > 0).for_each(|(count, call)| line(text, name, &labels(call), count));
        let name = "kubelet_runtime_operations_duration_seconds";
        head(text, name, "histogram", "How long they took.");
        made().for_each(|(number, (_, call))| number.took.write(text, name, &labels(call)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_called_is_told() {
        let numbers = Numbers::default();
        numbers.count("ListContainers", Duration::from_millis(7), false);
        numbers.count("ListContainers", Duration::from_millis(7), true);
        numbers.count("Version", Duration::ZERO, false);
        numbers.count("no such call", Duration::ZERO, true);
        let mut text = String::new();
        numbers.write(&mut text);
        for line in [
            "kubelet_runtime_operations_total{operation_type=\"list_containers\"} 2",
            "kubelet_runtime_operations_errors_total{operation_type=\"list_containers\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"list_containers\",le=\"0.012\"} 2",
            "kubelet_runtime_operations_duration_seconds_count{operation_type=\"version\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("errors_total{operation_type=\"version\"") && !text.contains("pull_image"), "{text}");
    }
}
