//! A SOCKS5 proxy on loopback that stands for Tor: it takes any username and password, notes what it is asked for, and connects to where
//! the test says that an address leads.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking, and each target uses its share of the helpers"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// What a client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Username and password: who asks for the same shares a circuit.
    pub(crate) circuit: (String, String),
    /// `HOST:PORT`, as it was asked for.
    pub(crate) target: String,
}

/// A running proxy.
pub(crate) struct Socks {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The method that it chooses: 2, username and password, if it is a good one.
    method: u8,
    places: Mutex<BTreeMap<String, SocketAddr>>,
    asked: Mutex<Vec<Asked>>,
}

impl Socks {
    pub(crate) async fn start() -> Self {
        Self::choosing(2).await
    }

    /// One that chooses this method of authentication, whatever it is offered.
    pub(crate) async fn choosing(method: u8) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            method,
            places: Mutex::default(),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                // A client that breaks off is no failure of the proxy's.
                tokio::spawn(async move { serve(client, &shared).await });
            }
        });
        Self { address, shared }
    }

    /// From now on `target` leads there.
    pub(crate) fn leads(&self, target: &impl ToString, place: SocketAddr) {
        let mut places = self.shared.places.lock().unwrap();
        places.insert(target.to_string(), place);
    }

    /// What was asked for so far, in its order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut two = [0; 2];
    client.read_exact(&mut two).await?;
    let _methods = take(&mut client, two[1]).await?;
    client.write_all(&[5, shared.method]).await?;
    let circuit = if shared.method == 2 {
        client.read_exact(&mut two).await?;
        let username = text(take(&mut client, two[1]).await?);
        let length = client.read_u8().await?;
        let password = text(take(&mut client, length).await?);
        client.write_all(&[1, 0]).await?;
        (username, password)
    } else {
        Default::default()
    };
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => Ipv4Addr::from_bits(client.read_u32().await?).to_string(),
        3 => {
            let length = client.read_u8().await?;
            text(take(&mut client, length).await?)
        }
        _ => return client.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]).await,
    };
    let target = format!("{host}:{}", client.read_u16().await?);
    let place = shared.places.lock().unwrap().get(&target).copied();
    let asked = Asked { circuit, target };
    shared.asked.lock().unwrap().push(asked);
    let Some(place) = place else {
        return client.write_all(&[5, 4, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    };
    let mut peer = TcpStream::connect(place).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut client, &mut peer).await?;
    Ok(())
}

async fn take(client: &mut TcpStream, length: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(length)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}
