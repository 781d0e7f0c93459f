//! A TCP proxy whose wire can be cut: a network between two processes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;

/// How often a thread looks whether the wire was cut or mended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Wire {
    cut: AtomicBool,
    over: AtomicBool,
    /// Peers whose connections alone are cut.
    cut_from: Mutex<Vec<String>>,
}

/// Who a connection comes from, once it has said so: members of etcd name themselves in each request to a peer.
type From = Arc<OnceLock<String>>;

const SAYS_WHO: &str = "X-Server-From: ";

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

    /// Cuts or mends it for the connections of one peer alone, which says who it is by the header `X-Server-From`.
    pub fn cut_from(&self, peer: &str, cut: bool) {
        let mut peers = self.wire.cut_from.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|other| other != peer);
        if cut {
            peers.push(peer.to_owned());
        }
    }
}

impl Wire {
    fn is_cut(&self, from: &From) -> bool {
        let one = || {
            let peers = self.cut_from.lock().unwrap_or_else(PoisonError::into_inner);
            from.get().is_some_and(|from| peers.contains(from))
        };
        self.cut.load(Ordering::SeqCst) || one()
    }
}

/// Waits until the wire is whole. False when it will never be.
fn whole(wire: &Wire, from: &From) -> bool {
    while wire.is_cut(from) && !wire.over.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK_EVERY);
    }
    !wire.over.load(Ordering::SeqCst)
}

fn connect(near: &TcpStream, to: SocketAddr, wire: &Arc<Wire>) {
    let who = From::default();
    if !whole(wire, &who) {
        return;
    }
    let Ok(far) = TcpStream::connect(to) else { return };
    let ways = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
    for way in ways {
        let (Ok(from), Ok(into)) = way else { return };
        let (wire, who) = (Arc::clone(wire), From::clone(&who));
        std::thread::spawn(move || pass(from, into, &wire, &who));
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, wire: &Wire, who: &From) {
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
        if who.get().is_none()
            && let Some(name) = named(&buffer[..len])
        {
            // Set once, by whichever direction sees it first.
            let _ = who.set(name);
        }
        if !whole(wire, who) || len == 0 || into.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

/// Who says in a request's head that it comes from it.
fn named(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once(SAYS_WHO)?;
    let (name, _) = rest.split_once("\r\n")?;
    Some(name.to_owned())
}
