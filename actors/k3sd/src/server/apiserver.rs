//! The API server, as the flags ask for it, with what the certificate actors and the datastore hand to it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use k3sd_apiserver::{
    Aggregation, ApiServerArgs, ApiServerConfig, ApiServerTree, Bundles, ClientAuthorities, Component, Components,
    Dial, Endpoint, Files, Learn, LocalApi, Nodes, Numbers, Pages, Reached, StaticTokens, TOKEN_AUTH_FILE, TokenKeys,
    apply_arguments,
};
use k3sd_client::arguments::flag;
use k3sd_kine::StoreHandle;
use k3sd_pki::{Authority, Certificates, Leaf, PkiTree, San, ServingHandle, Snapshot};
use k3sd_runtime::System;
use k3sd_runtime::lend::Lend;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use super::{Identity, ServerError, loopback};
use crate::cli::version::VERSION;
use crate::config::{ListenConfig, ServerConfig};

/// Where the certificate actors run.
pub(crate) const PKI_PATH: &str = "server/pki";
/// As many connections as may wait for a listener; the kernel cuts it to its own limit.
const BACKLOG: i32 = 4096;

/// The common name of the front proxy's certificate.
const FRONT_PROXY: &str = "system:auth-proxy";
/// What K3s calls a token of its own.
const OWN_AUDIENCE: &str = "k3s";

/// Puts the API server together, and opens its sockets.
pub(crate) fn apiserver(
    config: &ServerConfig,
    identity: &Identity,
    data_dir: &Path,
    system: &System,
    pki: &PkiTree,
    store: &StoreHandle,
    metrics: Option<&k3sd_metrics::MetricsApi>,
) -> Result<ApiServerTree, ServerError> {
    let certificates = &pki.certificates;
    let serving = pki.serving.clone().at(system, PKI_PATH).map_err(ServerError::Path)?;
    let tree = k3sd_apiserver::tree(ApiServerArgs {
        config: ApiServerConfig {
            pages: pages(certificates),
            files: charts(data_dir.join("server/static")),
            numbers: numbers(system),
            nodes: nodes(certificates)?,
            aggregation: aggregation(certificates, metrics),
            ..settings(config, identity)?
        },
        storage: Arc::new(store.clone()),
        clock: system.clock().clone(),
        token_keys: token_keys(certificates),
        authorities: ClientAuthorities {
            users: certificates.client_verifier(Authority::Client, true),
            front_proxies: Some(certificates.client_verifier(Authority::RequestHeader, true)),
        },
        endpoints: endpoints(&config.listen, identity, certificates, &serving)?,
        bundles: bundles(certificates),
        components: components(config, system),
        checks: Vec::new(),
    });
    tree.map_err(ServerError::ApiServer)
}

/// How versions are reached that others answer for, and the one that a part of this server answers for.
fn aggregation(certificates: &Certificates, metrics: Option<&k3sd_metrics::MetricsApi>) -> Aggregation {
    use k3sd_metrics::{GROUP, PRIORITIES, VERSION};
    let local = |api: &k3sd_metrics::MetricsApi| {
        let api = api.clone();
        LocalApi::new(GROUP, VERSION, PRIORITIES, move |request| api.answer(request))
    };
    Aggregation {
        certificate: Some(certificates.client(Leaf::AuthProxy)),
        dial: None,
        locals: metrics.map(local).into_iter().collect(),
    }
}

/// How the server reaches kubelets: as itself, believing those that the cluster's authority signed.
fn nodes(certificates: &Certificates) -> Result<Nodes, ServerError> {
    let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(ServerError::NodeTls)?
        .dangerous()
        .with_custom_certificate_verifier(certificates.server_verifier(Authority::Server))
        .with_client_cert_resolver(certificates.client(Leaf::ApiServer));
    Ok(Nodes::new(&tls, Dial::direct()))
}

