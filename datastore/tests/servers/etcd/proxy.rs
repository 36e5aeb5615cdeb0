//! A way to a member that can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on to a member, unless it is cut.
pub(crate) struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    /// Ends with the proxy.
    _work: JoinSet<()>,
}

impl Proxy {
    /// To the member behind an endpoint.
    pub(crate) async fn start(endpoint: &str) -> Self {
        let target: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        let mut work = JoinSet::new();
        work.spawn(async move {
            let mut passed = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                passed.spawn(pass(stream, target, is_open.clone()));
            }
        });
        Self { address, open, _work: work }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections, and every new one at once, until it is mended.
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn pass(mut stream: TcpStream, target: SocketAddr, mut is_open: watch::Receiver<bool>) {
    let passing = async {
        let mut member = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut stream, &mut member).await
    };
    tokio::select! {
        _ = passing => {}
        _ = is_open.wait_for(|open| !*open) => {}
    }
}
