//! `fake-nodes --kubeconfig FILE [--nodes 3] [--prefix node-] [--zones 3] [--pods 110]`: nodes without machines.
//!
//! They register with the server of the kubeconfig's current context, whose pods then run on them as far as the API can
//! tell: see `chaos_tests::cluster::nodes` for what pods may ask of them. They are there until this process is told to
//! end. Prints `ready` when all are registered.

use std::path::PathBuf;
use std::process::ExitCode;

use chaos_tests::cluster::kubeconfig;
use chaos_tests::cluster::nodes::{LABEL, NodesArgs, fake_nodes};
use k3sd_client::api::Connect;
use k3sd_runtime::signals::run_until_signalled;
use k3sd_runtime::{Clock, Spec, Strategy, System};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;

/// What the command line says.
struct Arguments {
    kubeconfig: PathBuf,
    nodes: NodesArgs,
}

fn arguments() -> Result<Arguments, String> {
    let mut kubeconfig = None;
    let mut nodes = NodesArgs::default();
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, rest.next()),
        };
        let value = value.ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<usize>().map_err(|_| format!("{name}: {value:?} is no number"));
        match name.as_str() {
            "--kubeconfig" => kubeconfig = Some(PathBuf::from(&value)),
            "--nodes" => nodes.count = number()?,
            "--zones" => nodes.zones = number()?,
            "--prefix" => nodes.prefix = value,
            "--pods" => _ = nodes.capacity.insert("pods".to_owned(), number()?.to_string()),
            _ => return Err(format!("{name} means nothing")),
        }
    }
    let kubeconfig = kubeconfig.ok_or("--kubeconfig FILE says where the server is")?;
    Ok(Arguments { kubeconfig, nodes })
}

async fn run() -> Result<(), String> {
    let Arguments { kubeconfig, nodes } = arguments()?;
    let (link, connect) = kubeconfig::connect("link", &kubeconfig).map_err(|error| error.to_string())?;
    let count = nodes.count;
    let (fake, _kept) = fake_nodes("nodes", &connect, nodes);
    let tree = System::new(Clock::system()).start(Spec::new(Strategy::OneForOne).child(link).child(fake));
    tokio::select! {
        ended = run_until_signalled(&tree, || {}) => return ended.map(drop).map_err(|error| error.to_string()),
        () = registered(&connect, count) => println!("ready"),
    }
    run_until_signalled(&tree, || {}).await.map(drop).map_err(|error| error.to_string())
}

/// Waits until so many nodes are there.
async fn registered(connect: &Connect, count: usize) {
    let nodes: Api<Node> = Api::all(connect.client());
    let ours = ListParams::default().labels(&format!("{LABEL}=true"));
    while nodes.list_metadata(&ours).await.map_or(0, |found| found.items.len()) < count {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fake-nodes: {error}");
            ExitCode::FAILURE
        }
    }
}
