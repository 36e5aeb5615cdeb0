//! Volumes of pods: what is mounted where, kept up to date, and taken away.
