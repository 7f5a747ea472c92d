//! What the driver finds out of strangers before it asks the machine about them. It decides nothing.

use super::machine::{Input, SupervisorMachine};
use crate::link::LinkId;
use crate::link::driver::Env;

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
