//! The far end of a simulated link: peers that behave, and peers that do not.

use super::link::{numbered, numbered_message};
use super::links::{Event, Links, MILLI};
use super::script::{Manners, SECOND, between, up_to};
use super::wire::Packet;
use pilotlight::link::LinkId;
use pilotlight::wire::{
    BITCOIN_MAINNET, Init, MessageType, Ping, Pong, QueryChannelRange, Warning,
};

impl Links {
    /// The far end says something.
    fn far_says(&mut self, id: LinkId, message: Vec<u8>, forged: bool) {
        let now = self.now();
        let jitter = up_to(&mut self.random, MILLI);
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far_open) else {
            return;
        };
        if wire.ours_open {
            wire.back
                .seal(now.after(wire.trip).after(jitter), message, forged);
            self.arm(id, false);
        }
    }

    fn far_numbered(&mut self, id: LinkId, kind: u16, count: u64) {
        for _ in 0..count {
            let size = self.random.usize(10..400);
            let Some(wire) = self.wires.get_mut(&id) else {
                return;
            };
            let message = numbered_message(kind, wire.far.said, size);
            wire.far.said += 1;
            self.far_says(id, message, false);
        }
    }

    /// The far end goes: with a word, or without one.
    pub fn far_ends(&mut self, id: LinkId, says_so: bool) {
        let now = self.now();
        let Some(wire) = self.wires.get_mut(&id).filter(|wire| wire.far_open) else {
            return;
        };
        wire.far_open = false;
        if says_so && wire.ours_open {
            wire.back.push(now.after(wire.trip), Packet::Fin);
            self.arm(id, false);
        }
        self.forget_wire(id);
    }

    fn forget_wire(&mut self, id: LinkId) {
        if self.wires.get(&id).is_some_and(super::wire::Wire::is_over) {
            self.wires.remove(&id);
        }
    }

    /// Packets of ours have come to the far end.
    pub fn arrive_far(&mut self, id: LinkId) {
        let now = self.now();
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.out.armed = false;
        }
        loop {
            let Some(wire) = self.wires.get(&id) else {
                return;
            };
            if !self.path(wire.peer) || !self.is_there(wire.peer) {
                return;
            }
            let wire = self.wires.get_mut(&id).unwrap();
            if !wire.far_open {
                // Nobody knows this connection here any more.
                wire.out.clear();
                if wire.ours_open {
                    wire.back.push(now.after(wire.trip), Packet::Rst);
                    self.arm(id, false);
                }
                return self.forget_wire(id);
            }
            let Some(packet) = wire.out.pop(now) else {
                break;
            };
            match packet {
                Packet::Frame { number, bytes, .. } => {
                    assert_eq!(
                        number, wire.out.opened,
                        "P2: a frame is lost or out of order"
                    );
                    wire.out.opened += 1;
                    self.far_hears(id, &bytes);
                }
                Packet::Fin | Packet::Rst => {
                    wire.far_open = false;
                    let peer = wire.peer;
                    self.forget_wire(id);
                    if self.tempers[peer].dials && self.random.bool() {
                        let soon = between(&mut self.random, SECOND / 10, 60 * SECOND);
                        self.agenda.after(soon, Event::Inbound(peer));
                    }
                    return;
                }
            }
        }
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let blocked = wire.out.blocked && !wire.out.is_full();
        if blocked {
            wire.out.blocked = false;
            self.wake(id);
        }
        self.arm(id, true);
    }

    fn far_hears(&mut self, id: LinkId, message: &[u8]) {
        let wire = self.wires.get_mut(&id).unwrap();
        let kind = MessageType::of(message).unwrap();
        let first = wire.out.opened == 1;
        assert_eq!(
            first,
            kind == MessageType::INIT,
            "init comes first, and once"
        );
        if wire.persona {
            let spoken = [1, 16, 18, 19, 261, 262, 263, 264, 265, 32_769];
            assert!(spoken.contains(&kind.0), "a persona says type {}", kind.0);
        }
        if let Some(number) = numbered(message) {
            while wire.refused.front() == Some(&wire.far.heard) {
                wire.refused.pop_front();
                wire.far.heard += 1;
            }
            assert_eq!(
                number, wire.far.heard,
                "P2: a message is lost, repeated or out of order"
            );
            wire.far.heard += 1;
        }
        match kind {
            MessageType::INIT => wire.far.is_up = true,
            MessageType::PING => {
                let answer = Ping::decode(message).unwrap().answer();
                let peer = wire.peer;
                let mute = wire.far.mute && self.manners(peer) == Manners::Hostile;
                if let Some(pong) = answer.filter(|_| !mute) {
                    self.far_says(id, pong.encode(), false);
                }
            }
            MessageType::PONG => {
                let length = Pong::decode(message).unwrap().ignored;
                assert_eq!(
                    Some(length),
                    wire.far.pongs.pop_front(),
                    "the pong of another ping"
                );
            }
            MessageType::GOSSIP_TIMESTAMP_FILTER => {
                let count = self.random.u64(..30);
                self.far_numbered(id, 258, count);
            }
            _ => {}
        }
    }

    /// The far end does something of its own accord.
    pub fn far_turn(&mut self, id: LinkId) {
        let Some(wire) = self.wires.get(&id).filter(|wire| wire.far_open) else {
            return;
        };
        let peer = wire.peer;
        if !self.is_there(peer) {
            return;
        }
        let (starts, up) = (wire.back.opened == 0 && wire.far.said == 0, wire.far.is_up);
        let began = wire.far.began;
        if !began {
            self.wires.get_mut(&id).unwrap().far.began = true;
            self.far_says(id, Init::gossip(vec![BITCOIN_MAINNET]).encode(), false);
            self.agenda.after(12 * SECOND, Event::FarTurn(id));
            self.settle_duplicates(id);
            return;
        }
        if !up && starts {
            // No init of ours: it gives up.
            return self.far_ends(id, true);
        }
        match self.manners(peer) {
            Manners::Hostile => self.misbehave(id),
            _ => self.behave(id),
        }
        let next = between(&mut self.random, 5 * SECOND, 600 * SECOND);
        self.agenda.after(next, Event::FarTurn(id));
    }

    /// lnd's rule, at the other end: of two links in opposite directions the one that the smaller key dialled stays; else the newest.
    fn settle_duplicates(&mut self, id: LinkId) {
        let new = &self.wires[&id];
        let (peer, persona, dialled) = (new.peer, new.persona, new.far.dialled);
        if persona || self.manners(peer) != Manners::Honest {
            return;
        }
        let ours_is_smaller = super::desk::own().node_id() < self.desk.id(peer);
        for other in self.wires_of(peer) {
            let Some(wire) = self.wires.get(&other) else {
                continue;
            };
            if other == id || wire.persona || !wire.far_open || !wire.far.is_up {
                continue;
            }
            let same = wire.far.dialled == dialled;
            let new_stays = same || dialled != ours_is_smaller;
            if !new_stays {
                return self.far_ends(id, true);
            }
            self.far_ends(other, true);
        }
    }

    fn behave(&mut self, id: LinkId) {
        let channel = self.links.get(&id).is_some_and(|link| link.carried);
        match self.random.u8(..100) {
            0..45 => {
                let count = self.random.u64(1..12);
                self.far_numbered(id, 258, count);
            }
            45..60 => self.far_pings(id, 1, 64),
            60..65 => {
                let query = QueryChannelRange {
                    chain_hash: BITCOIN_MAINNET,
                    first_blocknum: 700_000,
                    number_of_blocks: 1000,
                };
                self.far_says(id, query.encode(), false);
            }
            65..70 => self.far_says(id, Warning::new("mind the gap").encode(), false),
            // A peer that has a channel speaks of it as long as it believes in the link.
            70..85 if channel => self.far_numbered(id, 133, 2),
            85..88 => {
                let mut filter = vec![1, 9];
                filter.extend_from_slice(&BITCOIN_MAINNET);
                filter.extend_from_slice(&[0; 8]);
                self.far_says(id, filter, false);
            }
            _ => {}
        }
    }

    fn far_pings(&mut self, id: LinkId, count: usize, most: u16) {
        for _ in 0..count {
            let ping = Ping {
                num_pong_bytes: self.random.u16(1..most),
                ignored: 3,
            };
            if let Some(wire) = self.wires.get_mut(&id) {
                wire.far.pongs.push_back(ping.num_pong_bytes);
            }
            self.far_says(id, ping.encode(), false);
        }
    }

    /// Whatever no peer should do.
    fn misbehave(&mut self, id: LinkId) {
        match self.random.u8(..16) {
            0..5 => self.behave(id),
            5 => self.far_numbered(id, 133, 1),
            6 => self.far_says(id, [&[0, 136][..], &[9; 40]].concat(), false),
            7 => self.far_says(id, vec![0, 17, 0, 0], false),
            8 => self.far_says(id, [&[0, 17][..], &[0; 32], &[0, 0]].concat(), false),
            9 => self.far_says(id, [&[0x80, 0x02][..], &[1; 10]].concat(), false),
            10 => self.far_pings(id, 400, 60_000),
            11 => self.far_says(id, Init::gossip(vec![BITCOIN_MAINNET]).encode(), false),
            12 => self.far_says(id, vec![7], false),
            13 => self.far_says(id, [&[0, 32][..], &[0; 300]].concat(), false),
            14 => self.far_says(id, vec![0; 100], true),
            _ => {
                if let Some(wire) = self.wires.get_mut(&id) {
                    wire.far.mute = true;
                }
            }
        }
    }
}