/// How the loops are, of those that this server runs, under the names of upstream's programs.
fn components(config: &ServerConfig, system: &System) -> Components {
    let (config, system) = (&config.components, system.clone());
    let rows = [
        (config.controller_manager, "controller-manager", "server/loops/controllers"),
        (config.scheduler, "scheduler", "server/loops/scheduler"),
    ];
    Components::new(move || {
        let one = |&(_, name, path): &(bool, &str, &str)| {
            let health = if system.is_occupied(path) { Ok("ok".to_owned()) } else { Err("it is down".to_owned()) };
            Component { name: name.to_owned(), health }
        };
        rows.iter().filter(|(wanted, ..)| *wanted).map(one).collect()
    })
}

/// The settings: K3s's, then the flags, then `--kube-apiserver-arg`.
fn settings(config: &ServerConfig, identity: &Identity) -> Result<ApiServerConfig, ServerError> {
    let network = &config.network;
    let issuer = format!("https://kubernetes.default.svc.{}", network.cluster_domain);
    let mut settings = ApiServerConfig {
        advertise_address: identity.advertise_address,
        advertise_port: config.listen.advertise_port,
        service_cidrs: network.service_cidrs.iter().map(ToString::to_string).collect(),
        node_ports: (network.node_ports.first, network.node_ports.last),
        cluster_domain: network.cluster_domain.clone(),
        host_name: identity.node_name.clone(),
        version: VERSION.to_owned(),
        audiences: vec![issuer.clone(), OWN_AUDIENCE.to_owned()],
        issuers: vec![issuer],
        ..ApiServerConfig::default()
    };
    settings.front_proxy.allowed_names = vec![FRONT_PROXY.to_owned()];
    let arguments = config.arguments.apiserver.iter().map(String::as_str);
    // The file is read by whoever may read files: us.
    let (files, arguments): (Vec<&str>, Vec<&str>) =
        arguments.partition(|argument| flag(argument).0 == TOKEN_AUTH_FILE);
    if let Some(argument) = files.last() {
        settings.static_tokens = Arc::new(static_tokens(flag(argument).1.into())?);
    }
    apply_arguments(&mut settings, arguments).map_err(ServerError::Argument)?;
    Ok(settings)
}

fn static_tokens(path: PathBuf) -> Result<StaticTokens, ServerError> {
    let text =
        std::fs::read_to_string(&path).map_err(|source| ServerError::TokenFile { path: path.clone(), source })?;
    StaticTokens::parse(&text).map_err(|source| ServerError::Tokens { path, source })
}

/// The authorities that the server believes, in PEM.
fn bundles(certificates: &Certificates) -> Bundles {
    let certificates = certificates.clone();
    Bundles::new(move || {
        let snapshot = certificates.current();
        let bundle = |name| snapshot.as_ref().map(|snapshot| snapshot.authority(name).bundle_pem()).unwrap_or_default();
        (bundle(Authority::Client), bundle(Authority::RequestHeader))
    })
}

/// The numbers of the loops over the API.
fn numbers(system: &System) -> Numbers {
    let system = system.clone();
    Numbers::new(move |text| system.queues().write(text, system.clock().now()))
}

/// What K3s's supervisor shows to everybody: that it is there, and the authorities by which nodes that join check it.
fn pages(certificates: &Certificates) -> Pages {
    let authorities = authorities_page(certificates);
    Pages::new(move |path| match path {
        "/ping" => Some(("text/plain; charset=utf-8", Bytes::from_static(b"pong"))),
        "/cacerts" => authorities().map(|pem| ("text/plain", pem)),
        _ => None,
    })
}

/// The charts that Helm's jobs fetch, and whatever an operator put beside them: K3s shows them to everybody.
fn charts(dir: PathBuf) -> Files {
    use k3sd_manifests::charts::{PREFIX, open};
    Files::new(PREFIX, move |path| open(&dir, path))
}

