//! Holds the strangers' [`Conduct`] for the two who need it, the listener and the driver, and finds out what the machine must know of
//! them. It decides nothing.

use super::conduct::{Conduct, Offence};
use super::machine::{Input, SupervisorMachine};
use crate::clock::Clock;
use crate::link::LinkId;
use crate::link::driver::Env;
use crate::network::IpNetwork;
use crate::node_id::NodeId;
use crate::telemetry::{Event, Telemetry};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is banned.
pub(crate) struct Watchman {
    conduct: Mutex<Conduct>,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// Nothing is held against whoever dials from there.
    protected: Arc<[IpNetwork]>,
}

impl Watchman {
    pub(super) fn new(
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        protected: Arc<[IpNetwork]>,
    ) -> Self {
        Self {
            conduct: Mutex::default(),
            clock,
            telemetry,
            protected,
        }
    }

    /// Whether nobody from this address is let in. If so it is counted, and told by nothing else: a flood must not fill the events.
    pub(super) fn turns_away(&self, ip: IpAddr) -> bool {
        let bars = self.lock().bars_address(self.clock.now(), ip);
        if bars {
            Telemetry::count_inbound_failed("banned");
        }
        bars
    }

    /// Whether an address is banned.
    pub(super) fn bars_address(&self, ip: IpAddr) -> bool {
        self.lock().bars_address(self.clock.now(), ip)
    }

    /// Whether this node is not let in.
    pub(super) fn bars(&self, id: NodeId) -> bool {
        self.lock().bars_node(self.clock.now(), id)
    }

    /// Bans that are in force.
    pub(super) fn bans(&self) -> usize {
        self.lock().in_force(self.clock.now())
    }

    /// Holds an offence against an address, and against the node if it was proven.
    pub(super) fn note(&self, ip: IpAddr, node: Option<NodeId>, offence: Option<Offence>) {
        let Some(offence) = offence else {
            return;
        };
        if self.protected.iter().any(|network| network.contains(ip)) {
            return;
        }
        let bans = self.lock().note(self.clock.now(), ip, node, offence);
        for ban in bans {
            self.telemetry.emit(Event::Banned {
                who: ban.who,
                offence,
                lasts: ban.lasts,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Conduct> {
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A newcomer may cost a stranger its link: the machine must know when each of them was last of use.
pub(super) fn tell_activity(machine: &mut SupervisorMachine, env: &Env) {
    let guests: Vec<LinkId> = machine.guests().collect();
    let mut nothing = Vec::new();
    for link in guests {
        if let Some(shared) = env.vault.get(link) {
            let active = Input::Active(link, shared.state.active());
            machine.handle(env.clock.now(), active, &mut nothing);
        }
    }
}
