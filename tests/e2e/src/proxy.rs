//! A TCP proxy that keeps bytes back: what a client has sent arrives later, even when its connection is gone by then.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// What is kept back.
#[derive(Default)]
struct Held {
    /// From the next bytes on that contain this, a connection is held.
    trigger: Option<Vec<u8>>,
    /// Connections to the server whose clients' bytes are kept, and those bytes.
    connections: Vec<(TcpStream, Vec<u8>)>,
}

/// Passes bytes on in both directions; stops listening with the process.
pub struct Proxy {
    port: u16,
    held: Arc<Mutex<Held>>,
}

impl Proxy {
    /// In front of a server on loopback.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let held = Arc::new(Mutex::new(Held::default()));
        let shared = Arc::clone(&held);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The server may be down: then the client is turned away.
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                let held = Arc::clone(&shared);
                let (mut from_server, to_client) =
                    (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                thread::spawn(move || {
                    copy(&mut from_server, &to_client);
                    let _ = to_client.shutdown(Shutdown::Both);
                });
                thread::spawn(move || from_client(client, &server, &held));
            }
        });
        Self { port, held }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Holds the next connection whose client sends this text, from there on.
    pub fn hold_at(&self, text: &str) {
        self.lock().trigger = Some(text.as_bytes().to_vec());
    }

    /// Connections that are held.
    pub fn held(&self) -> usize {
        self.lock().connections.len()
    }

    /// Sends on what was kept back, and holds nothing more.
    pub fn release(&self) {
        let mut held = self.lock();
        held.trigger = None;
        for (mut server, bytes) in held.connections.drain(..) {
            // The server may have closed it.
            let _ = server.write_all(&bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(from: &mut TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// Passes a client's bytes on, or keeps them. The connection to the server stays when the client of a held one goes.
fn from_client(mut client: TcpStream, mut server: &TcpStream, held: &Mutex<Held>) {
    let mut buffer = vec![0; 64 * 1024];
    let own = server.try_clone().expect("a socket");
    let port = own.local_addr().map(|address| address.port()).ok();
    let mut was_held = false;
    while let Ok(length @ 1..) = client.read(&mut buffer) {
        let bytes = &buffer[..length];
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |(stream, _): &&mut (TcpStream, Vec<u8>)| {
            stream.local_addr().map(|address| address.port()).ok() == port
        };
        if let Some((_, kept)) = held.connections.iter_mut().find(is_own) {
            kept.extend_from_slice(bytes);
            continue;
        }
        let triggers =
            |trigger: &Vec<u8>| bytes.windows(trigger.len()).any(|window| window == trigger.as_slice());
        if held.trigger.as_ref().is_some_and(triggers) {
            held.trigger = None;
            was_held = true;
            held.connections.push((own.try_clone().expect("a socket"), bytes.to_vec()));
            continue;
        }
        drop(held);
        if server.write_all(bytes).is_err() {
            break;
        }
    }
    if !was_held {
        let _ = server.shutdown(Shutdown::Both);
    }
}
