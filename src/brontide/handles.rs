//! The secrets of one handshake, and the handles that stand for them.
//!
//! A handle is 32 public bytes: the words "not a secret", what kind of value it stands for, its number, and a mark of the handshake. It
//! can never be taken for a secret, nor one handshake's for another's. Only the latest value of each kind answers: Noise never
//! goes back to an older one. What is asked for in any other way is refused, and the refusal stays: see [`Table::poison`].
//!
//! This file knows nothing of `snow` and never shows a value to anyone but the primitives of `noise.rs`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::{
    aead::KEY_LEN,
    cipher::{Extracted, split},
};
use crate::{
    node_id::{LocalKey, Point},
    secret::{Secret, SharedSecret},
};

/// BOLT 8 § Noise Protocol Instantiation. Hashed, it is the first chaining key.
pub(super) const PROTOCOL_NAME: &str = "Noise_XK_secp256k1_ChaChaPoly_SHA256";
/// Length in bytes of a SHA-256 hash.
pub(super) const HASH_LEN: usize = 32;

/// What a handle stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The result of an ECDH.
    Shared = 1,
    /// The first half of what an HKDF gave: a chaining key, at last the key from initiator to responder.
    First = 2,
    /// The second half: a cipher key, at last the key from responder to initiator.
    Second = 3,
}

/// Every secret of one handshake.
pub(super) struct Table {
    /// Tells this handshake's handles from another's: 16 bytes of our ephemeral public key.
    mark: [u8; Table::MARK_LEN],
    /// The hash of the protocol's name: Noise's first chaining key, the only one that `snow` may show us in the clear.
    pub(super) protocol_hash: [u8; HASH_LEN],
    pub(super) ephemeral: Option<LocalKey>,
    /// What the static key, wherever it is, answered, and for which point.
    pub(super) answer: Option<(Point, SharedSecret)>,
    /// The other side's key that was decoded last.
    pub(super) peer: Option<Point>,
    pub(super) shared: Vec<SharedSecret>,
    pub(super) pairs: Vec<Secret<64>>,
    /// Tags that fitted in the present step.
    pub(super) opened: u8,
    /// The transport keys are there: the last pair.
    pub(super) complete: bool,
    /// The first fault. It stays.
    pub(super) fault: Option<&'static str>,
}

impl Table {
    const MARK_LEN: usize = 16;
    const LABEL: [u8; 14] = *b"not a secret: ";
    /// An ECDH for each of `es`, `ee`, `se`.
    const ECDHS: usize = 3;
    /// An HKDF for each ECDH, and the split.
    const PAIRS: usize = Self::ECDHS + 1;

    /// `not a secret: `, the kind, the index, the mark.
    pub(super) fn handle(&self, kind: Kind, index: usize) -> [u8; KEY_LEN] {
        let mut handle = [0; KEY_LEN];
        let (label, rest) = handle.split_at_mut(Self::LABEL.len());
        let (number, mark) = rest.split_at_mut(2);
        label.copy_from_slice(&Self::LABEL);
        number.copy_from_slice(&[kind as u8, u8::try_from(index).unwrap_or(u8::MAX)]);
        mark.copy_from_slice(&self.mark);
        handle
    }

    /// Whether these bytes are the handle of the latest value of that kind.
    fn is_latest(&self, kind: Kind, bytes: &[u8]) -> bool {
        let values = match kind {
            Kind::Shared => self.shared.len(),
            Kind::First | Kind::Second => self.pairs.len(),
        };
        values
            .checked_sub(1)
            .is_some_and(|index| self.handle(kind, index) == bytes)
    }

    /// The value behind the handle of the latest shared secret, chaining key or cipher key.
    pub(super) fn resolve(&self, kind: Kind, handle: &[u8]) -> Option<&[u8; KEY_LEN]> {
        if !self.is_latest(kind, handle) {
            return None;
        }
        let pair = self.pairs.last().and_then(|pair| split(pair.expose()));
        match kind {
            Kind::Shared => self.shared.last().map(SharedSecret::expose),
            Kind::First => pair.map(|(first, _)| first),
            Kind::Second => pair.map(|(_, second)| second),
        }
    }

