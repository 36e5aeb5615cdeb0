//! The cgroup tree of pods: made, limited, read and removed, on v1, hybrid and v2.
