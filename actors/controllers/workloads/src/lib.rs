//! The controllers of workloads that run until they are told to stop.
