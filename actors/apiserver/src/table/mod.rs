//! Objects as rows for people: what `kubectl get` prints.
