//! The subtree, as data.

use k3sd_apiserver_store::Stores;
use k3sd_runtime::{Spec, Strategy, task};

use crate::controller;

/// Two tasks that read the same definitions and hold nothing of each other's. They stand behind the caches of the API
/// server, which they read, and before what serves clients.
pub fn tree(stores: &Stores) -> Spec {
    let (follow, clean_up) = (stores.clone(), stores.clone());
    Spec::new(Strategy::OneForOne)
        .child(task("definitions", move |task| controller::follow(task, follow.clone())))
        .child(task("cleanup", move |task| controller::clean_up(task, clean_up.clone())))
}
