//! A TCP proxy whose wire can be cut: a network between two processes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

/// How often a thread looks whether the wire was cut or mended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Wire {
    cut: AtomicBool,
    over: AtomicBool,
}

/// Passes connections on to one address. Cut, it swallows nothing and delivers nothing: what was sent arrives when the
/// wire is mended, as over a network that was gone for a while.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    wire: Arc<Wire>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.wire.over.store(true, Ordering::SeqCst);
    }
}

impl Proxy {
    /// Listens on a free port for connections to `to`.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let wire = Arc::new(Wire::default());
        let own = Arc::clone(&wire);
        std::thread::spawn(move || {
            while !own.over.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((near, _)) => {
                        let wire = Arc::clone(&own);
                        std::thread::spawn(move || connect(&near, to, &wire));
                    }
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        });
        Ok(Self { addr, wire })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts the wire, or mends it.
    pub fn cut(&self, cut: bool) {
        self.wire.cut.store(cut, Ordering::SeqCst);
    }
}

/// Waits until the wire is whole. False when it will never be.
fn whole(wire: &Wire) -> bool {
    while wire.cut.load(Ordering::SeqCst) && !wire.over.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK_EVERY);
    }
    !wire.over.load(Ordering::SeqCst)
}

fn connect(near: &TcpStream, to: SocketAddr, wire: &Arc<Wire>) {
    if !whole(wire) {
        return;
    }
    let Ok(far) = TcpStream::connect(to) else { return };
    let ways = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
    for way in ways {
        let (Ok(from), Ok(into)) = way else { return };
        let wire = Arc::clone(wire);
        std::thread::spawn(move || pass(from, into, &wire));
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, wire: &Wire) {
    // Errors here are ends of connections: both sides see them as such.
    let _ = from.set_nonblocking(false);
    let _ = from.set_read_timeout(Some(LOOK_EVERY));
    let _ = into.set_nodelay(true);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = match from.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) => {
                if wire.over.load(Ordering::SeqCst) {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        if !whole(wire) || len == 0 || into.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
