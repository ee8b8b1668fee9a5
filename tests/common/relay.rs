//! A way to the API server that can be closed, or whose connections fall silent.

#![allow(dead_code, reason = "every test uses its part")]

use std::net::SocketAddr;

use anyhow::Context as _;
use serde_json::Value;
use testkit::cluster::Cluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections.
pub(crate) struct Relay {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    /// Changes when connections of then are to hear nothing any more.
    silent: watch::Sender<bool>,
}

// === impl Relay ===

impl Relay {
    /// Starts one; a closed one takes connections and drops them.
    pub(crate) async fn start(cluster: &Cluster, open: bool) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(cluster.kubeconfig())?;
        let value: Value = serde_saphyr::from_str(&text)?;
        let server = value["clusters"][0]["cluster"]["server"].as_str();
        let server = server.and_then(|server| server.strip_prefix("https://"));
        let server = server.context("a server")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (is_open, opened) = watch::channel(open);
        let (silent, silenced) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if !*opened.borrow() {
                    continue;
                }
                let (mut silenced, mut opened) = (silenced.clone(), opened.clone());
                // A connection minds only what is said after it began.
                silenced.mark_unchanged();
                if let Ok(far) = TcpStream::connect(&server).await {
                    tokio::spawn(async move {
                        tokio::select! {
                            () = forward(near, far, silenced) => {}
                            _ = opened.wait_for(|is_open| !*is_open) => {}
                        }
                    });
                }
            }
        });
        Ok(Self {
            address,
            is_open,
            silent,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections are forwarded.
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// From now on none are, and those there were are cut.
    pub(crate) fn close(&self) {
        self.is_open.send_replace(false);
    }

    /// What the server says on connections of now is swallowed; new ones are not touched.
    pub(crate) fn swallow(&self) {
        self.silent.send_replace(true);
    }
}

async fn forward(near: TcpStream, far: TcpStream, silenced: watch::Receiver<bool>) {
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let up = async move {
        let _ = tokio::io::copy(&mut near_read, &mut far_write).await;
    };
    let down = async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = far_read.read(&mut buffer).await {
            if silenced.has_changed().unwrap_or(true) {
                // The other side is kept open, and hears nothing.
                while let Ok(1..) = far_read.read(&mut buffer).await {}
                std::future::pending::<()>().await;
            }
            if near_write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}
