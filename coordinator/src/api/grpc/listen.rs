//! Accepts gRPC's connections, in the clear or over TLS with the certificates of the moment.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use shared::auth::tls::Certificates;
use std::io;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

/// Time for a TLS handshake.
const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Most handshakes at a time; further connections wait in the kernel's backlog.
const MAX_GREETINGS: usize = 256;
/// Wait after a connection could not be accepted, for want of file descriptors mostly.
const AGAIN: Duration = Duration::from_millis(100);

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Fails only for a socket that is gone already, which reading tells.
                drop(socket.set_nodelay(true));
                return socket;
            }
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "no gRPC connection is accepted"
                );
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Connections in the clear.
pub(super) fn plain(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, async |listener| Some((Ok(accept(&listener).await), listener)))
}

async fn greet(tls: TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    let peer = socket.peer_addr().ok();
    match timeout(GREETING_LIMIT, tls.accept(socket)).await {
        Ok(Ok(greeted)) => Some(greeted),
        Ok(Err(error)) => {
            debug!(?peer, error = &error as &dyn std::error::Error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(?peer, "TLS handshake took too long");
            None
        }
    }
}

/// Connections over TLS, those whose handshake succeeded.
pub(super) fn secured(
    listener: TcpListener,
    tls: Arc<Certificates>,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    stream::unfold(
        (listener, tls, JoinSet::new()),
        async |(listener, tls, mut greetings)| {
            loop {
                tokio::select! {
                    biased;
                    Some(greeted) = greetings.join_next() => {
                        if let Ok(Some(greeted)) = greeted {
                            return Some((Ok(greeted), (listener, tls, greetings)));
                        }
                    }
                    socket = accept(&listener), if greetings.len() < MAX_GREETINGS => {
                        if let Some(now) = tls.grpc_server() {
                            greetings.spawn(greet(TlsAcceptor::from(now), socket));
                        }
                    }
                }
            }
        },
    )
}
