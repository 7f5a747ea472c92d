//! The firewall over every message and every situation, against design.md's table said again as plain lists.
//!
//! Whatever the bytes: without a signer, and on a persona's link always, nothing that needs the signer reaches the node or leaves,
//! and `error` (17) never leaves (P4, P5).

use super::feed::Feed;
use pilotlight::link::firewall::{self, CloseReason, Inbound, Outbound, Situation};
use pilotlight::wire::{ErrorMessage, Init, MessageType};

/// Every BOLT 2 message but 32, 64 and 136, and `announcement_signatures`.
fn is_channel_message(kind: u16) -> bool {
    matches!(kind, 2 | 33..=41 | 65..=74 | 77 | 80 | 81 | 127..=135 | 137 | 259)
}

/// One byte of facts, then the message.
pub fn run(input: &[u8]) {
    let mut feed = Feed::new(input);
    let facts = feed.u8();
    let fact = |bit: u8| facts >> bit & 1 == 1;
    let situation = Situation {
        signer_away: fact(0),
        persona: fact(1),
        init_received: !fact(2),
        filter_received: fact(3),
        queries_served: fact(4),
        custom_even_ok: fact(5),
        observe: fact(6),
    };
    let message = feed.rest();
    let inbound = firewall::inbound(message, &situation);
    let outbound = firewall::outbound(message, &situation);
    let Ok(kind) = MessageType::of(message) else {
        assert_eq!(inbound, Inbound::Close(CloseReason::Malformed));
        return assert!(matches!(outbound, Outbound::Refuse(_)));
    };
    assert_eq!(
        firewall::is_link_owned(kind),
        matches!(kind.0, 16 | 18 | 19)
    );
    assert!(!firewall::row_name(kind).is_empty());
    if let Inbound::Close(reason) = inbound {
        is_a_label(reason.as_str());
    }
    if let Outbound::Refuse(refusal) = outbound {
        is_a_label(refusal.as_str());
    }
    if !situation.init_received {
        return before_init(kind.0, message, inbound, outbound);
    }
    if situation.signer_away || situation.persona {
        without_signer(kind.0, situation, inbound, outbound);
    }
    always(kind.0, message, situation, inbound, outbound);
}

pub fn is_a_label(word: &str) {
    let of_a_label = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    assert!(!word.is_empty() && word.bytes().all(of_a_label));
}

fn before_init(kind: u16, message: &[u8], inbound: Inbound, outbound: Outbound) {
    let expected = match kind {
        16 if Init::decode(message).is_ok() => Inbound::ForLink,
        16 => Inbound::Close(CloseReason::Malformed),
        _ => Inbound::Close(CloseReason::InitExpected),
    };
    assert_eq!(inbound, expected);
    assert!(kind == 16 || matches!(outbound, Outbound::Refuse(_)));
}

fn without_signer(kind: u16, situation: Situation, inbound: Inbound, outbound: Outbound) {
    let observes = situation.observe && situation.signer_away && !situation.persona;
    let barred = match kind {
        136 => Some(Inbound::Close(CloseReason::ChannelReestablish)),
        32 | 64 => Some(Inbound::WarnNotDelivered),
        7 | 9 | 513 if !observes => Some(Inbound::Drop),
        kind if is_channel_message(kind) => Some(Inbound::Close(CloseReason::ChannelMessage)),
        _ => None,
    };
    if let Some(expected) = barred {
        assert_eq!(inbound, expected, "type {kind}");
    }
    if barred.is_some() || kind == 17 {
        assert!(
            matches!(outbound, Outbound::Refuse(_)),
            "type {kind} leaves"
        );
    }
    assert_ne!(
        outbound,
        Outbound::PassWithLease,
        "nothing leaves under a lease"
    );
    if situation.persona && matches!(outbound, Outbound::Pass) {
        let allowed = matches!(kind, 1 | 16 | 18 | 19 | 261..=265) || kind % 2 == 1;
        assert!(
            allowed && !matches!(kind, 256..=258),
            "type {kind} on a persona"
        );
    }
}

/// With a signer or without.
fn always(kind: u16, message: &[u8], situation: Situation, inbound: Inbound, outbound: Outbound) {
    let leased = is_channel_message(kind) || kind == 136;
    assert_eq!(
        firewall::needs_lease(MessageType(kind)),
        leased,
        "type {kind}"
    );
    if leased && !situation.signer_away && !situation.persona {
        assert_eq!(
            (inbound, outbound),
            (Inbound::Deliver, Outbound::PassWithLease)
        );
    }
    if kind == 16 {
        assert_eq!(inbound, Inbound::Close(CloseReason::SecondInit));
    }
    if let Inbound::Pong { num_pong_bytes } = inbound {
        assert!(kind == 18 && num_pong_bytes < 65_532);
    }
    if kind == 17 && ErrorMessage::decode(message).is_ok_and(|error| error.is_all_zero()) {
        assert_eq!(inbound, Inbound::CloseAfterDelivery);
    }
    if inbound == Inbound::AnswerUnserved {
        assert!(matches!(kind, 261 | 263));
    }
    let would = firewall::would(message, &situation);
    assert!(would.is_none() || situation.observe && situation.signer_away && !leased);
    if firewall::would_refuse(message, &situation) {
        assert!(situation.observe && situation.signer_away && !situation.persona && !leased);
    }
}