    pub(super) fn store_shared(
        &mut self,
        shared: SharedSecret,
    ) -> Result<[u8; KEY_LEN], &'static str> {
        if self.shared.len() == Self::ECDHS {
            return Err("one ECDH too many");
        }
        self.shared.push(shared);
        Ok(self.handle(Kind::Shared, self.shared.len() - 1))
    }

    /// `ck, k = HKDF(ck, ikm)`, where every input but the public first chaining key and the empty string is a handle, and both outputs are.
    pub(super) fn hkdf(
        &mut self,
        chaining_key: &[u8],
        ikm: &[u8],
    ) -> Result<([u8; KEY_LEN], [u8; KEY_LEN]), &'static str> {
        if self.pairs.len() == Self::PAIRS || self.complete {
            return Err("one HKDF too many");
        }
        let salt = match self.pairs.len() {
            0 => Some(&self.protocol_hash).filter(|public| public.as_slice() == chaining_key),
            _ => self.resolve(Kind::First, chaining_key),
        };
        let salt = salt.ok_or("an unknown chaining key")?;
        let ikm_behind = match ikm {
            [] => ikm,
            handle => self
                .resolve(Kind::Shared, handle)
                .ok_or("unknown key material")?,
        };
        let extracted = Extracted::new(salt, ikm_behind);
        let pair =
            Secret::try_build(|pair| extracted.expand_into(pair)).map_err(|_| "HKDF failed")?;
        self.pairs.push(pair);
        self.complete = ikm.is_empty();
        let index = self.pairs.len() - 1;
        Ok((
            self.handle(Kind::First, index),
            self.handle(Kind::Second, index),
        ))
    }

    /// The static key's ECDH: the reply for that very point, once.
    pub(super) fn ecdh_elsewhere(&mut self, point: &[u8]) -> Result<SharedSecret, &'static str> {
        match self.answer.take() {
            Some((answered, reply)) if answered.as_bytes().as_slice() == point => Ok(reply),
            _ => Err("the static key was asked for a point that nobody answered"),
        }
    }

    /// Our ephemeral key's ECDH. `None`: not a point.
    pub(super) fn ecdh_ephemeral(
        &mut self,
        point: &[u8],
    ) -> Result<Option<SharedSecret>, &'static str> {
        let ephemeral = self.ephemeral.as_ref().ok_or("no ephemeral key")?;
        let known = self.peer.filter(|peer| peer.as_bytes().as_slice() == point);
        let Some(peer) = known.or_else(|| Point::parse(point).ok()) else {
            return Ok(None);
        };
        self.peer = Some(peer);
        Ok(Some(ephemeral.ecdh(&peer)))
    }

    pub(super) fn poison(&mut self, fault: &'static str) {
        self.fault.get_or_insert(fault);
    }

    pub(super) fn wipe(&mut self) {
        self.ephemeral = None;
        self.answer = None;
        self.shared.clear();
        self.pairs.clear();
        self.poison("the handshake is over");
    }
}

/// One table, reached from every part of `snow` that asks for a value. Never contended: a handshake has one owner.
#[derive(Clone)]
pub(super) struct SharedTable(Arc<Mutex<Table>>);

impl SharedTable {
    pub(super) fn new(ephemeral: LocalKey) -> Self {
        let mut mark = [0; Table::MARK_LEN];
        let public = ephemeral.node_id();
        mark.iter_mut()
            .zip(public.as_bytes().iter().skip(1))
            .for_each(|(to, from)| *to = *from);
        Self(Arc::new(Mutex::new(Table {
            mark,
            protocol_hash: Sha256::digest(PROTOCOL_NAME).into(),
            ephemeral: Some(ephemeral),
            answer: None,
            peer: None,
            shared: Vec::with_capacity(Table::ECDHS),
            pairs: Vec::with_capacity(Table::PAIRS),
            opened: 0,
            complete: false,
            fault: None,
        })))
    }

    /// Nothing panics while it holds this lock; if something did, the table is still a table.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poison(&self, fault: &'static str) {
        self.lock().poison(fault);
    }
}
