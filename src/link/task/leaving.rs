//! How a persona's link goes once the node's own link with the same peer has taken its place: it hears the peer out first.
//!
//! ```text
//!  asked to go ── ping ──▶ reads and delivers as ever ──┬── the pong ─────────────────────────────────▶ ends
//!                                                       └── no pong in time: what the kernel holds ──▶ ends
//! ```
//!
//! A pong comes after everything that the peer had sent when it saw the ping, and by then it has sent on the node's own link for a
//! while. So nothing falls between the two links, however much was unread or on its way. Bounded in time and in bytes; it waits for the
//! node to receive, as every link does.

use super::LinkTask;
use crate::clock::Moment;
use crate::limits;
use crate::link::CloseReason;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// A link that is to end as soon as it has what its peer had sent.
pub(super) struct Leaving {
    /// The peer has so long for its pong.
    until: Moment,
    /// The pong has come.
    heard_out: bool,
    /// Bytes that were read after that time.
    read: usize,
}

impl LinkTask {
    /// Whether a link that is asked to end, for this reason, may do so now.
    pub(super) async fn may_go(&mut self, reason: CloseReason) -> Result<bool, CloseReason> {
        if reason != CloseReason::Persona || !self.machine.is_up() {
            return Ok(true);
        }
        let now = self.now();
        let Some(leaving) = &self.leaving else {
            self.leaving = Some(Box::new(Leaving {
                until: now.after(limits::PERSONA_FAREWELL),
                heard_out: false,
                read: 0,
            }));
            let due = self.machine.last_call(now);
            self.act(due)?;
            return Ok(false);
        };
        if leaving.heard_out {
            return Ok(true);
        }
        if now < leaving.until {
            return Ok(false);
        }
        self.read_what_is_here().await
    }

    /// When a link that is asked to end must be looked at, whatever its peer does.
    pub(super) fn leave_by(&self) -> Option<Moment> {
        let now = self.now();
        let until = self.leaving.as_ref().map(|leaving| leaving.until);
        until.filter(|until| now < *until)
    }

    /// A pong has come. If the link is about to go, it is the one that it waits for.
    pub(super) fn heard_out(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.heard_out = true;
        }
    }

    /// The peer has not answered in time: takes what the kernel holds of it. `false`: there is more, and no room for it yet.
    async fn read_what_is_here(&mut self) -> Result<bool, CloseReason> {
        let mut chunk = vec![0; limits::READ_CHUNK];
        loop {
            self.pump_inbox();
            if self.holds_up() {
                return Ok(false);
            }
            // Asked of the kernel: the runtime may not have been told yet that there is something.
            let count = match recv(&self.shared.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::AGAIN) => return Ok(true),
                Ok((_, count)) => count,
                Err(Errno::INTR) => continue,
                Err(_) => return Err(CloseReason::Io),
            };
            self.work()
                .read
                .extend_from_slice(chunk.get(..count).unwrap_or_default());
            self.take_read(count).await?;
            if let Some(leaving) = &mut self.leaving {
                leaving.read = leaving.read.saturating_add(count);
                if leaving.read >= limits::LAST_READ_MAX {
                    return Ok(true);
                }
            }
        }
    }
}
