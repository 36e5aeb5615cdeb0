//! The server as its clients meet it: TLS, certificates and tokens, roles, watches, and what happens when parts of it die.

#![expect(clippy::disallowed_methods, reason = "a client's connection is a task of the test's own")]

mod access;
mod aggregation;
mod clients;
mod documents;
mod flow;
mod hostile;
mod supervision;
mod support;
mod verbs;
mod websocket;
