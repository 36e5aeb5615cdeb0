//! Pages for people, load balancers and Prometheus.

mod answer;
mod listener;
mod meters;
mod ports;

pub(crate) use answer::{Pages, health_page, metrics_page};
pub(crate) use listener::{bind, listen};
pub(crate) use meters::Meters;
pub(crate) use ports::{Sockets, serve_ports};