/// The authorities of servers in PEM, encoded once for each snapshot of the certificates: everybody may ask, as often as
/// he likes.
fn authorities_page(certificates: &Certificates) -> impl Fn() -> Option<Bytes> + Send + Sync + 'static {
    let certificates = certificates.clone();
    // Of which snapshot, without keeping its keys alive.
    let encoded: watch::Sender<(Weak<Snapshot>, Bytes)> = watch::Sender::default();
    move || {
        let snapshot = certificates.current()?;
        let of = Arc::downgrade(&snapshot);
        let known = Some(&*encoded.borrow()).filter(|known| known.0.ptr_eq(&of)).map(|known| known.1.clone());
        known.or_else(|| {
            let pem = Bytes::from(snapshot.authority(Authority::Server).bundle_pem());
            encoded.send_replace((of, pem.clone()));
            Some(pem)
        })
    }
}

/// The keys of service accounts, from the certificates that are valid.
fn token_keys(certificates: &Certificates) -> TokenKeys {
    // One place to wait at, so that no change is missed between two questions. Whoever asks is gone before its successor
    // asks, so it is always free.
    let place = Lend::new(certificates.clone());
    TokenKeys::new(move |changed| {
        let place = place.clone();
        async move {
            let mut seen = place.borrow().ok()?;
            let snapshot = if changed { seen.changed().await } else { seen.ready().await };
            snapshot.map(|snapshot| snapshot.service_keys().iter().map(k3sd_pki::PrivateKey::to_pem).collect())
        }
    })
}

/// The public socket, which learns names, and the one for the parts of this server.
fn endpoints(
    listen: &ListenConfig,
    identity: &Identity,
    certificates: &Certificates,
    serving: &ServingHandle,
) -> Result<Vec<Endpoint>, ServerError> {
    let own_address = listen.apiserver_bind_address.unwrap_or_else(|| loopback(identity.advertise_address));
    let own = SocketAddr::new(own_address, listen.apiserver_port);
    let learn = {
        let serving = serving.clone();
        Learn::new(move |names: Vec<Reached>| {
            let serving = serving.clone();
            let names: Vec<San> = names.into_iter().map(san).collect();
            async move { serving.ensure(&names).await }
        })
    };
    let mut endpoints = Vec::new();
    for (number, address) in public(listen).into_iter().enumerate() {
        let name = if number == 0 { "listener".to_owned() } else { format!("listener-{number}") };
        endpoints.push(Endpoint {
            name,
            socket: Lend::new(bind(address)?),
            certificate: serving.resolver(),
            learn: Some(learn.clone()),
        });
    }
    endpoints.push(Endpoint {
        name: "listener-local".to_owned(),
        socket: Lend::new(bind(own)?),
        certificate: certificates.server(Leaf::ServingApiServer),
        learn: None,
    });
    Ok(endpoints)
}

/// Where the server is reached: everywhere, or at one address, and then on loopback too, where its own parts look for it.
fn public(listen: &ListenConfig) -> Vec<SocketAddr> {
    let port = listen.https_port;
    match listen.bind_address {
        // One socket for both families, if the machine has both.
        None => vec![SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)],
        Some(address) if address.is_unspecified() || address.is_loopback() => vec![SocketAddr::new(address, port)],
        Some(address) => {
            let loopback: IpAddr =
                if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            vec![SocketAddr::new(address, port), SocketAddr::new(loopback, port)]
        }
    }
}

fn san(name: Reached) -> San {
    match name {
        Reached::Host(host) => San::new(&host),
        Reached::Address(address) => San::Ip(address),
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let fallback = |error: io::Error| {
        // A machine without IPv6 has no such socket; its IPv4 one is as good.
        let every = address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let missing = error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
            || error.kind() == io::ErrorKind::AddrNotAvailable;
        if every && missing { open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port())) } else { Err(error) }
    };
    open(address).or_else(fallback).map_err(|source| ServerError::Listen { address, source })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of the life before are still being forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}
