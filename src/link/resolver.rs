//! Who looks names up: the system, unless an embedder brings a resolver of its own.

use crate::address::DnsName;
use crate::limits;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What a resolver returns: the addresses that a name stands for, the best first, each with the port that was asked for.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Looks names up. Whoever asks gives up after [`RESOLVE_DEADLINE`](limits::RESOLVE_DEADLINE), by dropping what was returned, tries the
/// first [`RESOLVED_MAX`](limits::RESOLVED_MAX) answers, and checks each of them.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `name`.
    fn resolve<'a>(&'a self, name: &'a DnsName, port: u16) -> Resolving<'a>;
}

/// The system's resolver: its hosts file, then DNS as it is set up.
#[derive(Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(limits::LOOKUPS)),
        }
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a DnsName, port: u16) -> Resolving<'a> {
        Box::pin(async move {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.map_err(io::Error::other)?;
            let name = name.clone();
            // The system's lookup cannot be given up: it keeps its thread, and so its place, to its own end.
            let lookup = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name.as_str(), port)).await;
                let found = found.map(|found| found.take(limits::RESOLVED_MAX).collect());
                drop(place);
                found
            });
            lookup.await.map_err(io::Error::other)?
        })
    }
}
