//! The node's server, put together from the kubelet's parts, over pipes instead of a socket.

use std::sync::Arc;

use k3sd_client::api::Connect;
use k3sd_cri::Cri;
use k3sd_kubelet_base::Pods;
use k3sd_kubelet_base::stats::{Figures as Measures, Measuring, Summary};
use k3sd_kubelet_node::figures::Figures;
use k3sd_kubelet_pods::PodsHandle;
use k3sd_kubelet_server::{Checks, Configz, ServerArgs, ServerConfig, tree};
use k3sd_runtime::{Clock, Spec};
use serde_json::json;

use super::world::NODE;
use crate::fakes::port::Doorway;

/// Whom the server speaks for.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) connect: Connect,
    pub(super) cri: Cri,
    pub(super) pods: Pods,
    pub(super) handle: PodsHandle,
    pub(super) figures: Figures,
    pub(super) clock: Clock,
}

/// What the node's part measures. Pages of numbers are made by others, and those are not here.
struct Measured(Figures);

impl Measures for Measured {
    fn summary(&self, _: bool) -> Measuring<'_, Summary> {
        Box::pin(async move { self.0.summary().await.map_err(|error| error.to_string()) })
    }

    fn resource_metrics(&self) -> Measuring<'_, String> {
        Box::pin(async move { self.0.resource_metrics().await.map_err(|error| error.to_string()) })
    }

    fn container_metrics(&self) -> Measuring<'_, String> {
        Box::pin(async move { self.0.cadvisor_metrics().await.map_err(|error| error.to_string()) })
    }

    fn probe_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok(String::new())))
    }

    fn own_metrics(&self) -> Measuring<'_, String> {
        Box::pin(std::future::ready(Ok(String::new())))
    }
}

/// The server behind this door.
pub(super) fn server(doorway: Doorway, parts: Parts) -> Spec {
    let Parts { connect, cri, pods, handle, figures, clock } = parts;
    let checks = Checks::new(move || {
        let is_synced = if handle.is_synced() { Ok(()) } else { Err("the pods aren't read yet".to_owned()) };
        vec![("syncloop".to_owned(), is_synced)]
    });
    tree(ServerArgs {
        config: ServerConfig::new(NODE),
        socket: doorway.socket,
        tls: doorway.tls,
        health_socket: None,
        connect,
        pods,
        cri,
        figures: Arc::new(Measured(figures)),
        checks,
        configz: Configz::new(|| json!({ "kind": "KubeletConfiguration" })),
        clock,
    })
}
