//! The Kubernetes API: the front of it, and the tree of everything behind.
//!
//! ```text
//! k3sd-apiserver              listeners, connections, the pipeline of a request, the tree
//! ├─ -wire                    what clients read: encodings, tables, discovery, OpenAPI
//! ├─ -registry                the verbs, and what a kind needs beyond its schema
//! │  ├─ -admission            what changes or refuses a write by looking at other objects
//! │  ├─ -custom               CustomResourceDefinitions
//! │  └─ -validation           what makes an object invalid
//! ├─ -access                  who may do what, and who it is
//! └─ -store                   what is served, watch caches, objects over bytes
//! ```
//!
//! What is deliberately absent: handlers written once per kind, and any way to the store past `-store`.
